//! What a request costs: memory, and work if every step is taken.

use brisk_models::Cost;

use super::algorithm::CacheMode;
use super::decoding::{DecoderKind, Decoding, DecodingPlan};
use super::pipeline::TextPipeline;
use crate::error::Result;
use crate::request::{StageCost, StageMemory, TextPlan};

/// The one stage.
const STAGE: &str = "text";

impl TextPipeline {
    /// Caches of all prompts, and the maps of one pass over all of them.
    pub(super) fn memory(&self, prompts: &[Vec<u32>], decoding: &Decoding) -> StageMemory {
        let config = self.model.config();
        let positions: usize = prompts
            .iter()
            .map(|prompt| prompt.len().saturating_add(decoding.gen_length))
            .fold(0, usize::saturating_add);
        let kept = match decoding.cache {
            CacheMode::None => 0,
            _ => 2 * config.num_layers * config.key_width(),
        };
        let widths = 4 * config.hidden_size + 3 * config.intermediate_size + config.vocab_size;
        let bytes = 4 * (kept + widths) as u64 * branches(decoding);
        StageMemory {
            stage: STAGE,
            needed: bytes.saturating_mul(positions as u64),
        }
    }

    /// The passes of a plan.
    pub(super) fn plan_cost(&self, plan: &TextPlan) -> Result<StageCost> {
        let decided = self.decided_of(plan)?;
        let mut cost = Cost::new(STAGE);
        for prompt in &plan.prompts {
            cost.add(&self.sequence_cost(prompt.len(), &decided.decoding, &decided.plan));
        }
        Ok(StageCost {
            cost: cost.repeated(branches(&decided.decoding)),
            weight_bytes: self.bytes_per_weight,
        })
    }

    fn sequence_cost(&self, prompt: usize, decoding: &Decoding, plan: &DecodingPlan) -> Cost {
        let config = self.model.config();
        let mut cost = Cost::new(STAGE);
        let mut add = |times: usize, tokens: usize, keys: usize, rows: usize| {
            let pass = Cost::sum(STAGE, &config.pass_cost(tokens, keys, rows));
            cost.add(&pass.repeated(times as u64));
        };
        let length = decoding.gen_length;
        let whole = prompt + length;
        let (block, blocks) = (plan.block_length, plan.blocks);
        let steps = plan.steps_per_block();
        // Halfway through the answer, on average.
        let middle = prompt + length / 2;
        match (plan.decoder, decoding.cache) {
            (DecoderKind::BlockCausal, CacheMode::None) => {
                add(blocks * steps, middle, middle, block);
            }
            (DecoderKind::BlockCausal, _) => {
                add(1, prompt, prompt, 1);
                // One pass more over each full block leaves its keys.
                add(blocks * (steps + 1), block, middle, block);
            }
            (DecoderKind::DreamWhole, _) => add(plan.steps, whole, whole, length / 2),
            (_, CacheMode::None) => add(plan.steps, whole, whole, block),
            (_, cache) => {
                let rest = match cache {
                    CacheMode::Dual => block,
                    _ => length.div_ceil(2),
                };
                add(blocks, whole, whole, block);
                add(blocks * steps.saturating_sub(1), rest, whole, block);
            }
        }
        cost
    }
}

/// With guidance every pass is two.
fn branches(decoding: &Decoding) -> u64 {
    if decoding.guidance > 0.0 { 2 } else { 1 }
}
