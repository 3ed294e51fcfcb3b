//! Pictures, texts and masks, at once or as a stream.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::body;
use crate::app::App;
use crate::error::Result;
use crate::fields::Endpoint;
use crate::job::StopOnDrop;
use crate::security::Caller;
use crate::{reply, stream};

/// `POST /v1/images/generations`.
pub async fn generations(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    request: Request,
) -> Result<Response> {
    make(state, caller, Endpoint::Generations, request).await
}

/// `POST /v1/images/edits`.
pub async fn edits(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    request: Request,
) -> Result<Response> {
    make(state, caller, Endpoint::Edits, request).await
}

/// `POST /v1/chat/completions`.
pub async fn chat(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    request: Request,
) -> Result<Response> {
    make(state, caller, Endpoint::Chat, request).await
}

/// `POST /v1/completions`.
pub async fn completions(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    request: Request,
) -> Result<Response> {
    make(state, caller, Endpoint::Completions, request).await
}

/// `POST /brisk/v1/segment`.
pub async fn segment(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    request: Request,
) -> Result<Response> {
    make(state, caller, Endpoint::Segment, request).await
}

async fn make(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    endpoint: Endpoint,
    request: Request,
) -> Result<Response> {
    let base = base(&app, &request);
    let read = body::of(&app, request, endpoint).await?;
    let ask = app.read(endpoint, read.fields, read.pictures).await?;
    drop(read.room);
    let job = app.submit(&caller, ask, None)?;
    // Whoever goes away before the end wants no result.
    let guard = StopOnDrop(Arc::clone(&job));
    if job.ask.streams() {
        return Ok(stream::reply(&app, job, guard, base));
    }
    job.ended().await;
    let reply = reply::of(&app, &job, &base)?;
    drop(guard);
    Ok(Json(reply).into_response())
}

/// The address under which the client sees this server.
pub(super) fn base(app: &App, request: &Request) -> String {
    if let Some(url) = &app.settings.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = request.headers().get(axum::http::header::HOST);
    let host = host
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    format!("http://{host}")
}
