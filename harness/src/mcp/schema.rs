//! JSON schemas of arguments, in the plain form that every client and every model understands.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The schema of a tool's arguments: an object, nothing referred to, nothing that may be `null`.
pub(super) fn of<A: JsonSchema>() -> JsonObject {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>().to_value();
    plain(&mut schema);
    match schema {
        Value::Object(mut object) => {
            // What the tool is for, its description says.
            object.remove("description");
            object
                .entry("properties")
                .or_insert_with(|| Value::Object(JsonObject::new()));
            object
        }
        _ => JsonObject::new(),
    }
}

/// What may be left out need not be allowed to be `null` as well; names of Rust types and widths of numbers are no
/// business of a client's.
fn plain(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(plain),
        Value::Object(object) => {
            // `properties` holds names, not keywords.
            for (name, inner) in object.iter_mut() {
                if name == "properties" {
                    if let Value::Object(properties) = inner {
                        properties.values_mut().for_each(plain);
                    }
                } else if !matches!(name.as_str(), "enum" | "const" | "default" | "examples") {
                    plain(inner);
                }
            }
            object.remove("title");
            if let Some(Value::String(text)) = object.get_mut("description") {
                // Where a line of the source ends means nothing.
                *text = text.replace('\n', " ");
            }
            if object.get("type") != Some(&Value::from("string")) {
                object.remove("format");
            }
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            only_type(object);
            only_choice(object);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn only_type(object: &mut JsonObject) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    // After the type, which it hangs on, has become one.
    if object
        .get("type")
        .is_some_and(|kind| kind == "integer" || kind == "number")
    {
        object.remove("format");
    }
}

fn only_choice(object: &mut JsonObject) {
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else {
        return;
    };
    choices.retain(|choice| choice.get("type") != Some(&Value::from("null")));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (name, value) in only {
            // A field's own description says more than its type's.
            object.entry(name).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// How it goes.
    #[derive(JsonSchema)]
    #[schemars(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its schema is looked at")]
    enum Way {
        /// Up.
        Up,
        /// Down.
        Down,
    }

    #[derive(JsonSchema)]
    #[schemars(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Arguments {
        /// A number
        /// of steps.
        #[schemars(range(min = 1, max = 9))]
        steps: Option<u32>,
        /// Which way.
        way: Option<Way>,
        /// A field whose name is that of a keyword.
        title: String,
    }

    #[test]
    fn what_may_be_left_out_has_one_type_and_keywords_are_told_from_names() {
        let expected = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["title"],
            "properties": {
                "steps": { "type": "integer", "minimum": 1, "maximum": 9, "description": "A number of steps." },
                "way": {
                    "description": "Which way.",
                    "oneOf": [
                        { "type": "string", "const": "up", "description": "Up." },
                        { "type": "string", "const": "down", "description": "Down." },
                    ],
                },
                "title": { "type": "string", "description": "A field whose name is that of a keyword." },
            },
        });
        assert_eq!(Value::Object(of::<Arguments>()), expected);
    }
}
