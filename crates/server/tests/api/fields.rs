//! Option × model: each is honoured or refused by name, and capabilities say which.

use brisk_server::Settings;
use brisk_server::fields::{Class, Endpoint, schema};
use serde_json::{Map, Value, json};

use crate::harness::{Server, data_url};

/// A value that the field's schema allows.
fn sample(schema: &Value) -> Value {
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    match schema["type"].as_str() {
        Some("boolean") => true.into(),
        Some("integer") => schema["minimum"].as_u64().unwrap_or(1).max(2).into(),
        Some("number") => {
            let least = schema["minimum"]
                .as_f64()
                .or(schema["exclusiveMinimum"].as_f64());
            json!(least.unwrap_or(0.0) + 0.5)
        }
        Some("array") => json!([1]),
        _ if schema["contentEncoding"] == "base64" => data_url(&picture()).into(),
        _ => "none".into(),
    }
}

fn picture() -> Vec<u8> {
    let picture = brisk_media::Picture::filled(32, 32, [9, 99, 199]);
    brisk_media::encode_png(&picture, &[]).unwrap()
}

fn body(endpoint: Endpoint, model: &str) -> Map<String, Value> {
    let body = match endpoint {
        Endpoint::Generations => json!({"prompt": "x"}),
        Endpoint::Edits => json!({"prompt": "x", "image": data_url(&picture())}),
        Endpoint::Chat => json!({"messages": [{"role": "user", "content": "x"}]}),
        Endpoint::Completions => json!({"prompt": "x"}),
        Endpoint::Segment => json!({"image": data_url(&picture()), "boxes": [[1, 1, 20, 20]]}),
        Endpoint::Videos => json!({"prompt": "x", "frames": 5, "width": 32, "height": 32}),
    };
    let Value::Object(mut body) = body else {
        unreachable!()
    };
    body.insert("model".to_owned(), model.into());
    body
}

/// The models in the box, and small ones of other kinds.
fn server() -> Server {
    let fixture = |name: &str| {
        brisk_testkit::fixtures_dir()
            .join(name)
            .display()
            .to_string()
    };
    let mut models: Vec<String> = ["sana-emoji", "llada-arithmetic", "sam-text"]
        .map(str::to_owned)
        .to_vec();
    models.push(fixture("pipelines/sprint"));
    models.push(fixture("pipelines/hunyuan_video_text"));
    Server::with(Settings {
        models,
        ..Settings::default()
    })
}

#[tokio::test]
async fn every_option_is_honoured_or_refused_by_name() {
    let server = server();
    let capabilities = server.get("/brisk/v1/capabilities").await.json();
    let mut walked = [0; 2];
    for model in capabilities["models"].as_array().unwrap() {
        let id = model["id"].as_str().unwrap();
        for endpoint in Endpoint::ALL {
            let task = &model["tasks"][endpoint.job_kind()];
            if task.is_null() {
                continue;
            }
            for field in endpoint.table().fields() {
                let Class::Option(option) = field.class else {
                    continue;
                };
                let mut body = body(endpoint, id);
                body.insert(field.name.clone(), sample(&schema(field)));
                let read = server.app.read(endpoint, body, Vec::new()).await;
                let honoured = task["fields"][&field.name]["honoured"].as_bool().unwrap();
                walked[usize::from(honoured)] += 1;
                let place = format!("{id}: {}", field.name);
                match (honoured, read) {
                    (true, Ok(_)) => {}
                    // What the model honours it may still refuse with this value, or alone.
                    (true, Err(error)) => {
                        assert_eq!(error.status, 400, "{place}: {}", error.message);
                        let named = error.param.is_some_and(|param| {
                            param == field.name || error.message.contains(&field.name)
                        });
                        assert!(named, "{place}: {}", error.message);
                    }
                    (false, Ok(_)) => panic!("{place} is taken and not honoured"),
                    (false, Err(error)) => {
                        assert_eq!(
                            error.code, "unsupported_option",
                            "{place}: {}",
                            error.message
                        );
                        assert_eq!(error.param.as_deref(), Some(&*field.name), "{place}");
                        assert!(
                            error.message.contains(&field.name),
                            "{place}: {}",
                            error.message
                        );
                        let why = task["fields"][&field.name]["why_not"].as_str().unwrap();
                        assert!(!why.is_empty(), "{place}: {}", option.name);
                    }
                }
            }
        }
    }
    assert!(walked[0] > 10 && walked[1] > 30, "{walked:?}");
}

#[tokio::test]
async fn capabilities_list_every_field() {
    let server = Server::new();
    let told = server.get("/brisk/v1/capabilities").await.json();
    let model = told["models"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["id"] == "sana-emoji")
        .unwrap();
    for endpoint in [Endpoint::Generations, Endpoint::Edits] {
        let fields = model["tasks"][endpoint.job_kind()]["fields"]
            .as_object()
            .unwrap();
        assert_eq!(fields.len(), endpoint.table().fields().len());
    }
    assert_eq!(model["size"], json!({"width": 128, "height": 128}));
    assert!(model["examples"].as_array().unwrap().len() > 5);
    assert_eq!(told["limits"]["steps"], 100);
}
