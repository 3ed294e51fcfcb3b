//! Asking the hub: its answers checked, its refusals named.

use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::id::{ModelId, is_commit};
use super::{HubOptions, HubProgress};
use crate::impostor::impostor;
use crate::{Error, Result};

/// Largest file list that is read.
const MAX_LISTING_BYTES: u64 = 64 << 20;
/// How often a request is made before it counts as lost.
pub(super) const TRIES: u32 = 4;
/// Longest time that a server may ask to wait; for more, the user comes back.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// A repository's files at one commit.
#[derive(Deserialize)]
pub(super) struct Listing {
    pub(super) sha: String,
    #[serde(default)]
    pub(super) siblings: Vec<Sibling>,
}

/// One file of a repository.
#[derive(Deserialize)]
pub(super) struct Sibling {
    pub(super) rfilename: String,
    pub(super) size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
}

impl Sibling {
    /// SHA-256 in lower case hexadecimal, which the hub knows of large files.
    pub(super) fn sha256(&self) -> Option<String> {
        let hash = self.lfs.as_ref()?.sha256.as_ref()?;
        let hash = hash.strip_prefix("sha256:").unwrap_or(hash);
        let plain = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| hash.to_ascii_lowercase())
    }
}

/// Why an answer is no use.
pub(super) enum Failure {
    /// Another try would get the same.
    Final(Error),
    /// The way to the hub failed; another try may help.
    Lost(Error),
}

