//! The JSON Schema of the spec, and its digests.

use serde_json::Value;
use shared::Digest;
use shared::canonical::{Encoding, digest_value};
use shared::spec::Spec;

/// The JSON Schema of the spec.
pub fn schema() -> Value {
    schemars::schema_for!(Spec).to_value()
}

/// The identity of a spec: the same whatever the order and layout of its document.
///
/// Every type of the spec has a JSON form. Should one come not to have it, the reason takes the place of the value: that
/// equals no digest of a spec.
pub fn digest(spec: &Spec) -> Digest {
    let value = serde_json::to_value(spec).unwrap_or_else(|error| {
        Value::Array(vec![Value::from("without JSON form"), error.to_string().into()])
    });
    digest_value(Encoding::Spec, &value)
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
    }
}
