//! The one way a request fails: a status, and OpenAI's error object.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use brisk::{ResultKind, registry};
use serde_json::{Value, json};

use crate::fields::field_of_option;

/// Result of this crate.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// Longest advice to come again, in seconds: OpenAI's clients wait no longer.
const LONGEST_WAIT: u64 = 60;

/// Codes that one machine may tell another.
const CODES: [&str; 14] = [
    "unknown_field",
    "invalid_value",
    "unsupported_option",
    "exceeds_memory",
    "model_not_found",
    "not_found",
    "too_large",
    "queue_full",
    "rate_limited",
    "non_finite",
    "load_failed",
    "shutting_down",
    "no_worker",
    "cancelled",
];

/// Why a server does not start.
#[derive(Debug)]
pub enum StartError {
    /// Its models.
    Models(brisk::Error),
    /// Its settings.
    Settings(String),
    /// The system.
    System(String, std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Models(error) => error.fmt(formatter),
            Self::Settings(message) => formatter.write_str(message),
            Self::System(what, error) => write!(formatter, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<brisk::Error> for StartError {
    fn from(error: brisk::Error) -> Self {
        Self::Models(error)
    }
}

/// Why a request is refused or failed.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What clients tell apart by program, such as `unknown_field`.
    pub code: &'static str,
    /// The field at fault, where one is.
    pub param: Option<String>,
    /// What was found, what is expected, what to do.
    pub message: String,
    /// Seconds after which it is worth while to come again; none where it would fail the same way.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error whose repetition would fail the same way.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            param: None,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A request that cannot be served, by the field that is at fault.
    pub fn bad(code: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(field.into()),
            ..Self::new(StatusCode::BAD_REQUEST, code, message)
        }
    }

    /// A value that its field does not take; the message begins with the field.
    pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::bad("invalid_value", field, format!("{field}: {problem}"))
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// What cannot be had now.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// What brisk did wrong.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The server is going down.
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down; ask again in a while";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message).retry(5.0)
    }

    /// Too much was asked for; it is worth while to come again.
    pub fn too_many(code: &'static str, message: impl Into<String>, seconds: f64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry(seconds)
    }

    /// Worth while to try again after so many seconds.
    pub fn retry(mut self, seconds: f64) -> Self {
        let whole = seconds.ceil().clamp(1.0, LONGEST_WAIT as f64);
        self.retry_after = Some(whole as u64);
        self
    }

    /// What a model says of a request, or of its own files.
    pub fn of_library(error: &brisk::Error) -> Self {
        use brisk::Error as E;
        let message = with_fields(&error.to_string(), error.option());
        let bad = |code| Self {
            param: error.option().map(field_of_option),
            ..Self::new(StatusCode::BAD_REQUEST, code, message.clone())
        };
        match error {
            E::Unsupported { .. } => bad("unsupported_option"),
            E::Request { .. } | E::Option { .. } | E::Text(_) | E::Media(_) => bad("invalid_value"),
            E::WrongResult { .. } => Self::bad("invalid_value", "model", message),
            E::Memory { .. } => bad("exceeds_memory"),
            E::Store(_) | E::Folder { .. } | E::Config { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "load_failed",
                message.clone(),
            )
            .retry(LONGEST_WAIT as f64),
            error if error.is_non_finite() => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "non_finite",
                message.clone(),
            ),
            _ => Self::internal(message.clone()),
        }
    }

    /// OpenAI's error object.
    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        }})
    }

    /// What another server said, from its [body](Self::body), status and advice to come again.
    pub fn of_body(body: &Value, status: u16, retry_after: Option<u64>) -> Self {
        let error = &body["error"];
        let code = error["code"].as_str().unwrap_or_default();
        let known = CODES.into_iter().find(|known| *known == code);
        let message = error["message"].as_str();
        Self {
            param: error["param"].as_str().map(str::to_owned),
            retry_after,
            ..Self::new(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                known.unwrap_or("internal"),
                message.unwrap_or("another machine failed at this request"),
            )
        }
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        match self.retry_after {
            Some(seconds) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            // OpenAI's clients repeat what failed unless they are told not to.
            None => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The library writes options as `gen-length`, or `--gen-length` in older messages; fields have other names.
fn with_fields(message: &str, option: Option<&'static str>) -> String {
    let mut written = message.to_owned();
    if let Some(option) = option
        && let Some(rest) = written.strip_prefix(option)
    {
        written = format!("{}{rest}", field_of_option(option));
    }
    let kinds = [ResultKind::Pictures, ResultKind::Text, ResultKind::Clips];
    let mut names: Vec<&str> = kinds
        .iter()
        .flat_map(|kind| registry::options(*kind))
        .map(|definition| definition.name)
        // It may also be the field of `init-image`, of which the loop below has just written it.
        .filter(|name| *name != "image")
        .collect();
    // The longest first: `pag-scale` is no `pag`.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        let field = field_of_option(name);
        written = written.replace(&format!("--{name}"), &format!("`{field}`"));
        written = written.replace(&format!("`{name}`"), &format!("`{field}`"));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_speak_of_fields() {
        let error = brisk::Error::request(
            "gen-length",
            "0 leaves nothing to decode (or masks to --infill); see `no-binning`",
        );
        let error = ApiError::of_library(&error);
        assert_eq!(error.param.as_deref(), Some("max_tokens"));
        assert_eq!(
            error.message,
            "max_tokens: 0 leaves nothing to decode (or masks to `infill`); see `no_binning`"
        );
        assert_eq!(error.body()["error"]["type"], "invalid_request_error");
    }

    #[test]
    fn only_what_may_pass_later_is_worth_a_retry() {
        let response = ApiError::internal("x").into_response();
        assert_eq!(response.headers()["x-should-retry"], "false");
        let response = ApiError::too_many("queue_full", "x", 0.2).into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        let response = ApiError::too_many("queue_full", "x", 1e9).into_response();
        assert_eq!(response.headers()["retry-after"], "60");
        assert!(!response.headers().contains_key("x-should-retry"));
    }
}
