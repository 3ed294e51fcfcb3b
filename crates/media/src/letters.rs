//! Letters of fonts as coverage of pixels.

use std::path::Path;
use std::sync::LazyLock;

use ab_glyph::{Font, FontArc, PxScale, ScaleFont};
use brisk_store::Limit;
use brisk_store::read::read;

use crate::{Error, Result};

/// Largest size of letters, in pixels of the em square.
pub const MAX_EM: f32 = 2048.0;

/// The typefaces that come along: printable ASCII of twelve faces of DejaVu.
static BUILT_IN: LazyLock<Vec<Typeface>> = LazyLock::new(|| {
    macro_rules! faces {
        ($($name:literal),+ $(,)?) => {
            [$(($name, &include_bytes!(concat!("../fonts/", $name, ".ttf"))[..])),+]
        };
    }
    let faces = faces![
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSans-Oblique",
        "DejaVuSans-ExtraLight",
        "DejaVuSansCondensed",
        "DejaVuSansCondensed-Bold",
        "DejaVuSerif",
        "DejaVuSerif-Bold",
        "DejaVuSerif-Italic",
        "DejaVuSerifCondensed-Bold",
        "DejaVuSansMono",
        "DejaVuSansMono-Bold",
    ];
    let read = |(name, bytes): (&str, &'static [u8])| Typeface::of_bytes(name, bytes).ok();
    faces.into_iter().filter_map(read).collect()
});

/// A font.
#[derive(Clone, Debug)]
pub struct Typeface {
    name: String,
    font: FontArc,
}

/// A letter's pixels, those that it touches.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Pixels a row; 0 of a letter without ink.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Share of each pixel that is covered, 0..=1, rows from the top.
    pub coverage: Vec<f32>,
    /// Columns from the pen to the first pixel.
    pub left: f32,
    /// Rows from the base line to the first pixel; negative above it.
    pub top: f32,
    /// How far the pen goes on.
    pub advance: f32,
}

impl Typeface {
    /// Those that come along.
    pub fn built_in() -> &'static [Self] {
        &BUILT_IN
    }

    /// A TrueType or OpenType font that is part of the program.
    ///
    /// # Errors
    /// Bytes that are no font.
    pub fn of_bytes(name: &str, bytes: &'static [u8]) -> Result<Self> {
        let font = FontArc::try_from_slice(bytes).map_err(|_| not_a_font(name))?;
        Ok(Self {
            name: name.to_owned(),
            font,
        })
    }

    /// Reads a TrueType or OpenType font.
    ///
    /// # Errors
    /// A file that cannot be read, or is no font.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read(path, Limit::MODEL_FILE)?;
        let font =
            FontArc::try_from_vec(bytes).map_err(|_| not_a_font(&path.display().to_string()))?;
        let name = path.file_stem().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            font,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a letter.
    pub fn has(&self, letter: char) -> bool {
        self.font.glyph_id(letter).0 != 0
    }

    /// A letter where the em square has `em` pixels a side; none where the font lacks it, or for a size that is no
    /// size.
    pub fn letter(&self, letter: char, em: f32) -> Option<Letter> {
        let id = self.font.glyph_id(letter);
        let units = self.font.units_per_em()?;
        if id.0 == 0 || !(1.0..=MAX_EM).contains(&em) {
            return None;
        }
        let scale = PxScale::from(em * self.font.height_unscaled() / units);
        let advance = self.font.as_scaled(scale).h_advance(id);
        let Some(outline) = self.font.outline_glyph(id.with_scale(scale)) else {
            return Some(Letter {
                width: 0,
                height: 0,
                coverage: Vec::new(),
                left: 0.0,
                top: 0.0,
                advance,
            });
        };
        let bounds = outline.px_bounds();
        let (width, height) = (
            bounds.width().ceil() as usize,
            bounds.height().ceil() as usize,
        );
        let mut coverage = vec![0.0f32; width * height];
        outline.draw(|x, y, share| {
            if let Some(pixel) = coverage.get_mut(y as usize * width + x as usize) {
                *pixel = share.clamp(0.0, 1.0);
            }
        });
        Some(Letter {
            width,
            height,
            coverage,
            left: bounds.min.x,
            top: bounds.min.y,
            advance,
        })
    }

    /// What is added between two letters where the em square has `em` pixels a side.
    pub fn kerning(&self, first: char, second: char, em: f32) -> f32 {
        let units = self.font.units_per_em().unwrap_or(1.0);
        let (first, second) = (self.font.glyph_id(first), self.font.glyph_id(second));
        self.font.kern_unscaled(first, second) * em / units
    }
}

fn not_a_font(label: &str) -> Error {
    Error::Decode {
        label: label.to_owned(),
        reason: "it is no TrueType or OpenType font".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_has_every_letter() {
        assert_eq!(Typeface::built_in().len(), 12);
        for face in Typeface::built_in() {
            for letter in '!'..='~' {
                let drawn = face.letter(letter, 64.0).unwrap();
                let ink: f32 = drawn.coverage.iter().sum();
                assert!(ink > 5.0 && drawn.advance > 5.0, "{} {letter}", face.name());
            }
            assert_eq!(face.letter(' ', 64.0).unwrap().width, 0);
            assert!(face.letter('é', 64.0).is_none() && !face.has('é'));
        }
    }

    #[test]
    fn sizes_are_of_the_em_square() {
        let face = &Typeface::built_in()[0];
        let height = face.letter('H', 100.0).unwrap().height;
        // Capitals of DejaVu Sans are 0.729 em high.
        assert!((72..=75).contains(&height), "{height}");
        let (small, large) = (
            face.letter('H', 50.0).unwrap(),
            face.letter('H', 100.0).unwrap(),
        );
        assert!((2.0 * small.advance - large.advance).abs() < 1e-3);
        assert!(face.letter('H', 0.0).is_none() && face.letter('H', 1e9).is_none());
    }
}
