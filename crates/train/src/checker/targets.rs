//! What each cell should say, and the loss of what it says.

use brisk_nn::Tensor;

use super::model::{CELLS, OUTPUTS};
use crate::data::scenes::{Colour, OBJECTS, Rendered, Scene};
use crate::error::Result;
use crate::loss::{Loss, row_cross_entropy, with_gradient};
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
    // Logits, which their gradients replace row by row.
    let mut values = tensors::values(output)?;
    let cells = || targets.iter().flat_map(|targets| &targets.cells);
    let near = |cell: &Cell| {
        if cell.nearness >= NEAR {
            cell.nearness
        } else {
            0.0
        }
    };
    let coloured = |cell: &Cell| cell.colour.map_or(0.0, |_| near(cell));
    let total = |weight: &dyn Fn(&Cell) -> f32| cells().map(weight).sum::<f32>().max(1e-6);
    let (all_near, all_coloured) = (total(&near), total(&coloured));
    let all_centres = total(&|cell: &Cell| 1.0 + CENTRE_WEIGHT * cell.nearness);
    let mut sum = 0f64;
    for (cell, row) in cells().zip(values.chunks_exact_mut(OUTPUTS)) {
        let weight = (1.0 + CENTRE_WEIGHT * cell.nearness) / all_centres;
        let (centre, classes) = row.split_at_mut(1);
        let (logit, target) = (centre[0], cell.nearness);
        let likelihood = 1.0 / (1.0 + (-logit).exp());
        // softplus(x) − t·x, the cross-entropy of a logit.
        let softplus = logit.max(0.0) + (-logit.abs()).exp().ln_1p();
        sum += f64::from(weight * (softplus - target * logit));
        centre[0] = weight * (likelihood - target);
        let (objects, colours) = classes.split_at_mut(OBJECTS.len());
        sum += row_cross_entropy(objects, cell.object, near(cell) / all_near)?;
        match Colour::ALL.iter().position(|c| Some(*c) == cell.colour) {
            Some(index) => {
                sum += row_cross_entropy(colours, index, coloured(cell) / all_coloured)?;
            }
            None => colours.fill(0.0),
        }
    }
    with_gradient(output, sum, values)
}
