//! What a document must look like, read off its JSON Schema.
//!
//! serde stops at the first fault and words it for programmers. Here the schema that operators are given is held
//! against the whole document: every fault is named, and the value at fault is replaced by a stand-in, so that what
//! is left can still be deserialised and judged.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde_json::{Map, Value};
use shared::spec::{AgentSpec, Spec};
use shared::{Address, AgentName, InvalidName, ServerName};

use super::fault::{At, Findings, quoted};

/// The shape of a whole document.
pub(super) static DOCUMENT: LazyLock<Shape> = LazyLock::new(of::<Spec>);
/// The shape of one agent.
pub(super) static AGENT: LazyLock<Shape> = LazyLock::new(of::<AgentSpec>);

/// What a text must be, besides a text.
type TextRule = Option<fn(&str) -> Result<(), InvalidName>>;

/// What a value must look like.
#[derive(Debug)]
pub(super) enum Shape {
    Anything,
    Text(TextRule),
    Whole {
        max: u64,
    },
    Number,
    Truth,
    /// One of these texts.
    Word(Vec<String>),
    List(Box<Self>),
    Map {
        key: TextRule,
        value: Box<Self>,
    },
    Record(BTreeMap<String, Field>),
    /// An object with exactly one of these keys.
    Choice(BTreeMap<String, Self>),
    OrNull(Box<Self>),
}

/// A field of a record.
#[derive(Debug)]
pub(super) struct Field {
    shape: Shape,
    required: bool,
}

/// The shape behind a type's schema.
pub(super) fn of<T: JsonSchema>() -> Shape {
    let schema = schemars::schema_for!(T).to_value();
    compile(&schema, schema.get("$defs"))
}

/// Translates the part of JSON Schema that our types use; a test fails when they come to use more.
fn compile(schema: &Value, defs: Option<&Value>) -> Shape {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").unwrap_or(name);
        return defs.map_or(Shape::Anything, |all| compile(&all[name], defs));
    }
    let is_null = |schema: &Value| schema["type"] == "null";
    if let Some([some, none]) = schema["anyOf"].as_array().map(Vec::as_slice)
        && is_null(none)
    {
        return Shape::OrNull(Box::new(compile(some, defs)));
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        let words: Option<Vec<String>> = variants
            .iter()
            .map(|variant| variant["const"].as_str().map(str::to_owned))
            .collect();
        if let Some(words) = words {
            return Shape::Word(words);
        }
        let mut choices = BTreeMap::new();
        for (key, inner) in variants
            .iter()
            .filter_map(|v| v["properties"].as_object())
            .flatten()
        {
            choices.insert(key.clone(), compile(inner, defs));
        }
        return Shape::Choice(choices);
    }
    match &schema["type"] {
        Value::Array(kinds) => {
            let Some(kind) = kinds.iter().find(|kind| *kind != "null") else {
                return Shape::Anything;
            };
            let mut inner = schema.clone();
            inner["type"] = kind.clone();
            Shape::OrNull(Box::new(compile(&inner, defs)))
        }
        Value::String(kind) => compile_kind(kind, schema, defs),
        _ => Shape::Anything,
    }
}

fn compile_kind(kind: &str, schema: &Value, defs: Option<&Value>) -> Shape {
    match kind {
        "string" => Shape::Text(schema["pattern"].as_str().and_then(text_rule)),
        "integer" => Shape::Whole {
            max: match schema["format"].as_str() {
                Some("uint8") => u8::MAX.into(),
                Some("uint16") => u16::MAX.into(),
                Some("uint32") => u32::MAX.into(),
                _ => u64::MAX,
            },
        },
        "number" => Shape::Number,
        "boolean" => Shape::Truth,
        "array" => Shape::List(Box::new(compile(&schema["items"], defs))),
        "object" => {
            if let Some(fields) = schema["properties"].as_object() {
                let required = schema["required"].as_array();
                return Shape::Record(record(fields, required, defs));
            }
            let (key, value) = schema["patternProperties"]
                .as_object()
                .and_then(|patterns| patterns.iter().next())
                .map_or((None, &schema["additionalProperties"]), |(pattern, value)| {
                    (key_rule(pattern), value)
                });
            Shape::Map {
                key,
                value: Box::new(compile(value, defs)),
            }
        }
        _ => Shape::Anything,
    }
}

fn record(
    fields: &Map<String, Value>,
    required: Option<&Vec<Value>>,
    defs: Option<&Value>,
) -> BTreeMap<String, Field> {
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
    fields
        .iter()
        .map(|(name, schema)| {
            let field = Field {
                shape: compile(schema, defs),
                required: is_required(name),
            };
            (name.clone(), field)
        })
        .collect()
}

fn pattern_of<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()["pattern"].take()
}

