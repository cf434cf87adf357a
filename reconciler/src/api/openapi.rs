//! The OpenAPI documents of both doors, made from their endpoints and from the wire types.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use shared::draft::StatePath;
use shared::loose_end::LooseEndKind;
use shared::version::{AGENT_API, AGENT_API_HEADER};
use shared::wire_error::{ErrorCode, WireError};
use shared::{AgentName, GateId};

use super::endpoint::{Content, Method, Operation};
use super::error::status;
use super::{admin, agent};

mod prose;
#[cfg(test)]
mod tests;

/// Real documents, by the name of their type.
const EXAMPLES: &str = include_str!("openapi/examples.json");

/// What is said about a door as a whole.
struct Door {
    title: &'static str,
    description: String,
    server: &'static str,
    /// Whether both sides name their version.
    versioned: bool,
    tags: &'static [(&'static str, &'static str)],
    /// The largest request, in bytes, unless it is a stream.
    max_request: usize,
}

/// The document of the admin door.
pub fn admin() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let door = Door {
            title: "Hyperhive admin API",
            description: "What the command line says to the daemon: HTTP/1.1 and JSON on the unix socket \
                `/run/hyperhive/admin.sock`. Whoever can open the socket is the operator; who it is, is taken from the \
                socket's peer and never from a body. Fields that a client does not know are to be ignored. Every refusal \
                is a `WireError`."
                .to_owned(),
            server: "The socket decides where a request goes: `curl --unix-socket /run/hyperhive/admin.sock http://hive/v1/status`",
            versioned: false,
            tags: admin::routes::TAGS,
            max_request: admin::MAX_REQUEST,
        };
        document(&door, &operations(admin::routes::endpoints()))
    });
    &DOCUMENT
}

/// The document of an agent's door.
pub fn agent() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let door = Door {
            title: "Hyperhive agent API",
            description: format!(
                "What a harness says to the daemon: HTTP/1.1 and JSON on the agent's own unix socket \
                 (`/run/hive/hive.sock` in its sandbox). Who speaks is decided by the path of the socket alone; nothing in \
                 a body names the sender. This is version {AGENT_API}; both sides accept the one before and the one after, \
                 and ignore fields they do not know. Every refusal is a `WireError`."
            ),
            server: "The agent's own socket decides where a request goes",
            versioned: true,
            tags: agent::routes::TAGS,
            max_request: agent::MAX_REQUEST,
        };
        document(&door, &operations(agent::routes::endpoints()))
    });
    &DOCUMENT
}

fn operations<S>(endpoints: Vec<super::endpoint::Endpoint<S>>) -> Vec<Operation> {
    endpoints.into_iter().map(|endpoint| endpoint.operation).collect()
}

/// Collects schemas of what is sent (fields with a default may be left out) and of what is answered (they may not).
struct Schemas {
    sent: SchemaGenerator,
    answered: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self {
            sent: settings.clone().into_generator(),
            answered: settings.for_serialize().into_generator(),
        }
    }

    /// All of them by name, and the names of those that are sent in another form than they are answered: these are
    /// there twice, what may be sent as `…Input`.
    fn finish(mut self) -> (Map<String, Value>, BTreeSet<String>) {
        let mut all = self.answered.take_definitions(true);
        let sent = self.sent.take_definitions(true);
        let both = |name: &&String| all.contains_key(*name);
        let mut twice: BTreeSet<String> = sent
            .keys()
            .filter(both)
            .filter(|name| all.get(*name) != sent.get(*name))
            .cloned()
            .collect();
        // Whatever leads to one of them differs by that.
        loop {
            let leads = |name: &&String| refers(&sent[*name], &twice) && !twice.contains(*name);
            let more: Vec<String> = sent.keys().filter(both).filter(leads).cloned().collect();
            if more.is_empty() {
                break;
            }
            twice.extend(more);
        }
        // Nothing is left out of an answer, so nobody needs to know what would take its place.
        all.values_mut().for_each(drop_defaults);
        for (name, mut schema) in sent {
            as_sent(&mut schema, &twice);
            let name = if twice.contains(&name) {
                format!("{name}Input")
            } else {
                name
            };
            all.entry(name).or_insert(schema);
        }
        (all, twice)
    }
}

