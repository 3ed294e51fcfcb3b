//! Which tokens of a batch are hidden.

use super::examples::{Example, Examples};
use crate::data::arithmetic::EVENTS;
use crate::error::Result;
use crate::recipe::TextRecipe;
use crate::rng::Rng;
use std::ops::Range;

/// Smallest probability with which a token is hidden.
const EPSILON: f64 = 1e-3;

/// What may be hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Every token.
    Pretraining,
    /// The answer's tokens.
    FineTuning,
    /// The results of the answer's calculations.
    Results,
    /// Lines of the answer behind their keys.
    Lines,
}

/// A sequence with hidden tokens.
pub(super) struct Masked {
    pub ids: Vec<u32>,
    /// Positions of hidden tokens with what they are, ascending.
    pub hidden: Vec<(usize, u32)>,
    /// Weight of each one's cross-entropy: 1/(p·length), or 1/count of whole parts.
    pub weight: f32,
}

/// The batch that begins with training problem `first` when the share `progress` of the run is over.
pub(super) fn batch(
    examples: &Examples,
    first: u64,
    progress: f64,
    recipe: &TextRecipe,
    rng: &mut Rng,
) -> Result<Vec<Masked>> {
    let phase = if progress < recipe.pretraining_share {
        Phase::Pretraining
    } else {
        Phase::FineTuning
    };
    // Short problems are there to save time, so they are not filled up either.
    let (events, lengths) = if progress < recipe.short_share {
        let grown = progress / recipe.short_share * *EVENTS.end() as f64;
        (1..=1 + grown as usize, &[][..])
    } else {
        (EVENTS, &recipe.lengths[..])
    };
    let count = recipe.training.batch;
    // Evenly spread probabilities vary the loss less than independent ones.
    let offset = rng.uniform();
    (0..count)
        .map(|index| {
            let t = (offset + index as f64 / count as f64).fract();
            let number = first + index as u64;
            let (example, phase) = if rng.chance(recipe.drill_share) {
                (examples.drill(number)?, Phase::Pretraining)
            } else {
                (examples.get(number, events.clone())?, phase)
            };
            let drawn = rng.uniform();
            let phase = if drawn < recipe.result_share {
                Phase::Results
            } else if drawn < recipe.result_share + recipe.line_share {
                Phase::Lines
            } else {
                phase
            };
            Ok(hide(examples, example, t, phase, lengths, recipe, rng))
        })
        .collect()
}

fn hide(
    examples: &Examples,
    example: Example,
    t: f64,
    phase: Phase,
    lengths: &[(usize, f64)],
    recipe: &TextRecipe,
    rng: &mut Rng,
) -> Masked {
    let (start, text) = (example.prompt.len(), example.answer.len());
    let parts = match phase {
        Phase::Results => examples.results(&example.answer),
        Phase::Lines => examples.lines(&example.answer),
        Phase::Pretraining | Phase::FineTuning => Vec::new(),
    };
    let mut ids = example.prompt;
    ids.extend(example.answer);
    let p = (1.0 - EPSILON) * t + EPSILON;
    // Where tokens are hidden with probability p; those after it always are.
    let (from, to) = if phase == Phase::Pretraining {
        (0, ids.len())
    } else {
        let length = answer_length(text, lengths, recipe.block_length, rng);
        ids.resize(start + length, examples.end);
        if rng.chance(recipe.block_share) {
            let block = recipe.block_length;
            let first = start + rng.below(text.div_ceil(block)) * block;
            (first, (first + block).min(ids.len()))
        } else {
            (start, ids.len())
        }
    };
    let parts: Vec<Range<usize>> = parts
        .iter()
        .map(|part| (start + part.start).max(from)..(start + part.end).min(to))
        .filter(|part| !part.is_empty())
        .collect();
    if !parts.is_empty() {
        ids[to..].fill(examples.mask);
        return hide_parts(examples.mask, ids, &parts, p, rng);
    }
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

/// Every part is hidden as a whole with probability `p`, at least one of them; parts are ranges of `ids`.
fn hide_parts(
    mask: u32,
    mut ids: Vec<u32>,
    parts: &[Range<usize>],
    p: f64,
    rng: &mut Rng,
) -> Masked {
    let always = rng.below(parts.len());
    let mut hidden = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if index == always || rng.chance(p) {
            for (offset, id) in ids[part.clone()].iter_mut().enumerate() {
                hidden.push((part.start + offset, *id));
                *id = mask;
            }
        }
    }
    let weight = 1.0 / hidden.len() as f32;
    Masked {
        ids,
        hidden,
        weight,
    }
}

