//! Shards of WebDataset: tar files in which members of one name belong together, as `0001.jpg` and `0001.json`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use brisk_media::{Picture, decode_picture};
use brisk_store::read::text;
use brisk_store::{is_picture, parse_json};
use serde_json::Value;

use super::side_files::Named;
use super::{Result, bad, caption_of};

/// Largest member that is read, in bytes.
const LARGEST: u64 = 256 << 20;
/// The caption of a shard's JSON that is taken where none has a score.
const PROMPT: &str = "prompt";

/// A picture of a shard with what is said of it.
#[derive(Default)]
pub(super) struct Member {
    /// Its name up to the first point, as files beside the shard call it.
    pub key: String,
    pub picture: Option<(String, Vec<u8>)>,
    /// The `.txt`.
    pub text: Option<String>,
    /// Texts of the `.json`.
    pub named: Named,
}

impl Member {
    /// The picture.
    pub fn picture(&self, shard: &Path) -> Result<Picture> {
        let Some((name, bytes)) = &self.picture else {
            let reason = format!("{:?} has no picture", self.key);
            return Err(bad(shard, reason));
        };
        let label = format!("{}:{name}", shard.display());
        Ok(decode_picture(bytes, &label)?)
    }

    /// Its caption and keywords.
    pub fn caption(&self, shard: &Path) -> Result<(String, Vec<String>)> {
        let place = shard.join(&self.key);
        let own = |text: &String| caption_of(text, &place);
        match (&self.text, self.named.get(PROMPT)) {
            (Some(text), _) => own(text),
            (None, Some(text)) => own(text),
            (None, None) => {
                let reason = format!("it has neither a .txt nor a .json with {PROMPT:?}");
                Err(bad(&place, reason))
            }
        }
    }
}

/// What of a member's name comes before the first point and after it.
fn parts(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(point) => (&name[..file + point], &name[file + point + 1..]),
        None => (name, ""),
    }
}

/// Whether files of this ending of a member are pictures: `seg.png` are not.
fn is_plain_picture(ending: &str) -> bool {
    !ending.contains('.') && is_picture(Path::new(&format!("x.{ending}")))
}

/// Names of all files of a shard, without their contents.
pub(super) fn names(shard: &Path) -> Result<Vec<String>> {
    let file = File::open(shard).map_err(|error| bad(shard, error.to_string()))?;
    let mut archive = tar::Archive::new(file);
    let failed = |error: std::io::Error| bad(shard, not_tar(&error));
    let mut names = Vec::new();
    for entry in archive.entries_with_seek().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.header().entry_type().is_file() {
            let path = entry.path().map_err(failed)?;
            names.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// How many pictures are in members of these names.
pub(super) fn pictures(names: &[String]) -> usize {
    let plain = names.iter().filter(|name| is_plain_picture(parts(name).1));
    plain.count()
}

fn not_tar(error: &std::io::Error) -> String {
    format!("{error}; expected a shard of WebDataset, a tar file")
}

/// Hands over every picture of a shard, in the order in which they stand there; gives back the names of members that are
/// of no use.
///
/// # Errors
/// What is no tar file or ends early, members that cannot be read, latents in place of pictures.
pub(super) fn visit(
    shard: &Path,
    each: &mut dyn FnMut(Member) -> crate::error::Result<()>,
) -> crate::error::Result<Vec<String>> {
    let file = File::open(shard).map_err(|error| bad(shard, error.to_string()))?;
    let mut archive = tar::Archive::new(file);
    let failed = |error: std::io::Error| bad(shard, not_tar(&error));
    let mut left_out = Vec::new();
    let mut member = Member::default();
    let mut finish = |member: Member, left_out: &mut Vec<String>| match member.picture {
        Some(_) => each(member),
        None => {
            if member.text.is_some() || !member.named.is_empty() {
                left_out.push(member.key);
            }
            Ok(())
        }
    };
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        let (key, ending) = parts(&name);
        if key != member.key {
            let before = Member {
                key: key.to_owned(),
                ..Member::default()
            };
            finish(std::mem::replace(&mut member, before), &mut left_out)?;
        }
        let place = shard.join(&name);
        let mut read = || -> Result<Vec<u8>> {
            if entry.size() > LARGEST {
                let reason = format!("{} bytes; at most {LARGEST} are read", entry.size());
                return Err(bad(&place, reason));
            }
            let mut bytes = Vec::new();
            entry
                .by_ref()
                .take(LARGEST)
                .read_to_end(&mut bytes)
                .map_err(|error| bad(&place, not_tar(&error)))?;
            Ok(bytes)
        };
        let label = || place.display().to_string();
        match ending.to_lowercase().as_str() {
            "txt" => member.text = Some(text(&read()?, &label())?.into_owned()),
            "json" => {
                let Value::Object(values) = parse_json(&read()?, &label())? else {
                    return Err(bad(&place, "expected an object").into());
                };
                for (name, value) in values {
                    if let Value::String(text) = value {
                        member.named.insert(name, text);
                    }
                }
            }
            "npy" => {
                let reason =
                    "latents of an encoder; brisk encodes pictures itself, so pack the pictures";
                return Err(bad(&place, reason).into());
            }
            ending if is_plain_picture(ending) && member.picture.is_none() => {
                member.picture = Some((name.clone(), read()?));
            }
            _ => left_out.push(name.clone()),
        }
    }
    finish(member, &mut left_out)?;
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_belong_together_up_to_the_first_point() {
        assert_eq!(parts("a.b/0001.seg.png"), ("a.b/0001", "seg.png"));
        assert_eq!(parts("0001.JPG"), ("0001", "JPG"));
        assert_eq!(parts("a/b"), ("a/b", ""));
        assert!(is_plain_picture("jpg") && !is_plain_picture("seg.png") && !is_plain_picture(""));
    }
}
