//! What a model's folder says of the prompts that it was trained on: `prompts.json`, which small models
//! bring along because they know little else.

use std::collections::{BTreeSet, HashSet};

use brisk_store::{ModelFolder, shown_within};
use serde::Deserialize;

use crate::error::{Error, Result};

/// Words that a warning names.
const NAMED: usize = 6;
/// Characters of a word that a warning shows.
const LONGEST_WORD: usize = 40;

/// Prompts that a model was trained on, and all words that it has seen in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownPrompts {
    prompts: Vec<String>,
    words: BTreeSet<String>,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What to ask for.
    prompts: Vec<String>,
    /// Words that were seen besides: keywords, or those of problems that are not listed.
    #[serde(default)]
    words: Vec<String>,
}

impl KnownPrompts {
    /// The file's name in a model's folder.
    pub const FILE: &'static str = "prompts.json";

    /// From the prompts, and texts whose words were seen besides.
    pub fn new(prompts: Vec<String>, seen: impl IntoIterator<Item = String>) -> Self {
        let mut words: BTreeSet<String> = seen
            .into_iter()
            .flat_map(|text| words_of(&text).collect::<Vec<_>>())
            .collect();
        words.extend(prompts.iter().flat_map(|prompt| words_of(prompt)));
        Self { prompts, words }
    }

    /// What a folder says; none where it says nothing.
    ///
    /// # Errors
    /// A file that is no JSON of prompts and words.
    pub fn read(folder: &ModelFolder) -> Result<Option<Self>> {
        if !folder.exists(Self::FILE) {
            return Ok(None);
        }
        let file: File =
            serde_json::from_value(folder.read_json(Self::FILE)?).map_err(|error| {
                Error::config(
                    format!("{}/{}", folder.label(), Self::FILE),
                    format!(
                        "{error}; expected {{\"prompts\": [texts], \"words\": [texts]}}, or no such file"
                    ),
                )
            })?;
        Ok(Some(Self::new(file.prompts, file.words)))
    }

    /// The file's content: the prompts, and the words that no prompt holds.
    pub fn to_json(&self) -> serde_json::Value {
        let in_prompts: HashSet<String> = self
            .prompts
            .iter()
            .flat_map(|prompt| words_of(prompt))
            .collect();
        let besides = self.words.iter().filter(|word| !in_prompts.contains(*word));
        serde_json::json!({"prompts": self.prompts, "words": besides.collect::<Vec<_>>()})
    }

    /// The prompts, in the file's order.
    pub fn prompts(&self) -> &[String] {
        &self.prompts
    }

    /// Every word, lower case, sorted.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// What to tell a user whose prompts hold words that the model has never seen.
    pub(crate) fn warning<'a>(&self, prompts: impl Iterator<Item = &'a str>) -> Option<String> {
        let mut seen = HashSet::new();
        let unknown: Vec<String> = prompts
            .flat_map(words_of)
            .filter(|word| !self.words.contains(word) && seen.insert(word.clone()))
            .collect();
        if unknown.is_empty() {
            return None;
        }
        let shown = unknown
            .iter()
            .take(NAMED)
            .map(|word| format!("\"{}\"", shown_within(word, LONGEST_WORD)));
        let mut listed = shown.collect::<Vec<_>>().join(", ");
        if unknown.len() > NAMED {
            listed.push_str(&format!(" and {} more", unknown.len() - NAMED));
        }
        let instead = match self.prompts.first() {
            Some(first) => format!(
                "; it knows prompts such as \"{}\"",
                shown_within(first, LONGEST_WORD)
            ),
            None => String::new(),
        };
        Some(format!(
            "this model has never seen {listed} in its training{instead} (`brisk models show` lists what works)"
        ))
    }
}

/// Words in lower case. Numbers are none, as what was trained on some knows others; nor are single letters.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.contains(char::is_alphabetic) && word.chars().nth(1).is_some())
        .map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> KnownPrompts {
        let prompts = ["red heart", "woman’s hat"].map(str::to_owned).to_vec();
        KnownPrompts::new(prompts, ["love, Valentine".to_owned()])
    }

    fn warning(prompt: &str) -> Option<String> {
        known().warning([prompt].into_iter())
    }

    #[test]
    fn a_long_prompt_of_new_words_is_soon_judged() {
        let words: Vec<String> = (0..200_000).map(|number| format!("w{number}")).collect();
        let began = std::time::Instant::now();
        let told = warning(&words.join(" ")).unwrap();
        assert!(told.contains("and 199994 more"), "{told}");
        assert!(began.elapsed().as_secs() < 10);
    }

    #[test]
    fn only_words_never_seen_are_named() {
        for seen in ["a Red HEART", "Woman's-hat", "3 valentine", "", "12 34"] {
            assert_eq!(warning(seen), None, "{seen}");
        }
        let told = warning("red dragon, Dragon & castle").unwrap();
        assert!(told.contains("\"dragon\", \"castle\" in"), "{told}");
        assert!(told.contains("\"red heart\""), "{told}");
        let many: String = ('a'..='z').map(|c| format!("{c}x ")).collect();
        assert!(warning(&many).unwrap().contains("and 20 more"));
    }

    #[test]
    fn the_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let model = ModelFolder::Disk(folder.path().to_owned());
        assert_eq!(KnownPrompts::read(&model).unwrap(), None);
        let file = folder.path().join(KnownPrompts::FILE);
        std::fs::write(&file, known().to_json().to_string()).unwrap();
        assert_eq!(KnownPrompts::read(&model).unwrap(), Some(known()));
        for odd in [
            "[]",
            "{}",
            r#"{"prompts": [1]}"#,
            r#"{"prompts": [], "names": []}"#,
        ] {
            std::fs::write(&file, odd).unwrap();
            let error = KnownPrompts::read(&model).unwrap_err().to_string();
            assert!(error.contains("prompts.json: "), "{error}");
        }
    }
}
