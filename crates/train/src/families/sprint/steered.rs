//! A transformer with the ControlNet that steers it, where there is one, as a network of flow matching.

use brisk_models::sana::{CaptionContext, ForwardExtras, SanaTransformer};
use brisk_models::sana_controlnet::{ControlStart, SanaControlNet};
use brisk_nn::{Tensor, Trace};

use super::flow::{check_channels, strengths};
use crate::error::{Error, Result};
use crate::objectives::FlowNetwork;

/// The networks.
#[derive(Debug)]
pub(super) struct Steered {
    pub transformer: SanaTransformer,
    pub controlnet: Option<SanaControlNet>,
}

/// What a picture is drawn by.
#[derive(Debug, Clone)]
pub(super) struct SteeredCaption {
    own: CaptionContext,
    /// The text as the ControlNet takes it, and what it is shown `[B,h,w,C]`.
    controls: Option<(CaptionContext, Tensor)>,
}

impl SteeredCaption {
    /// The same once for each of `count` samples; with a ControlNet they are shown `shown`.
    pub fn repeat(&self, count: usize, shown: Option<&Tensor>) -> Result<Self> {
        let controls = match (&self.controls, shown) {
            (Some((context, _)), Some(shown)) => Some((context.repeat(count)?, shown.clone())),
            _ => None,
        };
        Ok(Self {
            own: self.own.repeat(count)?,
            controls,
        })
    }
}

impl Steered {
    /// Rows of texts as both networks take them; `shown` is what the ControlNet is shown, one latent a text.
    ///
    /// # Errors
    /// Rows of another width, or a ControlNet that is shown nothing.
    pub fn encode_caption(
        &self,
        text: &Tensor,
        lengths: &[usize],
        shown: Option<&Tensor>,
    ) -> Result<SteeredCaption> {
        let controls = match (&self.controlnet, shown) {
            (Some(controlnet), Some(shown)) => {
                Some((controlnet.encode_caption(text, lengths)?, shown.clone()))
            }
            (Some(_), None) => {
                let message = "a ControlNet without what it is shown";
                return Err(Error::Data(message.to_owned()));
            }
            (None, _) => None,
        };
        Ok(SteeredCaption {
            own: self.transformer.encode_caption(text, lengths)?,
            controls,
        })
    }

    /// What the ControlNet adds behind the transformer's blocks; nothing where there is none. `strengths` are scaled as the
    /// networks take them.
    pub fn residuals(
        &self,
        x: &Tensor,
        time: &Tensor,
        strengths: Option<&Tensor>,
        caption: &SteeredCaption,
    ) -> Result<Vec<Tensor>> {
        let (Some(controlnet), Some((context, shown))) = (&self.controlnet, &caption.controls)
        else {
            return Ok(Vec::new());
        };
        let start = ControlStart::Latent(x);
        Ok(controlnet.forward(start, shown, time, strengths, context, 1.0)?)
    }

    /// The velocity, with strengths of guidance as the networks take them.
    pub fn velocity_with(
        &self,
        x: &Tensor,
        time: &Tensor,
        strengths: Option<&Tensor>,
        caption: &SteeredCaption,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let residuals = self.residuals(x, time, strengths, caption)?;
        let extras = ForwardExtras {
            residuals: &residuals,
            ..ForwardExtras::default()
        };
        let transformer = &self.transformer;
        Ok(transformer.forward_traced(x, time, strengths, &caption.own, &extras, trace)?)
    }
}

impl FlowNetwork for Steered {
    type Caption = SteeredCaption;

    fn velocity(
        &self,
        x: &Tensor,
        time: &Tensor,
        guidance: Option<&[f64]>,
        caption: &SteeredCaption,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let config = self.transformer.config();
        check_channels(config)?;
        let strengths = strengths(config, guidance)?;
        self.velocity_with(x, time, strengths.as_ref(), caption, trace)
    }

    fn join(captions: &[&SteeredCaption]) -> Result<SteeredCaption> {
        let own: Vec<&CaptionContext> = captions.iter().map(|caption| &caption.own).collect();
        let controls: Vec<&(CaptionContext, Tensor)> = captions
            .iter()
            .filter_map(|caption| caption.controls.as_ref())
            .collect();
        let controls = match controls.is_empty() {
            true => None,
            false => {
                let contexts: Vec<&CaptionContext> =
                    controls.iter().map(|(context, _)| context).collect();
                let shown: Vec<&Tensor> = controls.iter().map(|(_, shown)| shown).collect();
                Some((CaptionContext::concat(&contexts)?, Tensor::cat(&shown, 0)?))
            }
        };
        Ok(SteeredCaption {
            own: CaptionContext::concat(&own)?,
            controls,
        })
    }

    fn embedding() -> &'static str {
        SanaTransformer::embedding()
    }

    fn block(index: usize) -> String {
        SanaTransformer::block(index)
    }
}
