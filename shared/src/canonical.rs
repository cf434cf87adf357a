//! The canonical encoding behind every digest.
//!
//! A value is turned into JSON whose object keys are sorted by their bytes, without white space, preceded by the
//! name of the encoding. Changing any rule here, or the meaning of an encoded field, needs a new encoding name, so
//! that no stored approval can ever match an effect that was encoded differently.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::id::Digest;

/// What a digest is of. Each is its own encoding: digests of different kinds never compare equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A whole spec document.
    Spec,
    /// One field of the spec, to which a grant is bound.
    Field,
    /// The sorted effects behind one gate.
    Effect,
    /// A whole plan.
    Plan,
    /// The inputs of a build.
    Build,
    /// A built system: toplevel and agent config together.
    System,
    /// What a container is started from; a change restarts it.
    Toplevel,
    /// What the harness loads; a change reloads it.
    Config,
    /// The files of a seed commit, a tag's annotation and the like.
    Content,
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec1",
            Self::Field => "field1",
            Self::Effect => "effect1",
            Self::Plan => "plan1",
            Self::Build => "build1",
            Self::System => "system1",
            Self::Toplevel => "toplevel1",
            Self::Config => "config1",
            Self::Content => "content1",
        }
    }
}

/// A value cannot be encoded: its map keys are not texts, or it holds a number JSON has no form for.
#[derive(Debug, thiserror::Error)]
#[error("value has no canonical form")]
pub struct NotCanonical(#[source] serde_json::Error);

/// The digest of `value` in `encoding`.
///
/// # Errors
/// When the value has no JSON form, which for the types of this workspace means a fault in the program.
pub fn digest<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Result<Digest, NotCanonical> {
    let value = serde_json::to_value(value).map_err(NotCanonical)?;
    Ok(digest_value(encoding, &value))
}

/// The digest of a JSON value in `encoding`.
pub fn digest_value(encoding: Encoding, value: &Value) -> Digest {
    let mut text = Vec::with_capacity(1024);
    text.extend_from_slice(encoding.name().as_bytes());
    text.push(b'\n');
    write_canonical(value, &mut text);
    Digest::new(encoding.name(), &sha256(&text))
}

/// The digest of a file: the SHA-256 of its bytes, as every tool computes it.
pub fn digest_file(bytes: &[u8]) -> Digest {
    Digest::new("file1", &sha256(bytes))
}

fn sha256(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    Sha256::digest(bytes)
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .map(|digit| DIGITS[usize::from(digit)])
        .collect()
}

/// Writes `value` with sorted keys; `serde_json`'s own order depends on features that another crate may switch on.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_scalar(key, out);
                out.push(b':');
                write_canonical(item, out);
            }
            out.push(b'}');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar<T: Serialize + ?Sized>(scalar: &T, out: &mut Vec<u8>) {
    // A text, a number, a truth or nothing, written to memory: neither can fail.
    let _infallible = serde_json::to_writer(out, scalar);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        let mut text = Vec::new();
        write_canonical(value, &mut text);
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    #[test]
    fn the_order_of_keys_does_not_matter_and_the_order_of_items_does() {
        let text = |v: &Value| digest_value(Encoding::Effect, v);
        let ab: Value = serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).expect("json");
        let ba: Value = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).expect("json");
        assert_eq!(text(&ab), text(&ba));
        assert_ne!(text(&json!([1, 2])), text(&json!([2, 1])));
    }

    #[test]
    fn the_same_value_in_another_encoding_is_another_digest() {
        let value = json!({ "a": 1 });
        assert_ne!(
            digest_value(Encoding::Effect, &value),
            digest_value(Encoding::Plan, &value)
        );
    }

    #[test]
    fn the_digest_of_a_file_is_what_sha256sum_prints() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_file(b"abc").as_str(), format!("file1-{hex}"));
    }

    #[test]
    fn the_encoding_of_today_is_pinned() {
        // A change of these bytes must come with a new encoding name.
        let value = json!({ "b": [true, null, "x\n\u{1F600}"], "a": -1.5 });
        assert_eq!(canonical(&value), "{\"a\":-1.5,\"b\":[true,null,\"x\\n😀\"]}");
        // Made with another program: printf 'effect1\n{"a":1}' | sha256sum
        assert_eq!(
            digest_value(Encoding::Effect, &json!({ "a": 1 })).as_str(),
            "effect1-50a678782e7b5990159942c9bbb89088af10186a9a42bb795ab6e01eb0265e4d"
        );
    }

    /// Values that differ only in what separates their parts.
    #[test]
    fn different_values_are_different_digests() {
        let values = [
            json!([1, 23]),
            json!([12, 3]),
            json!([123]),
            json!([[1], 23]),
            json!(["1", 23]),
            json!("[1,23]"),
            json!({ "1": 23 }),
            json!({ "1": { "23": null } }),
            json!([]),
            json!({}),
            json!(null),
            json!([null]),
            json!(""),
            json!(0),
            json!(false),
        ];
        for (index, one) in values.iter().enumerate() {
            for other in &values[..index] {
                let digest = |value| digest_value(Encoding::Effect, value);
                assert_ne!(digest(one), digest(other), "{one} {other}");
            }
        }
    }

    /// An agent picks texts and keys; none of them ends before its quote.
    #[test]
    fn no_text_can_forge_another_field() {
        let plain = canonical(&json!({ "a": "b", "c": "d" }));
        for forged in [json!({ "a\":\"b\",\"c": "d" }), json!({ "a": "b\",\"c\":\"d" })] {
            let text = canonical(&forged);
            assert_ne!(text, plain);
            let back: Value = serde_json::from_str(&text).expect("the canonical form is JSON");
            assert_eq!(back, forged);
        }
    }
}
