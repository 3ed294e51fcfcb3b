//! Whether a result would be written over what it is made from.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result, is_picture};

/// Deepest folder below an input that is looked into.
const MAX_DEPTH: usize = 8;

/// Refuses an output that is one of the inputs, lies in one or holds one, under whatever name: links are
/// followed, also those inside an input that is a folder, and a file is known by each of its hard links.
/// For a command to call before any work; neither has to exist.
///
/// # Errors
/// The output and the input that it meets, by name.
pub fn check_output(output: &Path, inputs: &[&Path]) -> Result<()> {
    let place = resolved(output);
    let file = file_identity(&place);
    for input in inputs {
        let input_place = resolved(input);
        let mut below = Below::default();
        below.look(&input_place, 0);
        let relation = if place == input_place {
            Some("is the input")
        } else if place.starts_with(&input_place) {
            Some("lies in the input")
        } else if input_place.starts_with(&place) {
            Some("holds the input")
        } else if file.is_some_and(|file| below.files.contains(&file)) {
            Some("is another name of a file of the input")
        } else if below
            .places
            .iter()
            .any(|linked| place.starts_with(linked) || linked.starts_with(&place))
        {
            Some("is, holds or lies in what a link leads to in the input")
        } else {
            None
        };
        if let Some(relation) = relation {
            return Err(Error::Invalid(format!(
                "the output {} {relation} {}, which would be overwritten while it is read; \
                 choose another place",
                output.display(),
                input.display()
            )));
        }
    }
    Ok(())
}

/// Refuses outputs that would overwrite one another, or a file that is read: one of the inputs itself, or one in
/// an input that is a folder, pictures excepted, which nothing reads there. Unlike [`check_output`] it lets a new
/// file lie beside a model's. For a command to call before any work.
///
/// # Errors
/// The output and what it meets, by name.
pub fn check_outputs(outputs: &[&Path], inputs: &[&Path]) -> Result<()> {
    let places: Vec<PathBuf> = outputs.iter().map(|output| resolved(output)).collect();
    for (place, output) in places.iter().zip(outputs) {
        let count = places.iter().filter(|other| *other == place).count();
        if count > 1 {
            return Err(Error::Invalid(format!(
                "the output {} is named {count} times; each would overwrite the one before: choose other \
                 names",
                output.display()
            )));
        }
    }
    for input in inputs {
        let place = resolved(input);
        let mut below = Below::default();
        below.look(&place, 0);
        for (written, output) in places.iter().zip(outputs) {
            let same = file_identity(written).is_some_and(|file| below.files.contains(&file));
            let picture = place.is_dir() && is_picture(written);
            if *written == place || (same && !picture) {
                return Err(Error::Invalid(format!(
                    "the output {} is what is read from {}; choose another place",
                    output.display(),
                    input.display()
                )));
            }
        }
    }
    Ok(())
}

/// What an input is made of.
#[derive(Default)]
struct Below {
    /// Files, by identity.
    files: BTreeSet<(u64, u64)>,
    /// Where links lead.
    places: BTreeSet<PathBuf>,
}

impl Below {
    fn look(&mut self, path: &Path, depth: usize) {
        self.files.extend(file_identity(path));
        let Ok(entries) = std::fs::read_dir(path) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_symlink() {
                let Ok(place) = std::fs::canonicalize(&path) else {
                    continue;
                };
                if self.places.insert(place.clone()) && depth < MAX_DEPTH {
                    self.look(&place, depth + 1);
                }
            } else if kind.is_dir() && depth >= MAX_DEPTH {
                continue;
            } else {
                self.look(&path, depth + 1);
            }
        }
    }
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut place = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                place.pop();
            }
            other => {
                place.push(other);
                if let Ok(real) = std::fs::canonicalize(&place) {
                    place = real;
                }
            }
        }
    }
    place
}

/// What all names of a regular file have in common.
#[cfg(unix)]
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_identity(_: &Path) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_overwrite_neither_one_another_nor_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("model/part")).unwrap();
        for file in ["model/part/weights", "model/x.png", "start.png"] {
            std::fs::write(at(file), "w").unwrap();
        }
        let check = |outputs: &[&str]| {
            let outputs: Vec<PathBuf> = outputs.iter().map(|name| at(name)).collect();
            let outputs: Vec<&Path> = outputs.iter().map(PathBuf::as_path).collect();
            let found = check_outputs(&outputs, &[&at("model"), &at("start.png")]);
            found.map_err(|error| error.to_string())
        };
        assert_eq!(
            check(&["a.png", "b.png", "model/new", "model/x.png"]),
            Ok(())
        );
        for (outputs, told) in [
            (&["a.png", "model/../a.png"][..], "2 times"),
            (&["start.png"], "is read"),
            (&["model"], "is read"),
            (&["model/part/../part/weights"], "is read"),
        ] {
            let refused = check(outputs).unwrap_err();
            assert!(
                refused.contains(told) && refused.contains(outputs[0]),
                "{refused}"
            );
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("start.png", at("link.png")).unwrap();
            std::fs::hard_link(at("model/part/weights"), at("second")).unwrap();
            assert!(check(&["link.png"]).is_err() && check(&["second"]).is_err());
        }
    }

    #[test]
    fn an_output_that_meets_an_input_is_refused_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("model/part")).unwrap();
        std::fs::write(at("model/part/weights"), "w").unwrap();
        std::fs::write(at("other"), "o").unwrap();
        let model = at("model");
        let refused = |output: &str, relation: &str| {
            let error = check_output(&at(output), &[&at("other"), &model]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(relation), "{output}: {error}");
            assert!(error.contains(output), "{output}: {error}");
        };
        refused("model", "is the input");
        refused("model/.", "is the input");
        refused("absent/../model", "is the input");
        refused("model/new/deep", "lies in");
        refused("model/part/../x", "lies in");
        refused(".", "holds");
        for free in ["model2", "absent/model", "model.parts", "model/../free"] {
            check_output(&at(free), &[&at("other"), &model]).unwrap();
        }
        assert!(check_output(&at("other"), &[&at("other")]).is_err());
        check_output(&at("other"), &[&at("absent")]).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("model")).unwrap();
        std::fs::create_dir_all(at("blobs/large")).unwrap();
        std::fs::write(at("model/weights"), "w").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(at(to), at(name)).unwrap();
        link("model", "again");
        link("blobs/large", "model/transformer");
        link("model", "model/loop");
        std::fs::hard_link(at("model/weights"), at("twin")).unwrap();
        std::fs::write(at("blobs/large/weights"), "w").unwrap();
        std::fs::hard_link(at("blobs/large/weights"), at("far-twin")).unwrap();
        for output in [
            "again",
            "again/x",
            "blobs",
            "blobs/large",
            "blobs/large/x",
            "twin",
            "far-twin",
        ] {
            assert!(
                check_output(&at(output), &[&at("model")]).is_err(),
                "{output}"
            );
        }
        assert!(check_output(&at("model"), &[&at("again")]).is_err());
        check_output(&at("blobs/small"), &[&at("model")]).unwrap();
    }
}
