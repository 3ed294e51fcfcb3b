//! A scene: words on a background, and what is where.

use brisk_media::shape::{Place, Projective};
use brisk_media::{Mask, Picture, Typeface};

use super::background::{background, brightness, colour};
use super::warp::Bend;
use super::word::{FlatLetter, FlatWord, Fonts, any_text};
use crate::rng::Rng;

/// Coverage samples along a side of a pixel.
const SAMPLES: usize = 3;
/// Least difference of brightness between text and what lies behind it.
const CONTRAST: f64 = 40.0;
/// Attempts to find a place, and a colour.
const TRIES: usize = 24;

/// What scenes are like.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneTextOptions {
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Fewest and most words.
    pub words: [usize; 2],
    /// Fewest and most letters of a word.
    pub letters: [usize; 2],
    /// Smallest and largest letters, in pixels of the em square; words that would not fit are smaller.
    pub em: [f64; 2],
    /// Largest turn to either side, in degrees.
    pub turn: f64,
    /// Share of words along an arc.
    pub bent: f64,
}

impl Default for SceneTextOptions {
    fn default() -> Self {
        Self {
            size: [512, 384],
            words: [1, 6],
            letters: [2, 12],
            em: [16.0, 120.0],
            turn: 20.0,
            bent: 0.15,
        }
    }
}

/// A letter, and its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct TrueLetter {
    /// Which letter.
    pub class: char,
    /// Corners of the box around its ink as it lies in the picture, from the letter's own top left clockwise.
    pub quad: [Place; 4],
    /// Left, top, right and bottom of its pixels; the last two are beyond them.
    pub bounds: [usize; 4],
    /// Which pixels of these are its own, rows from the top.
    pub pixels: Vec<bool>,
}

/// A word.
#[derive(Debug, Clone, PartialEq)]
pub struct TrueWord {
    /// Its text.
    pub text: String,
    /// Its outline: corners of its box from the word's own top left clockwise; of a bent word more along its upper and
    /// lower edge.
    pub polygon: Vec<Place>,
    /// Its letters, in reading order.
    pub letters: Vec<TrueLetter>,
}

/// A picture with what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneText {
    /// The picture.
    pub picture: Picture,
    /// Its words.
    pub words: Vec<TrueWord>,
}

impl TrueLetter {
    /// The letter's pixels alone, within its bounds.
    pub fn mask(&self) -> Option<Mask> {
        let [left, top, right, bottom] = self.bounds;
        Mask::new(right - left, bottom - top, self.pixels.clone()).ok()
    }

    /// Sets the letter's pixels in a map of a picture of this width.
    pub fn set(&self, map: &mut [bool], width: usize) {
        let [left, top, right, _] = self.bounds;
        for (row, pixels) in self.pixels.chunks_exact(right - left).enumerate() {
            let start = (top + row) * width + left;
            for (pixel, own) in map[start..].iter_mut().zip(pixels) {
                *pixel |= own;
            }
        }
    }
}

impl TrueWord {
    /// Left, top, right and bottom of its letters' pixels; the last two are beyond them.
    pub fn bounds(&self) -> [usize; 4] {
        let all = self.letters.iter().map(|letter| letter.bounds);
        all.reduce(joined).unwrap_or_default()
    }
}

/// The bounds around both.
fn joined(a: [usize; 4], b: [usize; 4]) -> [usize; 4] {
    [
        a[0].min(b[0]),
        a[1].min(b[1]),
        a[2].max(b[2]),
        a[3].max(b[3]),
    ]
}

impl SceneText {
    /// The scene of a number; the same seed and number give the same scene.
    pub fn draw(options: &SceneTextOptions, fonts: &Fonts, seed: u64, index: u64) -> Self {
        let rng = &mut Rng::stream(seed ^ 0x7465_7874, index);
        let mut picture = background(options.size, rng);
        let mut words: Vec<TrueWord> = Vec::new();
        let wanted = options.words[0] + rng.below(options.words[1] - options.words[0] + 1);
        for _ in 0..wanted {
            let placed = (0..TRIES).find_map(|_| Placed::any(options, fonts, &words, rng));
            if let Some(placed) = placed {
                placed.paint(&mut picture, rng);
                words.push(placed.word);
            }
        }
        disturb(&mut picture, rng);
        Self { picture, words }
    }

    /// All text pixels.
    pub fn mask(&self) -> Vec<bool> {
        let mut map = vec![false; self.picture.width * self.picture.height];
        for letter in self.words.iter().flat_map(|word| &word.letters) {
            letter.set(&mut map, self.picture.width);
        }
        map
    }
}