/// The name of the type that a schema stands for.
fn referred(value: &Value) -> Option<&str> {
    value.get("$ref")?.as_str()?.strip_prefix("#/components/schemas/")
}

fn refers(value: &Value, names: &BTreeSet<String>) -> bool {
    let below = match value {
        Value::Object(fields) => fields.values().any(|value| refers(value, names)),
        Value::Array(items) => items.iter().any(|value| refers(value, names)),
        _ => false,
    };
    below || referred(value).is_some_and(|name| names.contains(name))
}

/// Makes a schema of what is sent refer to the forms that are sent.
fn as_sent(value: &mut Value, twice: &BTreeSet<String>) {
    if let Some(name) = referred(value).filter(|name| twice.contains(*name)) {
        value["$ref"] = format!("#/components/schemas/{name}Input").into();
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| as_sent(value, twice)),
        Value::Array(items) => items.iter_mut().for_each(|value| as_sent(value, twice)),
        _ => {}
    }
}

fn drop_defaults(schema: &mut Value) {
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for field in fields.into_iter().flat_map(|fields| fields.values_mut()) {
        if let Value::Object(field) = field {
            field.remove("default");
        }
    }
}

fn document(door: &Door, operations: &[Operation]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let method = match operation.method {
            Method::Get => "get",
            Method::Post => "post",
            Method::Put => "put",
            Method::Delete => "delete",
        };
        let described = describe(door, operation, &mut schemas);
        paths
            .entry(operation.path.replace("{*", "{"))
            .or_default()
            .insert(method.to_owned(), described);
    }
    // Used by every operation, and referred to by hand.
    schemas.answered.subschema_for::<WireError>();
    let (mut schemas, twice) = schemas.finish();
    for operation in paths.values_mut().flat_map(Map::values_mut) {
        for part in ["parameters", "requestBody"] {
            if let Some(sent) = operation.get_mut(part) {
                as_sent(sent, &twice);
            }
        }
    }
    let examples: BTreeMap<String, Value> = serde_json::from_str(EXAMPLES).unwrap_or_default();
    for (name, example) in examples {
        if let Some(Value::Object(schema)) = schemas.get_mut(&name) {
            schema.insert("examples".to_owned(), json!([example]));
        }
    }
    let tags: Vec<Value> = door
        .tags
        .iter()
        .map(|(name, description)| json!({ "name": name, "description": description }))
        .collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": door.title,
            "description": door.description,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://hive", "description": door.server }],
        // Authority is the socket: there is nothing to send.
        "security": [],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Refused": {
                "description": "Refused: what happened, to whom, and what to do next",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/WireError" } } },
            } },
        },
    });
    prose::clean(&mut document);
    document
}

fn describe(door: &Door, operation: &Operation, schemas: &mut Schemas) -> Value {
    let mut parameters: Vec<Value> = path_parameters(operation.path)
        .map(|name| path_parameter(name, schemas))
        .collect();
    parameters.extend(operation.query.iter().flat_map(|query| {
        let query = query(&mut schemas.sent);
        query_parameters(query.as_value())
    }));
    let mut heeds = operation.heeds.clone();
    let mut tells = operation.tells.clone();
    if door.versioned {
        heeds.push((
            AGENT_API_HEADER,
            "The version of the agent API that the harness speaks",
        ));
        tells.push((
            AGENT_API_HEADER,
            "The version of the agent API that the daemon speaks",
        ));
    }
    let text = json!({ "type": "string" });
    parameters.extend(heeds.iter().map(|(name, about)| {
        json!({ "name": name, "in": "header", "required": false, "description": about, "schema": text })
    }));
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": responses(door, operation, &tells, schemas),
    });
    if !operation.description.is_empty() {
        described["description"] = operation.description.into();
    }
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(takes) = &operation.takes {
        let about = match takes.schema {
            Some(_) => format!("At most {} bytes.", door.max_request),
            None => takes.about.to_owned(),
        };
        described["requestBody"] = json!({
            "required": true,
            "description": about,
            "content": { takes.media: media(takes, &mut schemas.sent) },
        });
    }
    described
}