/// Names are judged by their own parser, which also knows the reserved ones.
fn text_rule(pattern: &str) -> TextRule {
    if pattern_of::<ServerName>() == pattern {
        Some(|text| text.parse::<ServerName>().map(drop))
    } else if pattern_of::<Address>() == pattern {
        Some(|text| text.parse::<Address>().map(drop))
    } else {
        None
    }
}

/// Addresses are never keys; agent names, which have the same pattern, are.
fn key_rule(pattern: &str) -> TextRule {
    if pattern_of::<AgentName>() == pattern {
        Some(|text| text.parse::<AgentName>().map(drop))
    } else {
        text_rule(pattern)
    }
}

impl Shape {
    /// Reports everything in `value` that does not have this shape, and mends it with stand-ins.
    pub(super) fn check(&self, value: &mut Value, at: &At<'_>, out: &mut Findings) {
        match (self, &mut *value) {
            (Self::Anything, _)
            | (Self::OrNull(_), Value::Null)
            | (Self::Text(None), Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Truth, Value::Bool(_)) => {}
            (Self::OrNull(inner), _) => inner.check(value, at, out),
            (Self::Text(Some(rule)), Value::String(text)) => {
                if let Err(error) = rule(text) {
                    self.refuse(value, at, error.to_string(), out);
                }
            }
            (Self::Whole { max }, Value::Number(number))
                if number.as_u64().is_some_and(|number| number <= *max) => {}
            (Self::Word(words), Value::String(text)) => {
                if !words.contains(text) {
                    let message = match nearest(text, words) {
                        Some(word) => format!("unknown value {}; did you mean {word:?}?", quoted(text, 40)),
                        None => format!("expected {}, found {}", self.words(), describe(value)),
                    };
                    self.refuse(value, at, message, out);
                }
            }
            (Self::List(shape), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    shape.check(item, &at.item(index), out);
                }
            }
            (Self::Map { key, value: shape }, Value::Object(entries)) => {
                check_map(*key, shape, entries, at, out);
            }
            (Self::Record(fields), Value::Object(entries)) => check_record(fields, entries, at, out),
            (Self::Choice(choices), Value::Object(entries)) => {
                self.check_choice(choices, entries, at, out);
            }
            _ => {
                let message = format!("expected {}, found {}", self.words(), describe(value));
                self.refuse(value, at, message, out);
            }
        }
    }

    fn check_choice(
        &self,
        choices: &BTreeMap<String, Self>,
        entries: &mut Map<String, Value>,
        at: &At<'_>,
        out: &mut Findings,
    ) {
        drop_unknown(choices, entries, at, out);
        for (key, value) in &mut *entries {
            if let Some(shape) = choices.get(key) {
                shape.check(value, &at.key(key), out);
            }
        }
        if entries.len() != 1 {
            // After an unknown key the reader knows what to mend.
            if !out.is_patched(&at.to_string()) {
                let found = if entries.is_empty() { "none" } else { "several" };
                out.add_patched(
                    at.to_string(),
                    format!("expected {}, found {found} of them", self.words()),
                );
            }
            if let Value::Object(one) = self.stand_in() {
                *entries = one;
            }
        }
    }

    fn refuse(&self, value: &mut Value, at: &At<'_>, message: String, out: &mut Findings) {
        out.add_patched(at.to_string(), message);
        *value = self.stand_in();
    }

    /// The least value of this shape.
    fn stand_in(&self) -> Value {
        match self {
            Self::Anything | Self::OrNull(_) => Value::Null,
            // Fits the pattern of every name.
            Self::Text(_) => Value::from("x"),
            Self::Whole { .. } | Self::Number => Value::from(0),
            Self::Truth => Value::from(false),
            Self::Word(words) => words
                .first()
                .map_or(Value::Null, |word| Value::from(word.as_str())),
            Self::List(_) => Value::Array(Vec::new()),
            Self::Map { .. } => Value::Object(Map::new()),
            Self::Record(fields) => fields
                .iter()
                .filter(|(_, field)| field.required)
                .map(|(name, field)| (name.clone(), field.shape.stand_in()))
                .collect(),
            Self::Choice(choices) => choices
                .iter()
                .take(1)
                .map(|(key, shape)| (key.clone(), shape.stand_in()))
                .collect(),
        }
    }

    /// What this shape is called, with its article.
    fn words(&self) -> String {
        match self {
            Self::Anything => "any value".to_owned(),
            Self::Text(_) => "a text".to_owned(),
            Self::Whole { max: u64::MAX } => "a whole number of 0 or more".to_owned(),
            Self::Whole { max } => format!("a whole number from 0 to {max}"),
            Self::Number => "a number".to_owned(),
            Self::Truth => "true or false".to_owned(),
            Self::Word(words) => one_of(words.iter()),
            Self::List(_) => "a list".to_owned(),
            Self::Map { .. } | Self::Record(_) => "an object".to_owned(),
            Self::Choice(choices) => format!("an object with {}", one_of(choices.keys())),
            Self::OrNull(inner) => inner.words(),
        }
    }
}