/// A word with its place.
struct Placed {
    word: TrueWord,
    /// Coverage over the whole picture.
    coverage: Vec<f32>,
    em: f64,
}

impl Placed {
    /// A word somewhere, if it meets no other.
    fn any(
        options: &SceneTextOptions,
        fonts: &Fonts,
        others: &[TrueWord],
        rng: &mut Rng,
    ) -> Option<Self> {
        let [width, height] = options.size.map(|side| side as f64);
        let text = any_text(rng, options.letters);
        let face: &Typeface = fonts.any(rng);
        let em = options.em[0] + (options.em[1] - options.em[0]) * rng.uniform();
        let spacing = (-0.08 + 0.18 * rng.uniform()) as f32;
        // Drawn twice as large as it will be.
        let em_drawn = (2.0 * em).clamp(24.0, 512.0) as f32;
        let flat = FlatWord::draw(face, &text, em_drawn, spacing * em_drawn)?;
        let angle = match rng.chance(options.bent) {
            true => (0.5 + 0.7 * rng.uniform()) * if rng.chance(0.5) { 1.0 } else { -1.0 },
            false => 0.0,
        };
        let flat_size = flat.size.map(|side| side as f64);
        let bend = Bend::new(angle, flat_size);
        let turn = options.turn.to_radians() * (2.0 * rng.uniform() - 1.0);
        let (sin, cos) = turn.sin_cos();
        let [wide, high] = bend.bent;
        let extent = [
            (wide * cos).abs() + (high * sin).abs(),
            (wide * sin).abs() + (high * cos).abs(),
        ];
        let fits = (0.94 * width / extent[0]).min(0.94 * height / extent[1]);
        let scale = (em / f64::from(em_drawn)).min(fits);
        let room = [width, height].into_iter().zip(extent);
        let mut centre = room.map(|(side, extent)| {
            let half = 0.53 * scale * extent;
            half + (side - 2.0 * half).max(0.0) * rng.uniform()
        });
        let centre = [centre.next()?, centre.next()?];
        let slant = 0.15 * rng.uniform() * scale * wide.min(high);
        let corner = |x: f64, y: f64, rng: &mut Rng| {
            let (x, y) = (scale * (x - wide / 2.0), scale * (y - high / 2.0));
            let shift = [(); 2].map(|()| slant * (2.0 * rng.uniform() - 1.0));
            [
                centre[0] + x * cos - y * sin + shift[0],
                centre[1] + x * sin + y * cos + shift[1],
            ]
        };
        let corners = [
            corner(0.0, 0.0, rng),
            corner(wide, 0.0, rng),
            corner(wide, high, rng),
            corner(0.0, high, rng),
        ];
        let map = Projective::of_rectangle(bend.bent, corners)?;
        let word = Warped {
            flat: &flat,
            bend,
            map,
            size: options.size,
        };
        let em = scale * f64::from(em_drawn);
        let more = 1 + (0.1 * em) as usize;
        let taken: Vec<_> = others.iter().map(TrueWord::bounds).collect();
        let is_free = |[left, top, right, bottom]: [usize; 4]| {
            let (left, top) = (left.saturating_sub(more), top.saturating_sub(more));
            let (right, bottom) = (right + more, bottom + more);
            !taken.iter().any(|other| {
                left < other[2] && other[0] < right && top < other[3] && other[1] < bottom
            })
        };
        let (word, coverage) = word.draw(text, is_free)?;
        Some(Self { word, coverage, em })
    }

    /// Lays it over a picture: shadow, outline, then the letters.
    fn paint(&self, picture: &mut Picture, rng: &mut Rng) {
        let (width, height) = (picture.width, picture.height);
        let behind = self.brightness_behind(picture);
        let mut fill = colour(rng);
        for _ in 0..TRIES {
            if (brightness(fill) - behind).abs() >= CONTRAST {
                break;
            }
            fill = colour(rng);
        }
        if (brightness(fill) - behind).abs() < CONTRAST {
            fill = if behind > 127.0 { [0; 3] } else { [255; 3] };
        }
        let thick = (self.em * (0.02 + 0.04 * rng.uniform())).max(1.0);
        if rng.chance(0.2) {
            let (dx, dy) = (
                thick.round() as isize,
                (thick * (0.5 + rng.uniform())).round() as isize,
            );
            let dark = colour(rng).map(|part| part / 4);
            let moved = |x: isize, y: isize| self.covered(x - dx, y - dy, [width, height]);
            lay(picture, dark, 0.6, moved);
        }
        if rng.chance(0.2) {
            let reach = (thick / 1.5).ceil() as isize;
            let edge = colour(rng);
            let near = |x: isize, y: isize| {
                let around =
                    (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)));
                let disc = around.filter(|(dx, dy)| dx * dx + dy * dy <= reach * reach);
                disc.map(|(dx, dy)| self.covered(x + dx, y + dy, [width, height]))
                    .fold(0.0, f32::max)
            };
            lay(picture, edge, 1.0, near);
        }
        lay(picture, fill, 1.0, |x, y| {
            self.covered(x, y, [width, height])
        });
    }

    fn covered(&self, x: isize, y: isize, [width, height]: [usize; 2]) -> f32 {
        let inside = x >= 0 && y >= 0 && (x as usize) < width && (y as usize) < height;
        if inside {
            self.coverage[y as usize * width + x as usize]
        } else {
            0.0
        }
    }

    fn brightness_behind(&self, picture: &Picture) -> f64 {
        let [left, top, right, bottom] = self.word.bounds();
        let mut sum = 0.0;
        for y in top..bottom {
            for x in left..right {
                let at = 3 * (y * picture.width + x);
                sum += brightness([
                    picture.pixels[at],
                    picture.pixels[at + 1],
                    picture.pixels[at + 2],
                ]);
            }
        }
        sum / ((right - left) * (bottom - top)).max(1) as f64
    }
}

