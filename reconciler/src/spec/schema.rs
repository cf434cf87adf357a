//! The JSON Schema of the spec, and its digests.

use serde::Serialize;
use serde_json::Value;
use shared::Digest;
use shared::canonical::{Encoding, digest_value};
use shared::spec::Spec;

/// The JSON Schema of the spec.
pub fn schema() -> Value {
    schemars::schema_for!(Spec).to_value()
}

/// The identity of a spec: the same whatever the order and layout of its document.
pub fn digest(spec: &Spec) -> Digest {
    encoded(Encoding::Spec, spec)
}

/// The identity of one field of a spec, to which a grant is bound.
pub fn field_digest<T: Serialize + ?Sized>(field: &T) -> Digest {
    encoded(Encoding::Field, field)
}

/// Every type of the spec has a JSON form. Should one come not to have it, the reason takes the place of the value:
/// that equals no digest of a value.
fn encoded<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Digest {
    let value = serde_json::to_value(value).unwrap_or_else(|error| {
        Value::Array(vec![Value::from("without JSON form"), error.to_string().into()])
    });
    digest_value(encoding, &value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Parsed, parse};

    #[test]
    fn the_schema_is_the_one_that_was_reviewed() {
        insta::with_settings!({ sort_maps => true }, {
            insta::assert_json_snapshot!(schema());
        });
    }

    #[test]
    fn the_digest_ignores_the_layout_and_notices_a_change() {
        let one = parse(br#"{"version":1,"hive":{"name":"h"},"agents":{"a":{},"b":{}}}"#);
        let same =
            parse(br#"{ "agents": { "b": {"run":"running"}, "a": {} }, "hive":{"name":"h"}, "version": 1 }"#);
        let other = parse(br#"{"version":1,"hive":{"name":"h"},"agents":{"a":{},"b":{"run":"paused"}}}"#);
        let digest_of = |parsed: Parsed| digest(&parsed.spec.expect("a spec"));
        let (one, same, other) = (digest_of(one), digest_of(same), digest_of(other));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_ne!(field_digest(&"a"), field_digest(&"b"));
    }
}
