//! Prompts to caption rows, without the rows that masks would hide.
//!
//! Attention is causal and padding stands on the right, so leaving padding out changes no number.
//! What a constant instruction contributes is computed once for several prompts.

use brisk_models::gemma2::{Gemma2Model, Prefix};
use brisk_nn::Tensor;
use brisk_text::Tokenizer;

use super::plan::SanaPlan;
use super::prompt::{self, EncodedPrompt};
use crate::error::Result;
use crate::events::{Control, StepClock, Work};
use crate::tokenizer::truncated_warning;

/// Id that the reference pads with.
const PADDING: u32 = 0;

/// Caption rows `[1, L, D]` of every prompt, where the text encoder computes.
pub(super) struct Captions {
    pub(super) conditional: Vec<Tensor>,
    /// One for all prompts, or one per prompt; empty without guidance.
    pub(super) unconditional: Vec<Tensor>,
}

/// What to encode.
pub(super) struct TextJob<'a> {
    pub(super) prompts: &'a [String],
    pub(super) instruction: Option<&'a str>,
    pub(super) max_tokens: usize,
    /// The negative prompt, where there is guidance.
    pub(super) negative: Option<&'a str>,
    /// Show the negative prompt through the mask of each prompt, as the authors' code does.
    pub(super) native: bool,
}

impl<'a> TextJob<'a> {
    /// The texts of a plan.
    pub(super) fn of(plan: &'a SanaPlan, native: bool) -> Self {
        Self {
            prompts: &plan.prompts,
            instruction: plan.instruction.as_deref(),
            max_tokens: plan.max_tokens,
            negative: plan.negative.as_deref(),
            native,
        }
    }

    pub(super) fn encode_prompts(
        &self,
        tokenizer: &Tokenizer,
        control: &Control,
    ) -> Result<Vec<EncodedPrompt>> {
        self.prompts
            .iter()
            .map(|prompt| {
                let encoded = prompt::encode(tokenizer, prompt, self.instruction, self.max_tokens)?;
                if encoded.truncated {
                    control.warn(truncated_warning(prompt, self.max_tokens));
                }
                Ok(encoded)
            })
            .collect()
    }

    pub(super) fn run(
        &self,
        tokenizer: &Tokenizer,
        model: &Gemma2Model,
        control: &Control,
    ) -> Result<Captions> {
        let encoded = self.encode_prompts(tokenizer, control)?;
        let shared = SharedPrefix::compute(model, &encoded)?;
        let total = encoded.len() + usize::from(self.negative.is_some());
        control.stage("text", Work::Run, total);
        let mut clock = StepClock::new(total);
        let mut conditional = Vec::with_capacity(encoded.len());
        for prompt in &encoded {
            conditional.push(match &shared {
                Some(shared) if shared.covers(prompt) => shared.rows(model, prompt)?,
                _ => {
                    let hidden = model.forward(&row(&prompt.ids)?, None)?;
                    select(&hidden, &prompt.selected)?
                }
            });
            clock.step(control);
        }
        let mut unconditional = Vec::new();
        if let Some(negative) = self.negative {
            let negative = prompt::encode(tokenizer, negative, None, self.max_tokens)?;
            if self.native {
                for caption in &conditional {
                    unconditional.push(masked_as(model, &negative.ids, caption.dim(1)?)?);
                }
            } else {
                unconditional.push(select(
                    &model.forward(&row(&negative.ids)?, None)?,
                    &negative.selected,
                )?);
            }
            clock.step(control);
        }
        Ok(Captions {
            conditional,
            unconditional,
        })
    }
}

/// The first `length` rows of a padded encoding: padding sees the text, and whoever reads these rows
/// sees padding.
fn masked_as(model: &Gemma2Model, ids: &[u32], length: usize) -> Result<Tensor> {
    let mut padded = ids.to_vec();
    padded.resize(length, PADDING);
    let mask: Vec<u32> = (0..length)
        .map(|position| u32::from(position < ids.len()))
        .collect();
    Ok(model.forward(&row(&padded)?, Some(&row(&mask)?))?)
}

fn row(ids: &[u32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(ids, (1, ids.len()))?)
}

/// Some rows of `[1, T, D]`.
fn select(hidden: &Tensor, positions: &[usize]) -> Result<Tensor> {
    if positions.len() == hidden.dim(1)? {
        return Ok(hidden.clone());
    }
    let positions: Vec<u32> = positions.iter().map(|position| *position as u32).collect();
    let rows = hidden.squeeze(0)?;
    Ok(rows
        .index_select(&Tensor::new(positions)?, 0)?
        .unsqueeze(0)?)
}

/// Keys and values of the tokens that several prompts begin with, and the row of the first of them.
struct SharedPrefix {
    ids: Vec<u32>,
    prefix: Prefix,
    first_row: Tensor,
}

impl SharedPrefix {
    /// Worth it from two prompts on that share an instruction.
    fn compute(model: &Gemma2Model, prompts: &[EncodedPrompt]) -> Result<Option<Self>> {
        let Some(length) = prompts.iter().map(|prompt| prompt.instruction_tokens).min() else {
            return Ok(None);
        };
        if prompts.len() < 2 || length == 0 {
            return Ok(None);
        }
        let Some(ids) = prompts[0].ids.get(..length) else {
            return Ok(None);
        };
        let first_row = model.forward(&row(&ids[..1])?, None)?;
        Ok(Some(Self {
            ids: ids.to_vec(),
            prefix: model.prefix(ids)?,
            first_row,
        }))
    }

    /// Whether the prompt really begins with these tokens and needs no row of theirs but the first.
    fn covers(&self, prompt: &EncodedPrompt) -> bool {
        prompt.ids.len() > self.ids.len()
            && prompt.ids.starts_with(&self.ids)
            && prompt
                .selected
                .iter()
                .all(|&position| position == 0 || position >= self.ids.len())
    }

    fn rows(&self, model: &Gemma2Model, prompt: &EncodedPrompt) -> Result<Tensor> {
        let start = self.ids.len();
        let hidden = model.forward_with_prefix(&self.prefix, &row(&prompt.ids[start..])?)?;
        let later: Vec<usize> = prompt
            .selected
            .iter()
            .filter(|&&position| position >= start)
            .map(|position| position - start)
            .collect();
        let later = select(&hidden, &later)?;
        if prompt.selected.first() == Some(&0) {
            return Ok(Tensor::cat(&[&self.first_row, &later], 1)?);
        }
        Ok(later)
    }
}
