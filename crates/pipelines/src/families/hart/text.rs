//! Prompts to rows of text.

use brisk_models::qwen2::Qwen2Encoder;
use brisk_nn::{Tensor, Trace};

use super::prompt::{EncodedPrompt, PromptTokenizer};
use crate::error::Result;
use crate::events::{Control, StepClock, Work};

/// Rows of text.
pub(super) struct Contexts {
    /// `[prompts, L, D]`
    pub rows: Tensor,
    /// Which are no padding.
    pub masks: Vec<Vec<bool>>,
}

/// The tokens of prompts and of what stands before them.
pub(super) struct TextJob {
    pub system: Vec<u32>,
    pub prompts: Vec<EncodedPrompt>,
}

impl TextJob {
    /// Prompts of `length` tokens each behind a system prompt, if there is one.
    pub fn new(
        tokenizer: &PromptTokenizer,
        prompts: &[String],
        system: Option<&str>,
        length: usize,
    ) -> Result<Self> {
        let system = match system {
            Some(text) => tokenizer.system(text, length)?,
            None => Vec::new(),
        };
        let prompts = prompts.iter().map(|text| tokenizer.prompt(text, length));
        Ok(Self {
            system,
            prompts: prompts.collect::<Result<_>>()?,
        })
    }

    /// Encodes them; what stands before all of them is computed once.
    pub fn run(&self, model: &Qwen2Encoder, control: &Control) -> Result<Contexts> {
        let count = self.prompts.len();
        control.stage("text", Work::Run, count);
        let mut clock = StepClock::new(count);
        let length = self.prompts.first().map_or(0, |prompt| prompt.ids.len());
        let mut prefix = model.prefix(&self.system, length)?;
        let mut rows = Vec::with_capacity(count);
        for prompt in &self.prompts {
            let text = (&prompt.ids[..], &prompt.real[..]);
            let state = model.encode_behind(&mut prefix, text, &mut Trace::none())?;
            rows.push(state.unsqueeze(0)?);
            clock.step(control);
        }
        Ok(Contexts {
            rows: Tensor::cat(&rows, 0)?,
            masks: self
                .prompts
                .iter()
                .map(|prompt| prompt.real.clone())
                .collect(),
        })
    }
}
