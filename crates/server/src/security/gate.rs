//! What every request passes before it reaches its handler.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::csrf::{CsrfLayer, ProtectionError};

use super::hosts::{self, Hosts};
use crate::app::App;
use crate::error::{ApiError, Result, StartError};

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key's name, or else the address.
    pub name: Arc<str>,
    /// Where the request came from.
    pub address: IpAddr,
}

/// Paths that need no key.
fn is_open(path: &str, address: IpAddr, headers: &HeaderMap) -> bool {
    matches!(path, "/" | "/health" | "/ready")
        || path.starts_with("/ui/")
        // The link itself is the key: nobody can guess it.
        || path.starts_with("/brisk/v1/results/")
        || (path == "/metrics" && address.is_loopback() && !came_by_proxy(headers))
}

/// Whether a request from this machine is somebody else's: a proxy's, who hands on the name that was asked for, or
/// says so.
fn came_by_proxy(headers: &HeaderMap) -> bool {
    !hosts::is_own(headers)
        || ["forwarded", "x-forwarded-for", "via"]
            .iter()
            .any(|name| headers.contains_key(*name))
}

/// Checks the host, the key and how often is asked; tells the handler who asks.
pub async fn gate(
    State((app, hosts)): State<(Arc<App>, Hosts)>,
    mut request: Request,
    next: Next,
) -> Response {
    match check(&app, &hosts, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => error.into_response(),
    }
}

fn check(app: &App, hosts: &Hosts, request: &Request) -> Result<Caller> {
    hosts.check(request.uri(), request.headers())?;
    let connected = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = connected.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |info| info.0.ip());
    let by_address = || Caller {
        name: address.to_string().into(),
        address,
    };
    let caller = match &app.keys {
        Some(keys) if !is_open(request.uri().path(), address, request.headers()) => {
            match keys.check(request.headers()) {
                Ok(name) => Caller {
                    name: name.into(),
                    address,
                },
                Err(error) => {
                    app.rates.failure(address)?;
                    return Err(error);
                }
            }
        }
        _ => by_address(),
    };
    // What only looks costs next to nothing.
    if !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) {
        app.rates.request(&caller.name)?;
    }
    Ok(caller)
}

/// Refuses what a page of another site asks for.
///
/// # Errors
/// An allowed origin that is none.
pub fn csrf(
    origins: &[String],
) -> Result<CsrfLayer<impl FnMut(ProtectionError) -> Response + Clone + use<>>, StartError> {
    let mut layer = CsrfLayer::new();
    for origin in origins {
        layer = layer
            .add_trusted_origin(origin)
            .map_err(|error| StartError::Settings(format!("--allow-origin {origin}: {error}")))?;
    }
    Ok(layer.with_rejection_response(|_: ProtectionError| {
        ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "origin_refused",
            "a page of another site may not use this server; its operator allows origins with --allow-origin",
        )
        .into_response()
    }))
}

/// Lets pages of the allowed origins, and no others, read replies.
pub fn cors(origins: &[String]) -> CorsLayer {
    let allowed = origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER])
}
