//! Classes by number and by the names that a model's folder brings along.

use std::collections::BTreeMap;

use brisk_store::{ModelFolder, shown, shown_within};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::folder::ComponentFolder;

/// File in a model's folder with the names of its classes.
pub(super) const FILE: &str = "classes.json";
/// The key that configurations of other libraries have them under.
const KEY: &str = "id2label";
/// Names that a message lists.
const LISTED: usize = 8;
/// Characters of a name that a message shows.
const LONGEST: usize = 40;

/// The classes of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Classes {
    count: usize,
    /// Names as they are written; none where the folder has none.
    names: Vec<String>,
    /// Classes by each name, and by each part of one that stands between commas, in small letters.
    by_name: BTreeMap<String, Vec<u32>>,
}

impl Classes {
    /// Those of a model with `count` classes: names are its [`FILE`]'s, a list or an object by number, or those under
    /// `id2label` in the configuration of the network or of the pipeline.
    ///
    /// # Errors
    /// Names that are no texts, or of other classes than the model has.
    pub fn read(folder: &ModelFolder, network: &ComponentFolder, count: usize) -> Result<Self> {
        if folder.exists(FILE) {
            let label = format!("{}/{FILE}", folder.label());
            let names = names(&folder.read_json(FILE)?, count, &label)?;
            return Ok(Self::new(count, names));
        }
        let index = "model_index.json";
        let mut places = vec![(network.config_label(), network.config_json()?)];
        if folder.exists(index) {
            let label = format!("{}/{index}", folder.label());
            places.push((label, folder.read_json(index)?));
        }
        for (label, config) in places {
            if let Some(found) = config.get(KEY) {
                let names = names(found, count, &format!("{label}: `{KEY}`"))?;
                return Ok(Self::new(count, names));
            }
        }
        Ok(Self::new(count, Vec::new()))
    }

    fn new(count: usize, names: Vec<String>) -> Self {
        let mut by_name: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (class, name) in (0u32..).zip(&names) {
            let whole = std::iter::once(name.as_str());
            for part in whole.chain(name.split(',')) {
                let classes = by_name.entry(plain(part)).or_default();
                if classes.last() != Some(&class) {
                    classes.push(class);
                }
            }
        }
        Self {
            count,
            names,
            by_name,
        }
    }

    /// Names in the order of the classes; none where the folder has none.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class that a prompt asks for: by its number, or by a name without regard to capitals.
    ///
    /// # Errors
    /// A prompt that is none of them, or the name of several.
    pub fn of_prompt(&self, prompt: &str) -> Result<u32> {
        let asked = plain(prompt);
        let named = self.by_name.get(&asked).map_or(&[][..], Vec::as_slice);
        if let Ok(number) = asked.parse::<u64>() {
            if number < self.count as u64 {
                return Ok(number as u32);
            }
            return refused(format!(
                "is class {number}; this model has 0 to {}",
                self.count - 1
            ));
        }
        match named {
            [class] => Ok(*class),
            [] => refused(self.unknown(prompt, &asked)),
            several => {
                let numbers: Vec<String> = several.iter().map(u32::to_string).collect();
                refused(format!(
                    "{} names the classes {}; give the number of one",
                    shown(prompt),
                    numbers.join(" and ")
                ))
            }
        }
    }

    fn unknown(&self, prompt: &str, asked: &str) -> String {
        let what = shown_within(prompt, LONGEST);
        let last = self.count - 1;
        if self.names.is_empty() {
            return format!(
                "{what} is no class; give a number, 0 to {last}: the model's folder has no {FILE} with names"
            );
        }
        let like = |name: &&String| !asked.is_empty() && plain(name).contains(asked);
        let mut alike: Vec<&String> = self.names.iter().filter(like).take(LISTED).collect();
        if alike.is_empty() {
            alike = self.names.iter().take(LISTED).collect();
        }
        let alike = alike.iter().map(|name| shown_within(name, LONGEST));
        format!(
            "{what} is none of the model's {} classes; give a number, 0 to {last}, or a name such as {}",
            self.count,
            alike.collect::<Vec<_>>().join("; ")
        )
    }
}

fn refused<T>(message: String) -> Result<T> {
    Err(Error::request("prompt", message))
}

/// A name in small letters, with single spaces.
fn plain(name: &str) -> String {
    let words = name.split_whitespace().map(str::to_lowercase);
    words.collect::<Vec<_>>().join(" ")
}

/// Names of all `count` classes, of a list or of an object by number.
fn names(found: &Value, count: usize, label: &str) -> Result<Vec<String>> {
    let wrong = |message: String| {
        let expected =
            format!("expected the names of all {count} classes: a list, or an object by number");
        Error::config(label, format!("{message}; {expected}"))
    };
    let each: Vec<&Value> = match found {
        Value::Array(names) => names.iter().collect(),
        Value::Object(names) => {
            let numbered = (0..count).map(|class| {
                let missing = || wrong(format!("has no name of class {class}"));
                names.get(&class.to_string()).ok_or_else(missing)
            });
            if names.len() > count {
                return Err(wrong(format!("has {} names", names.len())));
            }
            numbered.collect::<Result<_>>()?
        }
        _ => return Err(wrong("holds neither".to_owned())),
    };
    if each.len() != count {
        return Err(wrong(format!("has {} names", each.len())));
    }
    let text = |(class, name): (usize, &Value)| match name.as_str() {
        Some(name) if !name.trim().is_empty() => Ok(name.to_owned()),
        _ => Err(wrong(format!("the name of class {class} is no text"))),
    };
    each.into_iter().enumerate().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn classes(found: &Value, count: usize) -> Result<Classes> {
        Ok(Classes::new(count, names(found, count, "classes.json")?))
    }

    #[test]
    fn a_class_is_asked_for_by_number_or_name() {
        let names = json!({"0": "tench, Tinca tinca", "1": "crane", "2": "crane, lifting", "3": "Red  Heart"});
        let known = classes(&names, 4).unwrap();
        for (prompt, class) in [
            ("0", 0),
            (" 3 ", 3),
            ("tench", 0),
            ("TINCA tinca", 0),
            ("tench, tinca tinca", 0),
            ("red heart", 3),
            ("lifting", 2),
        ] {
            assert_eq!(known.of_prompt(prompt).unwrap(), class, "{prompt}");
        }
        for (prompt, words) in [
            ("4", "0 to 3"),
            ("crane", "1 and 2"),
            ("heart", "Red  Heart"),
            ("", "0 to 3"),
            ("-1", "none of the model's 4 classes"),
        ] {
            let error = known.of_prompt(prompt).unwrap_err().to_string();
            assert!(error.contains(words), "{prompt}: {error}");
            assert!(error.starts_with("prompt"), "{error}");
        }
        let bare = Classes::new(4, Vec::new());
        let error = bare.of_prompt("tench").unwrap_err().to_string();
        assert!(error.contains("no classes.json"), "{error}");
    }

    #[test]
    fn names_are_of_the_models_classes() {
        for (found, words) in [
            (json!(["a"]), "has 1 names"),
            (json!({"0": "a", "2": "b"}), "no name of class 1"),
            (json!({"0": "a", "1": "b", "2": "c"}), "has 3 names"),
            (json!(["a", 1]), "class 1 is no text"),
            (json!(["a", " "]), "class 1 is no text"),
            (json!(7), "holds neither"),
        ] {
            let error = classes(&found, 2).unwrap_err().to_string();
            assert!(
                error.contains(words) && error.contains("all 2 classes"),
                "{error}"
            );
        }
        assert_eq!(classes(&json!(["a", "b"]), 2).unwrap().names(), ["a", "b"]);
    }
}
