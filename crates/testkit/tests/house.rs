//! The rules of CONTRIBUTING.md that a program can check, over every source file of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most lines of a file.
const MOST_LINES: usize = 600;

/// Names that only a model's own folders, the registries and tests may know.
const MODEL_NAMES: [&str; 20] = [
    "sana", "gemma", "dcae", "dc_ae", "llada", "dream", "sdar", "dllm", "a2d", "hart", "qwen",
    "vila", "toy", "sam", "craft", "crnn", "hunyuan", "llava", "uvit", "usit",
];

/// Places that may name models: their own folders and the two registries.
const NAMING_PLACES: [&str; 7] = [
    "models/src/",
    "pipelines/src/families/",
    "pipelines/src/registry.rs",
    "train/src/families/",
    "testkit/",
    "/tests/",
    "/examples/",
];

struct Source {
    /// From `crates/` on.
    path: String,
    text: String,
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![crates()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(crates()).unwrap();
                found.push(Source {
                    path: name.to_string_lossy().replace('\\', "/"),
                    text: std::fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 200, "{} files", found.len());
    found
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.text.lines().count() > MOST_LINES)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "look for the second idea in {long:#?}");
}

/// Whether `word` stands in `line` as a name or a part of one: at the start of a word, or of a part of a
/// name that begins with a capital.
fn names(line: &str, word: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    lower.match_indices(word).any(|(at, _)| {
        // A capital within is the beginning of another word: `GemmArguments` is no Gemma.
        let own = &line[at..at + word.len()];
        let capitals = own.chars().filter(char::is_ascii_uppercase).count();
        if own[1..].contains(|letter: char| letter.is_ascii_uppercase())
            && capitals < own.chars().filter(char::is_ascii_alphabetic).count()
        {
            return false;
        }
        // A short name is the beginning of many words: `sample` and `SAME` are no SAM.
        let capitals = own.ends_with(char::is_uppercase);
        let goes_on = |letter: char| letter.is_lowercase() || (capitals && letter.is_uppercase());
        if word.len() < 4 && line[at + word.len()..].starts_with(goes_on) {
            return false;
        }
        let inside = lower[..at].ends_with(|letter: char| letter.is_ascii_lowercase());
        !inside || line[at..].starts_with(char::is_uppercase)
    })
}

#[test]
fn models_are_named_in_their_place_only() {
    let mut misplaced = Vec::new();
    for source in sources() {
        if NAMING_PLACES
            .iter()
            .any(|place| source.path.contains(place))
        {
            continue;
        }
        let mut tests = false;
        for (number, line) in source.text.lines().enumerate() {
            tests |= line.trim() == "#[cfg(test)]";
            let found = MODEL_NAMES.iter().find(|name| names(code(line), name));
            if let (false, Some(name)) = (tests, found) {
                misplaced.push(format!("{}:{}: {name}", source.path, number + 1));
            }
        }
    }
    assert!(misplaced.is_empty(), "{misplaced:#?}");
}

/// Folders of a crate that need each other, directly or by others.
#[test]
fn no_circle_of_folders() {
    // crate -> folder -> folders that it uses
    let mut uses: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let sources = sources();
    for source in &sources {
        let parts: Vec<&str> = source.path.split('/').collect();
        if let [name, "src", folder, _, ..] = parts[..] {
            uses.entry(name.to_owned())
                .or_default()
                .entry(folder.to_owned())
                .or_default();
        }
    }
    for source in &sources {
        let parts: Vec<&str> = source.path.split('/').collect();
        let [name, "src", folder, _, ..] = parts[..] else {
            continue;
        };
        let folders = uses.get_mut(name).unwrap();
        let known: BTreeSet<String> = folders.keys().cloned().collect();
        for line in source.text.lines() {
            for (at, _) in code(line).match_indices("crate::") {
                let used: String = code(line)[at + "crate::".len()..]
                    .chars()
                    .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                    .collect();
                if used != folder && known.contains(&used) {
                    folders.get_mut(folder).unwrap().insert(used);
                }
            }
        }
    }
    let mut circles = Vec::new();
    for (name, folders) in &uses {
        for start in folders.keys() {
            let mut reached: BTreeSet<&String> = BTreeSet::new();
            let mut next: Vec<&String> = folders[start].iter().collect();
            while let Some(folder) = next.pop() {
                if reached.insert(folder) {
                    next.extend(&folders[folder]);
                }
            }
            if reached.contains(start) {
                circles.push(format!("{name}/src/{start}, over {reached:?}"));
            }
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

/// Every unsafe block says why it is sound, and every unsafe function what it asks for.
#[test]
fn unsafe_code_gives_its_reason() {
    let mut silent = Vec::new();
    for source in sources() {
        if source.path.starts_with("testkit/") {
            continue;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let line = code(line);
            let block = line.contains("unsafe {");
            let function = line.contains("unsafe fn ") || line.contains("unsafe impl ");
            if !block && !function {
                continue;
            }
            // Attributes, and the statement that a block stands in, may come between; what a trait asks for
            // stands there, and the reason in the function's one block.
            let near = &lines[number.saturating_sub(12)..(number + 8).min(lines.len())];
            let reason = |line: &&str| line.contains("SAFETY:") || line.contains("# Safety");
            if !near.iter().any(reason) {
                silent.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
