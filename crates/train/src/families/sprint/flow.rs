//! SANA's transformer as a network of flow matching.

use brisk_models::sana::{CaptionContext, ForwardExtras, SanaTransformer};
use brisk_nn::{Tensor, Trace};

use crate::error::{Error, Result};
use crate::objectives::FlowNetwork;

impl FlowNetwork for SanaTransformer {
    type Caption = CaptionContext;

    fn velocity(
        &self,
        x: &Tensor,
        time: &Tensor,
        guidance: Option<&[f64]>,
        caption: &CaptionContext,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let config = self.config();
        if config.output_channels() != config.in_channels {
            return Err(Error::Data(format!(
                "the transformer predicts {} channels of latents with {}; a model that learned its variance cannot be \
                 distilled",
                config.output_channels(),
                config.in_channels
            )));
        }
        let strengths = guidance.map(|strengths| {
            let scaled = strengths
                .iter()
                .map(|w| (w * config.guidance_embeds_scale) as f32);
            Tensor::from_vec(scaled.collect::<Vec<f32>>(), strengths.len())
        });
        let (strengths, extras) = (strengths.transpose()?, ForwardExtras::default());
        Ok(self.forward_traced(x, time, strengths.as_ref(), caption, &extras, trace)?)
    }

    fn join(captions: &[&CaptionContext]) -> Result<CaptionContext> {
        Ok(CaptionContext::concat(captions)?)
    }

    fn embedding() -> &'static str {
        "time_embed.embedded"
    }

    fn block(index: usize) -> String {
        format!("transformer_blocks.{index}")
    }
}