/// Length of the answer with the end tokens that fill it up: one of the lengths by their
/// shares, or else the text's own length to the next whole block.
fn answer_length(text: usize, lengths: &[(usize, f64)], block: usize, rng: &mut Rng) -> usize {
    let own = text.next_multiple_of(block);
    let mut left = rng.uniform();
    for &(length, share) in lengths {
        if left < share {
            return length.max(own);
        }
        left -= share;
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::text::examples::Examples;
    use crate::recipe::Recipe;

    fn recipe(block_share: f64) -> TextRecipe {
        let Recipe::Text(recipe) = Recipe::open("arithmetic-text").unwrap() else {
            panic!("the recipe is for text");
        };
        TextRecipe {
            block_share,
            ..recipe
        }
    }

    struct Case {
        masked: Masked,
        prompt: usize,
        clean: Vec<u32>,
    }

    /// Many masked sequences, with what they were.
    fn cases(examples: &Examples, recipe: &TextRecipe, phase: Phase, count: u64) -> Vec<Case> {
        let mut rng = Rng::new(1);
        (0..count)
            .map(|index| {
                let example = examples.get(index, EVENTS).unwrap();
                let (prompt, mut clean) = (example.prompt.len(), example.prompt.clone());
                clean.extend(&example.answer);
                let t = (index as f64 + 0.5) / count as f64;
                let masked = hide(
                    examples,
                    example,
                    t,
                    phase,
                    &recipe.lengths,
                    recipe,
                    &mut rng,
                );
                clean.resize(masked.ids.len().max(clean.len()), examples.end);
                Case {
                    masked,
                    prompt,
                    clean,
                }
            })
            .collect()
    }

    /// The weights of a sequence sum to 1 on average, so the loss of a uniform guess is ln V.
    #[test]
    fn weights_sum_to_one_on_average() {
        let recipe = recipe(0.5);
        let examples = Examples::new(&recipe).unwrap();
        for phase in [Phase::Pretraining, Phase::FineTuning] {
            let cases = cases(&examples, &recipe, phase, 600);
            let sum: f64 = cases
                .iter()
                .map(|case| f64::from(case.masked.weight) * case.masked.hidden.len() as f64)
                .sum();
            let mean = sum / cases.len() as f64;
            assert!((mean - 1.0).abs() < 0.06, "{phase:?}: {mean}");
        }
    }

    #[test]
    fn whole_results_are_hidden_by_themselves() {
        let recipe = recipe(0.0);
        let examples = Examples::new(&recipe).unwrap();
        for case in cases(&examples, &recipe, Phase::Results, 100) {
            let Case { masked, clean, .. } = case;
            let text = examples.tokenizer.decode(&clean).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.contains('=')).collect();
            assert!(lines.len() >= 5, "{text}");
            for (position, (&id, &was)) in masked.ids.iter().zip(&clean).enumerate() {
                let hidden = masked.hidden.iter().find(|(at, _)| *at == position);
                assert_eq!(hidden.map_or(was, |_| examples.mask), id);
                assert!(hidden.is_none_or(|(_, target)| *target == was));
            }
            let count = masked.hidden.len();
            assert!(count <= examples.results(&clean).len(), "a token a result");
            assert!((masked.weight * count as f32 - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn whole_lines_are_hidden_behind_their_keys() {
        let recipe = recipe(0.0);
        let examples = Examples::new(&recipe).unwrap();
        let mut hidden_keys = 0;
        for case in cases(&examples, &recipe, Phase::Lines, 100) {
            let answer = &case.clean[case.prompt..];
            let filling = answer.iter().rev().take_while(|id| **id == examples.end);
            let answer = &answer[..answer.len() - filling.count()];
            let text = examples.tokenizer.decode(answer).unwrap();
            let lines = examples.lines(answer);
            assert_eq!(lines.len(), text.lines().count());
            for (line, told) in lines.iter().zip(text.lines()) {
                let found = examples.tokenizer.decode(&answer[line.clone()]).unwrap();
                assert!(
                    told.ends_with(&found) || told.contains(&format!("{found}<")),
                    "{told}"
                );
                let hidden = |at: usize| {
                    let at = case.prompt + at;
                    case.masked
                        .hidden
                        .iter()
                        .any(|(position, _)| *position == at)
                };
                hidden_keys += usize::from(hidden(line.start - 1));
                assert_eq!(hidden(line.start), hidden(line.end - 1));
            }
        }
        assert_eq!(hidden_keys, 0);
    }

    #[test]
    fn only_masks_are_predicted_and_only_answers_in_fine_tuning() {
        let recipe = recipe(0.0);
        let examples = Examples::new(&recipe).unwrap();
        for case in cases(&examples, &recipe, Phase::FineTuning, 100) {
            let Case {
                masked,
                prompt,
                clean,
            } = case;
            assert!(masked.hidden.is_sorted() && !masked.hidden.is_empty());
            assert_eq!(masked.ids.len() - prompt, {
                let length = masked.ids.len() - prompt;
                length.next_multiple_of(recipe.block_length)
            });
            for (position, (&id, &was)) in masked.ids.iter().zip(&clean).enumerate() {
                let found = masked.hidden.iter().find(|(at, _)| *at == position);
                match found {
                    Some((_, target)) => {
                        assert!(position >= prompt, "a prompt is never hidden");
                        assert_eq!((id, *target), (examples.mask, was));
                    }
                    None => assert_eq!(id, was),
                }
            }
        }
        let hidden_prompts = cases(&examples, &recipe, Phase::Pretraining, 20)
            .iter()
            .filter(|case| case.masked.hidden[0].0 < case.prompt)
            .count();
        assert!(hidden_prompts > 10, "before it everything may be hidden");
    }

    #[test]
    fn block_samples_look_as_decoding_does() {
        let recipe = recipe(1.0);
        let examples = Examples::new(&recipe).unwrap();
        let phases = [Phase::FineTuning, Phase::Results, Phase::Lines];
        for Case {
            masked,
            prompt,
            clean,
        } in phases
            .into_iter()
            .flat_map(|phase| cases(&examples, &recipe, phase, 100))
        {
            let block = recipe.block_length;
            let first = (masked.hidden[0].0 - prompt) / block * block + prompt;
            let end = first + block;
            assert!(
                masked
                    .hidden
                    .iter()
                    .all(|(at, _)| (first..end).contains(at))
            );
            assert_eq!(
                masked.ids[..first],
                clean[..first],
                "earlier blocks are known"
            );
            assert!(masked.ids[end..].iter().all(|id| *id == examples.mask));
        }
    }

    #[test]
    fn answers_are_filled_up_to_the_lengths_by_their_shares() {
        let recipe = recipe(0.0);
        let mut rng = Rng::new(2);
        let lengths: Vec<usize> = (0..10_000)
            .map(|_| answer_length(90, &recipe.lengths, recipe.block_length, &mut rng))
            .collect();
        let share = |length: usize| lengths.iter().filter(|l| **l == length).count() as f64 / 1e4;
        for &(length, wanted) in &recipe.lengths {
            assert!(
                (share(length) - wanted).abs() < 0.02,
                "{length}: {}",
                share(length)
            );
        }
        assert!(share(96) > 0.5, "the others end with their block");
    }
}
