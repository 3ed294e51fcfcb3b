//! What a request costs, for measuring how well a machine runs it.

use brisk_models::Cost;

use super::SanaPipeline;
use super::plan::SanaPlan;
use super::prompt;
use super::text::TextJob;
use crate::error::Result;
use crate::events::Control;
use crate::request::{PREVIEWS, StageCost};

impl SanaPipeline {
    /// Costs of the stages that every request has, `text`, `denoise` and `decode`, and of previews. Initial
    /// and control pictures are not counted, and one-row captions as if they were attended to.
    ///
    /// # Errors
    /// A prompt that can't be tokenised.
    pub(super) fn stage_costs(&self, plan: &SanaPlan) -> Result<Vec<StageCost>> {
        let files = &self.files;
        let job = TextJob::of(plan, self.options.native);
        let encoded = job.encode_prompts(&files.tokenizer, &Control::silent())?;
        let negative = plan
            .negative
            .as_deref()
            .map(|text| prompt::encode(&files.tokenizer, text, None, plan.max_tokens))
            .transpose()?;

        let mut text = Cost::new("text");
        for prompt in encoded.iter().chain(&negative) {
            for part in files.text.config.encode_cost(prompt.ids.len(), 0) {
                text.add(&part);
            }
        }

        let ratio = files.vae.config.ratio();
        let (height, width) = (plan.height / ratio, plan.width / ratio);
        let config = &files.transformer.config;
        let rows = encoded
            .iter()
            .map(|prompt| prompt.selected.len())
            .max()
            .unwrap_or(1);
        let perturbed = usize::from(plan.pag.is_some());
        let mut denoise = Cost::new("denoise");
        let mut add = |tokens: usize, branches: usize| {
            let images = plan.images * branches;
            let step = Cost::sum("step", &config.step_cost(images, height, width, tokens));
            denoise.add(&step.repeated(plan.steps as u64));
            denoise.add(&config.caption_cost(plan.prompts.len(), tokens));
        };
        add(rows, 1 + perturbed);
        if let Some(negative) = &negative {
            add(negative.selected.len(), 1);
        }

        let decode = Cost::sum(
            "decode",
            &files.vae.config.decode_cost(plan.height, plan.width),
        );
        let shown = plan.preview_steps.len() as u64;
        let previews = (shown > 0).then(|| match &files.preview {
            Some(small) => small.cost(height * width).repeated(plan.images as u64),
            None => decode.clone(),
        });
        let previews = previews.map(|preview| StageCost {
            cost: Cost {
                name: PREVIEWS.to_owned(),
                ..preview.repeated(shown)
            },
            weight_bytes: 4.0,
        });
        let mut costs = vec![
            StageCost {
                cost: text,
                weight_bytes: self
                    .options
                    .text_quantization
                    .bytes_per_value(files.text.bytes_per_value()),
            },
            StageCost {
                cost: denoise,
                weight_bytes: self
                    .options
                    .transformer_quantization
                    .bytes_per_value(files.transformer.bytes_per_value()),
            },
            // Convolutions compute on f32 copies, whatever the file holds.
            StageCost {
                cost: decode.repeated(plan.images as u64),
                weight_bytes: 4.0,
            },
        ];
        costs.extend(previews);
        Ok(costs)
    }

    /// Tokens of the prompts, with what the text encoder reads before them.
    pub(super) fn tokens_of_prompts(&self, plan: &SanaPlan) -> Result<usize> {
        let job = TextJob::of(plan, self.options.native);
        let encoded = job.encode_prompts(&self.files.tokenizer, &Control::silent())?;
        Ok(encoded.iter().map(|prompt| prompt.ids.len()).sum())
    }
}
