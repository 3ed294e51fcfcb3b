//! Words, drawn flat.

use std::path::Path;
use std::sync::LazyLock;

use brisk_media::Typeface;

use crate::error::{Error, Result};
use crate::rng::Rng;

/// Letters that words are made of.
pub const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Words that are drawn as often as strings of letters.
const WORDS: &str = "street market hotel coffee open closed garden station bakery music books pizza bar grill exit entrance \
    parking school museum bridge river house sale shop flowers fresh daily photo studio library police fire taxi bus stop \
    one way north south east west park avenue lane road square corner theatre cinema bank post office super fashion \
    world best price free new special hello welcome thank you please caution danger private property water light power";

/// Four faces of Roboto and three of Caladea.
static HELD_OUT: LazyLock<Vec<Typeface>> = LazyLock::new(|| {
    macro_rules! faces {
        ($($name:literal),+ $(,)?) => {
            [$(($name, &include_bytes!(concat!("../../../fonts/", $name, ".ttf"))[..])),+]
        };
    }
    let faces = faces![
        "Roboto-Regular",
        "Roboto-Bold",
        "Roboto-Italic",
        "Roboto-Light",
        "Caladea-Regular",
        "Caladea-Bold",
        "Caladea-Italic",
    ];
    let read = |(name, bytes): (&str, &'static [u8])| Typeface::of_bytes(name, bytes).ok();
    faces.into_iter().filter_map(read).collect()
});

/// Typefaces to choose from.
#[derive(Debug, Clone)]
pub struct Fonts(Vec<Typeface>);

impl Fonts {
    /// Those that come along with brisk.
    pub fn built_in() -> Self {
        Self(Typeface::built_in().to_vec())
    }

    /// Those that measure models: of other families than any that come along, Roboto and Caladea, on which nothing is
    /// trained.
    pub fn held_out() -> Self {
        Self(HELD_OUT.to_vec())
    }

    /// The `.ttf` and `.otf` files of a folder, its own folders left out, that have every one of [`LETTERS`].
    ///
    /// # Errors
    /// A folder without any, or a file that is no font.
    pub fn read(folder: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::Data(format!("{}: {problem}", folder.display()));
        let files = std::fs::read_dir(folder).map_err(|error| wrong(error.to_string()))?;
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        let is_font = |path: &Path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| {
                ["ttf", "otf"].contains(&ending.to_ascii_lowercase().as_str())
            })
        };
        let mut found = Vec::new();
        for path in paths.iter().filter(|path| is_font(path)) {
            let face = Typeface::read(path)?;
            if LETTERS.chars().all(|letter| face.has(letter)) {
                found.push(face);
            }
        }
        if found.is_empty() {
            return Err(wrong(
                "no .ttf or .otf file has all letters and digits".to_owned(),
            ));
        }
        Ok(Self(found))
    }

    /// One of them.
    pub(super) fn any(&self, rng: &mut Rng) -> &Typeface {
        &self.0[rng.below(self.0.len())]
    }
}

/// A text of so many letters.
pub(super) fn any_text(rng: &mut Rng, [least, most]: [usize; 2]) -> String {
    let letters: Vec<char> = LETTERS.chars().collect();
    let known: Vec<&str> = WORDS
        .split_whitespace()
        .filter(|word| (least..=most).contains(&word.len()))
        .collect();
    if !known.is_empty() && rng.chance(0.5) {
        let word = known[rng.below(known.len())];
        return match rng.below(3) {
            0 => word.to_owned(),
            1 => word.to_uppercase(),
            _ => word[..1].to_uppercase() + &word[1..],
        };
    }
    let count = least + rng.below(most - least + 1);
    (0..count)
        .map(|_| letters[rng.below(letters.len())])
        .collect()
}

/// A letter in a flat word.
pub(super) struct FlatLetter {
    pub class: char,
    /// Column and row of its first pixel.
    pub place: [usize; 2],
    /// Width and height.
    pub size: [usize; 2],
    /// Share of each pixel that it covers.
    pub coverage: Vec<f32>,
}

/// A word in one line.
pub(super) struct FlatWord {
    /// Width and height in pixels.
    pub size: [usize; 2],
    pub letters: Vec<FlatLetter>,
}

impl FlatWord {
    /// Letters of `em` pixels, `spacing` further apart than the font has it. None of a text without ink.
    pub fn draw(face: &Typeface, text: &str, em: f32, spacing: f32) -> Option<Self> {
        let mut pen = 0.0f32;
        let mut before = None;
        let mut drawn = Vec::new();
        for class in text.chars() {
            let letter = face.letter(class, em)?;
            if let Some(before) = before {
                pen += face.kerning(before, class, em) + spacing;
            }
            before = Some(class);
            let place = [(pen + letter.left).round(), letter.top.round()];
            pen += letter.advance;
            if letter.width > 0 {
                drawn.push((class, place, letter));
            }
        }
        let least = |axis: usize| {
            drawn
                .iter()
                .map(|(_, at, _)| at[axis])
                .fold(f32::INFINITY, f32::min)
        };
        let (left, top) = (least(0), least(1));
        let letters: Vec<FlatLetter> = drawn
            .into_iter()
            .map(|(class, at, letter)| FlatLetter {
                class,
                place: [(at[0] - left) as usize, (at[1] - top) as usize],
                size: [letter.width, letter.height],
                coverage: letter.coverage,
            })
            .collect();
        let most = |axis: usize| {
            letters
                .iter()
                .map(|letter| letter.place[axis] + letter.size[axis])
                .max()
        };
        Some(Self {
            size: [most(0)?, most(1)?],
            letters,
        })
    }
}

impl FlatLetter {
    /// Its coverage between the centres of pixels; 0 outside.
    pub fn at(&self, [u, v]: [f64; 2]) -> f32 {
        let (x, y) = (
            u - self.place[0] as f64 - 0.5,
            v - self.place[1] as f64 - 0.5,
        );
        // As `f64::floor`, which is a call on processors that the plain build allows for.
        let floor = |at: f64| at as isize - isize::from(at < (at as isize) as f64);
        let (left, top) = (floor(x), floor(y));
        let [width, height] = self.size.map(usize::cast_signed);
        if !(-1..width).contains(&left) || !(-1..height).contains(&top) {
            return 0.0;
        }
        let (right_share, lower_share) = ((x - left as f64) as f32, (y - top as f64) as f32);
        let pixel = |column: isize, row: isize| match (0..width).contains(&column)
            && (0..height).contains(&row)
        {
            true => self.coverage[(row * width + column).cast_unsigned()],
            false => 0.0,
        };
        let line = |row: isize| {
            pixel(left, row) * (1.0 - right_share) + pixel(left + 1, row) * right_share
        };
        line(top) * (1.0 - lower_share) + line(top + 1) * lower_share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_of_a_folder_are_those_with_all_letters() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../media/fonts");
        assert_eq!(
            Fonts::read(&own).unwrap().0.len(),
            Fonts::built_in().0.len()
        );
        let held_out = Path::new(env!("CARGO_MANIFEST_DIR")).join("fonts");
        assert_eq!(Fonts::read(&held_out).unwrap().0.len(), 7);
        assert_eq!(Fonts::held_out().0.len(), 7);
        let empty = tempfile::tempdir().unwrap();
        let message = Fonts::read(empty.path()).unwrap_err().to_string();
        assert!(message.contains("no .ttf or .otf"), "{message}");
        std::fs::write(empty.path().join("a.ttf"), "no font").unwrap();
        assert!(Fonts::read(empty.path()).is_err());
    }
}
