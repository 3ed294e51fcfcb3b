//! Paths and their handlers.

pub mod body;
mod jobs;
mod make;
mod models;
mod observe;
mod state;
mod videos;

use std::any::Any;
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::{ApiError, StartError};
use crate::openapi;
use crate::page;
use crate::security::{Hosts, cors, csrf, gate};

/// Everything that is served.
///
/// # Errors
/// An allowed origin that is none.
pub fn router(app: &Arc<App>) -> Result<Router, StartError> {
    let routes = Router::new()
        .route("/v1/images/generations", post(make::generations))
        .route("/v1/images/edits", post(make::edits))
        .route("/v1/chat/completions", post(make::chat))
        .route("/v1/completions", post(make::completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/v1/videos", post(videos::create).get(videos::list))
        .route("/v1/videos/{id}", get(videos::one).delete(videos::delete))
        .route("/v1/videos/{id}/content", get(videos::content))
        .route("/brisk/v1/segment", post(make::segment))
        .route("/brisk/v1/jobs", post(jobs::submit).get(jobs::list))
        .route("/brisk/v1/jobs/{id}", get(jobs::one))
        .route("/brisk/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/brisk/v1/jobs/{id}/preview", get(jobs::preview))
        .route("/brisk/v1/jobs/{id}/result", get(jobs::result))
        .route("/brisk/v1/jobs/{id}/result/{index}", get(jobs::file))
        .route("/brisk/v1/results/{token}", get(jobs::linked))
        .route("/brisk/v1/events", get(jobs::events))
        .route("/brisk/v1/capabilities", get(state::capabilities))
        .route("/brisk/v1/status", get(state::status))
        .route("/health", get(state::health))
        .route("/ready", get(state::ready))
        .route("/metrics", get(state::metrics))
        .route("/openapi.json", get(openapi))
        .route("/", get(page::index))
        .route("/ui/{*path}", get(page::file))
        .with_state(Arc::clone(app));
    guarded(app, routes)
}

/// What requests to `routes` pass before they are answered.
///
/// # Errors
/// An allowed origin that is none.
pub fn guarded(app: &Arc<App>, routes: Router) -> Result<Router, StartError> {
    let hosts = Hosts::new(&app.settings.allowed_hosts);
    let origins = &app.settings.allowed_origins;
    Ok(routes
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(from_fn_with_state((Arc::clone(app), hosts), gate))
        .layer(csrf(origins)?)
        .layer(cors(origins))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(app), observe::observe)))
}

pub use state::metrics;

async fn openapi() -> Json<Value> {
    Json(openapi::document())
}

async fn nowhere(request: Request) -> ApiError {
    let path = brisk_store::shown_within(request.uri().path(), 128);
    ApiError::not_found(format!(
        "there is nothing at {path}; /openapi.json lists what there is"
    ))
}

async fn not_so(request: Request) -> ApiError {
    ApiError::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!(
            "{} is not answered here; /openapi.json lists what is",
            request.method()
        ),
    )
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "a handler failed");
    ApiError::internal("brisk failed at this request").into_response()
}
