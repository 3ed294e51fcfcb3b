//! Captions and their scores in JSON files beside pictures and shards, as SANA's data loader reads them: `NAME` and a
//! suffix, with an object a key, in it a text or a number by the caption's name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brisk_store::read::{Limit, read_json};
use serde_json::Value;

use super::{Result, bad};
use crate::data::pictures::ScoredCaption;

/// Captions by their names.
pub(super) type Named = BTreeMap<String, String>;

/// Which files beside pictures and shards are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideFiles {
    /// Suffixes of files of captions, such as `_InternVL2-26B`.
    pub captions: Vec<String>,
    /// Suffixes of files of their scores, such as `_InternVL2-26B_clip_score`.
    pub scores: Vec<String>,
    /// A picture of which no caption has this score is left out; those without scores stay.
    pub least_score: Option<f64>,
}

/// What the files beside one picture or shard say, by key.
#[derive(Default)]
pub(super) struct Said {
    captions: BTreeMap<String, Named>,
    scores: BTreeMap<String, BTreeMap<String, f64>>,
}

impl SideFiles {
    /// Every suffix.
    pub(super) fn suffixes(&self) -> impl Iterator<Item = &str> {
        self.captions.iter().chain(&self.scores).map(String::as_str)
    }

    /// The file of a suffix beside a picture or shard.
    pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{stem}{suffix}.json"))
    }

    /// What the files beside a picture or shard say; files that are not there say nothing.
    pub(super) fn read(&self, path: &Path) -> Result<Said> {
        let mut said = Said::default();
        for suffix in &self.captions {
            for (key, name, value) in entries(&Self::beside(path, suffix))? {
                let Value::String(text) = value else {
                    let place = Self::beside(path, suffix);
                    let reason = format!("{key:?}, {name:?}: {value}, expected a text");
                    return Err(bad(&place, reason));
                };
                said.captions.entry(key).or_default().insert(name, text);
            }
        }
        for suffix in &self.scores {
            for (key, name, value) in entries(&Self::beside(path, suffix))? {
                let score = match &value {
                    Value::String(text) => text.trim().parse().ok(),
                    other => other.as_f64(),
                };
                let Some(score) = score.filter(|score: &f64| score.is_finite()) else {
                    let place = Self::beside(path, suffix);
                    let reason = format!("{key:?}, {name:?}: {value}, expected a number");
                    return Err(bad(&place, reason));
                };
                said.scores.entry(key).or_default().insert(name, score);
            }
        }
        Ok(said)
    }
}

impl Said {
    /// The captions of a key, with and without scores.
    pub(super) fn captions(&self, key: &str) -> Vec<String> {
        let named = self
            .captions
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values);
        let texts = named.map(|text| text.trim().to_lowercase());
        texts.filter(|text| !text.is_empty()).collect()
    }

    /// Captions of a key that have scores, best first; `own` are those that come with the picture.
    pub(super) fn scored(&self, key: &str, own: &Named) -> Vec<ScoredCaption> {
        let (Some(scores), beside) = (self.scores.get(key), self.captions.get(key)) else {
            return Vec::new();
        };
        let text = |name: &str| beside.and_then(|beside| beside.get(name)).or(own.get(name));
        let mut scored: Vec<ScoredCaption> = scores
            .iter()
            .filter_map(|(name, score)| {
                let text = text(name)?.trim().to_lowercase();
                (!text.is_empty()).then_some(ScoredCaption {
                    text,
                    score: *score,
                })
            })
            .collect();
        scored.sort_by(|a, b| b.score.total_cmp(&a.score));
        scored
    }
}

/// Key, name and value of everything in a file; nothing where there is none.
fn entries(path: &Path) -> Result<Vec<(String, String, Value)>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let Value::Object(file) = read_json(path, Limit::DATA)? else {
        return Err(bad(path, "expected an object of keys"));
    };
    let mut entries = Vec::new();
    for (key, values) in file {
        let Value::Object(values) = values else {
            let reason = format!("{key:?}: {values}, expected an object of captions' names");
            return Err(bad(path, reason));
        };
        for (name, value) in values {
            // The reference writes null where a captioner failed.
            if !value.is_null() {
                entries.push((key.clone(), name, value));
            }
        }
    }
    Ok(entries)
}