fn responses(
    door: &Door,
    operation: &Operation,
    tells: &[(&str, &str)],
    schemas: &mut Schemas,
) -> Map<String, Value> {
    let mut success = json!({ "description": operation.summary });
    if !tells.is_empty() {
        let headers = tells.iter().map(|(name, about)| {
            let header = json!({ "description": about, "schema": { "type": "string" } });
            ((*name).to_owned(), header)
        });
        success["headers"] = headers.collect::<Map<String, Value>>().into();
    }
    let status = if operation.answers.is_empty() {
        "204"
    } else {
        "200"
    };
    for answer in &operation.answers {
        success["content"][answer.media] = media(answer, &mut schemas.answered);
    }
    let refusals = refusals(door, operation).into_iter().map(|status| {
        let refused = json!({ "$ref": "#/components/responses/Refused" });
        (status.to_string(), refused)
    });
    std::iter::once((status.to_owned(), success))
        .chain(refusals)
        .collect()
}

/// Every status that the operation may refuse with. What a shape implies is not said at each endpoint.
fn refusals(door: &Door, operation: &Operation) -> Vec<u16> {
    let mut all = operation.refuses.clone();
    // A disk that takes no writes is a reason at every endpoint.
    all.extend([ErrorCode::Internal, ErrorCode::Unavailable].map(|code| status(code).as_u16()));
    let has_parameters = operation.query.is_some() || operation.path.contains('{');
    if door.versioned || has_parameters || operation.takes.is_some() {
        all.insert(status(ErrorCode::BadRequest).as_u16());
    }
    if operation.path.contains('{') {
        all.insert(status(ErrorCode::NotFound).as_u16());
    }
    match &operation.takes {
        // The framework's own: no JSON by its media type, and JSON of another shape.
        Some(Content { schema: Some(_), .. }) => {
            all.extend([status(ErrorCode::TooLarge).as_u16(), 415, 422]);
        }
        Some(_) => {
            all.insert(status(ErrorCode::TooLarge).as_u16());
        }
        // An agent's door reads what it is sent, wanted or not.
        None if door.versioned => {
            all.insert(status(ErrorCode::TooLarge).as_u16());
        }
        None => {}
    }
    all.into_iter().collect()
}

fn media(content: &Content, schemas: &mut SchemaGenerator) -> Value {
    match content.schema {
        Some(schema) => json!({ "schema": schema(schemas) }),
        // Bytes have no schema in OpenAPI 3.1.
        None if content.media == "application/octet-stream" => json!({}),
        None => json!({ "schema": { "type": "string", "description": content.about } }),
    }
}

/// The names of a path's parameters.
fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}

/// What a parameter of this name is, in every path.
fn path_parameter(name: &str, schemas: &mut Schemas) -> Value {
    fn of<T: JsonSchema>(schemas: &mut Schemas) -> Value {
        schemas.sent.subschema_for::<T>().to_value()
    }
    let (schema, about) = match name {
        "name" => (of::<AgentName>(schemas), "The agent"),
        "id" => (of::<GateId>(schemas), "The gate"),
        "question" => (of::<u64>(schemas), "The question, by the number of its message"),
        "reminder" => (of::<u64>(schemas), "The reminder"),
        "message" => (of::<u64>(schemas), "The message"),
        "kind" => (of::<LooseEndKind>(schemas), "What kind of loose end"),
        "number" => (of::<u64>(schemas), "Its number among those of its kind"),
        "path" => (
            of::<StatePath>(schemas),
            "Where the file goes, below `/state`; its slashes are written as they are",
        ),
        "object" => (
            of::<String>(schemas),
            "An agent's name, `gate/N` (its slash written `%2F`), or `hive`",
        ),
        _ => (of::<String>(schemas), ""),
    };
    json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema })
}

/// The fields of an object, as parameters.
fn query_parameters(object: &Value) -> Vec<Value> {
    let fields = object["properties"].as_object().into_iter().flatten();
    let required = |name: &str| {
        let all = object["required"].as_array().into_iter().flatten();
        all.into_iter().any(|one| one == name)
    };
    fields
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let about = schema["description"].take();
            if let Value::Object(schema) = &mut schema {
                schema.remove("description");
            }
            json!({ "name": name, "in": "query", "required": required(name), "description": about, "schema": schema })
        })
        .collect()
}
