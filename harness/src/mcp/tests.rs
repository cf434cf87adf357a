use super::*;
use camino::Utf8Path;

/// Every schema inside a schema, with its place.
fn walk(schema: &Value, at: &str, see: &mut impl FnMut(&str, &serde_json::Map<String, Value>)) {
    match schema {
        Value::Object(object) => {
            see(at, object);
            for (name, inner) in object {
                walk(inner, &format!("{at}.{name}"), see);
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| walk(inner, at, see)),
        _ => {}
    }
}

#[test]
fn every_tool_and_argument_says_what_it_is_and_schemas_are_plain() {
    for entry in tools::all() {
        let tool = &entry.tool;
        let about = tool.description.as_deref().unwrap_or_default();
        assert!((40..500).contains(&about.len()), "{}: {about:?}", tool.name);
        let meta = tool.meta.as_ref().expect("metadata");
        assert_eq!(meta.0.get("anthropic/alwaysLoad"), Some(&Value::Bool(true)));
        let schema = Value::Object(tool.input_schema.as_ref().clone());
        assert_eq!(schema["type"], "object", "{}", tool.name);
        assert_eq!(schema["additionalProperties"], false, "{}", tool.name);
        for (name, property) in schema["properties"].as_object().expect("properties") {
            let described = property["description"]
                .as_str()
                .is_some_and(|text| text.len() > 10);
            assert!(described, "{}.{name} says nothing: {property}", tool.name);
        }
        walk(&schema, &tool.name, &mut |at, object| {
            for refused in ["$ref", "$defs", "$schema", "title"] {
                let named = object.contains_key(refused) && !at.ends_with(".properties");
                assert!(!named, "{at}: {refused}");
            }
            assert!(
                !object.get("type").is_some_and(Value::is_array),
                "{at}: {object:?}"
            );
        });
    }
}

#[test]
fn what_the_model_reads_in_every_turn_stays_small() {
    let size = |managers: bool| -> usize {
        tools::all()
            .iter()
            .filter(|entry| entry.for_managers == managers)
            .map(|entry| serde_json::to_string(&entry.tool).expect("JSON").len())
            .sum()
    };
    let (everybody, managers) = (size(false), size(true));
    assert!(everybody < 12_000, "{everybody} bytes");
    assert!(managers < 14_000, "{managers} bytes");
}

#[test]
fn the_committed_reference_is_that_of_this_program() {
    let path = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/mcp-tools.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let made = serde_json::to_string_pretty(&reference()).expect("JSON") + "\n";
    // Not assert_eq: nobody wants to read both on a terminal.
    assert!(
        committed == made,
        "docs/reference/mcp-tools.json is stale: run `cargo xtask references`, read the difference and commit it"
    );
}
