//! The description of the interface, from the tables that the requests are read by.

use serde_json::{Map, Value, json};

use crate::fields::{Class, Endpoint, schema};
use crate::outcome::ClipFormat;

/// A path with a method.
pub struct Operation {
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// `get`, `post` or `delete`.
    pub method: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What its body is, if it has one.
    pub body: BodyKind,
    /// Media type of its reply.
    pub reply: &'static str,
    /// Whether it needs a key where keys are asked for.
    pub keyed: bool,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// None.
    None,
    /// The fields of an endpoint.
    Of(Endpoint),
    /// A job.
    Job,
}

const JSON: &str = "application/json";
const STREAM: &str = "text/event-stream";
/// The path of a clip's file.
const CLIP: &str = "/v1/videos/{id}/content";

const fn get(path: &'static str, summary: &'static str, reply: &'static str) -> Operation {
    Operation {
        path,
        method: "get",
        summary,
        body: BodyKind::None,
        reply,
        keyed: true,
    }
}

const fn post(path: &'static str, summary: &'static str, body: BodyKind) -> Operation {
    Operation {
        path,
        method: "post",
        summary,
        body,
        reply: JSON,
        keyed: true,
    }
}

const fn delete(path: &'static str, summary: &'static str) -> Operation {
    Operation {
        method: "delete",
        ..post(path, summary, BodyKind::None)
    }
}

const fn open(mut operation: Operation) -> Operation {
    operation.keyed = false;
    operation
}

/// Everything that is served beside the page.
pub static OPERATIONS: &[Operation] = &[
    post(
        "/v1/images/generations",
        "Draw pictures",
        BodyKind::Of(Endpoint::Generations),
    ),
    post(
        "/v1/images/edits",
        "Draw pictures that start from one",
        BodyKind::Of(Endpoint::Edits),
    ),
    post(
        "/v1/chat/completions",
        "Answer a conversation",
        BodyKind::Of(Endpoint::Chat),
    ),
    post(
        "/v1/completions",
        "Continue texts, or fill in between",
        BodyKind::Of(Endpoint::Completions),
    ),
    post(
        "/brisk/v1/segment",
        "Find the pixels of things, or of the characters of words",
        BodyKind::Of(Endpoint::Segment),
    ),
    post("/v1/videos", "Begin a clip", BodyKind::Of(Endpoint::Videos)),
    get("/v1/videos", "The caller's clips", JSON),
    get("/v1/videos/{id}", "Where a clip is", JSON),
    delete("/v1/videos/{id}", "Stop a clip, and forget it"),
    get(CLIP, "The file of a clip that is done", "image/*"),
    get("/v1/models", "The models", JSON),
    get("/v1/models/{id}", "A model", JSON),
    post(
        "/brisk/v1/jobs",
        "Begin a job that outlives the connection",
        BodyKind::Job,
    ),
    get("/brisk/v1/jobs", "The caller's jobs", JSON),
    get("/brisk/v1/jobs/{id}", "Where a job is", JSON),
    post("/brisk/v1/jobs/{id}/cancel", "Stop a job", BodyKind::None),
    get(
        "/brisk/v1/jobs/{id}/preview",
        "The newest preview",
        "image/jpeg",
    ),
    get(
        "/brisk/v1/jobs/{id}/result",
        "The reply of a job that is done",
        JSON,
    ),
    get(
        "/brisk/v1/jobs/{id}/result/{index}",
        "A picture of a job",
        "image/*",
    ),
    open(get(
        "/brisk/v1/results/{token}",
        "A picture by its link",
        "image/*",
    )),
    get(
        "/brisk/v1/events",
        "The caller's jobs as they change",
        STREAM,
    ),
    get(
        "/brisk/v1/capabilities",
        "Models, fields, ranges and limits",
        JSON,
    ),
    get("/brisk/v1/status", "Queue, memory and speed", JSON),
    open(get("/health", "It is alive", JSON)),
    open(get("/ready", "It takes jobs", JSON)),
    get(
        "/metrics",
        "For Prometheus; without a key on loopback",
        "application/openmetrics-text",
    ),
    get("/openapi.json", "This description", JSON),
];

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    let schemas: Map<String, Value> = Endpoint::ALL
        .into_iter()
        .map(|endpoint| (name(endpoint).to_owned(), body(endpoint)))
        .chain([("Error".to_owned(), error()), ("Job".to_owned(), job())])
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "brisk", "version": env!("CARGO_PKG_VERSION"),
            "description": "Pictures, texts, masks and clips. The /v1 paths speak OpenAI's language; models refuse \
                by name what they do not honour, and /brisk/v1/capabilities says which honours what.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let refers = |schema: &str| json!({"$ref": format!("#/components/schemas/{schema}")});
    let mut content = Map::new();
    let reply = match operation.reply {
        JSON => json!({"schema": {"type": "object"}}),
        _ => json!({"schema": {"type": "string"}}),
    };
    content.insert(operation.reply.to_owned(), reply);
    let streams = |endpoint: Endpoint| endpoint.table().field("stream").is_some();
    if matches!(operation.body, BodyKind::Of(endpoint) if streams(endpoint)) {
        content.insert(STREAM.to_owned(), json!({"schema": {"type": "string"}}));
    }
    let done = match operation.body {
        BodyKind::Job => "202",
        _ => "200",
    };
    let mut told = json!({
        "operationId": id(operation), "summary": operation.summary,
        "responses": {
            done: {"description": "done", "content": content},
            "default": {
                "description": "refused or failed", "content": {JSON: {"schema": refers("Error")}},
            },
        },
    });
    let mut parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .collect();
    if operation.path == CLIP {
        let names = ClipFormat::ALL.map(ClipFormat::name);
        parameters.push(json!({
            "name": "format", "in": "query",
            "schema": {"type": "string", "enum": names, "default": names[0]},
        }));
    }
    if !parameters.is_empty() {
        told["parameters"] = parameters.into();
    }
    match operation.body {
        BodyKind::None => {}
        BodyKind::Job => {
            told["requestBody"] =
                json!({"required": true, "content": {JSON: {"schema": refers("Job")}}});
            told["parameters"] = json!([{
                "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255},
                "description": "a job that was begun under this key is told again instead of begun twice",
            }]);
        }
        BodyKind::Of(endpoint) => {
            let mut content = json!({JSON: {"schema": refers(name(endpoint))}});
            if endpoint.table().field("image").is_some() {
                content["multipart/form-data"] = json!({"schema": form(endpoint)});
            }
            told["requestBody"] = json!({"required": true, "content": content});
        }
    }
    if operation.keyed {
        told["security"] = json!([{"key": []}, {}]);
    }
    told
}

