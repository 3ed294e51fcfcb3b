//! The networks of a run and their parameters.

use brisk_models::clip::ClipText;
use brisk_models::hunyuan_video::transformer::{VideoConditioning, VideoTransformer};
use brisk_models::llava::Llava;
use brisk_nn::{Tensor, Weights};

use super::configs::Configs;
use super::start::VideoStart;
use super::texts::{Prompt, conditioning};
use crate::error::Result;
use crate::families::part_weights::PartWeights;
use crate::session::check_start_but;
use crate::tensors::{self, NamedArray};

/// What the names of the parameters of each begin with, and the folders that they are written to.
pub(crate) const TRANSFORMER: &str = "transformer";
pub(crate) const TEXT_ENCODER: &str = "text_encoder";
pub(crate) const TEXT_ENCODER_2: &str = "text_encoder_2";

/// Refuses a `start` that lacks some of the parameters, those apart that read pictures.
pub(super) fn check(weights: &PartWeights<3>, start: Option<&VideoStart>) -> Result<()> {
    let Some(start) = start else { return Ok(()) };
    let parts = weights.parts().iter().zip(start.sources());
    for (weights, source) in parts {
        check_start_but(weights, &*source, |name| {
            start.reads_text_alone()
                && ["vision_tower.", "multi_modal_projector."]
                    .iter()
                    .any(|part| name.starts_with(&format!("{TEXT_ENCODER}.{part}")))
        })?;
    }
    Ok(())
}

/// Text encoders and transformer.
pub(crate) struct Models {
    pub text: Llava,
    pub pooled: ClipText,
    pub transformer: VideoTransformer,
}

impl Models {
    /// Over the variables of a run, which are made where they are asked for first.
    pub(super) fn trainable(configs: &Configs, weights: &PartWeights<3>) -> Result<Self> {
        let [text, pooled, transformer] = weights.parts();
        let transformer = transformer.pp(TRANSFORMER);
        Ok(Self {
            text: Llava::load(&configs.text, &text.pp(TEXT_ENCODER))?,
            pooled: ClipText::load(&configs.pooled, &pooled.pp(TEXT_ENCODER_2))?,
            transformer: VideoTransformer::load(&configs.transformer, &transformer)?,
        })
    }

    /// From the moving average, as it will be written when `rounded`.
    pub(super) fn frozen(configs: &Configs, arrays: &[NamedArray], rounded: bool) -> Result<Self> {
        let part = |prefix: &str| {
            tensors::memory_source(arrays, &format!("{prefix}."), rounded).map(Weights::from_source)
        };
        Ok(Self {
            text: Llava::load(&configs.text, &part(TEXT_ENCODER)?)?,
            pooled: ClipText::load(&configs.pooled, &part(TEXT_ENCODER_2)?)?,
            transformer: VideoTransformer::load(&configs.transformer, &part(TRANSFORMER)?)?,
        })
    }

    /// What the transformer is led by of a prompt and the picture that the text encoder sees.
    pub fn conditioning(
        &self,
        prompt: &Prompt,
        pixels: Option<&Tensor>,
    ) -> Result<VideoConditioning> {
        conditioning(&self.text, &self.pooled, prompt, pixels)
    }
}
