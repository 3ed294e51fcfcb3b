//! Bodies: their type, their size, and the time they take.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::{Endpoint, Field, MAX_PICTURE_BYTES, Table};

/// Most bytes of a body without pictures.
pub const SMALL: usize = 1 << 20;
/// Most bytes of a body with pictures.
pub const LARGE: usize = 32 << 20;
/// Longest time that a body takes.
const LONGEST: Duration = Duration::from_secs(60);
/// Most parts of a form.
const MOST_PARTS: usize = 64;

/// A body of an endpoint: fields, and pictures beside them.
pub struct Read {
    /// The fields.
    pub fields: Map<String, Value>,
    /// Files of pictures.
    pub pictures: Vec<Vec<u8>>,
    /// The room that it takes, until what it says is read.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Bytes of a body, and the room that a large one takes.
type Received = (Bytes, Option<OwnedSemaphorePermit>);

/// Reads the body of an endpoint.
///
/// # Errors
/// As [`json`] and [`json_or_form`].
pub async fn of(app: &App, request: Request, endpoint: Endpoint) -> Result<Read> {
    let most = match endpoint {
        Endpoint::Edits | Endpoint::Segment | Endpoint::Videos => {
            return json_or_form(app, request, endpoint).await;
        }
        Endpoint::Completions => SMALL,
        Endpoint::Generations | Endpoint::Chat => LARGE,
    };
    json(app, request, most).await
}

/// Reads the JSON object of a request.
///
/// # Errors
/// Another type, a body that is too large or slow, text that is no JSON object.
pub async fn json(app: &App, request: Request, most: usize) -> Result<Read> {
    expect(request.headers(), "application/json")?;
    let (bytes, room) = receive(app, request.into_body(), most).await?;
    Ok(Read {
        fields: parse(&bytes)?,
        pictures: Vec::new(),
        room,
    })
}

/// An object from JSON text.
fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
    let bad = |problem: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", problem);
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(bad("the body is no JSON object".to_owned())),
        Err(error) => Err(bad(format!("the body is no JSON: {error}"))),
    }
}

/// Reads a form, or a JSON object, of an endpoint that takes pictures as files.
///
/// # Errors
/// As [`json`]; also a form that is broken off or has a part without a name.
pub async fn json_or_form(app: &App, request: Request, endpoint: Endpoint) -> Result<Read> {
    if !is(request.headers(), "multipart/form-data") {
        return json(app, request, LARGE).await;
    }
    let (parts, body) = request.into_parts();
    let received = receive(app, body, LARGE).await?;
    form(parts.headers, received, endpoint.table()).await
}

/// A form from its bytes.
async fn form(headers: HeaderMap, (bytes, room): Received, table: &Table) -> Result<Read> {
    let bad = |problem: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", problem);
    let mut request = Request::new(Body::from(bytes));
    *request.headers_mut() = headers;
    DefaultBodyLimit::max(LARGE).apply(&mut request);
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| bad(format!("the form is broken: {error}")))?;
    let mut read = Read {
        fields: Map::new(),
        pictures: Vec::new(),
        room,
    };
    let mut count = 0;
    loop {
        let broken = |error| bad(format!("the form is broken: {error}"));
        let Some(part) = form.next_field().await.map_err(broken)? else {
            return Ok(read);
        };
        count += 1;
        if count > MOST_PARTS {
            return Err(bad(format!("the form has more than {MOST_PARTS} parts")));
        }
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(bad("the form has a part without a name".to_owned()));
        };
        let is_file = part.file_name().is_some();
        let bytes = part.bytes().await.map_err(broken)?;
        let of_option = table.field(&name).is_some_and(Field::is_picture);
        let own = !of_option && matches!(name.as_str(), "image" | "image[]");
        if (own || is_file && of_option) && bytes.len() > MAX_PICTURE_BYTES {
            return Err(too_large(MAX_PICTURE_BYTES));
        }
        if is_file && of_option {
            // What the bytes are is told by them.
            let url = format!("data:image/png;base64,{}", STANDARD.encode(&bytes));
            if read.fields.insert(name.clone(), url.into()).is_some() {
                return Err(ApiError::invalid(&name, "is given twice"));
            }
            continue;
        }
        if own {
            read.pictures.push(bytes.into());
            continue;
        }
        // A file that is no picture of this form stands for itself: the field says what it thinks of it.
        let text = match is_file {
            true => "a file".to_owned(),
            false => String::from_utf8(bytes.into())
                .map_err(|_| ApiError::invalid(&name, "is no UTF-8"))?,
        };
        let value = of_text(table, &name, text);
        if read.fields.insert(name.clone(), value).is_some() {
            return Err(ApiError::invalid(&name, "is given twice"));
        }
    }
}

/// A form has texts only: one that is no text as a field becomes what it says.
fn of_text(table: &Table, name: &str, text: String) -> Value {
    let takes_text = table.field(name).is_some_and(|field| {
        let schema = crate::fields::schema(field);
        schema.get("type").and_then(Value::as_str) == Some("string")
    });
    match takes_text {
        true => Value::String(text),
        false => serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

fn is(headers: &HeaderMap, wanted: &str) -> bool {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|given| given.to_str().ok());
    let given = given
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    given.trim().eq_ignore_ascii_case(wanted)
}

fn expect(headers: &HeaderMap, wanted: &str) -> Result<()> {
    match is(headers, wanted) {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("the body's type is not {wanted}; say Content-Type: {wanted}"),
        )),
    }
}

fn too_large(most: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!("the body, or a picture in it, has more than {most} bytes"),
    )
}

/// Receives a body of at most `most` bytes. Large ones wait until there is room for all of theirs.
async fn receive(app: &App, body: Body, most: usize) -> Result<Received> {
    let received = async {
        let mut room = None;
        let claimed = body.size_hint().upper().map(|claimed| claimed as usize);
        let whole = claimed.unwrap_or(most).min(most);
        let mut bytes = Vec::new();
        let mut stream = body.into_data_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| {
                let message = format!("the body broke off: {error}");
                ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message)
            })?;
            if bytes.len() + piece.len() > most {
                return Err(too_large(most));
            }
            bytes.extend_from_slice(&piece);
            if room.is_none() && bytes.len() > SMALL {
                let all = Arc::clone(&app.large_bodies);
                room = all.acquire_many_owned(whole as u32).await.ok();
            }
        }
        Ok((bytes.into(), room))
    };
    tokio::time::timeout(LONGEST, received)
        .await
        .unwrap_or_else(|_| {
            Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                format!("the body took longer than {} seconds", LONGEST.as_secs()),
            ))
        })
}
