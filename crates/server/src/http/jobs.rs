//! `/brisk/v1/jobs`: work that outlives connections.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::body::{self, LARGE, Read};
use super::make::base;
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::Endpoint;
use crate::job::Job;
use crate::security::Caller;
use crate::{reply, stream};

/// Longest name of a channel.
const LONGEST_CHANNEL: usize = 128;
/// Quality of a preview's JPEG.
const PREVIEW_QUALITY: u8 = 85;

/// `POST /brisk/v1/jobs`.
pub async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response> {
    let key = repetition_key(request.headers())?;
    let Read {
        mut fields, room, ..
    } = body::json(&app, request, LARGE).await?;
    if let Some(key) = &key
        && let Some(job) = app.kept.repeated(&caller.name, key)?
    {
        return Ok((StatusCode::ACCEPTED, Json(job.snapshot())).into_response());
    }
    let endpoint = kind(fields.shift_remove("kind"))?;
    let channel = channel(fields.shift_remove("channel"))?;
    let Some(Value::Object(asked)) = fields.shift_remove("request") else {
        let problem = format!("is missing; expected the body of {}", endpoint.path());
        return Err(ApiError::invalid("request", problem));
    };
    if let Some((name, _)) = fields.iter().next() {
        let shown = brisk_store::shown_within(name, 64);
        let message =
            format!("`{shown}` is no field of a job; there are kind, request and channel");
        return Err(ApiError::bad("unknown_field", shown, message));
    }
    let ask = app.read(endpoint, asked, Vec::new()).await?;
    drop(room);
    if ask.streams() {
        return Err(ApiError::bad(
            "unsupported_option",
            "stream",
            "stream: a job is no stream; GET /brisk/v1/events tells of jobs as they change",
        ));
    }
    let job = app.submit(&caller, ask, channel)?;
    if let Some(channel) = &job.channel {
        let older = app.kept.jobs(&caller.name);
        let same = |other: &&Arc<Job>| other.channel.as_ref() == Some(channel);
        older
            .iter()
            .filter(same)
            .for_each(|older| app.queue.cancel(older));
    }
    app.kept.add(&job, key.as_deref());
    Ok((StatusCode::ACCEPTED, Json(job.snapshot())).into_response())
}

/// The key under which a client repeats itself, where it gives one.
pub(super) fn repetition_key(headers: &HeaderMap) -> Result<Option<String>> {
    match headers.get("idempotency-key").map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(key)) => Ok(Some(key.to_owned())),
        Some(Err(_)) => Err(ApiError::invalid("Idempotency-Key", "is no plain text")),
    }
}

fn kind(given: Option<Value>) -> Result<Endpoint> {
    let given = given.unwrap_or(Value::Null);
    let named = |endpoint: &Endpoint| given.as_str() == Some(endpoint.job_kind());
    Endpoint::ALL.into_iter().find(named).ok_or_else(|| {
        let names = Endpoint::ALL.map(Endpoint::job_kind);
        ApiError::invalid("kind", format!("expected one of {}", names.join(", ")))
    })
}

fn channel(given: Option<Value>) -> Result<Option<String>> {
    match given {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if (1..=LONGEST_CHANNEL).contains(&name.len()) => Ok(Some(name)),
        Some(_) => Err(ApiError::invalid(
            "channel",
            format!("expected a text of 1 to {LONGEST_CHANNEL} bytes"),
        )),
    }
}

/// `GET /brisk/v1/jobs`.
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    let jobs = app.kept.jobs(&caller.name);
    let jobs: Vec<Value> = jobs.iter().map(|job| job.snapshot()).collect();
    Json(json!({"object": "list", "data": jobs}))
}

/// `GET /brisk/v1/jobs/{id}`.
pub async fn one(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    Ok(Json(app.kept.job(&caller.name, &id)?.snapshot()))
}

/// `POST /brisk/v1/jobs/{id}/cancel`.
pub async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let job = app.kept.job(&caller.name, &id)?;
    if !job.state().status().is_final() {
        app.queue.cancel(&job);
    }
    Ok(Json(job.snapshot()))
}

/// `GET /brisk/v1/jobs/{id}/preview`.
pub async fn preview(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response> {
    let job = app.kept.job(&caller.name, &id)?;
    let newest = job
        .state()
        .previews
        .last()
        .map(|preview| Arc::clone(&preview.picture));
    let Some(picture) = newest else {
        return Err(ApiError::not_found("the job has no preview"));
    };
    let encoded =
        tokio::task::spawn_blocking(move || brisk_media::encode_jpeg(&picture, PREVIEW_QUALITY));
    let failed = || ApiError::internal("brisk failed to write the preview");
    let bytes = encoded.await.map_err(|_| failed())?.map_err(|_| failed())?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], bytes).into_response())
}

/// `GET /brisk/v1/jobs/{id}/result`.
pub async fn result(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>> {
    let job = app.kept.job(&caller.name, &id)?;
    expect_end(&job)?;
    Ok(Json(reply::of(&app, &job, &base(&app, &request))?))
}

/// `GET /brisk/v1/jobs/{id}/result/{index}`.
pub async fn file(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((id, index)): Path<(String, String)>,
) -> Result<Response> {
    let job = app.kept.job(&caller.name, &id)?;
    expect_end(&job)?;
    result_file(&job, index.parse().ok())
}

/// `GET /brisk/v1/results/{token}`.
pub async fn linked(State(app): State<Arc<App>>, Path(token): Path<String>) -> Result<Response> {
    let (job, index) = app.kept.linked(&token)?;
    result_file(&job, Some(index))
}

/// `GET /brisk/v1/events`.
pub async fn events(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Response {
    stream::snapshots(&app, caller)
}

/// Refuses a job that goes on.
pub(super) fn expect_end(job: &Job) -> Result<()> {
    let status = job.state().status();
    match status.is_final() {
        true => Ok(()),
        false => Err(ApiError::not_found(format!(
            "the job has no result yet: it is {}",
            status.name()
        ))),
    }
}

/// A file of a job that is done.
pub(super) fn result_file(job: &Job, index: Option<usize>) -> Result<Response> {
    let outcome = reply::outcome(job)?;
    let files = outcome.files();
    let Some(file) = index.and_then(|index| files.get(index)) else {
        let message = format!("the job has {} files, counted from 0", files.len());
        return Err(ApiError::not_found(message));
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(file.media_type),
        ),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static("inline"),
        ),
    ];
    Ok((headers, file.bytes.clone()).into_response())
}