fn check_map(
    key: TextRule,
    shape: &Shape,
    entries: &mut Map<String, Value>,
    at: &At<'_>,
    out: &mut Findings,
) {
    let mut refused = Vec::new();
    for (name, value) in &mut *entries {
        let at = at.key(name);
        shape.check(value, &at, out);
        if let Some(Err(error)) = key.map(|rule| rule(name)) {
            out.add_patched(at.to_string(), error.to_string());
            refused.push(name.clone());
        }
    }
    for name in refused {
        entries.remove(&name);
    }
}

fn check_record(
    fields: &BTreeMap<String, Field>,
    entries: &mut Map<String, Value>,
    at: &At<'_>,
    out: &mut Findings,
) {
    drop_unknown(fields, entries, at, out);
    for (name, field) in fields {
        match entries.get_mut(name) {
            Some(value) => field.shape.check(value, &at.key(name), out),
            None if field.required => {
                out.add_patched(
                    at.key(name).to_string(),
                    format!("is missing: give {}", field.shape.words()),
                );
                entries.insert(name.clone(), field.shape.stand_in());
            }
            None => {}
        }
    }
}

fn drop_unknown<T>(
    allowed: &BTreeMap<String, T>,
    entries: &mut Map<String, Value>,
    at: &At<'_>,
    out: &mut Findings,
) {
    entries.retain(|name, _| {
        if allowed.contains_key(name) {
            return true;
        }
        let message = match nearest(name, allowed.keys()) {
            Some(known) => format!("unknown field; did you mean {known:?}?"),
            None => format!("unknown field; expected {}", one_of(allowed.keys())),
        };
        out.add_patched(at.key(name).to_string(), message);
        false
    });
}

/// The allowed word that was probably meant: at most two slips away, or the same but for case and separators.
fn nearest<'a>(text: &str, allowed: impl IntoIterator<Item = &'a String>) -> Option<&'a str> {
    // A longer text is no slip, and comparing it would cost time.
    if text.len() > 64 {
        return None;
    }
    let bare = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let wanted = bare(text);
    allowed
        .into_iter()
        .map(|word| {
            let slips = strsim::damerau_levenshtein(text, word);
            (if bare(word) == wanted { 0 } else { slips }, word.as_str())
        })
        // In a short word two slips leave nothing alike.
        .filter(|(slips, word)| *slips <= 2 && *slips < word.len().div_ceil(2))
        .min()
        .map(|(_, word)| word)
}

fn one_of<'a>(words: impl Iterator<Item = &'a String>) -> String {
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    match words.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

/// A value in plain words.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {}", quoted(text, 40)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places whose shape says nothing.
    fn open_places(shape: &Shape, path: &str, out: &mut Vec<String>) {
        match shape {
            Shape::Anything => out.push(path.to_owned()),
            Shape::List(inner) | Shape::Map { value: inner, .. } | Shape::OrNull(inner) => {
                open_places(inner, &format!("{path}/*"), out);
            }
            Shape::Record(fields) => {
                for (name, field) in fields {
                    open_places(&field.shape, &format!("{path}/{name}"), out);
                }
            }
            Shape::Choice(choices) => {
                for (name, inner) in choices {
                    open_places(inner, &format!("{path}/{name}"), out);
                }
            }
            Shape::Text(_) | Shape::Whole { .. } | Shape::Number | Shape::Truth | Shape::Word(_) => {}
        }
    }

    #[test]
    fn every_field_has_a_shape_but_the_one_that_takes_any_json() {
        let mut open = Vec::new();
        open_places(&AGENT, "", &mut open);
        assert_eq!(open, ["/driver/script/*/do/*/propose/set/*"]);
    }

    #[test]
    fn names_are_judged_by_their_own_parser() {
        let Shape::Record(fields) = &*AGENT else {
            panic!("an agent is a record");
        };
        assert!(matches!(
            &fields["mcpServers"].shape,
            Shape::Map { key: Some(_), .. }
        ));
        let Shape::OrNull(recipients) = &fields["recipients"].shape else {
            panic!("recipients may be null");
        };
        assert!(matches!(&**recipients, Shape::List(item) if matches!(**item, Shape::Text(Some(_)))));
    }

    #[test]
    fn slips_of_the_pen_are_recognised_and_other_words_are_not() {
        let words = ["mcpServers", "maxTurnMinutes", "run", "role"].map(str::to_owned);
        for (text, meant) in [
            ("mcpServer", Some("mcpServers")),
            ("mpcServers", Some("mcpServers")),
            ("max_turn_minutes", Some("maxTurnMinutes")),
            ("rnu", Some("run")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(text, &words), meant, "{text}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), &words), None);
    }
}
