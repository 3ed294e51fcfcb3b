//! Downloading a model into the cache.
//!
//! Files go straight into `snapshots/<commit>/`, each through a `.incomplete` file that a later try
//! goes on with; the reference is written last, so an interrupted download is never taken for a model.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::cache::{is_commit, model_folder};
use super::select::needed;
use super::{HubOptions, HubProgress};
use crate::folder::check_relative;
use crate::{Error, Result, write_atomic};

/// Largest file list that is read.
const MAX_LISTING_BYTES: u64 = 64 << 20;
const TRIES: u32 = 4;

#[derive(Deserialize)]
struct Listing {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

struct Client<'a> {
    agent: Agent,
    options: &'a HubOptions,
    id: &'a str,
}

/// Fetches what a model needs; gives the snapshot's folder.
pub(super) fn download(
    id: &str,
    options: &HubOptions,
    progress: &dyn HubProgress,
) -> Result<PathBuf> {
    let agent: Agent = Agent::config_builder()
        .user_agent(concat!("brisk/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .into();
    let client = Client { agent, options, id };
    let listing = client.list()?;
    let names: Vec<String> = listing
        .siblings
        .iter()
        .map(|file| file.rfilename.clone())
        .collect();
    let wanted = needed(&names, options.variant.as_deref());
    if wanted.is_empty() {
        return Err(Error::Hub(format!(
            "{id} has no model files on {}",
            options.endpoint
        )));
    }
    for name in &wanted {
        check_relative(name).map_err(|_| {
            Error::Hub(format!(
                "{id} lists {name:?}, which is not a file name inside a folder"
            ))
        })?;
    }
    let size = |name: &String| {
        listing
            .siblings
            .iter()
            .find(|file| file.rfilename == *name)
            .and_then(|file| file.size)
    };
    let total = wanted
        .iter()
        .map(size)
        .try_fold(0u64, |sum, size| sum.checked_add(size?));
    progress.begin(id, wanted.len(), total);

    let model = model_folder(id, options);
    let snapshot = model.join("snapshots").join(&listing.sha);
    create_folder(&snapshot)?;
    let _lock = lock(&model)?;
    for name in &wanted {
        progress.file(name, size(name));
        client.fetch(name, &listing.sha, size(name), &snapshot, progress)?;
    }
    if !is_commit(&options.revision) {
        let reference = model.join("refs").join(&options.revision);
        create_folder(reference.parent().unwrap_or(&model))?;
        write_atomic(&reference, listing.sha.as_bytes())?;
    }
    progress.end();
    Ok(snapshot)
}

fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))
}

/// Keeps two downloads of one model from writing the same files; released when dropped.
fn lock(model: &Path) -> Result<File> {
    let path = model.join(".brisk.lock");
    let fail = |error| Error::io("lock", &path, error);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(fail)?;
    file.lock().map_err(fail)?;
    Ok(file)
}

