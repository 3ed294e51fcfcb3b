//! What is noted of every request, and what every response carries.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::error::ApiError;
use crate::security::Caller;

/// What the page may load: its own files, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

/// Gives the request an id, counts it, and notes it in the log.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = uuid::Uuid::new_v4().simple().to_string();
    // Paths that nobody serves are counted as one: anybody can make up any number of them.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("unknown".to_owned(), |path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "HEAD" | "OPTIONS" | "DELETE" | "PUT" | "PATCH") => {
            known.to_owned()
        }
        _ => "other".to_owned(),
    };
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let error = response
        .extensions()
        .get::<ApiError>()
        .map(|error| error.code);
    let caller = response.extensions().get::<Caller>();
    let caller = caller.map(|caller| caller.name.to_string());
    app.metrics.answered(&route, &method, status, error);
    tracing::info!(
        request = id,
        method,
        route,
        status,
        error,
        caller,
        seconds = format!("{:.3}", began.elapsed().as_secs_f64()),
        "request"
    );
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    response
}
