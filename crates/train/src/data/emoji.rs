//! Emoji pictures with their names, from published npm packages.
//!
//! [`prepare`] renders the SVGs of up to three icon sets (`@iconify-json/noto`, `@iconify-json/fluent-emoji-flat`,
//! `@iconify-json/twemoji`) and writes one safetensors file together with the labels and keywords of
//! `emojibase-data`; [`PictureData`] reads it back. Skin tone variants are left out, and so are pictures that a set
//! repeats under another name. One emoji in twenty is held out, the same ones in all sets and at all sizes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::{DataError, Result};
use super::icon_set::{IconSet, plain_hexcode, read_json};
use super::iconify::Icon;
use super::pictures::{
    PictureData, PictureEntry, PictureSet, PrepareOptions, PrepareReport, is_held_out,
};
use brisk_media::Picture;
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_store::check_output;
use rayon::prelude::*;
use serde::Deserialize;

/// Folders of unpacked npm packages, each the one that holds `package.json`.
#[derive(Clone, Debug)]
pub struct EmojiSources {
    /// `@iconify-json/noto`.
    pub noto: PathBuf,
    /// `@iconify-json/fluent-emoji-flat`.
    pub fluent: Option<PathBuf>,
    /// `@iconify-json/twemoji`.
    pub twemoji: Option<PathBuf>,
    /// `emojibase-data`.
    pub emojibase: PathBuf,
}

/// Renders every emoji of the given sets and writes the data set file.
///
/// `control` hears how many pictures are done. Pictures are ordered by set, then as in the Unicode charts, so the file is
/// the same on every run.
///
/// # Errors
/// Packages that are not what they should be, a file that cannot be written, or a cancellation; then nothing is written.
pub fn prepare(
    sources: &EmojiSources,
    options: &PrepareOptions,
    control: &Control,
) -> crate::error::Result<PrepareReport> {
    options.check()?;
    let size = options.size;
    let inputs = [Some(&sources.noto), Some(&sources.emojibase)]
        .into_iter()
        .chain([sources.fluent.as_ref(), sources.twemoji.as_ref()])
        .flatten();
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    check_output(&options.out, &inputs)?;
    let labels = read_labels(&sources.emojibase)?;
    let folders = [
        (PictureSet::Noto, Some(&sources.noto)),
        (PictureSet::Fluent, sources.fluent.as_ref()),
        (PictureSet::Twemoji, sources.twemoji.as_ref()),
    ];
    let mut jobs: Vec<(PictureEntry, Icon)> = Vec::new();
    for (set, folder) in folders {
        if let Some(folder) = folder {
            collect_set(set, folder, &labels, &mut jobs)?;
        }
    }
    options.check_memory(jobs.len())?;
    let mut data = PictureData::new();
    let mut seen = HashSet::new();
    let mut duplicates = 0;
    control.stage("pictures", Work::Run, jobs.len());
    let mut clock = StepClock::new(jobs.len());
    for chunk in jobs.chunks(64) {
        control.check()?;
        let rendered: Vec<Result<Vec<u8>>> = chunk
            .par_iter()
            .map(|(entry, icon)| {
                icon.render(size).map_err(|source| DataError::Render {
                    set: entry.set,
                    icon: icon.name.clone(),
                    source,
                })
            })
            .collect();
        for ((entry, _), planes) in chunk.iter().zip(rendered) {
            let planes = planes?;
            if seen.contains(&(entry.set, planes.clone())) {
                duplicates += 1;
                continue;
            }
            data.push(entry.clone(), &Picture::from_planes(size, size, &planes)?);
            seen.insert((entry.set, planes));
        }
        clock.steps(chunk.len(), control);
    }
    Ok(data.write(duplicates, &options.out)?)
}

/// One emoji of `emojibase-data`.
#[derive(Deserialize)]
struct Label {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    group: Option<u64>,
    #[serde(skip)]
    group_name: String,
}

/// Base emoji in chart order, without components such as skin tones and lone regional indicators.
fn read_labels(folder: &Path) -> Result<Vec<Label>> {
    let groups_path = folder.join("meta/groups.json");
    let groups = read_json(&groups_path, "emojibase-data")?;
    let path = folder.join("en/data.json");
    let bad = |reason: String| DataError::Source {
        path: path.clone(),
        reason,
        package: "emojibase-data".into(),
    };
    let data = read_json(&path, "emojibase-data")?;
    let all = Vec::<Label>::deserialize(data).map_err(|e| bad(e.to_string()))?;
    let mut kept = Vec::with_capacity(all.len());
    for mut label in all {
        let Some(group) = label.group else { continue };
        let name = groups["groups"][group.to_string()].as_str();
        label.group_name = name
            .ok_or_else(|| {
                bad(format!(
                    "group {group} is not named in {}",
                    groups_path.display()
                ))
            })?
            .to_owned();
        if label.group_name != "component" {
            kept.push(label);
        }
    }
    if kept.is_empty() {
        return Err(bad("it names no emoji".into()));
    }
    Ok(kept)
}

/// Adds the set's drawing of every labelled emoji that it has.
fn collect_set(
    set: PictureSet,
    folder: &Path,
    labels: &[Label],
    jobs: &mut Vec<(PictureEntry, Icon)>,
) -> Result<()> {
    let drawings = IconSet::open(set, folder)?;
    let mut used = HashSet::new();
    let before = jobs.len();
    for label in labels {
        let hexcode = plain_hexcode(&label.hexcode);
        let Some(icon) = drawings.icon(&hexcode)? else {
            continue;
        };
        if !used.insert(icon.name.clone()) {
            continue;
        }
        let entry = PictureEntry {
            captions: Vec::new(),
            name: label.label.to_lowercase(),
            tags: label.tags.clone(),
            held_out: is_held_out(&hexcode),
            hexcode,
            set,
            group: label.group_name.clone(),
        };
        jobs.push((entry, icon));
    }
    if jobs.len() == before {
        return Err(drawings.lacks("any labelled emoji"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
