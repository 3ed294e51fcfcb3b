//! A server whose requests are answered elsewhere: the same paths of `/v1`, the same checks at the door, and
//! no models.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::engine::ModelInfo;
use crate::error::{ApiError, Result, StartError};
use crate::fields::Endpoint;
use crate::http::{body, guarded, metrics};
use crate::stream;

/// An answer.
pub enum Answer {
    /// The whole reply.
    Whole(Value),
    /// The events of a stream, each whole.
    Stream(BoxStream<'static, Bytes>),
}

/// Whoever answers.
pub trait Elsewhere: Send + Sync + 'static {
    /// The models that can be asked.
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>>;

    /// Answers a body of `/v1`. What the future or the stream holds ends with it.
    fn answer(&self, endpoint: Endpoint, body: Map<String, Value>)
    -> BoxFuture<'_, Result<Answer>>;
}

#[derive(Clone)]
struct Front {
    app: Arc<App>,
    elsewhere: Arc<dyn Elsewhere>,
}

/// Everything that such a server serves.
///
/// # Errors
/// An allowed origin that is none.
pub fn router(app: &Arc<App>, elsewhere: Arc<dyn Elsewhere>) -> Result<Router, StartError> {
    let front = Front {
        app: Arc::clone(app),
        elsewhere,
    };
    let mut routes = Router::new();
    // What begins a job of its own is answered where the job is.
    for endpoint in Endpoint::ALL
        .into_iter()
        .filter(|endpoint| endpoint.waits())
    {
        routes = routes.route(endpoint.path(), post(answer).layer(Extension(endpoint)));
    }
    let routes = routes
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/health", get(async || Json(json!({"status": "ok"}))))
        .route("/ready", get(ready))
        .with_state(front)
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(app));
    guarded(app, routes)
}

async fn answer(
    State(front): State<Front>,
    Extension(endpoint): Extension<Endpoint>,
    request: Request,
) -> Result<Response> {
    if front.app.is_draining() {
        return Err(ApiError::shutting_down());
    }
    let read = body::of(&front.app, request, endpoint).await?;
    let mut fields = read.fields;
    if !read.pictures.is_empty() {
        if fields.contains_key("images") {
            let problem = "is given beside files; give one of them";
            return Err(ApiError::invalid("images", problem));
        }
        let pictures = read.pictures.iter().map(|picture| {
            // What the bytes are is told by them.
            let url = format!("data:image/png;base64,{}", STANDARD.encode(picture));
            json!({"image_url": url})
        });
        fields.insert("images".to_owned(), pictures.collect());
    }
    drop(read.room);
    match front.elsewhere.answer(endpoint, fields).await? {
        Answer::Whole(reply) => Ok(Json(reply).into_response()),
        Answer::Stream(events) => {
            let kept = front.app.metrics.stream();
            let events = events.map(move |event| {
                let _ = &kept;
                Ok::<_, Infallible>(event)
            });
            Ok(stream::of_events(Body::from_stream(events)))
        }
    }
}

async fn models(State(front): State<Front>) -> Result<Json<Value>> {
    let models = front.elsewhere.models().await?;
    let models: Vec<Value> = models
        .iter()
        .map(|model| describe(model, &model.id))
        .collect();
    Ok(Json(json!({"object": "list", "data": models})))
}

async fn model(State(front): State<Front>, Path(id): Path<String>) -> Result<Json<Value>> {
    let models = front.elsewhere.models().await?;
    let named = |model: &&ModelInfo| model.id == id || model.aliases.contains(&id);
    match models.iter().find(named) {
        Some(model) => Ok(Json(describe(model, &id))),
        None => {
            let shown = brisk_store::shown_within(&id, 64);
            Err(ApiError {
                code: "model_not_found",
                ..ApiError::not_found(format!("no worker has a model {shown}"))
            })
        }
    }
}

fn describe(model: &ModelInfo, id: &str) -> Value {
    let kinds: Vec<&str> = model.results.iter().map(|kind| kind.name()).collect();
    json!({
        "id": id, "object": "model", "created": 0, "owned_by": "brisk",
        "brisk": {"kind": kinds, "aliases": model.aliases, "weights": model.slug},
    })
}

async fn ready(State(front): State<Front>) -> Response {
    if front.app.is_draining() {
        return ApiError::shutting_down().into_response();
    }
    match front.elsewhere.models().await {
        Ok(models) if models.is_empty() => {
            let message = "no worker is there; brisk work --queue starts one";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_worker", message)
                .retry(10.0)
                .into_response()
        }
        Ok(_) => Json(json!({"status": "ready"})).into_response(),
        Err(error) => error.into_response(),
    }
}
