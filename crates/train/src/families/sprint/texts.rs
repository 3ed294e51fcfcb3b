//! Prompts as the teacher's text encoder gives them to its transformer.

use std::sync::Arc;

use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::sana::compact_text;
use brisk_nn::{Tensor, Weights};
use brisk_pipelines::families::sana::prompt::{self, EncodedPrompt};
use brisk_text::Tokenizer;

use super::SprintTeacher;
use crate::error::Result;

/// The frozen text encoder with its tokenizer.
pub(super) struct Texts {
    encoder: Gemma2Model,
    tokenizer: Arc<Tokenizer>,
    instruction: String,
    max_tokens: usize,
}

impl Texts {
    pub fn load(
        config: &Gemma2Config,
        weights: &Weights,
        teacher: &SprintTeacher,
        max_tokens: usize,
    ) -> Result<Self> {
        Ok(Self {
            encoder: Gemma2Model::load(config, weights)?,
            tokenizer: Arc::clone(&teacher.tokenizer),
            instruction: teacher.instruction.clone(),
            max_tokens,
        })
    }

    /// A prompt behind the model's instruction.
    pub fn tokens(&self, text: &str) -> Result<EncodedPrompt> {
        let instruction = Some(self.instruction.as_str());
        Ok(prompt::encode(
            &self.tokenizer,
            text,
            instruction,
            self.max_tokens,
        )?)
    }

    /// Rows `[B,L,D]` of the prompts' tokens with the number of each one's.
    pub fn encode(&self, prompts: &[EncodedPrompt]) -> Result<(Tensor, Vec<usize>)> {
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max();
        let longest = longest.unwrap_or(0);
        // Padded on the right with 0: attention is causal, so no valid row sees the padding.
        let mut ids = vec![0u32; prompts.len() * longest];
        let mut mask = vec![vec![false; longest]; prompts.len()];
        let rows = ids.chunks_exact_mut(longest.max(1)).zip(&mut mask);
        for ((row, mask), prompt) in rows.zip(prompts) {
            row[..prompt.ids.len()].copy_from_slice(&prompt.ids);
            for position in &prompt.selected {
                mask[*position] = true;
            }
        }
        let ids = Tensor::from_vec(ids, (prompts.len(), longest))?;
        let hidden = self.encoder.forward(&ids, None)?;
        Ok(compact_text(&hidden, &mask)?)
    }
}
