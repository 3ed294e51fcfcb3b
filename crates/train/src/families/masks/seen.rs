//! What a training picture shows: a word or two that fill the frame, or a window around a letter of a word, as brisk
//! looks at parts of words; in either case of so many pixels or of fewer, enlarged.

use brisk_media::{Picture, interpolate_bilinear};
use brisk_nn::Tensor;
use brisk_pipelines::families::sam::Frame;

use super::MasksRecipe;
use crate::data::scene_text::{Fonts, SceneText, SceneTextOptions};
use crate::error::Result;
use crate::rng::Rng;

/// Share of the pictures that have fewer pixels than the frame, and by how much at most.
const ENLARGED: f64 = 0.5;
const MOST_ENLARGED: f64 = 3.5;
/// Of a scene around a window: width and height in windows, and its letters' em squares.
const AROUND: [f64; 2] = [3.6, 1.7];
const EM_IN_WINDOW: [f64; 2] = [0.4, 1.3];

/// A picture in the frame.
pub(super) struct Seen {
    /// As the encoder takes it, `[1, S, S, 3]`.
    pub pixels: Tensor,
    /// The letters that are seen whole.
    pub letters: Vec<SeenLetter>,
    /// The words of which every letter is.
    pub whole_words: Vec<usize>,
}

/// A letter in the frame.
pub(super) struct SeenLetter {
    /// Number of its word.
    pub word: usize,
    /// Its pixels, `S·S` of them.
    pub inside: Vec<bool>,
    /// Left, top, right and bottom of them; the last two are beyond them.
    pub bounds: [usize; 4],
}

/// Left and top of a window, and its side.
struct Window {
    corner: [usize; 2],
    side: usize,
}

impl Seen {
    /// The picture of a number, for a frame of this side.
    pub fn draw(recipe: &MasksRecipe, side: usize, fonts: &Fonts, index: u64) -> Result<Self> {
        let seed = recipe.training.seed;
        let rng = &mut Rng::stream(seed ^ 0x7365_656e, index);
        let enlarged = match rng.chance(ENLARGED) {
            true => 1.0 + (MOST_ENLARGED - 1.0) * rng.uniform(),
            false => 1.0,
        };
        let own = (side as f64 / enlarged).round().max(16.0) as usize;
        let mut options = recipe.scenes(own);
        let windowed = rng.chance(recipe.window_share);
        if windowed {
            options = SceneTextOptions {
                size: AROUND.map(|share| (share * own as f64).round() as usize),
                words: [1, 1],
                letters: [2, 10],
                em: EM_IN_WINDOW.map(|share| share * own as f64),
                ..options
            };
        }
        let scene = SceneText::draw(&options, fonts, seed, index);
        let window = match windowed {
            true => Window::around_a_letter(&scene, own, rng),
            false => Window {
                corner: [0; 2],
                side: own,
            },
        };
        window.seen(&scene, side)
    }
}

impl Window {
    /// Around a letter of the scene, somewhere in its middle.
    fn around_a_letter(scene: &SceneText, side: usize, rng: &mut Rng) -> Self {
        let letters: Vec<_> = scene.words.iter().flat_map(|word| &word.letters).collect();
        let size = [scene.picture.width, scene.picture.height];
        let middle = match letters.is_empty() {
            true => size.map(|side| side as f64 / 2.0),
            false => {
                let [left, top, right, bottom] = letters[rng.below(letters.len())].bounds;
                [(left + right) as f64 / 2.0, (top + bottom) as f64 / 2.0]
            }
        };
        let corner = [0, 1].map(|axis| {
            let off = 0.2 * side as f64 * (2.0 * rng.uniform() - 1.0);
            let at = middle[axis] + off - side as f64 / 2.0;
            (at.round().max(0.0) as usize).min(size[axis].saturating_sub(side))
        });
        Self { corner, side }
    }

    /// What of a scene is seen in it, at the size of the frame.
    fn seen(&self, scene: &SceneText, frame: usize) -> Result<Seen> {
        let (own, [left, top]) = (self.side, self.corner);
        let mut picture = Picture::filled(own, own, [0; 3]);
        for (row, into) in picture.pixels.chunks_exact_mut(3 * own).enumerate() {
            let from = 3 * ((top + row) * scene.picture.width + left);
            into.copy_from_slice(&scene.picture.pixels[from..from + 3 * own]);
        }
        let mut seen = Seen {
            pixels: Frame::new(frame, [own; 2]).pixels(&picture)?,
            letters: Vec::new(),
            whole_words: Vec::new(),
        };
        for (number, word) in scene.words.iter().enumerate() {
            let mut whole = true;
            for letter in &word.letters {
                let [x0, y0, x1, y1] = letter.bounds;
                if x0 < left || y0 < top || x1 > left + own || y1 > top + own {
                    whole = false;
                    continue;
                }
                let mut map = vec![0.0; own * own];
                for (row, pixels) in letter.pixels.chunks_exact(x1 - x0).enumerate() {
                    let start = (y0 - top + row) * own + x0 - left;
                    for (into, inside) in map[start..].iter_mut().zip(pixels) {
                        *into = f32::from(u8::from(*inside));
                    }
                }
                let map = match own == frame {
                    true => map,
                    false => interpolate_bilinear(&map, 1, own, own, frame, frame),
                };
                let inside: Vec<bool> = map.iter().map(|share| *share >= 0.5).collect();
                match bounds(&inside, frame) {
                    Some(bounds) => seen.letters.push(SeenLetter {
                        word: number,
                        inside,
                        bounds,
                    }),
                    None => whole = false,
                }
            }
            if whole {
                seen.whole_words.push(number);
            }
        }
        Ok(seen)
    }
}

/// Left, top, right and bottom of what is inside; the last two are beyond it.
fn bounds(inside: &[bool], width: usize) -> Option<[usize; 4]> {
    let places = || (0..inside.len()).filter(|at| inside[*at]);
    Some([
        places().map(|at| at % width).min()?,
        places().next()? / width,
        places().map(|at| at % width).max()? + 1,
        places().next_back()? / width + 1,
    ])
}
