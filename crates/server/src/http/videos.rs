//! `/v1/videos`: clips, whose jobs outlive connections.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::body;
use super::jobs::{expect_end, repetition_key, result_file};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::Endpoint;
use crate::job::Job;
use crate::outcome::ClipFormat;
use crate::security::Caller;
use crate::videos;

/// `POST /v1/videos`.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>> {
    let key = repetition_key(request.headers())?;
    let read = body::of(&app, request, Endpoint::Videos).await?;
    if let Some(key) = &key
        && let Some(job) = app.kept.repeated(&caller.name, key)?
        && let Some(told) = videos::of(&job)
    {
        return Ok(Json(told));
    }
    let ask = app
        .read(Endpoint::Videos, read.fields, read.pictures)
        .await?;
    drop(read.room);
    let job = app.submit(&caller, ask, None)?;
    app.kept.add(&job, key.as_deref());
    told(&job)
}

/// `GET /v1/videos`: the newest first.
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>> {
    if let Some((name, _)) = parameters(&request).next() {
        let shown = brisk_store::shown_within(name, 64);
        let message = format!("`{shown}` is no parameter of this path; it lists all that are kept");
        return Err(ApiError::bad("unknown_field", shown, message));
    }
    let jobs = app.kept.jobs(&caller.name);
    let clips: Vec<Value> = jobs
        .iter()
        .rev()
        .filter_map(|job| videos::of(job))
        .collect();
    let id = |clip: Option<&Value>| clip.map_or(Value::Null, |clip| clip["id"].clone());
    let (first, last) = (id(clips.first()), id(clips.last()));
    Ok(Json(json!({
        "object": "list", "data": clips, "first_id": first, "last_id": last, "has_more": false,
    })))
}

/// `GET /v1/videos/{id}`.
pub async fn one(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let job = clip(&app, &caller, &id)?;
    told(&job)
}

/// `DELETE /v1/videos/{id}`: stops it where it goes on, and forgets it.
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    clip(&app, &caller, &id)?;
    let job = app.kept.forget(&caller.name, &id)?;
    if !job.state().status().is_final() {
        app.queue.cancel(&job);
    }
    Ok(Json(
        json!({"id": job.id, "object": "video.deleted", "deleted": true}),
    ))
}

/// `GET /v1/videos/{id}/content`.
pub async fn content(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let job = clip(&app, &caller, &id)?;
    let format = format(&request)?;
    expect_end(&job)?;
    let index = ClipFormat::ALL.iter().position(|known| *known == format);
    result_file(&job, index)
}

/// A clip of this caller.
fn clip(app: &App, caller: &Caller, id: &str) -> Result<Arc<Job>> {
    let no_clip = || {
        let shown = brisk_store::shown_within(id, 64);
        ApiError::not_found(format!("there is no clip {shown}"))
    };
    match app.kept.job(&caller.name, id) {
        Ok(job) if job.ask.endpoint() == Endpoint::Videos => Ok(job),
        Ok(_) => Err(no_clip()),
        Err(error) if error.code == "not_found" => Err(no_clip()),
        Err(error) => Err(error),
    }
}

fn told(job: &Job) -> Result<Json<Value>> {
    videos::of(job)
        .map(Json)
        .ok_or_else(|| ApiError::internal("the job makes no clip"))
}

/// The names and values behind the question mark; nothing that is known here needs escapes.
fn parameters(request: &Request) -> impl Iterator<Item = (&str, &str)> {
    let query = request.uri().query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The form that is asked for: by `format`, or else by what the client accepts.
fn format(request: &Request) -> Result<ClipFormat> {
    let mut asked = None;
    for (name, value) in parameters(request) {
        let shown = brisk_store::shown_within(value, 32);
        match name {
            "format" => {
                let named = |format: &ClipFormat| format.name() == value;
                asked = ClipFormat::ALL.into_iter().find(named);
                if asked.is_none() {
                    let names = ClipFormat::ALL.map(ClipFormat::name).join(", ");
                    let problem = format!("{shown:?} is not one of {names}");
                    return Err(ApiError::invalid("format", problem));
                }
            }
            // OpenAI's, whose other values are pictures of a clip.
            "variant" if value == "video" => {}
            "variant" => {
                let message = format!("variant: {shown:?} is not made here; give video");
                return Err(ApiError::bad("unsupported_option", "variant", message));
            }
            other => {
                let shown = brisk_store::shown_within(other, 64);
                let message = format!("`{shown}` is no parameter of this path; format is one");
                return Err(ApiError::bad("unknown_field", shown, message));
            }
        }
    }
    let accepted = request.headers().get(header::ACCEPT);
    let accepted = accepted.and_then(|accepted| accepted.to_str().ok());
    Ok(asked.unwrap_or_else(|| accepted_format(accepted.unwrap_or_default())))
}

/// The first form of those that a header names; GIF where it names neither.
fn accepted_format(header: &str) -> ClipFormat {
    let named = header.split(',').find_map(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match kind {
            "image/gif" => Some(ClipFormat::Gif),
            "image/apng" | "image/png" => Some(ClipFormat::AnimatedPng),
            _ => None,
        }
    });
    named.unwrap_or(ClipFormat::Gif)
}
