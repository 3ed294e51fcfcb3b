//! Options: each is defined once, as a [`Key`]. Command-line flags, help, HTTP fields, PNG metadata and
//! the refusal of what a model does not honour derive from that definition.
//!
//! [`Options`] holds what was *given*, so that a value given explicitly is told from a default that
//! happens to equal it. Keys that several families share stand in [`keys`]; a family's own stand in its
//! folder.
//!
//! ```
//! use brisk_pipelines::options::{Options, keys};
//!
//! let options = Options::new().with(&keys::STEPS, 4).with(&keys::GUIDANCE, 4.5);
//! assert_eq!(options.get(&keys::STEPS), Some(4));
//! assert_eq!(options.get(&keys::SEED), None);
//! ```

mod codes;
mod definition;
pub mod keys;
mod kind;
pub mod mask_keys;
mod seed;
mod support;
pub mod text_keys;
mod value;
pub mod video_keys;
pub mod word_keys;

pub use codes::{CodeTensor, Codes};
pub use definition::{Definition, Heading, Key, Scope};
pub use kind::{Kind, Range};
pub use support::{Honoured, Support};
pub use value::{ClipLatents, Latents, OptionValue, Value};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::Result;

/// A value with the text it was read from, where there was one (a file's name, for instance).
#[derive(Debug, Clone)]
struct Given {
    definition: &'static Definition,
    value: Value,
    source: Option<String>,
}

/// The options that were given.
#[derive(Debug, Clone, Default)]
pub struct Options {
    given: BTreeMap<&'static str, Arc<Given>>,
}

impl Options {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a value.
    pub fn with<T: OptionValue>(mut self, key: &'static Key<T>, value: T) -> Self {
        self.set(key, value);
        self
    }

    /// As [`Options::with`], where there is a value.
    pub fn with_some<T: OptionValue>(self, key: &'static Key<T>, value: Option<T>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds or replaces a value.
    pub fn set<T: OptionValue>(&mut self, key: &'static Key<T>, value: T) {
        self.put(key.definition(), value.into_value(), None);
    }

    /// Takes a value back.
    pub fn remove(&mut self, definition: &'static Definition) {
        self.given.remove(definition.name);
    }

    /// The value, where it was given.
    pub fn get<T: OptionValue>(&self, key: &'static Key<T>) -> Option<T> {
        T::from_value(&self.given.get(key.definition().name)?.value)
    }

    /// Whether it was given.
    pub fn has(&self, definition: &'static Definition) -> bool {
        self.given.contains_key(definition.name)
    }

    /// The value as users wrote it: a file's name for an option that is read from a file.
    pub fn source(&self, definition: &'static Definition) -> Option<&str> {
        self.given.get(definition.name)?.source.as_deref()
    }

    /// Files and folders that options name; a number behind the last colon of a file's name is no part of it.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for given in self.given.values() {
            match (&given.value, given.definition.kind, &given.source) {
                (Value::Path(path), ..) => files.push(path.clone()),
                (Value::Paths(paths), ..) => {
                    files.extend(paths.iter().map(|path| without_number(path)))
                }
                (
                    _,
                    Kind::Picture
                    | Kind::Clip
                    | Kind::Latents(_)
                    | Kind::ClipLatents(_)
                    | Kind::Codes
                    | Kind::TextFile
                    | Kind::WholeTextFile,
                    Some(source),
                ) => {
                    files.push(source.into());
                }
                _ => {}
            }
        }
        files
    }

    /// Reads a value from text, as a command line or a form field gives it; a list grows by every call.
    ///
    /// # Errors
    /// Text that is no value of this option, a file that cannot be read, or a value out of range; the
    /// message names the option.
    pub fn read(&mut self, definition: &'static Definition, text: &str) -> Result<()> {
        let mut value = definition.kind.read(definition.name, text)?;
        if let Some(before) = self.given.get(definition.name) {
            value = before.value.clone().followed_by(value);
        }
        definition.kind.check(definition.name, &value)?;
        let source = match self.source(definition) {
            Some(before) => format!("{before},{text}"),
            None => text.to_owned(),
        };
        self.put(definition, value, Some(source));
        Ok(())
    }

    /// Gives a value that a program has at hand where a command line would give text; a list is given whole.
    ///
    /// # Errors
    /// A value of another kind than the option's, or out of range; the message names the option.
    pub fn give(&mut self, definition: &'static Definition, value: Value) -> Result<()> {
        definition.kind.check_sort(definition.name, &value)?;
        definition.kind.check(definition.name, &value)?;
        self.put(definition, value, None);
        Ok(())
    }

    /// As [`Options::read`], of what [`Options::to_json`] wrote: texts that came from files are there whole.
    ///
    /// # Errors
    /// As [`Options::read`].
    pub fn read_back(&mut self, definition: &'static Definition, text: &str) -> Result<()> {
        match definition.kind {
            Kind::TextFile | Kind::WholeTextFile => {
                self.put(definition, Value::Text(text.to_owned()), None);
                Ok(())
            }
            _ => self.read(definition, text),
        }
    }

    /// Those of one scope.
    pub fn of_scope(&self, scope: Scope) -> Self {
        let of_scope = |given: &Arc<Given>| given.definition.scope == scope;
        Self {
            given: self
                .given
                .iter()
                .filter(|(_, given)| of_scope(given))
                .map(|(name, given)| (*name, given.clone()))
                .collect(),
        }
    }

    /// Adds everything that `other` gives and this does not.
    pub fn complete(&mut self, other: &Self) {
        for (name, given) in &other.given {
            self.given.entry(name).or_insert_with(|| given.clone());
        }
    }

    /// Definitions of what was given, by name.
    pub fn definitions(&self) -> impl Iterator<Item = &'static Definition> + '_ {
        self.given.values().map(|given| given.definition)
    }

    /// What was given as JSON: numbers and texts as they are, files by the name they were read from;
    /// what came from memory alone (a picture, a tensor) is left out.
    pub fn to_json(&self) -> serde_json::Map<String, Json> {
        let written = |given: &Given| match given.value.to_json() {
            Some(value) => Some(value),
            None => given.source.clone().map(Json::String),
        };
        self.given
            .values()
            .filter_map(|given| Some((given.definition.field_name(), written(given)?)))
            .collect()
    }

    fn put(&mut self, definition: &'static Definition, value: Value, source: Option<String>) {
        let given = Given {
            definition,
            value,
            source,
        };
        self.given.insert(definition.name, Arc::new(given));
    }

    /// Checks every value's range.
    fn check_ranges(&self) -> Result<()> {
        self.given.values().try_for_each(|given| {
            given
                .definition
                .kind
                .check(given.definition.name, &given.value)
        })
    }
}

