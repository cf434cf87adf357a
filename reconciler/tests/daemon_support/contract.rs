//! The daemon keeps its own OpenAPI documents: every answer that any of these tests gets is held against them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use camino::Utf8Path;
use jsonschema::Validator;
use reconciler::api::openapi;
use serde_json::{Value, json};

use super::http::{Answer, Request};

thread_local! {
    /// The operations that succeeded, asked for by this thread, as `DOOR ID`.
    static SUCCEEDED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// One status of one operation.
struct Response {
    status: String,
    /// Absent when the answer is no JSON document.
    schema: Option<Validator>,
    media: Vec<String>,
}

struct Operation {
    id: String,
    method: String,
    path: String,
    responses: Vec<Response>,
}

/// A document made ready.
struct Contract {
    door: &'static str,
    document: Value,
    operations: Vec<Operation>,
    refusal: Validator,
}

impl Contract {
    fn of(socket: &Utf8Path) -> &'static Self {
        static ADMIN: OnceLock<Contract> = OnceLock::new();
        static AGENT: OnceLock<Contract> = OnceLock::new();
        if socket.file_name() == Some("admin.sock") {
            ADMIN.get_or_init(|| Self::new("admin", openapi::admin().clone()))
        } else {
            AGENT.get_or_init(|| Self::new("agent", openapi::agent().clone()))
        }
    }

    fn new(door: &'static str, mut document: Value) -> Self {
        // Clients are to ignore fields that they do not know; the daemon is to send none that are not documented.
        close(&mut document["components"]["schemas"]);
        let validator = |schema: &Value| {
            let mut schema = schema.clone();
            schema["components"] = document["components"].clone();
            jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{error}: {schema:#}"))
        };
        let refusal = validator(&json!({ "$ref": "#/components/schemas/WireError" }));
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap().iter();
                let responses = responses.map(|(status, response)| {
                    let content = response["content"].as_object();
                    let json = content.and_then(|content| content.get("application/json"));
                    Response {
                        status: status.clone(),
                        schema: json.map(|json| validator(&json["schema"])),
                        media: content
                            .into_iter()
                            .flatten()
                            .map(|(media, _)| media.clone())
                            .collect(),
                    }
                });
                operations.push(Operation {
                    id: operation["operationId"].as_str().unwrap().to_owned(),
                    method: method.to_ascii_uppercase(),
                    path: path.clone(),
                    responses: responses.collect(),
                });
            }
        }
        Self {
            door,
            document,
            operations,
            refusal,
        }
    }

    fn operation(&self, method: &str, path: &str) -> Option<&Operation> {
        let path = path.split('?').next().unwrap_or_default();
        let mut found = self.operations.iter().filter(|operation| {
            let parts: Vec<&str> = operation.path.split('/').collect();
            let asked: Vec<&str> = path.split('/').collect();
            let rest = parts.last() == Some(&"{path}") && asked.len() > parts.len();
            let same = |(known, asked): (&&str, &&str)| {
                known == asked || known.starts_with('{') && !asked.is_empty()
            };
            operation.method == method
                && (parts.len() == asked.len() || rest)
                && parts.iter().zip(&asked).all(same)
        });
        found.next()
    }

    fn check(&self, request: &Request<'_>, answer: &Answer) {
        let asked = format!("{} {} on the {} door", request.method, request.path, self.door);
        let shown = answer.text();
        let body = || -> Value {
            serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{asked}: {error}: {shown}"))
        };
        if answer.status >= 400 {
            hold(&self.refusal, &body(), &asked);
        }
        let Some(operation) = self.operation(request.method, request.path) else {
            // Whatever is not documented is not there.
            assert!(
                matches!(answer.status, 404 | 405),
                "{asked} is not documented: {} {shown}",
                answer.status
            );
            return;
        };
        let status = answer.status.to_string();
        let response = operation
            .responses
            .iter()
            .find(|response| response.status == status);
        let response = response.unwrap_or_else(|| panic!("{asked}: {status} is not documented: {shown}"));
        if answer.status >= 400 {
            return;
        }
        let media = answer.header("content-type");
        assert!(
            media.is_none_or(|media| response.media.iter().any(|known| known == media)),
            "{asked}: {media:?} is not documented"
        );
        match &response.schema {
            Some(schema) if media == Some("application/json") => hold(schema, &body(), &asked),
            _ => {}
        }
        let done = format!("{} {}", self.door, operation.id);
        SUCCEEDED.with_borrow_mut(|all| all.insert(done));
    }
}

pub(crate) fn hold(schema: &Validator, body: &Value, asked: &str) {
    let faults: Vec<String> = schema
        .iter_errors(body)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(
        faults.is_empty(),
        "{asked} is not as documented: {faults:#?}\n{body:#}"
    );
}

/// Forbids fields that a schema does not name.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("properties").is_some_and(Value::is_object)
                && !fields.contains_key("additionalProperties")
            {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// The schema of a type in the document of a door.
pub(crate) fn schema_of(socket: &Utf8Path, name: &str) -> Validator {
    let components = &Contract::of(socket).document["components"];
    let schema = json!({ "$ref": format!("#/components/schemas/{name}"), "components": components });
    jsonschema::validator_for(&schema).unwrap()
}

/// The operations of a door that this thread has not seen succeed.
pub(crate) fn unseen(socket: &Utf8Path) -> Vec<String> {
    let contract = Contract::of(socket);
    let all = contract
        .operations
        .iter()
        .map(|operation| format!("{} {}", contract.door, operation.id));
    SUCCEEDED.with_borrow(|done| all.filter(|id| !done.contains(id)).collect())
}

/// Holds an answer against the document of the door that gave it.
pub(crate) fn check(socket: &Utf8Path, request: &Request<'_>, answer: &Answer) {
    Contract::of(socket).check(request, answer);
}
