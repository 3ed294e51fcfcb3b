//! SANA's transformer as a network of flow matching.

use brisk_models::sana::{CaptionContext, ForwardExtras, SanaConfig, SanaTransformer};
use brisk_nn::{Tensor, Trace};

use crate::error::{Error, Result};
use crate::objectives::FlowNetwork;

/// Refuses a transformer that learned its variance.
pub(super) fn check_channels(config: &SanaConfig) -> Result<()> {
    match config.output_channels() == config.in_channels {
        true => Ok(()),
        false => Err(Error::Data(format!(
            "the transformer predicts {} channels of latents with {}; a model that learned its variance cannot be \
             distilled",
            config.output_channels(),
            config.in_channels
        ))),
    }
}

/// Strengths of guidance as a transformer embeds them, one a sample.
pub(super) fn strengths(config: &SanaConfig, guidance: Option<&[f64]>) -> Result<Option<Tensor>> {
    let Some(strengths) = guidance else {
        return Ok(None);
    };
    let scaled = strengths
        .iter()
        .map(|w| (w * config.guidance_embeds_scale) as f32);
    let scaled: Vec<f32> = scaled.collect();
    Ok(Some(Tensor::from_vec(scaled, strengths.len())?))
}

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
        check_channels(config)?;
        let (strengths, extras) = (strengths(config, guidance)?, ForwardExtras::default());
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
