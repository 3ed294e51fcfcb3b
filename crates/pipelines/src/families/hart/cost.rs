//! What a request costs, for measuring how well a machine runs it.

use brisk_models::Cost;

use super::pipeline::HartPipeline;
use super::plan::HartPlan;
use super::prompt::EncodedPrompt;
use crate::error::Result;
use crate::request::{PREVIEWS, StageCost};

impl HartPipeline {
    /// Costs of the stages `text`, `generate` and `decode`, and of previews, which are decoded as pictures are.
    ///
    /// # Errors
    /// A prompt that cannot be tokenised.
    pub(super) fn stage_costs(&self, plan: &HartPlan) -> Result<Vec<StageCost>> {
        let files = &self.files;
        let images = plan.images() as u64;
        let mut costs = Vec::new();
        if plan.draws(files) {
            let job = self.text_job(plan)?;
            let mut text = Cost::new("text");
            if let Some(encoder) = &files.text {
                let (before, length) = (job.system.len(), files.config.context_token);
                for part in encoder.network.config.encode_cost(before, 0) {
                    text.add(&part);
                }
                for part in encoder.network.config.encode_cost(length, before) {
                    text.add(&part.repeated(job.prompts.len() as u64));
                }
                let stored = encoder.network.bytes_per_value();
                costs.push(StageCost {
                    cost: text,
                    weight_bytes: self.options.text_quantization.bytes_per_value(stored),
                });
            }
            let guided = plan.branches() > 1;
            let pass = files.config.pass_cost(files.codewords(), guided);
            let mut generate = Cost::sum("generate", &pass);
            if plan.residual {
                let places = plan.branches() * files.scales.side().pow(2);
                let head = files.config.head_cost(files.codewords(), places);
                generate.add(&head.repeated(plan.steps as u64));
            }
            let how = self.options.transformer_quantization;
            costs.push(StageCost {
                cost: generate.repeated(images),
                weight_bytes: how.bytes_per_value(files.weight_bytes()),
            });
        }
        let side = files.scales.side();
        let decode = Cost::sum("decode", &files.tokenizer_config.decode_cost(side, side));
        // Convolutions compute on f32 copies, whatever the file holds.
        let weight_bytes = 4.0;
        let shown = plan.preview_steps.len() as u64;
        if shown > 0 {
            costs.push(StageCost {
                cost: Cost {
                    name: PREVIEWS.to_owned(),
                    ..decode.repeated(images * shown)
                },
                weight_bytes,
            });
        }
        costs.push(StageCost {
            cost: decode.repeated(images),
            weight_bytes,
        });
        Ok(costs)
    }

    /// Tokens of the prompts and of what stands before them.
    pub(super) fn tokens_of_prompts(&self, plan: &HartPlan) -> Result<usize> {
        if !plan.draws(&self.files) {
            return Ok(0);
        }
        let job = self.text_job(plan)?;
        let real = |prompt: &EncodedPrompt| prompt.real.iter().filter(|real| **real).count();
        let prompts = job
            .prompts
            .iter()
            .map(|prompt| job.system.len() + real(prompt));
        Ok(prompts.sum())
    }
}
