use super::*;

fn documents() -> [(&'static str, &'static Value); 2] {
    [("admin", admin()), ("agent", agent())]
}

fn operations_of(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods
                .iter()
                .map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

#[test]
fn every_endpoint_is_an_operation_with_a_name_and_a_known_group() {
    let endpoints = [admin::routes::endpoints().len(), agent::routes::endpoints().len()];
    for ((door, document), endpoints) in documents().into_iter().zip(endpoints) {
        let operations = operations_of(document);
        assert_eq!(
            operations.len(),
            endpoints,
            "two endpoints of the {door} door share path and method"
        );
        let tags: Vec<&Value> = document["tags"]
            .as_array()
            .expect("tags")
            .iter()
            .map(|tag| &tag["name"])
            .collect();
        let mut ids = BTreeSet::new();
        for (path, operation) in operations {
            assert!(tags.contains(&&operation["tags"][0]), "{path}");
            assert!(
                ids.insert(operation["operationId"].as_str()),
                "{path}: its id is taken"
            );
            assert!(
                !operation["summary"].as_str().expect("a summary").ends_with('.'),
                "{path}"
            );
        }
    }
}

#[test]
fn every_parameter_says_what_it_is() {
    for (_, document) in documents() {
        for (path, operation) in operations_of(document) {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert_ne!(
                    parameter["description"].as_str().unwrap_or_default(),
                    "",
                    "{path}: {parameter}"
                );
            }
        }
    }
}

#[test]
fn every_operation_documents_its_refusals_in_the_one_shape() {
    for (_, document) in documents() {
        for (path, operation) in operations_of(document) {
            let responses = operation["responses"].as_object().expect("responses");
            assert!(responses.contains_key("500"), "{path}");
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                assert_eq!(
                    response["$ref"], "#/components/responses/Refused",
                    "{path} {status}"
                );
            }
        }
    }
}

fn references<'a>(value: &'a Value, all: &mut BTreeSet<&'a str>) {
    all.extend(value.get("$ref").and_then(Value::as_str));
    match value {
        Value::Object(fields) => fields.values().for_each(|value| references(value, all)),
        Value::Array(items) => items.iter().for_each(|value| references(value, all)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for (door, document) in documents() {
        let mut all = BTreeSet::new();
        references(document, &mut all);
        for reference in all {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{door}: {reference}");
        }
    }
}

#[test]
fn what_may_be_left_out_when_sent_is_always_answered() {
    let schemas = &admin()["components"]["schemas"];
    let required = |name: &str, field: &str| {
        let required = schemas[name]["required"].as_array();
        required.is_some_and(|all| all.iter().any(|known| known == field))
    };
    assert!(required("AgentStatus", "inbox"), "an answer is whole");
    assert!(required("AgentConfig", "mcpServers"));
    assert!(
        !required("DecisionRequest", "reason"),
        "a request may leave out what has a default"
    );
    // One type in both directions is there in both forms, and whoever sends it finds the form to send.
    assert!(
        required("ToolsSpec", "deny") && !required("ToolsSpecInput", "deny"),
        "{schemas:#}"
    );
    let mut sent = BTreeSet::new();
    references(&schemas["Overlay"], &mut sent);
    assert!(sent.contains("#/components/schemas/ToolsSpecInput"), "{sent:?}");
}

#[test]
fn examples_are_of_types_that_are_there_and_keep_their_schemas() {
    let examples: BTreeMap<String, Value> = serde_json::from_str(EXAMPLES).expect("JSON");
    assert!(examples.len() > 10);
    for (name, example) in &examples {
        let mut known = 0;
        for (_, document) in documents() {
            let schemas = &document["components"]["schemas"];
            if schemas.get(name).is_none() {
                continue;
            }
            known += 1;
            let schema = json!({ "$ref": format!("#/components/schemas/{name}"), "components": document["components"] });
            let validator = jsonschema::validator_for(&schema).expect("a schema");
            let faults: Vec<String> = validator
                .iter_errors(example)
                .map(|fault| fault.to_string())
                .collect();
            assert_eq!(faults, [""; 0], "{name}");
        }
        assert!(known > 0, "no document has {name}");
    }
}

#[test]
fn nothing_in_a_document_leads_into_the_source() {
    for (door, document) in documents() {
        let text = document.to_string();
        for link in ["[`", "crate::", "MAX_"] {
            assert!(!text.contains(link), "{door}: {link}");
        }
    }
}
