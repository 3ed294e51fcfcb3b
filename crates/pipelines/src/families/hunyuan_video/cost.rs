//! What a request costs, for measuring how well a machine runs it.

use brisk_models::Cost;

use super::pipeline::VideoPipeline;
use super::plan::ClipPlan;
use super::text::encode;
use crate::error::Result;
use crate::request::StageCost;

impl VideoPipeline {
    /// Costs of the stages `text`, `encode` where a picture is given, `denoise` and `decode`.
    ///
    /// # Errors
    /// A prompt that cannot be tokenised.
    pub(super) fn stage_costs(&self, plan: &ClipPlan) -> Result<Vec<StageCost>> {
        let files = &self.files;
        let [_, frames, rows, columns] = plan.latent_shape(files);
        let (mut text, mut step) = (Cost::new("text"), Cost::new("denoise"));
        let pooled = files.pooled.config.max_position_embeddings;
        for prompt in [Some(&plan.prompt), plan.negative.as_ref()]
            .into_iter()
            .flatten()
        {
            let tokens = encode(files, prompt, plan.picture.is_some())?.ids.len();
            let pictures = usize::from(plan.picture.is_some());
            for part in files.text.config.encode_cost(tokens, pictures) {
                text.add(&part);
            }
            text.add(&files.pooled.config.cost(tokens.min(pooled)));
            let pass = files.config.step_cost([frames, rows, columns], tokens);
            step.add(&Cost::sum("", &pass));
        }
        let denoise = step.repeated(plan.steps as u64);
        let stored = files.text.bytes_per_value();
        let mut costs = vec![StageCost {
            cost: text,
            weight_bytes: self.options.text_quantization.bytes_per_value(stored),
        }];
        // Convolutions compute on f32 copies, whatever the file holds.
        let convolutions = 4.0;
        let autoencoder = &files.autoencoder_config;
        if plan.picture.is_some() {
            let [width, height] = plan.size;
            costs.push(StageCost {
                cost: Cost::sum("encode", &autoencoder.encode_cost([1, height, width])),
                weight_bytes: convolutions,
            });
        }
        let how = self.options.transformer_quantization;
        costs.push(StageCost {
            cost: denoise,
            weight_bytes: how.bytes_per_value(files.transformer.bytes_per_value()),
        });
        costs.push(StageCost {
            cost: Cost::sum("decode", &autoencoder.decode_cost([frames, rows, columns])),
            weight_bytes: convolutions,
        });
        Ok(costs)
    }
}