fn id(operation: &Operation) -> String {
    let words = operation
        .path
        .split(['/', '.', '_'])
        .filter(|part| !part.is_empty());
    let words: Vec<String> = words
        .map(|part| part.trim_matches(['{', '}']).to_owned())
        .collect();
    format!("{}_{}", operation.method, words.join("_"))
}

/// Name of the schema of an endpoint's body.
fn name(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Generations => "ImageGeneration",
        Endpoint::Edits => "ImageEdit",
        Endpoint::Chat => "ChatCompletion",
        Endpoint::Completions => "Completion",
        Endpoint::Segment => "Segmentation",
        Endpoint::Videos => "Video",
    }
}

/// The fields of an endpoint under all their names.
fn body(endpoint: Endpoint) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in endpoint.table().fields() {
        let schema = schema(field);
        for alias in &field.aliases {
            let mut schema = schema.clone();
            schema["description"] = format!("another name of {}", field.name).into();
            properties.insert(alias.clone(), schema);
        }
        if let Class::Own(own) = field.class
            && own.required
        {
            required.push(field.name.clone());
        }
        properties.insert(field.name.clone(), schema);
    }
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn form(endpoint: Endpoint) -> Value {
    let mut schema = body(endpoint);
    let fields = endpoint.table().fields().iter();
    let options: Vec<&String> = fields
        .filter(|field| field.is_picture())
        .flat_map(|field| std::iter::once(&field.name).chain(&field.aliases))
        .collect();
    let own = ["image", "image[]"].into_iter();
    let own = own.filter(|_| endpoint.table().field("images").is_some());
    for name in options.into_iter().map(String::as_str).chain(own) {
        schema["properties"][name] = json!({"type": "string", "format": "binary"});
    }
    schema
}

fn job() -> Value {
    let kinds = Endpoint::ALL.map(Endpoint::job_kind);
    let requests = Endpoint::ALL
        .map(|endpoint| json!({"$ref": format!("#/components/schemas/{}", name(endpoint))}));
    json!({
        "type": "object", "required": ["kind", "request"], "additionalProperties": false,
        "properties": {
            "kind": {"enum": kinds},
            "request": {"anyOf": requests},
            "channel": {
                "type": "string", "maxLength": 128,
                "description": "a newer job of the same channel takes the place of older ones",
            },
        },
    })
}

fn error() -> Value {
    json!({
        "type": "object", "required": ["error"],
        "properties": {"error": {
            "type": "object", "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"}, "type": {"type": "string"},
                "param": {"type": ["string", "null"]}, "code": {"type": "string"},
            },
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        fn refer(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(entries) => entries.iter().for_each(|(key, value)| match value {
                    Value::String(text) if key == "$ref" => found.push(text.clone()),
                    value => refer(value, found),
                }),
                Value::Array(list) => list.iter().for_each(|value| refer(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        refer(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let mut ids: Vec<String> = OPERATIONS.iter().map(id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), OPERATIONS.len());
    }
}
