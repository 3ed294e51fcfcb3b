//! The loop that writes, token by token, once everything is decided.

use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::language_model::{LanguageModel, Place, Rows};
use brisk_nn::{KeyValueCache, Tensor, Trace, logits};

use super::files::Drawing;
use super::prompt::Piece;
use crate::autoregressive::Sampling;
use crate::error::Result;
use crate::events::{Control, Event, Work};
use crate::random::Random;
use crate::request::TextPlan;

/// What was decided of a request.
pub(super) struct Decided {
    pub prompts: Vec<Vec<Piece>>,
    pub pictures: Vec<Arc<Picture>>,
    pub drawing: Drawing,
    pub ends: Vec<u32>,
    pub length: usize,
    pub seed: u64,
}

/// An answer, with the token that ended it.
pub(super) struct Written {
    pub answer: Vec<u32>,
    pub ended: bool,
    pub passes: usize,
}

/// A text on its way.
struct Sequence {
    cache: KeyValueCache,
    filled: usize,
    answer: Vec<u32>,
    ended: bool,
}

/// A prompt as the model sees it, `[T,H]`.
fn embedded(language: &LanguageModel, prompt: &[Piece], seen: &[Tensor]) -> Result<Tensor> {
    let parts = prompt.iter().map(|piece| match piece {
        Piece::Tokens(ids) => Ok(language.embed(ids)?),
        Piece::Picture(index) => Ok(seen[*index].clone()),
    });
    Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

/// The score of every token to follow a prompt and the tokens behind it.
pub(super) fn next_scores(
    language: &LanguageModel,
    prompt: &[Piece],
    seen: &[Tensor],
    behind: &[u32],
) -> Result<Vec<f32>> {
    let mut row = embedded(language, prompt, seen)?;
    if !behind.is_empty() {
        row = Tensor::cat(&[row, language.embed(behind)?], 0)?;
    }
    let tokens = row.dim(0)?;
    let place = Place {
        tokens,
        start: 0,
        pad: 0,
    };
    let mut cache = language.cache(tokens)?;
    let hidden = language.hidden_of(
        &row,
        &[place],
        &mut [Some(&mut cache)],
        Rows::Some(&[(0, tokens - 1)]),
        &mut Trace::none(),
    )?;
    let rows = language.logits(&hidden)?.to_vec2::<f32>()?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

/// Writes all texts, a token each at a time.
pub(super) fn write(
    language: &LanguageModel,
    decided: &Decided,
    seen: &[Tensor],
    plan: &TextPlan,
    control: &Control,
) -> Result<Vec<Written>> {
    control.stage("text", Work::Run, 0);
    let mut rows = Vec::with_capacity(decided.prompts.len());
    let mut sequences = Vec::with_capacity(decided.prompts.len());
    for prompt in &decided.prompts {
        let row = embedded(language, prompt, seen)?;
        let filled = row.dim(0)?;
        sequences.push(Sequence {
            cache: language.cache(filled + decided.length)?,
            filled: 0,
            answer: Vec::new(),
            ended: false,
        });
        rows.push(row);
    }
    let mut passes = vec![0; sequences.len()];
    for _ in 0..decided.length {
        let running: Vec<usize> = (0..sequences.len())
            .filter(|at| !sequences[*at].ended)
            .collect();
        if running.is_empty() {
            break;
        }
        let inputs: Vec<&Tensor> = running.iter().map(|at| &rows[*at]).collect();
        let places: Vec<Place> = running
            .iter()
            .map(|at| {
                Ok(Place {
                    tokens: rows[*at].dim(0)?,
                    start: sequences[*at].filled,
                    pad: 0,
                })
            })
            .collect::<Result<_>>()?;
        let lasts: Vec<(usize, usize)> = places
            .iter()
            .enumerate()
            .map(|(at, place)| (at, place.tokens - 1))
            .collect();
        let mut caches: Vec<Option<&mut KeyValueCache>> = sequences
            .iter_mut()
            .filter(|sequence| !sequence.ended)
            .map(|sequence| Some(&mut sequence.cache))
            .collect();
        let hidden = language.hidden_of(
            &Tensor::cat(&inputs, 0)?,
            &places,
            &mut caches,
            Rows::Some(&lasts),
            &mut Trace::none(),
        )?;
        let logits = language.logits(&hidden)?.to_vec2::<f32>()?;
        for ((at, place), mut logits) in running.iter().zip(&places).zip(logits) {
            let sequence = &mut sequences[*at];
            sequence.filled += place.tokens;
            passes[*at] += 1;
            let step = sequence.answer.len() as u64;
            let token = choose(
                &mut logits,
                &decided.drawing,
                Random::new(decided.seed).at(step),
            );
            sequence.answer.push(token);
            sequence.ended = decided.ends.contains(&token);
            rows[*at] = language.embed(&[token])?;
            if control.wants_canvas() {
                control.send(Event::Canvas {
                    sequence: *at,
                    tokens: [&plan.prompts[*at][..], &sequence.answer].concat(),
                    // Nothing is left open in what was written.
                    mask: u32::MAX,
                    start: plan.shown_from[*at],
                });
            }
        }
    }
    let written = sequences.into_iter().zip(passes);
    Ok(written
        .map(|(sequence, passes)| Written {
            answer: sequence.answer,
            ended: sequence.ended,
            passes,
        })
        .collect())
}

/// The next token.
fn choose(logits: &mut [f32], drawing: &Drawing, random: Random) -> u32 {
    if drawing.temperature == 0.0 {
        return logits::likeliest(logits);
    }
    let factor = 1.0 / drawing.temperature as f32;
    logits.iter_mut().for_each(|logit| *logit *= factor);
    let sampling = Sampling {
        top_k: drawing.top_k,
        top_p: drawing.top_p,
    };
    sampling.limit(logits);
    Sampling::draw(logits, random.uniform())
}
