//! Names under which the server may be asked for. A page of another site that has its name resolved to this
//! machine says that name, and is refused by it.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, Uri, header};

use crate::error::{ApiError, Result};

/// The allowed names.
#[derive(Debug, Clone)]
pub struct Hosts {
    allowed: Vec<String>,
}

impl Hosts {
    /// This machine's own names, and these.
    pub fn new(allowed: &[String]) -> Self {
        let allowed = allowed.iter();
        Self {
            allowed: allowed.map(|host| name(host)).collect(),
        }
    }

    /// Refuses a request whose `Host` is missing, given twice, or not allowed.
    ///
    /// # Errors
    /// `host_refused`.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let Some(host) = only_host(headers) else {
            return Err(refused("the request says no host, or several"));
        };
        // A request to a whole address must mean the same place.
        let authority = uri.authority().map(|authority| authority.as_str());
        let allowed = |host: &str| {
            let name = name(host);
            is_loopback(&name) || self.allowed.contains(&name)
        };
        if allowed(host) && authority.is_none_or(allowed) {
            return Ok(());
        }
        let shown = brisk_store::shown_within(host, 64);
        Err(refused(&format!(
            "the server is not asked for under the name {shown}; its operator allows names with --allow-host"
        )))
    }
}

fn refused(message: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "host_refused", message)
}

/// Whether a request asks for this machine by one of its own names.
pub fn is_own(headers: &HeaderMap) -> bool {
    only_host(headers).is_some_and(|host| is_loopback(&name(host)))
}

/// The host that a request says, if it says one and no other.
fn only_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

/// A host's name in lower case.
fn name(host: &str) -> String {
    without_port(host).to_ascii_lowercase()
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains(':') =>
        {
            name
        }
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&str], allowed: &[&str]) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        Hosts::new(&allowed)
            .check(&Uri::from_static("/"), &headers)
            .is_ok()
    }

    #[test]
    fn only_own_and_allowed_names_pass() {
        for host in [
            "localhost:8420",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:8420",
            "LOCALHOST",
        ] {
            assert!(check(&[host], &[]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.5:8420",
            "[::2]",
            "",
            "localhost:8420:1",
        ] {
            assert!(!check(&[host], &[]), "{host}");
        }
        assert!(check(&["Images.Example.org:443"], &["images.example.org"]));
        assert!(!check(&["a.images.example.org"], &["images.example.org"]));
        assert!(!check(&[], &[]) && !check(&["localhost", "evil.example"], &[]));
    }

    #[test]
    fn a_whole_address_must_mean_the_same() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        let uri = Uri::from_static("http://evil.example/v1/models");
        assert!(Hosts::new(&[]).check(&uri, &headers).is_err());
    }
}
