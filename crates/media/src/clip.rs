//! Clips: pictures of one size that follow each other. Written as GIF and animated PNG, read from those and from
//! animated WebP, and shown as one picture.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brisk_store::guard::guarded;
use brisk_store::read::read as read_file;
use brisk_store::{Limit, is_picture};
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, ImageDecoder, ImageFormat, Limits, RgbaImage};

use crate::clip_writer::ClipShape;
use crate::picture::check_size;
use crate::{Error, Picture, Result};

/// Most frames that a clip may have.
pub const MAX_FRAMES: usize = 20_000;
/// Most memory that the pixels of a clip that is read may take, in bytes.
const MAX_CLIP_BYTES: u64 = 2 << 30;
/// Frames a second that make sense.
pub(crate) const RATES: std::ops::RangeInclusive<f64> = 0.01..=240.0;
/// What a frame without a duration is shown for.
const USUAL_DELAY: Duration = Duration::from_millis(100);

/// Pictures of one size, so many a second.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    frames: Vec<Picture>,
    rate: f64,
}

impl Clip {
    /// From at least one frame, all of one size, at `rate` frames a second.
    ///
    /// # Errors
    /// No frames or too many, of several sizes, or a rate outside 0.01 to 240.
    pub fn new(frames: Vec<Picture>, rate: f64) -> Result<Self> {
        let Some(first) = frames.first() else {
            return Err(Error::Argument("a clip needs at least one frame".into()));
        };
        let size = [first.width, first.height];
        let other = frames
            .iter()
            .position(|frame| [frame.width, frame.height] != size);
        if let Some(index) = other {
            let frame = &frames[index];
            return Err(Error::Argument(format!(
                "frame {index} has {}x{} pixels, the first {}x{}; expected one size",
                frame.width, frame.height, size[0], size[1]
            )));
        }
        let shape = ClipShape {
            size,
            frames: frames.len(),
            rate,
        };
        shape.check()?;
        Ok(Self { frames, rate })
    }

    /// Its frames.
    pub fn frames(&self) -> &[Picture] {
        &self.frames
    }

    /// Frames a second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Numbers of `count` frames that are evenly apart, the first and the last among them; halves are rounded to even
    /// numbers, as numpy does. A frame may come several times.
    pub fn evenly(&self, count: usize) -> Vec<usize> {
        let last = (self.frames.len() - 1) as f64;
        let step = last / count.saturating_sub(1).max(1) as f64;
        (0..count)
            .map(|at| (step * at as f64).round_ties_even() as usize)
            .collect()
    }

    /// Its size, length and rate.
    pub fn shape(&self) -> ClipShape {
        let [width, height] = match self.frames.first() {
            Some(first) => [first.width, first.height],
            None => [0; 2],
        };
        ClipShape {
            size: [width, height],
            frames: self.frames.len(),
            rate: self.rate,
        }
    }

    /// As [`ClipShape::write_gif`].
    ///
    /// # Errors
    /// The same.
    pub fn encode_gif(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.shape()
            .write_gif(&mut bytes, &mut self.frames.iter().cloned().map(Ok))?;
        Ok(bytes)
    }

    /// As [`ClipShape::write_apng`].
    ///
    /// # Errors
    /// The same.
    pub fn encode_apng(&self, metadata: &[(String, String)]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let frames = &mut self.frames.iter().cloned().map(Ok);
        self.shape().write_apng(&mut bytes, metadata, frames)?;
        Ok(bytes)
    }

    /// As [`ClipShape::strip`].
    ///
    /// # Errors
    /// The same.
    pub fn strip(&self, count: usize) -> Result<Picture> {
        self.shape()
            .strip(count, &mut self.frames.iter().cloned().map(Ok))
    }
}

