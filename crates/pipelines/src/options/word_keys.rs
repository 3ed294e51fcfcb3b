//! Options of models that find the characters of words.

use std::path::PathBuf;

use super::{Heading, Key, Kind, Range};

const SHARE: Kind = Kind::Number(Range::of(0.0, 1.0));

/// An option that has no effect without words.
const fn of_words<T>(key: Key<T>) -> Key<T> {
    key.under(Heading::Finding).needs("words")
}

/// The words of pictures.
pub static WORDS: Key<PathBuf> = Key::new(
    "words",
    "FILE",
    Kind::Path,
    "words whose characters to find: JSON (also TextSeg's, COCO-Text's), lines of MLT17, a folder of such, or auto",
)
.under(Heading::Finding);

/// What shows what to find.
pub static PROMPT: Key<String> = of_words(Key::new(
    "prompt",
    "WHAT",
    Kind::Choice(&["word", "char-gt", "cbr", "cbr+cgr"]),
    "what shows a character: its word's box, a given box, its own box (cbr), or with points by letters (cbr+cgr)",
));

/// Which points.
pub static POINTS: Key<String> = of_words(Key::new(
    "points",
    "WHICH",
    Kind::Choice(&["none", "pos", "neg", "both"]),
    "points by letters: on strokes (pos), in holes (neg), both or none",
))
.rare();

/// Whether the first mask is shown again.
pub static MASK_INPUT: Key<String> = of_words(Key::new(
    "mask-input",
    "ON",
    Kind::Choice(&["on", "off"]),
    "also show the first mask with the points: on or off (default off)",
))
.rare();

/// When a word is looked at alone.
pub static CROP_WORDS: Key<String> = of_words(Key::new(
    "crop-words",
    "WHEN",
    Kind::Choice(&["auto", "always", "never"]),
    "look at words one by one: always, never but where turned, auto (small and turned ones)",
))
.rare();

/// More fonts.
pub static FONTS: Key<PathBuf> = of_words(Key::new(
    "fonts",
    "FOLDER",
    Kind::Path,
    "more fonts whose letters are compared: a folder of .ttf and .otf files",
));

/// What finds characters.
pub static DETECTOR: Key<PathBuf> = Key::new(
    "detector",
    "FILE",
    Kind::Path,
    "weights that find characters (.pth or a folder; see docs/masks.md), for words",
)
.on_open();

/// What joins the characters that the detector finds.
pub static LINK_REFINER: Key<PathBuf> = Key::new(
    "link-refiner",
    "FILE",
    Kind::Path,
    "weights that join the characters of long and bent words better, beside the detector's",
)
.on_open()
.rare();

/// What reads.
pub static RECOGNISER: Key<PathBuf> = Key::new(
    "recogniser",
    "FILE",
    Kind::Path,
    "weights that read words (.pth or a folder), for words",
)
.on_open();

/// What a found word's likeliest place must reach.
pub static TEXT_THRESHOLD: Key<f32> = of_words(Key::new(
    "text-threshold",
    "X",
    SHARE,
    "least score of a word that is found (default 0.7)",
))
.rare();

/// What belongs to characters.
pub static LOW_TEXT: Key<f32> = of_words(Key::new(
    "low-text",
    "X",
    SHARE,
    "least score of a character's pixels (default 0.4)",
))
.rare();

/// What joins characters.
pub static LINK_THRESHOLD: Key<f32> = of_words(Key::new(
    "link-threshold",
    "X",
    SHARE,
    "least score between characters of a word (default 0.4)",
))
.rare();
