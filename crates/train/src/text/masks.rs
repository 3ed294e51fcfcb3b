//! Which tokens of a batch are hidden.

use super::examples::{Example, Examples};
use crate::error::Result;
use crate::recipe::TextRecipe;
use crate::rng::Rng;

/// Smallest probability with which a token is hidden.
const EPSILON: f64 = 1e-3;

/// What may be hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Every token.
    Pretraining,
    /// The answer's tokens.
    FineTuning,
}

/// A sequence with hidden tokens.
pub(super) struct Masked {
    pub ids: Vec<u32>,
    /// Positions of hidden tokens with what they are, ascending.
    pub hidden: Vec<(usize, u32)>,
    /// Weight of each one's cross-entropy: 1/(p·length).
    pub weight: f32,
}

/// The batch that begins with training problem `first`.
pub(super) fn batch(
    examples: &Examples,
    first: u64,
    phase: Phase,
    recipe: &TextRecipe,
    rng: &mut Rng,
) -> Result<Vec<Masked>> {
    let count = recipe.training.batch;
    // Evenly spread probabilities vary the loss less than independent ones.
    let offset = rng.uniform();
    (0..count)
        .map(|index| {
            let t = (offset + index as f64 / count as f64).fract();
            let example = examples.get(first + index as u64)?;
            Ok(hide(examples, example, t, phase, recipe, rng))
        })
        .collect()
}

fn hide(
    examples: &Examples,
    example: Example,
    t: f64,
    phase: Phase,
    recipe: &TextRecipe,
    rng: &mut Rng,
) -> Masked {
    let (start, text) = (example.prompt.len(), example.answer.len());
    let mut ids = example.prompt;
    ids.extend(example.answer);
    let p = (1.0 - EPSILON) * t + EPSILON;
    // Where tokens are hidden with probability p; those after it always are.
    let (from, to) = match phase {
        Phase::Pretraining => (0, ids.len()),
        Phase::FineTuning => {
            let length = answer_length(text, recipe, rng);
            ids.resize(start + length, examples.end);
            if rng.chance(recipe.block_share) {
                let block = recipe.block_length;
                let first = start + rng.below(text.div_ceil(block)) * block;
                (first, (first + block).min(ids.len()))
            } else {
                (start, ids.len())
            }
        }
    };
    let mut hidden = Vec::new();
    let mut weight = (1.0 / (p * (to - from) as f64)) as f32;
    for (position, id) in ids.iter_mut().enumerate().take(to).skip(from) {
        if rng.chance(p) {
            hidden.push((position, *id));
            *id = examples.mask;
        }
    }
    if hidden.is_empty() {
        // A sequence that shows everything adds nothing to the loss; one row keeps its place.
        weight = 0.0;
        let position = from + rng.below(to - from);
        hidden.push((position, ids[position]));
        ids[position] = examples.mask;
    }
    ids[to..].fill(examples.mask);
    Masked {
        ids,
        hidden,
        weight,
    }
}

/// Length of the answer with the end tokens that fill it up: one of the recipe's lengths by their
/// shares, or else the text's own length to the next whole block.
fn answer_length(text: usize, recipe: &TextRecipe, rng: &mut Rng) -> usize {
    let own = text.next_multiple_of(recipe.block_length);
    let mut left = rng.uniform();
    for &(length, share) in &recipe.lengths {
        if left < share {
            return length.max(own);
        }
        left -= share;
    }
    own
}
