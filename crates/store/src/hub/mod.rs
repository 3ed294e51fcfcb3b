//! Finding a model by its path or its Hugging Face id.
//!
//! A path that exists is used as it is. Anything else must look like `owner/name`; it is looked up in
//! the local cache first and downloaded only when it is not there in full.

mod cache;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod select;

use std::path::{Path, PathBuf};

use crate::{Error, Limit, Result, read_text};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where and how to look for models.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The cache's `hub` folder, which holds `models--owner--name`.
    pub cache: PathBuf,
    /// Server, without a slash at the end.
    pub endpoint: String,
    /// Access token for gated models; sent to the endpoint only.
    pub token: Option<String>,
    /// Never use the network.
    pub offline: bool,
    /// Branch, tag or commit.
    pub revision: String,
    /// Weight variant to prefer (`fp16`, `bf16`).
    pub variant: Option<String>,
}

impl HubOptions {
    /// From the environment, as the Python tools read it: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`,
    /// `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let home = get("HOME")
            .or_else(|| get("USERPROFILE"))
            .map(PathBuf::from);
        let expand = |value: String| match (value.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(value),
        };
        let hf_home = get("HF_HOME").map(expand).unwrap_or_else(|| {
            let cache = get("XDG_CACHE_HOME").map(PathBuf::from);
            cache
                .or_else(|| home.as_ref().map(|home| home.join(".cache")))
                .unwrap_or_else(|| PathBuf::from(".cache"))
                .join("huggingface")
        });
        let cache = get("HF_HUB_CACHE")
            .or_else(|| get("HUGGINGFACE_HUB_CACHE"))
            .map(expand);
        let token_path = get("HF_TOKEN_PATH")
            .map(expand)
            .unwrap_or_else(|| hf_home.join("token"));
        let stored = || read_text(&token_path, Limit::new("token", 1 << 16)).ok();
        let token = get("HF_TOKEN")
            .or_else(stored)
            .map(|token| token.trim().to_owned());
        let truth = |name| {
            get(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
            })
        };
        Self {
            cache: cache.unwrap_or_else(|| hf_home.join("hub")),
            endpoint: get("HF_ENDPOINT")
                .map(|endpoint| endpoint.trim_end_matches('/').to_owned())
                .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: token.filter(|token| !token.is_empty()),
            offline: truth("HF_HUB_OFFLINE"),
            revision: "main".to_owned(),
            variant: None,
        }
    }
}

/// Told how a download goes. Every method has a default that does nothing.
pub trait HubProgress: Sync {
    /// A download begins: number of files and their bytes together, where the server says so.
    fn begin(&self, _model: &str, _files: usize, _bytes: Option<u64>) {}
    /// A file begins.
    fn file(&self, _name: &str, _bytes: Option<u64>) {}
    /// So many more bytes are there (those found from an earlier try included).
    fn advance(&self, _bytes: u64) {}
    /// Everything is there.
    fn end(&self) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl HubProgress for NoProgress {}

/// The folder (or file) of a model, downloaded if need be.
pub fn resolve(
    id_or_path: &str,
    options: &HubOptions,
    progress: &dyn HubProgress,
) -> Result<PathBuf> {
    let path = Path::new(id_or_path);
    if !id_or_path.is_empty() && path.exists() {
        return Ok(path.to_owned());
    }
    check_id(id_or_path)?;
    check_revision(&options.revision)?;
    if let Some(variant) = &options.variant
        && !is_plain(variant)
    {
        return Err(Error::Invalid(format!(
            "{variant:?} is not the name of a variant"
        )));
    }
    let cached = cache::find(id_or_path, options);
    let lacking = match &cached {
        Some(folder) => match cache::lacks(folder, options.variant.as_deref()) {
            None => return Ok(folder.clone()),
            Some(lacking) => format!("is in the cache at {} but {lacking}", folder.display()),
        },
        None => format!("is not in the cache at {}", options.cache.display()),
    };
    if options.offline {
        return Err(Error::Hub(format!(
            "{id_or_path} {lacking}, and HF_HUB_OFFLINE forbids to download it; \
             unset it, or give the path of a model's folder"
        )));
    }
    fetch(id_or_path, options, progress, &lacking)
}

#[cfg(feature = "hub")]
fn fetch(
    id: &str,
    options: &HubOptions,
    progress: &dyn HubProgress,
    _lacking: &str,
) -> Result<PathBuf> {
    download::download(id, options, progress)
}

#[cfg(not(feature = "hub"))]
fn fetch(
    id: &str,
    _options: &HubOptions,
    _progress: &dyn HubProgress,
    lacking: &str,
) -> Result<PathBuf> {
    Err(Error::Hub(format!(
        "{id} {lacking}, and this build of brisk cannot download (feature \"hub\" is off); \
         give the path of a model's folder"
    )))
}

/// Letters, digits, `-`, `_` and `.` between them: what the hub allows in names.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--") // the cache joins owner and name with it
}

fn check_id(id: &str) -> Result<()> {
    let shown: String = id.chars().take(120).flat_map(char::escape_debug).collect();
    match id.split_once('/') {
        Some((owner, name)) if is_plain(owner) && is_plain(name) && !name.ends_with(".git") => {
            Ok(())
        }
        _ => Err(Error::Invalid(format!(
            "there is no file or folder \"{shown}\", and it is not a hub id (owner/name) either"
        ))),
    }
}

fn check_revision(revision: &str) -> Result<()> {
    if revision.len() <= 200 && revision.split('/').all(is_plain) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{revision:?} is not a branch, tag or commit"
    )))
}

#[cfg(test)]
mod tests;
