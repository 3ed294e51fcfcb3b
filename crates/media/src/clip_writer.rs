//! Clips written frame by frame: in the memory of one frame, however long they are.

use std::io::Write;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, DynamicImage, Frame};

use crate::clip::{MAX_FRAMES, RATES};
use crate::{Error, Picture, Result, contact_sheet, png_file};

/// GIF counts time in hundredths of a second; viewers take less than two for a tenth.
const GIF_TICK_MILLIS: u32 = 10;
const GIF_LEAST_TICKS: u32 = 2;
/// How carefully GIF's palettes are chosen, 1 (best) to 30.
const GIF_SPEED: i32 = 10;

/// What is known of a clip before its frames are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipShape {
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Number of frames.
    pub frames: usize,
    /// Frames a second.
    pub rate: f64,
}

/// Frames in their order.
pub type Frames<'a> = &'a mut dyn Iterator<Item = Result<Picture>>;

impl ClipShape {
    /// Refuses a clip without frames, with too many, or at a rate that makes no sense.
    ///
    /// # Errors
    /// Those.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Argument(message));
        if !(1..=MAX_FRAMES).contains(&self.frames) {
            return fail(format!(
                "a clip of {} frames; expected 1 to {MAX_FRAMES}",
                self.frames
            ));
        }
        if !RATES.contains(&self.rate) {
            return fail(format!(
                "{} frames a second; expected {} to {}",
                self.rate,
                RATES.start(),
                RATES.end()
            ));
        }
        Ok(())
    }

    /// The frames as they come, each of the right size, and as many as there should be.
    fn checked<'a>(&'a self, frames: Frames<'a>) -> impl Iterator<Item = Result<Picture>> + 'a {
        let mut left = self.frames;
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let next = match (frames.next(), left) {
                (None, 0) => return None,
                (None, _) => Err(Error::Argument(format!(
                    "{left} frames of the clip are missing"
                ))),
                (Some(_), 0) => Err(Error::Argument(
                    "there are more frames than were said".into(),
                )),
                (Some(Ok(frame)), _) if [frame.width, frame.height] != self.size => {
                    Err(Error::Argument(format!(
                        "frame {} has {}x{} pixels, the clip {}x{}; expected one size",
                        self.frames - left,
                        frame.width,
                        frame.height,
                        self.size[0],
                        self.size[1]
                    )))
                }
                (Some(frame), _) => frame,
            };
            ended = next.is_err();
            left = left.saturating_sub(1);
            Some(next)
        })
    }

    /// Some of the frames, evenly spaced from the first to the last, in one picture of a row.
    ///
    /// # Errors
    /// No frames wanted, frames that are none or do not fit, or a picture over the limits.
    pub fn strip(&self, count: usize, frames: Frames) -> Result<Picture> {
        let count = count.min(self.frames);
        let between = count.saturating_sub(1).max(1);
        let mut places = (0..count).map(|n| (n * (self.frames - 1) + between / 2) / between);
        let mut next = places.next();
        let mut cells = Vec::with_capacity(count);
        for (place, frame) in self.checked(frames).enumerate() {
            let frame = frame?;
            if next == Some(place) {
                cells.push((frame, String::new()));
                next = places.next();
            }
        }
        contact_sheet(&cells, count)
    }

    /// Writes a GIF that repeats. It has 256 colours a frame, and its clock ticks in hundredths of a second: frames last
    /// a tick more or less so that the whole lasts as long as it should.
    ///
    /// # Errors
    /// Frames that are none or do not fit, sides that GIF cannot have, or what `out` says.
    pub fn write_gif(&self, out: &mut dyn Write, frames: Frames) -> Result<()> {
        self.check()?;
        let failed = |error: image::ImageError| Error::Encode(error.to_string());
        let mut encoder = GifEncoder::new_with_speed(out, GIF_SPEED);
        encoder.set_repeat(Repeat::Infinite).map_err(failed)?;
        for (frame, ticks) in self.checked(frames).zip(self.gif_ticks()) {
            let frame = frame?;
            let (width, height) = (frame.width as u32, frame.height as u32);
            let picture = image::RgbImage::from_raw(width, height, frame.pixels)
                .ok_or_else(|| Error::Encode("a frame without pixels".into()))?;
            let picture = DynamicImage::ImageRgb8(picture).into_rgba8();
            let delay = Delay::from_numer_denom_ms(ticks * GIF_TICK_MILLIS, 1);
            let frame = Frame::from_parts(picture, 0, 0, delay);
            encoder.encode_frame(frame).map_err(failed)?;
        }
        Ok(())
    }

    /// Ticks of each frame; endless, so that frames too many are met.
    fn gif_ticks(&self) -> impl Iterator<Item = u32> + use<> {
        let (tick, rate) = (1000.0 / f64::from(GIF_TICK_MILLIS), self.rate);
        let mut shown = 0;
        (1u64..).map(move |count| {
            let until = (count as f64 * tick / rate).round() as u64;
            let ticks = until.saturating_sub(shown).max(u64::from(GIF_LEAST_TICKS));
            shown += ticks;
            u32::try_from(ticks).unwrap_or(u32::MAX / GIF_TICK_MILLIS)
        })
    }

    /// Writes an animated PNG that repeats, with `metadata` as in [`encode_png`](crate::encode_png). Viewers that know no
    /// animation show the first frame.
    ///
    /// # Errors
    /// Frames that are none or do not fit, sides over the limits, metadata that PNG cannot hold, or what `out` says.
    pub fn write_apng(
        &self,
        out: &mut dyn Write,
        metadata: &[(String, String)],
        frames: Frames,
    ) -> Result<()> {
        self.check()?;
        // Thousandths of a frame a second are as near as a delay of 16 bits over 16 bits comes.
        let delay = match self.rate {
            rate if rate >= 1.0 && rate.fract() == 0.0 => [1, rate as u16],
            rate => [(1000.0 / rate).round().min(65_535.0) as u16, 1000],
        };
        let mut frames = self.checked(frames);
        png_file::write_animated(out, (self.size, self.frames), &mut frames, delay, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(frames: usize, rate: f64) -> ClipShape {
        ClipShape {
            size: [4, 4],
            frames,
            rate,
        }
    }

    #[test]
    fn a_second_of_gif_lasts_a_second() {
        for rate in [24.0, 30.0, 7.0] {
            let ticks: u32 = shape(1, rate).gif_ticks().take(rate as usize).sum();
            assert_eq!(ticks, 100, "{rate}");
        }
        // Faster than viewers show.
        let mut ticks = shape(5, 200.0).gif_ticks().take(5);
        assert!(ticks.all(|ticks| ticks == GIF_LEAST_TICKS));
    }

    #[test]
    fn frames_too_few_too_many_and_of_other_sizes_are_named() {
        let write = |frames: usize, given: Vec<Picture>| {
            let mut bytes = Vec::new();
            let mut given = given.into_iter().map(Ok);
            let gif = shape(frames, 8.0).write_gif(&mut bytes, &mut given);
            gif.map_err(|error| error.to_string())
        };
        let frame = || Picture::filled(4, 4, [1, 2, 3]);
        write(2, vec![frame(), frame()]).unwrap();
        for (frames, given, words) in [
            (2, vec![frame()], "1 frames of the clip are missing"),
            (1, vec![frame(), frame()], "more frames"),
            (
                2,
                vec![frame(), Picture::filled(4, 5, [0; 3])],
                "frame 1 has 4x5",
            ),
            (0, vec![], "expected 1 to"),
        ] {
            let message = write(frames, given).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