impl Failure {
    /// The same, as the last word.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::Final(error) | Self::Lost(error) => Self::Final(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// One model's conversation with the hub.
pub(super) struct Client<'a> {
    agent: Agent,
    options: &'a HubOptions,
    id: &'a ModelId,
    progress: &'a dyn HubProgress,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        id: &'a ModelId,
        options: &'a HubOptions,
        progress: &'a dyn HubProgress,
    ) -> Result<Self> {
        if let Some(token) = &options.token
            && !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::Hub(
                "the hub's token holds spaces or letters that no token has; check HF_TOKEN, or the file \
                 that `hf auth login` wrote"
                    .to_owned(),
            ));
        }
        let agent: Agent = Agent::config_builder()
            .user_agent(concat!("brisk/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .into();
        Ok(Self {
            agent,
            options,
            id,
            progress,
        })
    }

    /// The files of the wanted revision.
    pub(super) fn list(&self) -> Result<Listing, Failure> {
        let url = format!(
            "{}/api/models/{}/revision/{}?blobs=true",
            self.options.endpoint,
            self.id.name,
            self.id.revision.replace('/', "%2F")
        );
        let text = self.again(|| {
            let mut response = self.get(&url, 0)?;
            let body = response.body_mut().with_config().limit(MAX_LISTING_BYTES);
            body.read_to_vec()
                .map_err(|error| self.lost(&url, &error.to_string()))
        })?;
        let listing: Listing = serde_json::from_slice(&text).map_err(|error| {
            let what = impostor(&text).unwrap_or_else(|| error.to_string());
            Error::Hub(format!("{url} did not answer with a file list: {what}"))
        })?;
        if !is_commit(&listing.sha) {
            let sha: String = listing.sha.chars().take(80).collect();
            return Err(Error::Hub(format!("{url} names {sha:?} as its commit")).into());
        }
        Ok(listing)
    }

    /// Does what may be lost on the way several times.
    pub(super) fn again<T>(
        &self,
        mut work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut attempt = 1;
        loop {
            match work() {
                Err(Failure::Lost(_)) if attempt < TRIES => {
                    self.progress.note(&format!(
                        "no whole answer from {}; trying again ({} of {TRIES})",
                        self.options.endpoint,
                        attempt + 1
                    ));
                    self.pause(Duration::from_millis(250 << attempt))?;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Address of a file at a commit.
    pub(super) fn address(&self, commit: &str, file: &str) -> String {
        format!(
            "{}/{}/resolve/{commit}/{}",
            self.options.endpoint,
            self.id.name,
            encode(file)
        )
    }

    /// One request, for the bytes from `from` on.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.options.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request
            .call()
            .map_err(|error| self.lost(url, &error.to_string()))?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            status => Err(self.refusal(url, status, &response)),
        }
    }

    /// What an answer other than 200 says. The hub tells its reason in headers.
    fn refusal(&self, url: &str, status: u16, response: &Response<Body>) -> Failure {
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.chars().take(200).collect::<String>())
        };
        let Self { options, id, .. } = self;
        let page = format!("{}/{}", options.endpoint, id.name);
        let said = header("x-error-message")
            .map(|message| format!(" (\"{message}\")"))
            .unwrap_or_default();
        let code = header("x-error-code").unwrap_or_default();
        let gated = code == "GatedRepo";
        let token = options.token.is_some();
        let problem = match status {
            401 | 403 if token => format!(
                "{id} refuses this token (HTTP {status}){said}: the model is gated or private; accept its \
                 licence on {page}, with the account that the token belongs to, or check HF_TOKEN"
            ),
            401 | 403 if gated => format!(
                "{id} is gated (HTTP {status}){said}: accept its licence on {page}, then set HF_TOKEN to a \
                 token of that account"
            ),
            401 | 403 => format!(
                "{id} does not exist, is gated or private (HTTP {status}){said}; check the name, or set \
                 HF_TOKEN to a token that may read it"
            ),
            404 if code == "RevisionNotFound" => format!(
                "{} has no branch, tag or commit {:?} (HTTP 404); see {page}",
                id.name, id.revision
            ),
            404 => {
                format!("{url} does not exist (HTTP 404){said}; check the name and the revision")
            }
            416 => {
                return self.lost(
                    url,
                    "HTTP 416: the server has fewer bytes than were announced",
                );
            }
            429 | 503 => {
                let seconds = header("retry-after").and_then(|text| text.trim().parse().ok());
                return self.busy(url, status, seconds);
            }
            408 | 500.. => return self.lost(url, &format!("HTTP {status}{said}")),
            _ => format!("{url} answered HTTP {status}{said}"),
        };
        Failure::Final(Error::Hub(problem))
    }

    /// A server that asks to come back later: waits as long as it says, if that is bearable.
    fn busy(&self, url: &str, status: u16, seconds: Option<u64>) -> Failure {
        let wait = Duration::from_secs(seconds.unwrap_or(0));
        if wait > LONGEST_WAIT {
            return Failure::Final(Error::Hub(format!(
                "{url} answered HTTP {status}: too many requests or too much to do; it asks to come back in \
                 {} seconds{}",
                wait.as_secs(),
                match self.options.token {
                    Some(_) => "",
                    None => " (a token in HF_TOKEN raises the limit)",
                }
            )));
        }
        if !wait.is_zero() {
            self.progress.note(&format!(
                "{} asks to wait {} seconds",
                self.options.endpoint,
                wait.as_secs()
            ));
        }
        match self.pause(wait) {
            Ok(()) => self.lost(
                url,
                &format!("HTTP {status}: too many requests or too much to do"),
            ),
            Err(stopped) => stopped,
        }
    }

    /// Sleeps, unless it is told to stop.
    fn pause(&self, time: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            self.check_stopped()?;
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    pub(super) fn check_stopped(&self) -> Result<(), Failure> {
        match self.progress.stopped() {
            false => Ok(()),
            true => Err(Failure::Final(Error::Hub(format!(
                "stopped while downloading {}; what has arrived is kept, the same command goes on",
                self.id
            )))),
        }
    }

    pub(super) fn lost(&self, url: &str, problem: &str) -> Failure {
        Failure::Lost(Error::Hub(format!(
            "cannot download {} from {url}: {problem}; what has arrived is kept, run the same command \
             again to go on, or give the path of a model's folder",
            self.id
        )))
    }
}

/// A file name for a URL, its slashes kept.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