/// A file's name without a number behind its last colon, where there is no file of the whole name.
fn without_number(path: &Path) -> PathBuf {
    let parts = path.to_str().and_then(|text| text.rsplit_once(':'));
    match parts {
        Some((file, number)) if number.parse::<f64>().is_ok() && !path.exists() => file.into(),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_is_told_from_default() {
        let mut options = Options::new().with(&keys::NEGATIVE_PROMPT, String::new());
        assert!(options.has(keys::NEGATIVE_PROMPT.definition()));
        assert!(!options.has(keys::SEED.definition()));
        options.remove(keys::NEGATIVE_PROMPT.definition());
        assert_eq!(options.definitions().count(), 0);
    }

    #[test]
    fn text_is_read_and_remembered() {
        let mut options = Options::new();
        options.read(keys::GUIDANCE.definition(), "0.1").unwrap();
        options.read(keys::STEPS.definition(), "12").unwrap();
        assert_eq!(options.get(&keys::GUIDANCE), Some(0.1f32));
        assert_eq!(options.get(&keys::STEPS), Some(12));
        assert_eq!(
            Json::Object(options.to_json()),
            serde_json::json!({"guidance": 0.1, "steps": 12})
        );
        let error = options.read(keys::STEPS.definition(), "many").unwrap_err();
        assert!(error.to_string().starts_with("steps: "), "{error}");
        let error = options.read(keys::STEPS.definition(), "0").unwrap_err();
        assert_eq!(error.to_string(), "steps: 0 is outside 1..=1000");
    }

    #[test]
    fn values_of_programs_are_checked_as_texts_are() {
        let mut options = Options::new();
        let steps = keys::STEPS.definition();
        options.give(steps, Value::Whole(12)).unwrap();
        assert_eq!(options.get(&keys::STEPS), Some(12));
        let error = options.give(steps, Value::Whole(0)).unwrap_err();
        assert_eq!(error.to_string(), "steps: 0 is outside 1..=1000");
        let error = options.give(steps, Value::Flag(true)).unwrap_err();
        assert_eq!(error.to_string(), "steps: a value of another kind");
        assert_eq!(options.get(&keys::STEPS), Some(12));
    }

    #[test]
    fn what_was_given_first_stays() {
        let mut options = Options::new().with(&keys::STEPS, 3);
        let other = Options::new()
            .with(&keys::STEPS, 5)
            .with(&keys::GUIDANCE, 2.0);
        options.complete(&other);
        assert_eq!(options.get(&keys::STEPS), Some(3));
        assert_eq!(options.get(&keys::GUIDANCE), Some(2.0));
    }
}
