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