/// A flat word with its way into a picture of this size.
struct Warped<'a> {
    flat: &'a FlatWord,
    bend: Bend,
    map: Projective,
    size: [usize; 2],
}

impl Warped<'_> {
    fn forward(&self, at: Place) -> Place {
        self.map.apply(self.bend.apply(at))
    }

    /// The word's truth, and its coverage of the picture. None where a letter has no pixel of its own, or the word's
    /// bounds are not free.
    fn draw(
        &self,
        text: String,
        is_free: impl Fn([usize; 4]) -> bool,
    ) -> Option<(TrueWord, Vec<f32>)> {
        let mut coverage = vec![0.0f32; self.size[0] * self.size[1]];
        let back = self.map.inverse();
        let mut letters = Vec::with_capacity(self.flat.letters.len());
        let mut bounds: Option<[usize; 4]> = None;
        for letter in &self.flat.letters {
            let letter = self.letter(letter, &back, &mut coverage)?;
            // They only grow: most words that have no room are known by their first letters.
            let so_far = bounds.map_or(letter.bounds, |bounds| joined(bounds, letter.bounds));
            if !is_free(so_far) {
                return None;
            }
            bounds = Some(so_far);
            letters.push(letter);
        }
        let [width, height] = self.flat.size.map(|side| side as f64);
        let steps = if self.bend.bent == self.flat.size.map(|side| side as f64) {
            1
        } else {
            6
        };
        let along = |step: usize| width * step as f64 / steps as f64;
        let upper = (0..=steps).map(|step| [along(step), 0.0]);
        let lower = (0..=steps).rev().map(|step| [along(step), height]);
        let polygon = upper.chain(lower).map(|at| self.forward(at)).collect();
        let word = TrueWord {
            text,
            polygon,
            letters,
        };
        Some((word, coverage))
    }

    fn letter(
        &self,
        letter: &FlatLetter,
        back: &Projective,
        coverage: &mut [f32],
    ) -> Option<TrueLetter> {
        let [left, top] = letter.place.map(|at| at as f64);
        let [right, bottom] = [left + letter.size[0] as f64, top + letter.size[1] as f64];
        let quad =
            [[left, top], [right, top], [right, bottom], [left, bottom]].map(|at| self.forward(at));
        let middle = (left + right) / 2.0;
        let around: Vec<Place> = quad
            .into_iter()
            .chain([[middle, top], [middle, bottom]].map(|at| self.forward(at)))
            .collect();
        let range = |axis: usize| {
            let values = || around.iter().map(|at| at[axis]);
            let most = self.size[axis] as f64;
            let low = values().fold(f64::INFINITY, f64::min) - 2.0;
            let high = values().fold(f64::NEG_INFINITY, f64::max) + 2.0;
            low.clamp(0.0, most) as usize..high.clamp(0.0, most) as usize
        };
        let (columns, rows) = (range(0), range(1));
        let mut own = vec![false; columns.len() * rows.len()];
        let step = 1.0 / SAMPLES as f64;
        let samples: [Place; SAMPLES * SAMPLES] = std::array::from_fn(|sample| {
            [sample % SAMPLES, sample / SAMPLES].map(|at| step * (at as f64 + 0.5))
        });
        for (row, y) in rows.clone().enumerate() {
            for (column, x) in columns.clone().enumerate() {
                let mut sum = 0.0;
                for [dx, dy] in samples {
                    let at = back.apply([x as f64 + dx, y as f64 + dy]);
                    sum += letter.at(self.bend.undo(at));
                }
                let share = sum / (SAMPLES * SAMPLES) as f32;
                own[row * columns.len() + column] = share >= 0.5;
                let all = &mut coverage[y * self.size[0] + x];
                *all = all.max(share);
            }
        }
        let found = Mask::new(columns.len(), rows.len(), own).ok()?;
        let [x0, y0, x1, y1] = found.bounds()?;
        let pixels = (y0..=y1)
            .flat_map(|y| found.pixels()[y * columns.len()..][x0..=x1].to_vec())
            .collect();
        let bounds = [
            columns.start + x0,
            rows.start + y0,
            columns.start + x1 + 1,
            rows.start + y1 + 1,
        ];
        Some(TrueLetter {
            class: letter.class,
            quad,
            bounds,
            pixels,
        })
    }
}

