//! What the server can do, as JSON: for the page, and for programs that build forms.

use brisk::{ResultKind, keys};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::fields::{Class, Endpoint, schema};
use crate::served::Served;
use crate::settings::{MAX_CLIP_FRAMES, MAX_CLIP_PIXELS};

/// Prompts of a model that are shown as examples.
const EXAMPLES: usize = 24;

/// Everything.
pub fn document(app: &App) -> Value {
    let settings = &app.settings;
    let models: Vec<Value> = app
        .models
        .all()
        .iter()
        .map(|model| of_model(model))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "limits": {
            "results": settings.max_results, "steps": settings.max_steps,
            "pixels": settings.max_pixels, "tokens": settings.max_tokens,
            "clip_frames": MAX_CLIP_FRAMES, "clip_pixels": MAX_CLIP_PIXELS,
            "queue": settings.max_jobs, "queue_per_caller": settings.max_jobs_per_caller,
            "requests_per_minute": settings.requests_per_minute,
            "picture_bytes": crate::fields::MAX_PICTURE_BYTES, "memory_bytes": app.memory,
        },
        "models": models,
    })
}

fn of_model(model: &Served) -> Value {
    let mut tasks = Map::new();
    for endpoint in Endpoint::ALL {
        if model.results().contains(&endpoint.result()) {
            tasks.insert(endpoint.job_kind().to_owned(), task(model, endpoint));
        }
    }
    let kinds: Vec<&str> = model.results().into_iter().map(ResultKind::name).collect();
    let known = model.known_prompts();
    let examples = known.map(|known| {
        let prompts = known.prompts();
        let apart = prompts.len().div_ceil(EXAMPLES).max(1);
        prompts.iter().step_by(apart).cloned().collect::<Vec<_>>()
    });
    json!({
        "id": model.id, "aliases": model.aliases, "kinds": kinds, "tasks": tasks,
        "size": model.usual_size().map(|(width, height)| json!({"width": width, "height": height})),
        "context": model.writer().map(|writer| writer.context()),
        "needs_image": model.results().contains(&ResultKind::Clips).then(|| model.needs_image()),
        "chat": model.writer().map(|writer| writer.has_chat_template()),
        "examples": examples,
    })
}

/// A task's path and its fields: what each takes, what holds where it is absent, or why it is not honoured.
fn task(model: &Served, endpoint: Endpoint) -> Value {
    let support = model.support(endpoint.result());
    let fields = endpoint.table().fields().iter().map(|field| {
        let mut told = json!({"schema": schema(field), "names": field.aliases});
        match field.class {
            Class::Own(_) => told["class"] = "server".into(),
            Class::Inert(_) => told["class"] = "inert".into(),
            Class::Option(option) => {
                told["class"] = "model".into();
                told["heading"] = option.heading.title().into();
                told["rare"] = option.rare.into();
                if let Some(needed) = option.needs {
                    told["needs"] = crate::fields::field_of_option(needed).into();
                }
                let honoured = support.and_then(|support| {
                    let mut honoured = support.honoured();
                    honoured.find(|honoured| honoured.option.name == option.name)
                });
                told["honoured"] = honoured.is_some().into();
                match honoured {
                    // On a command line it is 0; nobody wants the same picture as everybody.
                    Some(_) if option.name == keys::SEED.name() => {
                        told["default"] = "drawn".into();
                    }
                    Some(honoured) => told["default"] = honoured.default.into(),
                    None => {
                        told["why_not"] = support.map(|support| support.why_not(option)).into();
                    }
                }
            }
        }
        (field.name.clone(), told)
    });
    let fields: Map<String, Value> = fields.collect();
    json!({"path": endpoint.path(), "fields": fields})
}
