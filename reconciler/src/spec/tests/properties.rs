use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::json;

use super::{faults, parse_value};
use crate::model::testing::notices_every_field;
use crate::spec::{digest, parse, schema, testing, validate};

static SCHEMA: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::validator_for(&schema()).expect("a schema"));

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_valid_spec_parses_to_itself(spec in testing::spec()) {
        prop_assert_eq!(validate(&spec), []);
        let document = serde_json::to_value(&spec).expect("a spec is JSON");
        prop_assert!(SCHEMA.is_valid(&document));
        let parsed = parse_value(&document);
        prop_assert_eq!(faults(&parsed), [""; 0]);
        let again = parsed.spec.expect("a spec");
        prop_assert_eq!(digest(&again), digest(&spec));
        prop_assert_eq!(again, spec);
    }

    #[test]
    fn any_json_is_judged_without_panic(value in testing::json(), agent in testing::json(), field in testing::json()) {
        for document in [
            value.clone(),
            json!({ "version": 1, "hive": { "name": "h" }, "agents": value }),
            json!({ "version": 1, "hive": { "name": "h" }, "agents": { "a": agent, "b": { "mcpServers": field } } }),
        ] {
            let parsed = parse_value(&document);
            prop_assert!(parsed.spec.is_some() || parsed.faults.iter().any(|fault| !fault.message.is_empty()));
            for (name, faults) in &parsed.bad_agents {
                prop_assert!(!faults.is_empty());
                let place = format!("agents.{name}");
                prop_assert!(faults.iter().all(|fault| fault.path.starts_with(&place)));
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse(&bytes);
    }

    /// What the shape lets pass, serde takes; what is left of a damaged spec is a spec that validates.
    #[test]
    fn a_damaged_spec_is_either_accepted_or_blamed(
        spec in testing::spec(),
        damages in prop::collection::vec((any::<u64>(), prop::option::of(testing::json())), 1..6),
    ) {
        let mut document = serde_json::to_value(&spec).expect("a spec is JSON");
        for (mut pick, with) in damages {
            testing::damage(&mut document, &mut pick, with);
        }
        let parsed = parse_value(&document);
        prop_assert!(parsed.spec.is_some() || !parsed.faults.is_empty());
        if parsed.all_faults().next().is_none() {
            let refused: Vec<String> = SCHEMA.iter_errors(&document).map(|error| error.to_string()).collect();
            prop_assert!(refused.is_empty(), "the schema refuses what is accepted: {refused:?}");
        }
        for fault in parsed.all_faults() {
            // serde's own words would mean that the shape overlooked something.
            for word in ["invalid type", "invalid value", "missing field", "unknown variant", "invalid length"] {
                prop_assert!(!fault.message.contains(word), "{fault}");
            }
        }
        if let Some(spec) = parsed.spec
            && parsed.bad_agents.is_empty()
        {
            prop_assert_eq!(validate(&spec), []);
        }
    }
}

proptest! {
    // Each case changes every field of a whole spec.
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Down to each field that the document has, which no list names.
    #[test]
    fn the_digest_of_a_spec_notices_every_field(spec in testing::spec()) {
        notices_every_field(&spec, digest, PartialEq::eq);
    }

    /// Whichever way round the document was written.
    #[test]
    fn the_digest_of_a_spec_ignores_the_order_of_its_keys(spec in testing::spec()) {
        let document = serde_json::to_value(&spec).expect("a spec is JSON");
        let mut text = String::new();
        backwards(&document, &mut text);
        let parsed = parse(text.as_bytes());
        prop_assert_eq!(digest(&parsed.spec.expect("a spec")), digest(&spec));
    }
}

/// Renders a document with the keys of each object in reverse.
fn backwards(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|one, other| one.0.cmp(other.0));
            let mut open = '{';
            for (key, item) in entries.into_iter().rev() {
                out.push(open);
                out.push_str(&json!(key).to_string());
                out.push(':');
                backwards(item, out);
                open = ',';
            }
            out.push_str(if map.is_empty() { "{}" } else { "}" });
        }
        serde_json::Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                backwards(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