/// Mixes a colour in where something covers, by at most `most`.
fn lay(picture: &mut Picture, colour: [u8; 3], most: f32, covered: impl Fn(isize, isize) -> f32) {
    let width = picture.width;
    for (at, pixel) in picture.pixels.chunks_exact_mut(3).enumerate() {
        let share = most * covered((at % width) as isize, (at / width) as isize);
        if share > 0.0 {
            for (value, part) in pixel.iter_mut().zip(colour) {
                *value =
                    (f32::from(*value) * (1.0 - share) + f32::from(part) * share).round() as u8;
            }
        }
    }
}

/// Blur of up to 1.2 pixels, and noise of up to 8 of 255.
fn disturb(picture: &mut Picture, rng: &mut Rng) {
    let sigma = 1.2 * rng.uniform();
    if sigma > 0.3 {
        blur(picture, sigma);
    }
    let deviation = 8.0 * rng.uniform() as f32;
    let noise = rng.normals(picture.pixels.len());
    for (value, noise) in picture.pixels.iter_mut().zip(noise) {
        *value = (f32::from(*value) + deviation * noise)
            .round()
            .clamp(0.0, 255.0) as u8;
    }
}

fn blur(picture: &mut Picture, sigma: f64) {
    let reach = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f32> = (-reach..=reach)
        .map(|at| (-0.5 * (at as f64 / sigma).powi(2)).exp() as f32)
        .collect();
    let sum: f32 = weights.iter().sum();
    let (width, height) = (picture.width as isize, picture.height as isize);
    for across in [true, false] {
        let from = picture.pixels.clone();
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let mut value = 0.0;
                    for (step, weight) in (-reach..=reach).zip(&weights) {
                        let (x, y) = if across { (x + step, y) } else { (x, y + step) };
                        let (x, y) = (x.clamp(0, width - 1), y.clamp(0, height - 1));
                        value += weight * f32::from(from[(3 * (y * width + x) + channel) as usize]);
                    }
                    picture.pixels[(3 * (y * width + x) + channel) as usize] =
                        (value / sum).round() as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_follow_from_their_number_and_say_what_is_where() {
        let options = SceneTextOptions {
            size: [200, 150],
            em: [30.0, 60.0],
            ..SceneTextOptions::default()
        };
        let fonts = Fonts::built_in();
        let mut words = 0;
        for index in 0..8 {
            let scene = SceneText::draw(&options, &fonts, 5, index);
            assert_eq!(scene, SceneText::draw(&options, &fonts, 5, index));
            for word in &scene.words {
                words += 1;
                let read: String = word.letters.iter().map(|letter| letter.class).collect();
                assert_eq!(read, word.text);
                for letter in &word.letters {
                    let [left, top, right, bottom] = letter.bounds;
                    assert!(left < right && right <= 200 && top < bottom && bottom <= 150);
                    let mask = letter.mask().unwrap();
                    // Bounds are those of the pixels.
                    assert_eq!(
                        mask.bounds(),
                        Some([0, 0, right - left - 1, bottom - top - 1])
                    );
                    let middle =
                        |axis: usize| letter.quad.iter().map(|at| at[axis]).sum::<f64>() / 4.0;
                    assert!((left as f64 - 3.0..right as f64 + 3.0).contains(&middle(0)));
                }
            }
            let text = scene.mask().iter().filter(|inside| **inside).count();
            let letters = scene.words.iter().flat_map(|word| &word.letters);
            let sum: usize = letters.map(|letter| letter.mask().unwrap().area()).sum();
            assert!(text > 0 && text <= sum);
        }
        assert!(words >= 8, "{words}");
        assert_ne!(
            SceneText::draw(&options, &fonts, 5, 0).picture,
            SceneText::draw(&options, &fonts, 6, 0).picture
        );
    }
}
