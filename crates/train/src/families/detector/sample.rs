//! A picture of text with the maps that it is to give: Gaussians in the middle of letters, and between those of a word.

use brisk_media::shape::{Place, Projective};
use brisk_nn::Tensor;
use brisk_pipelines::families::char_sam::detector_pixels;

use super::DetectorRecipe;
use crate::data::scene_text::{Fonts, SceneText};
use crate::error::Result;
use crate::rng::Rng;

/// Pixels of the picture that a place of the maps is.
const CELL: f64 = 2.0;
/// By how much a letter's box is enlarged for its Gaussian, whose deviation is a share of the enlarged box's side.
const ENLARGED_BOX: f64 = 1.5;
const DEVIATION: f64 = 0.2;
/// Share of the pictures that have fewer pixels than are shown, and by how much at most.
const ENLARGED: f64 = 0.6;
const MOST_ENLARGED: f64 = 4.0;

/// One picture.
pub(super) struct Sample {
    /// As the network takes it, `[1, S, S, 3]`.
    pub pixels: Tensor,
    /// How much a place is the middle of a letter, and lies between two: `[S/2, S/2, 2]`.
    pub maps: Vec<f32>,
}

impl Sample {
    /// The training picture of a number.
    pub fn draw(recipe: &DetectorRecipe, fonts: &Fonts, seed: u64, index: u64) -> Result<Self> {
        let rng = &mut Rng::stream(seed ^ 0x6465_7465_6374, index);
        let side = recipe.picture_size;
        let enlarged = match rng.chance(ENLARGED) {
            true => 1.0 + (MOST_ENLARGED - 1.0) * rng.uniform(),
            false => 1.0,
        };
        let own = (side as f64 / enlarged).round() as usize;
        let scene = SceneText::draw(&recipe.scenes(own, rng.uniform()), fonts, seed, index);
        let ratio = side as f64 / own as f64;
        Ok(Self {
            pixels: detector_pixels(&scene.picture, [side; 2])?,
            maps: maps(&scene, side, ratio),
        })
    }
}

/// The maps of a scene whose picture is shown at `side` pixels, `ratio` of them for each of its own.
pub(super) fn maps(scene: &SceneText, side: usize, ratio: f64) -> Vec<f32> {
    let size = side / CELL as usize;
    let mut maps = vec![0.0; 2 * size * size];
    let scale = ratio / CELL;
    for word in &scene.words {
        let quads: Vec<[Place; 4]> = word
            .letters
            .iter()
            .map(|letter| letter.quad.map(|at| at.map(|at| at * scale)))
            .collect();
        for quad in &quads {
            lay(&mut maps, 0, size, *quad);
        }
        for pair in quads.windows(2) {
            lay(&mut maps, 1, size, between(pair[0], pair[1]));
        }
    }
    maps
}

/// The box between two letters: the middles of the triangles above and below their middles.
fn between(a: [Place; 4], b: [Place; 4]) -> [Place; 4] {
    let mean = |places: &[Place]| {
        [0, 1].map(|axis| places.iter().map(|at| at[axis]).sum::<f64>() / places.len() as f64)
    };
    let triangles = |quad: [Place; 4]| {
        let middle = mean(&quad);
        [
            mean(&[quad[0], quad[1], middle]),
            mean(&[quad[2], quad[3], middle]),
        ]
    };
    let ([a_above, a_below], [b_above, b_below]) = (triangles(a), triangles(b));
    [a_above, b_above, b_below, a_below]
}

/// Lays a Gaussian over a box into one of the maps, where it is larger than what is there.
fn lay(maps: &mut [f32], which: usize, size: usize, quad: [Place; 4]) {
    let Some(map) = Projective::of_rectangle([1.0, 1.0], quad) else {
        return;
    };
    let back = map.inverse();
    let reach = (ENLARGED_BOX - 1.0) / 2.0;
    let corners = [
        [-reach, -reach],
        [1.0 + reach, -reach],
        [1.0 + reach, 1.0 + reach],
        [-reach, 1.0 + reach],
    ]
    .map(|at| map.apply(at));
    let range = |axis: usize| {
        let values = || corners.iter().map(|at| at[axis]);
        let within = |at: f64| at.clamp(0.0, size as f64) as usize;
        let (least, most) = (
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        );
        within(least.floor())..within(most.ceil())
    };
    for y in range(1) {
        for x in range(0) {
            let [u, v] = back.apply([x as f64 + 0.5, y as f64 + 0.5]);
            let square = ((u - 0.5).powi(2) + (v - 0.5).powi(2)) / ENLARGED_BOX.powi(2);
            if square <= 0.25 {
                let value = (-0.5 * square / DEVIATION.powi(2)).exp() as f32;
                let place = &mut maps[2 * (y * size + x) + which];
                *place = place.max(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letters_edge_lies_at_a_quarter() {
        let size = 64;
        let mut maps = vec![0.0; 2 * size * size];
        let quad = [[10.0, 20.0], [50.0, 20.0], [50.0, 44.0], [10.0, 44.0]];
        lay(&mut maps, 0, size, quad);
        let at = |x: usize, y: usize| maps[2 * (y * size + x)];
        assert!(at(30, 32) > 0.99, "{}", at(30, 32));
        // Between the columns on both sides of the left edge.
        let edge = (at(9, 32) + at(10, 32)) / 2.0;
        assert!((edge - 0.25).abs() < 0.02, "{edge}");
        assert!(maps.iter().skip(1).step_by(2).all(|value| *value == 0.0));
    }

    #[test]
    fn between_two_letters_is_a_box_from_middle_to_middle() {
        let quad = |left: f64| {
            [
                [left, 0.0],
                [left + 10.0, 0.0],
                [left + 10.0, 12.0],
                [left, 12.0],
            ]
        };
        let found = between(quad(0.0), quad(12.0));
        assert_eq!(found, [[5.0, 2.0], [17.0, 2.0], [17.0, 10.0], [5.0, 10.0]]);
    }
}
