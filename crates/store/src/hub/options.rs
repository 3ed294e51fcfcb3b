//! Where and how to look for models, as the environment says it to the Python tools.

use std::path::PathBuf;

use crate::{Limit, read_text};

pub(super) const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// The branch that an id without a revision means.
pub(super) const DEFAULT_REVISION: &str = "main";

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
    /// Branch, tag or commit, for ids that name none themselves (`owner/name@revision`).
    pub revision: String,
    /// Weight variant to prefer (`fp16`, `bf16`).
    pub variant: Option<String>,
}

impl HubOptions {
    /// From the environment, as the Python tools read it: `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`),
    /// `HF_HOME`, `XDG_CACHE_HOME`, `HF_ENDPOINT`, `HF_TOKEN` (or `HUGGING_FACE_HUB_TOKEN`),
    /// `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`). Paths may begin with `~` and hold
    /// `$NAME` and `${NAME}`.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    pub(super) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let either = |name: &str, older: &str| get(name).or_else(|| get(older));
        let path = |value: String| expand(&value, &lookup);
        let hf_home = get("HF_HOME").map(path).unwrap_or_else(|| {
            let cache = get("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".to_owned());
            path(cache).join("huggingface")
        });
        let cache = either("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE").map(path);
        let token_path = get("HF_TOKEN_PATH")
            .map(path)
            .unwrap_or_else(|| hf_home.join("token"));
        let stored = || read_text(&token_path, Limit::new("token", 1 << 16)).ok();
        let token = either("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
            .or_else(stored)
            .map(|token| token.trim().to_owned());
        let offline = either("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE").is_some_and(|value| {
            ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
        });
        Self {
            cache: cache.unwrap_or_else(|| hf_home.join("hub")),
            endpoint: get("HF_ENDPOINT")
                .map(|endpoint| endpoint.trim().trim_end_matches('/').to_owned())
                .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: token.filter(|token| !token.is_empty()),
            offline,
            revision: DEFAULT_REVISION.to_owned(),
            variant: None,
        }
    }
}

/// A path with `~` and variables filled in, as Python's `expanduser` and `expandvars` do: what is not
/// set stays as it is.
fn expand(value: &str, lookup: &impl Fn(&str) -> Option<String>) -> PathBuf {
    let home = lookup("HOME").or_else(|| lookup("USERPROFILE"));
    let value = match (value.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with(['/', '\\']) => {
            format!("{home}{rest}")
        }
        _ => value.to_owned(),
    };
    let mut expanded = String::with_capacity(value.len());
    let mut rest = value.as_str();
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        expanded.push_str(before);
        let (name, length) = variable(from);
        match lookup(name).filter(|_| !name.is_empty()) {
            Some(found) => expanded.push_str(&found),
            None => expanded.push_str(&from[..length]),
        }
        rest = &from[length..];
    }
    expanded.push_str(rest);
    PathBuf::from(expanded)
}

/// The name behind a `$`, and how many bytes it takes together with the `$`.
fn variable(text: &str) -> (&str, usize) {
    if let Some(inside) = text.strip_prefix("${") {
        return match inside.find('}') {
            Some(end) => (&inside[..end], end + 3),
            None => ("", 2),
        };
    }
    let name = &text[1..];
    let end = name
        .find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .unwrap_or(name.len());
    (&name[..end], end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(pairs: &[(&str, &str)]) -> HubOptions {
        let lookup = |name: &str| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        HubOptions::from_lookup(lookup)
    }

    #[test]
    fn places_are_written_as_in_a_shell() {
        for (value, cache) in [
            ("~/h", "/nowhere/h/hub"),
            ("~", "/nowhere/hub"),
            ("$HOME/h", "/nowhere/h/hub"),
            ("${HOME}/h", "/nowhere/h/hub"),
            ("/x/$DISK/${DISK}y", "/x/d1/d1y/hub"),
            ("/x/$UNSET/y", "/x/$UNSET/y/hub"),
            ("/x/${UNSET}$", "/x/${UNSET}$/hub"),
            ("/x/${", "/x/${/hub"),
            ("~other/h", "~other/h/hub"),
        ] {
            let found = read(&[("HOME", "/nowhere"), ("DISK", "d1"), ("HF_HOME", value)]);
            assert_eq!(found.cache, Path::new(cache), "{value}");
        }
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            let found = read(&[("HOME", "/nowhere"), (name, "$HOME/c")]);
            assert_eq!(found.cache, Path::new("/nowhere/c"));
        }
        let found = read(&[("HOME", "/nowhere"), ("XDG_CACHE_HOME", "~/x")]);
        assert_eq!(found.cache, Path::new("/nowhere/x/huggingface/hub"));
    }

    #[test]
    fn older_names_count_where_the_newer_are_not_set() {
        let found = read(&[
            ("HUGGING_FACE_HUB_TOKEN", "old"),
            ("TRANSFORMERS_OFFLINE", "1"),
        ]);
        assert_eq!(found.token.as_deref(), Some("old"));
        assert!(found.offline);
        let found = read(&[("HF_TOKEN", "new"), ("HUGGING_FACE_HUB_TOKEN", "old")]);
        assert_eq!(found.token.as_deref(), Some("new"));
        assert!(!read(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    }
}
