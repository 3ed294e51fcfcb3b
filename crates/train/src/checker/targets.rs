//! What each cell should say, and the loss of what it says.

use brisk_nn::Tensor;

use super::model::{CELLS, OUTPUTS};
use crate::data::scenes::{Colour, OBJECTS, Rendered, Scene};
use crate::error::Result;
use crate::loss::{Loss, with_gradient};
use crate::tensors;

/// Spread of a centre over cells.
const SPREAD: f64 = 0.8;
/// How much more a cell with a centre counts than one without.
const CENTRE_WEIGHT: f32 = 20.0;
/// Nearness to a centre from which a cell is to know object and colour.
const NEAR: f32 = 0.4;

/// What one picture's cells should say.
pub(super) struct Targets {
    cells: Vec<Cell>,
}

#[derive(Clone, Copy)]
struct Cell {
    /// 1 in the middle of a centre, less around it.
    nearness: f32,
    object: usize,
    colour: Option<Colour>,
}

impl Targets {
    pub fn of(scene: &Scene, rendered: &Rendered) -> Self {
        let nothing = Cell {
            nearness: 0.0,
            object: 0,
            colour: None,
        };
        let mut cells = vec![nothing; CELLS * CELLS];
        for (index, item) in scene.items.iter().enumerate() {
            let frame = rendered.seen(index).unwrap_or(item.frame);
            let (x, y) = frame.centre();
            let (x, y) = (x * CELLS as f64 - 0.5, y * CELLS as f64 - 0.5);
            let nearest = |at: f64| (at.round().max(0.0) as usize).min(CELLS - 1);
            for row in 0..CELLS {
                for column in 0..CELLS {
                    let distance = (column as f64 - x).powi(2) + (row as f64 - y).powi(2);
                    let mut nearness = (-distance / (2.0 * SPREAD * SPREAD)).exp() as f32;
                    if (column, row) == (nearest(x), nearest(y)) {
                        nearness = 1.0;
                    }
                    let cell = &mut cells[row * CELLS + column];
                    if nearness > cell.nearness {
                        *cell = Cell {
                            nearness,
                            object: item.object,
                            colour: item.colour,
                        };
                    }
                }
            }
        }
        Self { cells }
    }
}

/// Cross-entropies of centres, objects and colours, each a mean over the cells that it concerns.
pub(super) fn loss(output: &Tensor, targets: &[&Targets]) -> Result<Loss> {
    let values = tensors::values(output)?;
    let mut gradient = vec![0f32; values.len()];
    let cells = || targets.iter().flat_map(|targets| &targets.cells);
    let near = |cell: &Cell| {
        if cell.nearness >= NEAR {
            cell.nearness
        } else {
            0.0
        }
    };
    let coloured = |cell: &Cell| {
        if cell.colour.is_some() {
            near(cell)
        } else {
            0.0
        }
    };
    let total = |weight: &dyn Fn(&Cell) -> f32| cells().map(weight).sum::<f32>().max(1e-6);
    let (all_near, all_coloured) = (total(&near), total(&coloured));
    let all_centres = total(&|cell: &Cell| 1.0 + CENTRE_WEIGHT * cell.nearness);
    let mut sum = 0f64;
    let rows = values
        .chunks_exact(OUTPUTS)
        .zip(gradient.chunks_exact_mut(OUTPUTS));
    for (cell, (row, gradient)) in cells().zip(rows) {
        let weight = (1.0 + CENTRE_WEIGHT * cell.nearness) / all_centres;
        let (logit, target) = (row[0], cell.nearness);
        let likelihood = 1.0 / (1.0 + (-logit).exp());
        // softplus(x) − t·x, the cross-entropy of a logit.
        let softplus = logit.max(0.0) + (-logit.abs()).exp().ln_1p();
        sum += f64::from(weight * (softplus - target * logit));
        gradient[0] = weight * (likelihood - target);
        let (objects, colours) = row[1..].split_at(OBJECTS.len());
        let (object_gradient, colour_gradient) = gradient[1..].split_at_mut(OBJECTS.len());
        sum += classes(objects, cell.object, near(cell) / all_near, object_gradient);
        if let Some(colour) = cell.colour {
            let index = Colour::ALL.iter().position(|c| *c == colour).unwrap_or(0);
            sum += classes(
                colours,
                index,
                coloured(cell) / all_coloured,
                colour_gradient,
            );
        }
    }
    with_gradient(output, sum, gradient)
}

/// Weighted cross-entropy of one row; its gradient is written.
fn classes(logits: &[f32], target: usize, weight: f32, gradient: &mut [f32]) -> f64 {
    if weight == 0.0 {
        return 0.0;
    }
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    for (index, (gradient, logit)) in gradient.iter_mut().zip(logits).enumerate() {
        let share = (logit - largest).exp() / total;
        *gradient = weight * (share - if index == target { 1.0 } else { 0.0 });
    }
    f64::from(weight * (total.ln() - (logits[target] - largest)))
}