/// Reads a clip's file, see [`decode_clip`], or a folder of pictures: its PNG, JPEG and WebP files in the order of their
/// names, ten a second.
///
/// # Errors
/// Files that cannot be read, a folder without pictures, or pictures of several sizes.
pub fn read_clip(path: &Path) -> Result<Clip> {
    let label = path.display().to_string();
    if !path.is_dir() {
        return decode_clip(&read_file(path, Limit::PICTURE)?, &label);
    }
    let bad = |reason: String| Error::Decode {
        label: label.clone(),
        reason,
    };
    let entries = std::fs::read_dir(path).map_err(|error| bad(error.to_string()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: std::io::Result<Vec<PathBuf>> = paths.collect();
    let mut files = paths.map_err(|error| bad(error.to_string()))?;
    files.retain(|file| is_picture(file));
    files.sort();
    if files.is_empty() {
        return Err(bad(
            "the folder has no PNG, JPEG or WebP files, expected one a frame".into(),
        ));
    }
    if files.len() > MAX_FRAMES {
        return Err(bad(format!(
            "the folder has {} pictures, at most {MAX_FRAMES} are a clip",
            files.len()
        )));
    }
    let mut frames = Vec::with_capacity(files.len());
    let mut bytes = 0;
    for file in files {
        let frame = crate::read_picture(&file)?;
        bytes += frame.pixels.len() as u64;
        if bytes > MAX_CLIP_BYTES {
            return Err(bad(format!(
                "the folder's pictures take more than {MAX_CLIP_BYTES} bytes, the most that a clip may"
            )));
        }
        frames.push(frame);
    }
    Clip::new(frames, USUAL_DELAY.as_secs_f64().recip()).map_err(|error| bad(error.to_string()))
}

/// Reads a GIF, an animated PNG or an animated WebP, told apart by content; `label` names the bytes in messages. A file
/// of one picture is a clip of one frame. Transparency is dropped onto white; the rate is that of the mean duration.
///
/// # Errors
/// Other formats, files that are damaged, or clips whose pixels would take more than 2 GiB.
pub fn decode_clip(bytes: &[u8], label: &str) -> Result<Clip> {
    let bad = |reason: String| Error::Decode {
        label: label.to_owned(),
        reason,
    };
    guarded(|| read(bytes, label)).map_err(bad)?
}

fn read(bytes: &[u8], label: &str) -> Result<Clip> {
    let bad = |reason: String| Error::Decode {
        label: label.to_owned(),
        reason,
    };
    let failed = |error: image::ImageError| bad(error.to_string());
    let limited = |decoder: &mut dyn FnMut(Limits) -> image::ImageResult<()>| {
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_CLIP_BYTES);
        decoder(limits).map_err(failed)
    };
    match image::guess_format(bytes).ok() {
        Some(ImageFormat::Gif) => {
            let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(failed)?;
            limited(&mut |limits| decoder.set_limits(limits))?;
            collect(decoder.dimensions(), decoder.into_frames(), label)
        }
        Some(ImageFormat::Png) => {
            let mut decoder = PngDecoder::new(Cursor::new(bytes)).map_err(failed)?;
            limited(&mut |limits| decoder.set_limits(limits))?;
            if !decoder.is_apng().map_err(failed)? {
                return single(bytes, label);
            }
            let size = decoder.dimensions();
            collect(size, decoder.apng().map_err(failed)?.into_frames(), label)
        }
        Some(ImageFormat::WebP) => {
            let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(failed)?;
            limited(&mut |limits| decoder.set_limits(limits))?;
            match decoder.has_animation() {
                true => collect(decoder.dimensions(), decoder.into_frames(), label),
                false => single(bytes, label),
            }
        }
        _ => Err(bad(
            "it is no clip that is known, expected GIF, animated PNG or animated WebP".into(),
        )),
    }
}

fn single(bytes: &[u8], label: &str) -> Result<Clip> {
    Clip::new(
        vec![crate::decode_picture(bytes, label)?],
        USUAL_DELAY.as_secs_f64().recip(),
    )
}

fn collect((width, height): (u32, u32), frames: image::Frames, label: &str) -> Result<Clip> {
    check_size(label, u64::from(width), u64::from(height))?;
    let bad = |reason: String| Error::Decode {
        label: label.to_owned(),
        reason,
    };
    let of_frame = 3 * u64::from(width) * u64::from(height);
    let most = (MAX_CLIP_BYTES / of_frame.max(1)).min(MAX_FRAMES as u64);
    let mut pictures = Vec::new();
    let mut total = Duration::ZERO;
    for frame in frames {
        let frame = frame.map_err(|error| bad(error.to_string()))?;
        if pictures.len() as u64 == most {
            return Err(bad(format!("it has more than {most} frames of its size")));
        }
        let delay = Duration::from(frame.delay());
        total += if delay.is_zero() { USUAL_DELAY } else { delay };
        pictures.push(on_white(frame.into_buffer())?);
    }
    if pictures.is_empty() {
        return Err(bad("it has no frames".into()));
    }
    let rate = pictures.len() as f64 / total.as_secs_f64();
    Clip::new(pictures, rate.clamp(*RATES.start(), *RATES.end()))
}

fn on_white(frame: RgbaImage) -> Result<Picture> {
    let (width, height) = frame.dimensions();
    let pixels = frame.pixels().flat_map(|pixel| {
        let [red, green, blue, opacity] = pixel.0.map(u32::from);
        [red, green, blue]
            .map(|value| ((value * opacity + 255 * (255 - opacity) + 127) / 255).min(255) as u8)
    });
    Picture::new(width as usize, height as usize, pixels.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain frames in colours that every palette has room for.
    fn clip(count: usize, rate: f64) -> Clip {
        let frame = |index: usize| {
            let mut picture = Picture::filled(20, 12, [(index * 40 % 256) as u8, 10, 200]);
            // A dot that moves.
            let at = 3 * (5 * 20 + index);
            picture.pixels[at..at + 3].copy_from_slice(&[255, 255, 0]);
            picture
        };
        Clip::new((0..count).map(frame).collect(), rate).unwrap()
    }

    #[test]
    fn a_folder_of_pictures_is_a_clip() {
        let folder = tempfile::tempdir().unwrap();
        let written = clip(12, 10.0);
        for (index, frame) in written.frames().iter().enumerate() {
            let png = crate::encode_png(frame, &[]).unwrap();
            std::fs::write(folder.path().join(format!("{index:03}.png")), png).unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
        assert_eq!(read_clip(folder.path()).unwrap(), written);
        let gif = folder.path().join("clip.gif");
        std::fs::write(&gif, written.encode_gif().unwrap()).unwrap();
        assert_eq!(read_clip(&gif).unwrap().frames(), written.frames());
        let small = crate::encode_png(&Picture::filled(3, 3, [0; 3]), &[]).unwrap();
        std::fs::write(folder.path().join("100.png"), small).unwrap();
        let message = read_clip(folder.path()).unwrap_err().to_string();
        assert!(message.contains("frame 12 has 3x3"), "{message}");
        let empty = tempfile::tempdir().unwrap();
        let message = read_clip(empty.path()).unwrap_err().to_string();
        assert!(message.contains("no PNG, JPEG or WebP"), "{message}");
    }

    #[test]
    fn frames_are_chosen_evenly() {
        assert_eq!(clip(15, 10.0).evenly(8), [0, 2, 4, 6, 8, 10, 12, 14]);
        // 1.5 and 2.5 are rounded to 2, the even number.
        assert_eq!(clip(5, 10.0).evenly(9), [0, 0, 1, 2, 2, 2, 3, 4, 4]);
        assert_eq!(clip(1, 10.0).evenly(3), [0, 0, 0]);
        assert_eq!(clip(9, 10.0).evenly(1), [0]);
    }

    #[test]
    fn clips_come_back_as_they_were() {
        for rate in [24.0, 12.5, 0.5] {
            let written = clip(7, rate);
            let metadata = [("prompt".to_owned(), "a dot".to_owned())];
            let apng = written.encode_apng(&metadata).unwrap();
            assert_eq!(crate::read_png_metadata(&apng).unwrap(), metadata);
            for (bytes, name) in [(apng, "apng"), (written.encode_gif().unwrap(), "gif")] {
                let read = decode_clip(&bytes, name).unwrap();
                assert_eq!(read.frames(), written.frames(), "{name} at {rate}");
                let off = (read.rate() / rate - 1.0).abs();
                assert!(off < 0.02, "{name}: {} for {rate}", read.rate());
            }
        }
    }

    #[test]
    fn a_strip_shows_the_first_and_the_last() {
        let clip = clip(9, 8.0);
        let strip = clip.strip(3).unwrap();
        let cell = |index: usize| strip.pixel(8 + index * 28, 8).unwrap();
        for (cell_index, frame) in [(0, 0), (1, 4), (2, 8)] {
            assert_eq!(Some(cell(cell_index)), clip.frames()[frame].pixel(0, 0));
        }
        assert_eq!(clip.strip(100).unwrap().width, 9 * 28 + 8);
        assert!(clip.strip(0).is_err());
    }

    #[test]
    fn what_is_no_clip_is_refused() {
        assert!(Clip::new(Vec::new(), 24.0).is_err());
        let sizes = vec![Picture::filled(2, 2, [0; 3]), Picture::filled(2, 3, [0; 3])];
        let message = Clip::new(sizes, 24.0).unwrap_err().to_string();
        assert!(message.contains("frame 1 has 2x3"), "{message}");
        assert!(Clip::new(vec![Picture::filled(2, 2, [0; 3])], f64::NAN).is_err());
        let whole = clip(4, 10.0).encode_gif().unwrap();
        for bytes in [&whole[..whole.len() / 2], b"GIF89a", b"", b"RIFF"] {
            let message = decode_clip(bytes, "clip.gif").unwrap_err().to_string();
            assert!(message.contains("clip.gif"), "{message}");
        }
        // One picture is a clip of one frame.
        let png = crate::encode_png(&Picture::filled(4, 4, [9, 8, 7]), &[]).unwrap();
        assert_eq!(decode_clip(&png, "one.png").unwrap().frames().len(), 1);
    }
}
