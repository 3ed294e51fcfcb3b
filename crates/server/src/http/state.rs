//! How the server is, and what it can do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::capabilities;
use crate::error::ApiError;
use crate::served::Residence;

/// `GET /health`: it is alive.
pub async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /ready`: it takes jobs, and its first model can be had.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.is_draining() {
        return ApiError::shutting_down().into_response();
    }
    let first = app.models.all().first().map(|model| model.residence());
    if let Some(Residence::Failed { error, .. }) = first {
        return error.into_response();
    }
    Json(json!({"status": "ready"})).into_response()
}

/// `GET /metrics`: for Prometheus.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (queued, _) = app.queue.load();
    let running = app.queue.running();
    let text = app.metrics.text(&app.models, queued, &running);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// `GET /brisk/v1/capabilities`.
pub async fn capabilities(State(app): State<Arc<App>>) -> Json<Value> {
    Json(capabilities::document(&app))
}

/// `GET /brisk/v1/status`.
pub async fn status(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let (queued, seconds) = app.queue.load();
    let running = app.queue.running();
    let running = running.iter().map(|job| {
        let state = job.state();
        json!({
            "kind": job.ask.kind(), "model": job.ask.model().id, "stage": state.stage,
            "step": state.step, "total": state.total,
        })
    });
    let running: Vec<Value> = running.collect();
    let loaded: Vec<&str> = app
        .models
        .all()
        .iter()
        .filter(|model| model.residence() == Residence::Loaded)
        .map(|model| model.id.as_str())
        .collect();
    let status = json!({
        "queued": queued, "queue_seconds": seconds, "running": running, "loaded": loaded,
        "draining": app.is_draining(),
        "memory": {
            "budget_bytes": app.memory, "taken_bytes": app.residents.taken(),
            "available_bytes": brisk_pipelines::memory::available(),
            "peak_bytes": brisk_pipelines::machine::peak_memory(),
        },
        "seconds_by_stage": app.speeds.to_json(),
    });
    (StatusCode::OK, Json(status))
}
