//! What was found of words.

use brisk_media::mask::Runs;

/// A word with the masks of its characters.
#[derive(Clone, Debug)]
pub struct FoundWord {
    /// Its outline, as it was given or found.
    pub polygon: Vec<[f64; 2]>,
    /// What it says.
    pub text: Option<String>,
    /// How sure the recogniser is of it, where it read it.
    pub confidence: Option<f32>,
    /// How many characters the detector saw in it, before boxes were joined and split.
    pub detected: Option<usize>,
    /// Its pixels: those of all its characters.
    pub runs: Runs,
    /// In reading order.
    pub characters: Vec<FoundCharacter>,
    /// What was done otherwise than usual, and why.
    pub flags: Vec<&'static str>,
}

/// A character of a word.
#[derive(Clone, Debug)]
pub struct FoundCharacter {
    /// Which; none where the word's text does not tell.
    pub class: Option<char>,
    /// Corners of its box, from its own top left clockwise.
    pub quad: [[f64; 2]; 4],
    /// Points that showed it besides the box, and whether they are in it.
    pub points: Vec<([f64; 2], bool)>,
    /// Number of its mask among all.
    pub mask: usize,
    /// As of the word.
    pub flags: Vec<&'static str>,
}