impl Client<'_> {
    fn list(&self) -> Result<Listing> {
        let Self { options, id, .. } = self;
        let revision = options.revision.replace('/', "%2F");
        let url = format!(
            "{}/api/models/{id}/revision/{revision}?blobs=true",
            options.endpoint
        );
        let mut attempt = 1;
        let text = loop {
            let answer = self.get(&url, 0).and_then(|mut response| {
                let body = response.body_mut().with_config().limit(MAX_LISTING_BYTES);
                body.read_to_vec()
                    .map_err(|error| self.lost(&url, &error.to_string()))
            });
            match answer {
                Ok(text) => break text,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost(error)) if attempt == TRIES => return Err(error),
                Err(Failure::Lost(_)) => wait(attempt),
            }
            attempt += 1;
        };
        let listing: Listing = serde_json::from_slice(&text).map_err(|error| {
            Error::Hub(format!("{url} did not answer with a file list: {error}"))
        })?;
        if !is_commit(&listing.sha) {
            return Err(Error::Hub(format!(
                "{url} names {:?} as its commit",
                listing.sha
            )));
        }
        Ok(listing)
    }

    fn fetch(
        &self,
        name: &str,
        commit: &str,
        size: Option<u64>,
        snapshot: &Path,
        progress: &dyn HubProgress,
    ) -> Result<()> {
        let target = snapshot.join(name);
        if let Ok(metadata) = std::fs::metadata(&target)
            && metadata.is_file()
            && size.is_none_or(|size| size == metadata.len())
        {
            progress.advance(metadata.len());
            return Ok(());
        }
        let folder = target.parent().unwrap_or(snapshot);
        create_folder(folder)?;
        let base = target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Hidden, so that a half file is never listed as one of the model's.
        let partial = folder.join(format!(".{base}.incomplete"));
        let fail = |error| Error::io("write", &partial, error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&partial)
            .map_err(fail)?;
        let url = format!(
            "{}/{}/resolve/{commit}/{}",
            self.options.endpoint,
            self.id,
            encode(name)
        );
        let mut have = file.metadata().map_err(fail)?.len();
        if size.is_some_and(|size| have > size) {
            have = 0;
        }
        // Without a known size nothing tells a whole partial file from a half one.
        if size.is_none() {
            have = 0;
        }
        progress.advance(have);
        let mut attempt = 1;
        while size.is_none_or(|size| have < size) || size == Some(0) {
            match self.fetch_rest(&url, &partial, &mut file, &mut have, size, progress) {
                Ok(()) => break,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost(error)) if attempt == TRIES => return Err(error),
                Err(Failure::Lost(_)) => wait(attempt),
            }
            attempt += 1;
        }
        file.sync_all().map_err(fail)?;
        drop(file);
        if target
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink())
        {
            // A link into another tool's blobs that is broken or of the wrong size.
            std::fs::remove_file(&target).map_err(|error| Error::io("replace", &target, error))?;
        }
        std::fs::rename(&partial, &target).map_err(|error| Error::io("write", &target, error))
    }

    /// One request for the bytes from `have` on.
    fn fetch_rest(
        &self,
        url: &str,
        partial: &Path,
        file: &mut File,
        have: &mut u64,
        size: Option<u64>,
        progress: &dyn HubProgress,
    ) -> Result<(), Failure> {
        let fail = |error| Failure::Final(Error::io("write", partial, error));
        let mut response = self.get(url, *have)?;
        if *have > 0 && response.status().as_u16() != 206 {
            *have = 0; // the server sends everything again
        }
        file.set_len(*have).map_err(fail)?;
        file.seek(SeekFrom::Start(*have)).map_err(fail)?;
        let announced = response
            .body()
            .content_length()
            .map(|length| length.saturating_add(*have));
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = body
                .read(&mut buffer)
                .map_err(|error| self.lost(url, &error.to_string()))?;
            if read == 0 {
                break;
            }
            let arrived = have.saturating_add(read as u64);
            if let Some(size) = size
                && arrived > size
            {
                return Err(Failure::Final(Error::Hub(format!(
                    "{url} sends more than the {size} bytes it was listed with"
                ))));
            }
            file.write_all(&buffer[..read]).map_err(fail)?;
            *have = arrived;
            progress.advance(read as u64);
        }
        match size.or(announced) {
            Some(expected) if *have != expected => {
                Err(self.lost(url, &format!("{} of {expected} bytes arrived", *have)))
            }
            _ => Ok(()),
        }
    }

    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
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
        let status = response.status().as_u16();
        let id = self.id;
        let refused = match status {
            200 | 206 => return Ok(response),
            401 | 403 if self.options.token.is_some() => format!(
                "{id} refuses this token (HTTP {status}): the model is gated or private; \
                 accept its licence on {}/{id}",
                self.options.endpoint
            ),
            401 | 403 => format!(
                "{id} does not exist, is gated or private (HTTP {status}); \
                 check the name, or set HF_TOKEN"
            ),
            404 => format!("{url} does not exist (HTTP 404); check the name and the revision"),
            408 | 429 | 500.. => return Err(self.lost(url, &format!("HTTP {status}"))),
            _ => format!("{url} answered HTTP {status}"),
        };
        Err(Failure::Final(Error::Hub(refused)))
    }

    fn lost(&self, url: &str, problem: &str) -> Failure {
        Failure::Lost(Error::Hub(format!(
            "cannot download {} from {url}: {problem}; what has arrived is kept, run the same command \
             again to go on, or give the path of a model's folder",
            self.id
        )))
    }
}

/// Whether another try makes sense.
enum Failure {
    Final(Error),
    Lost(Error),
}

fn wait(attempt: u32) {
    std::thread::sleep(Duration::from_millis(250 << attempt.min(6)));
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
