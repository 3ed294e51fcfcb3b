//! Candidates in a folder: a picture for each, and one file with what was said of them.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use brisk_media::{Picture, read_picture, read_png_metadata};
use brisk_pipelines::judging::Judgement;
use brisk_pipelines::{Error, Result};
use brisk_store::output::FolderLock;
use brisk_store::read::read;
use brisk_store::{Limit, read_text, write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::REQUEST_KEYWORD;

/// What is said of the candidates, a line each.
const JUDGEMENTS: &str = "judgements.jsonl";
/// Keys of a picture's description in which candidates differ.
const OF_EACH: [&str; 2] = ["seed", "index"];

/// A line of [`JUDGEMENTS`].
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    judge: String,
    seed: u64,
    #[serde(flatten)]
    judgement: Judgement,
}

/// The folder.
pub(super) struct KeptCandidates {
    folder: PathBuf,
    judge: String,
    /// What a candidate's picture says of itself, but for its seed.
    request: Value,
    judgements: HashMap<u64, Judgement>,
    _lock: FolderLock,
}

/// A candidate that is there.
pub(super) struct Entry {
    pub judgement: Judgement,
    pub png: Vec<u8>,
    pub picture: Picture,
}

fn without_seed(mut description: Value) -> Value {
    if let Some(keys) = description.as_object_mut() {
        OF_EACH.iter().for_each(|key| drop(keys.remove(*key)));
    }
    description
}

impl KeptCandidates {
    /// Opens the folder for candidates that are described by `request`; it is made where it is missing.
    pub fn open(folder: &Path, judge: &str, request: &Value) -> Result<Self> {
        let failed =
            |error: std::io::Error| Error::folder(folder.display().to_string(), error.to_string());
        std::fs::create_dir_all(folder).map_err(failed)?;
        let lock = FolderLock::take(folder)?;
        let path = folder.join(JUDGEMENTS);
        let mut judgements = HashMap::new();
        if path.exists() {
            let text = read_text(&path, Limit::TEXT)?;
            if !text.is_empty() && !text.ends_with('\n') {
                append(&path, "\n")?;
            }
            for line in text.lines() {
                // A run that was killed may have left half a line: its candidate is judged again.
                if let Ok(line) = serde_json::from_str::<Line>(line)
                    && line.judge == judge
                {
                    judgements.insert(line.seed, line.judgement);
                }
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            judge: judge.to_owned(),
            request: without_seed(request.clone()),
            judgements,
            _lock: lock,
        })
    }

    fn path(&self, seed: u64) -> PathBuf {
        self.folder.join(format!("{seed}.png"))
    }

    /// Whether a candidate was drawn and judged.
    pub fn has(&self, seed: u64) -> bool {
        self.judgements.contains_key(&seed) && self.path(seed).exists()
    }

    /// The candidate of a seed, where it was drawn and judged.
    pub fn find(&self, seed: u64) -> Result<Option<Entry>> {
        let path = self.path(seed);
        let judgement = match self.judgements.get(&seed) {
            Some(judgement) if path.exists() => judgement.clone(),
            _ => return Ok(None),
        };
        let png = read(&path, Limit::PICTURE)?;
        let label = path.display().to_string();
        let texts =
            read_png_metadata(&png).map_err(|error| Error::folder(&label, error.to_string()))?;
        let said = texts.iter().find(|(keyword, _)| keyword == REQUEST_KEYWORD);
        let said = said.and_then(|(_, text)| serde_json::from_str::<Value>(text).ok());
        if said.map(without_seed).as_ref() != Some(&self.request) {
            return Err(Error::folder(
                label,
                "was drawn by another request; give another folder for `candidates`, or take the options it was \
                 drawn with",
            ));
        }
        let picture =
            read_picture(&path).map_err(|error| Error::folder(&label, error.to_string()))?;
        Ok(Some(Entry {
            judgement,
            png,
            picture,
        }))
    }

    /// Keeps a candidate: its picture first, so that no judgement is without one.
    pub fn add(&mut self, seed: u64, judgement: &Judgement, png: &[u8]) -> Result<()> {
        write_atomic(&self.path(seed), png)?;
        let path = self.folder.join(JUDGEMENTS);
        let line = Line {
            judge: self.judge.clone(),
            seed,
            judgement: judgement.clone(),
        };
        let mut text = serde_json::to_string(&line)
            .map_err(|error| Error::folder(path.display().to_string(), error.to_string()))?;
        text.push('\n');
        append(&path, &text)?;
        self.judgements.insert(seed, judgement.clone());
        Ok(())
    }
}

fn append(path: &Path, text: &str) -> Result<()> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Error::folder(path.display().to_string(), error.to_string()))
}
