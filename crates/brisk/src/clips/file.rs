//! Clips as files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brisk_media::{ClipShape, Frames, encode_png};
use brisk_nn::tensor_file;
use brisk_pipelines::options::ClipLatents;
use brisk_pipelines::{Error, Result, VideoPlan};
use brisk_store::output::TemporaryFolder;
use brisk_store::{write_atomic, write_atomic_with, write_safetensors};
use serde_json::Value;

use crate::REQUEST_KEYWORD;

/// The program that encodes what we do not.
const ENCODER: &str = "ffmpeg";
/// Kinds of files that it writes.
const ENCODED: [&str; 4] = ["mp4", "webm", "mkv", "mov"];

/// A file or folder for a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipFile {
    path: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gif,
    AnimatedPng,
    /// A folder of PNG files, `0000.png` and on.
    Frames,
    /// By the user's own ffmpeg.
    Encoded,
}

impl ClipFile {
    /// By the name's ending: `.gif`, `.png` or `.apng`; `.mp4`, `.webm`, `.mkv` or `.mov` where there is an `ffmpeg`; a
    /// new folder of PNG files where there is no ending.
    ///
    /// # Errors
    /// Another ending, no `ffmpeg` for one that needs it, or a folder that is there already.
    pub fn new(path: &Path) -> Result<Self> {
        let wrong = |message: String| Err(Error::request("output", message));
        let shown = path.display();
        let ending = path
            .extension()
            .map(|ending| ending.to_string_lossy().to_lowercase());
        let format = match ending.as_deref() {
            Some("gif") => Format::Gif,
            Some("png" | "apng") => Format::AnimatedPng,
            Some(ending) if ENCODED.contains(&ending) => {
                let found = Command::new(ENCODER).arg("-version").output();
                if !found.is_ok_and(|found| found.status.success()) {
                    return wrong(format!(
                        "{shown} needs the program {ENCODER}, which is not here; install it, or write .gif or .png"
                    ));
                }
                Format::Encoded
            }
            None => Format::Frames,
            Some(_) => {
                return wrong(format!(
                    "{shown}: clips are written as .gif, .png (animated), {}, or a folder of frames (a name without \
                     an ending)",
                    ENCODED.map(|ending| format!(".{ending}")).join(", ")
                ));
            }
        };
        if format == Format::Frames && path.exists() {
            return wrong(format!("{shown} is there already; name a new folder"));
        }
        Ok(Self {
            path: path.to_owned(),
            format,
        })
    }

    /// Where it goes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a folder of frames.
    pub fn is_folder(&self) -> bool {
        self.format == Format::Frames
    }

    /// Writes a clip frame by frame, whole or not at all. What made it stands in every format but GIF, which has no place
    /// for it; in a folder, in its first frame.
    ///
    /// # Errors
    /// Frames that cannot be had, a clip that the format cannot hold, a file that cannot be written, or an encoder that
    /// fails.
    pub fn write(&self, shape: &ClipShape, frames: Frames, description: &Value) -> Result<()> {
        let texts = [(REQUEST_KEYWORD.to_owned(), description.to_string())];
        match self.format {
            Format::Gif => self.streamed(|out| shape.write_gif(out, frames)),
            Format::AnimatedPng => self.streamed(|out| shape.write_apng(out, &texts, frames)),
            Format::Frames => {
                let folder = TemporaryFolder::create(&self.path)?;
                for (index, frame) in frames.enumerate() {
                    let texts = if index == 0 { &texts[..] } else { &[] };
                    let bytes = encode_png(&frame?, texts)?;
                    write_atomic(&folder.path().join(format!("{index:04}.png")), &bytes)?;
                }
                Ok(folder.keep()?)
            }
            Format::Encoded => self.encode(shape, frames, description),
        }
    }

    fn streamed(
        &self,
        write: impl FnOnce(&mut dyn Write) -> brisk_media::Result<()>,
    ) -> Result<()> {
        let mut failed = None;
        let written = write_atomic_with(&self.path, |out| {
            write(out).map_err(|error| {
                let told = std::io::Error::other(error.to_string());
                failed = Some(error);
                told
            })
        });
        match (written, failed) {
            (Err(_), Some(error)) => Err(error.into()),
            (written, _) => Ok(written?),
        }
    }

    fn encode(&self, shape: &ClipShape, frames: Frames, description: &Value) -> Result<()> {
        let failed = |message: String| Error::folder(self.path.display().to_string(), message);
        let folder = TemporaryFolder::create(&self.path)?;
        let ending = self.path.extension().unwrap_or_default();
        let target = folder.path().join("clip").with_extension(ending);
        let size = format!("{}x{}", shape.size[0], shape.size[1]);
        let rate = shape.rate.to_string();
        let mut running = Command::new(ENCODER)
            .args(["-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"])
            .args([
                "-s",
                &size,
                "-r",
                &rate,
                "-i",
                "-",
                "-pix_fmt",
                "yuv420p",
                "-metadata",
            ])
            .arg(format!("comment={description}"))
            .arg(&target)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot start {ENCODER}: {error}")))?;
        let mut given = Ok(());
        if let Some(mut stdin) = running.stdin.take() {
            for frame in frames {
                let written = match frame {
                    Ok(frame) => stdin
                        .write_all(&frame.pixels)
                        .map_err(|error| failed(format!("cannot write to {ENCODER}: {error}"))),
                    Err(error) => Err(error.into()),
                };
                if written.is_err() {
                    given = written;
                    break;
                }
            }
        }
        let ended = running
            .wait_with_output()
            .map_err(|error| failed(format!("{ENCODER}: {error}")))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said = brisk_store::shown_within(said.trim(), 400);
            return Err(failed(format!("{ENCODER} says {said}")));
        }
        given?;
        std::fs::rename(&target, &self.path)
            .map_err(|error| failed(format!("cannot write: {error}")))
    }
}

/// Everything that made a clip, as JSON; `model` is the name that finds the model again.
pub fn describe_clip(plan: &VideoPlan, model: &str) -> Value {
    let mut document = plan.describe();
    document.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    document.insert("model".to_owned(), model.into());
    Value::Object(document)
}

/// Writes the final latents of a clip as one tensor `latents` `[1,C,F,h,w]`.
///
/// # Errors
/// A file that cannot be written.
pub fn write_clip_latents(path: &Path, latents: &ClipLatents) -> Result<()> {
    let tensor = tensor_file::floats("latents", latents.shape.to_vec(), &latents.values);
    Ok(write_safetensors(path, &[tensor], &Default::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_media::Picture;

    #[test]
    fn the_ending_says_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let frames = [[255, 0, 0], [0, 0, 255]].map(|colour| Picture::filled(16, 16, colour));
        let clip = brisk_media::Clip::new(frames.to_vec(), 8.0).unwrap();
        let description = serde_json::json!({"prompt": "a red wall turns blue"});
        for name in ["a.gif", "a.png", "frames"] {
            let frames = &mut clip.frames().iter().cloned().map(Ok);
            let file = ClipFile::new(&path(name)).unwrap();
            file.write(&clip.shape(), frames, &description).unwrap();
        }
        for name in ["a.gif", "a.png"] {
            let bytes = std::fs::read(path(name)).unwrap();
            let read = brisk_media::decode_clip(&bytes, name).unwrap();
            assert_eq!(read.frames(), clip.frames(), "{name}");
        }
        assert!(path("frames/0001.png").is_file());
        for (name, word) in [("a.jpg", "animated"), ("frames", "already")] {
            let error = ClipFile::new(&path(name)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 3, "nothing temporary stays");
    }
}
