//! Clips that a model's folder brings along to be measured by: of what it was trained on, and of what it never saw.

use brisk_media::{Picture, decode_picture, encode_png, tile, tiled};
use brisk_store::ModelFolder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest side and most frames of a clip, and most clips.
const LARGEST: usize = 512;
const MOST_FRAMES: usize = 257;
const MOST: usize = 4096;

/// A clip that is known to show what its caption says.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownClip {
    /// What is in it and what that does.
    pub caption: String,
    /// What it does, as the caption ends.
    pub motion: String,
    /// Whether no clip of training shows this motion of this object.
    pub held_out: bool,
    /// Its frames, squares of one size.
    pub frames: Vec<Picture>,
}

/// The clips.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EvaluationClips(pub Vec<KnownClip>);

/// The file beside the sheet, a row of which is a clip.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Side of a frame, in pixels.
    side: usize,
    /// Frames of every clip.
    frames: usize,
    clips: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    caption: String,
    motion: String,
    held_out: bool,
}

impl EvaluationClips {
    /// The files' names in a model's folder.
    pub const SHEET: &'static str = "evaluation_clips.png";
    /// See [`SHEET`](Self::SHEET).
    pub const CAPTIONS: &'static str = "evaluation_clips.json";

    /// Those of a folder; none where it has none.
    ///
    /// # Errors
    /// Files that cannot be read, or of which one does not fit the other.
    pub fn read(folder: &ModelFolder) -> Result<Option<Self>> {
        if !folder.exists(Self::CAPTIONS) {
            return Ok(None);
        }
        let label = |name: &str| format!("{}/{name}", folder.label());
        let wrong = |message: String| Error::config(label(Self::CAPTIONS), message);
        let file: File =
            serde_json::from_value(folder.read_json(Self::CAPTIONS)?).map_err(|error| {
                wrong(format!(
                    "{error}; expected {{\"side\": pixels, \"frames\": of each, \"clips\": [{{\"caption\": text, \
                     \"motion\": text, \"held_out\": bool}}]}}"
                ))
            })?;
        let (side, frames, count) = (file.side, file.frames, file.clips.len());
        let fits = |value: usize, most: usize| (1..=most).contains(&value);
        if !fits(side, LARGEST) || !fits(frames, MOST_FRAMES) || !fits(count, MOST) {
            return Err(wrong(format!(
                "{count} clips of {frames} frames of {side} pixels; expected 1 to {MOST} of 1 to {MOST_FRAMES} of 1 to \
                 {LARGEST}"
            )));
        }
        let sheet = decode_picture(&folder.read(Self::SHEET)?, &label(Self::SHEET))?;
        let wanted = [frames * side, count * side];
        if [sheet.width, sheet.height] != wanted {
            return Err(Error::config(
                label(Self::SHEET),
                format!(
                    "is {}x{} pixels; {count} clips of {frames} frames of {side} pixels, one a row, take {}x{}",
                    sheet.width, sheet.height, wanted[0], wanted[1]
                ),
            ));
        }
        let clips = file.clips.into_iter().enumerate().map(|(index, row)| {
            let own = index * frames..(index + 1) * frames;
            Ok(KnownClip {
                caption: row.caption,
                motion: row.motion,
                held_out: row.held_out,
                frames: own
                    .map(|frame| Ok(tile(&sheet, side, frames, frame)?))
                    .collect::<Result<_>>()?,
            })
        });
        Ok(Some(Self(clips.collect::<Result<_>>()?)))
    }

    /// The files, each with its name.
    ///
    /// # Errors
    /// No clips, or some of another length or size than the others.
    pub fn to_files(&self) -> Result<[(&'static str, Vec<u8>); 2]> {
        let wrong = |message: String| Error::config(Self::SHEET, message);
        let first = self.0.first().and_then(|clip| clip.frames.first());
        let Some(side) = first.map(|frame| frame.width) else {
            return Err(wrong("no clip".to_owned()));
        };
        let frames = self.0[0].frames.len();
        if let Some(odd) = self.0.iter().find(|clip| clip.frames.len() != frames) {
            return Err(wrong(format!(
                "a clip of {} frames among others of {frames}",
                odd.frames.len()
            )));
        }
        let all: Vec<&Picture> = self.0.iter().flat_map(|clip| &clip.frames).collect();
        let sheet = tiled(&all, side, frames, [0; 3])?;
        let rows = self.0.iter().map(|clip| Row {
            caption: clip.caption.clone(),
            motion: clip.motion.clone(),
            held_out: clip.held_out,
        });
        let file = File {
            side,
            frames,
            clips: rows.collect(),
        };
        let mut json = serde_json::to_vec_pretty(&file)
            .map_err(|error| Error::config(Self::CAPTIONS, error.to_string()))?;
        json.push(b'\n');
        Ok([
            (Self::SHEET, encode_png(&sheet, &[])?),
            (Self::CAPTIONS, json),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(held_out: bool, shades: &[u8]) -> KnownClip {
        let frames = shades.iter();
        KnownClip {
            caption: "a cat jumps".to_owned(),
            motion: "jumps".to_owned(),
            held_out,
            frames: frames
                .map(|shade| Picture::filled(3, 3, [*shade, 7, 255 - shade]))
                .collect(),
        }
    }

    fn written(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn read(folder: &tempfile::TempDir) -> Result<Option<EvaluationClips>> {
        EvaluationClips::read(&ModelFolder::Disk(folder.path().to_owned()))
    }

    #[test]
    fn what_is_written_is_read() {
        let clips = EvaluationClips(vec![clip(false, &[1, 2, 3, 4]), clip(true, &[9, 8, 7, 6])]);
        let folder = written(&clips.to_files().unwrap());
        assert_eq!(read(&folder).unwrap(), Some(clips));
        assert_eq!(read(&tempfile::tempdir().unwrap()).unwrap(), None);
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let clips = EvaluationClips(vec![clip(false, &[1, 2])]);
        let [sheet, captions] = clips.to_files().unwrap();
        let text = String::from_utf8(captions.1.clone()).unwrap();
        for (json, words) in [
            (
                text.replace("\"frames\": 2", "\"frames\": 5"),
                ["6x3", "15x3"],
            ),
            (
                text.replace("\"side\": 3", "\"side\": 0"),
                ["of 0 pixels", "512"],
            ),
            (text.replace("held_out", "held"), ["held", "bool"]),
        ] {
            let folder = written(&[sheet.clone(), (captions.0, json.into_bytes())]);
            let error = read(&folder).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word}: {error}");
            }
        }
        let uneven = EvaluationClips(vec![clip(false, &[1, 2]), clip(true, &[1])]);
        let error = uneven.to_files().unwrap_err().to_string();
        assert!(error.contains("1 frames among others of 2"), "{error}");
        assert!(EvaluationClips::default().to_files().is_err());
    }
}
