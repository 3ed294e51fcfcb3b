//! What loading will say of the weights, before anything is computed.

use brisk_models::dcae::{Autoencoder, Halves};
use brisk_models::gemma2::Gemma2Model;
use brisk_models::sana::SanaTransformer;
use brisk_models::sana_controlnet::SanaControlNet;
use brisk_nn::{Weights, WeightsBuilder};

use super::pipeline::SanaPipeline;
use super::plan::SanaPlan;
use crate::error::Result;

impl SanaPipeline {
    /// Builds every network that a plan needs and that is not in memory from names and shapes alone, the LoRAs
    /// among them: a transformer's file of another model is found before minutes of reading captions.
    ///
    /// # Errors
    /// What loading says, values apart; values of the LoRAs, which are small, are looked at too.
    pub(super) fn check_weights(&self, plan: &SanaPlan) -> Result<()> {
        let files = &self.files;
        if self.text.is_none() {
            check(files.text.is_low_bit(), self.text_weights()?, |weights| {
                Gemma2Model::load(&files.text.config, weights).map(drop)
            })?;
        }
        if self.transformer.is_none() {
            let low_bit = files.transformer.is_low_bit();
            check(low_bit, self.transformer_weights()?, |weights| {
                SanaTransformer::load(&files.transformer.config, weights).map(drop)
            })?;
            for (lora, _) in &self.files.loras {
                lora.check_values()?;
            }
        }
        if let (None, Some(control)) = (&self.controlnet, &files.control) {
            check(false, control.weights()?, |weights| {
                SanaControlNet::load(&control.network.config, weights).map(drop)
            })?;
        }
        let encodes = plan.init.is_some() || plan.control.is_some();
        for (needed, half) in [
            (encodes && self.encoder.is_none(), Halves::EncoderOnly),
            (self.decoder.is_none(), Halves::DecoderOnly),
        ] {
            if needed {
                check(false, self.autoencoder_weights()?, |weights| {
                    Autoencoder::load(&files.vae.config, weights, half).map(drop)
                })?;
            }
        }
        Ok(())
    }
}

/// Loads from names and shapes alone. Where those do not fit, a container of few bits is loaded in earnest, as
/// that says which of a layer's parts is at fault.
fn check(
    low_bit: bool,
    weights: WeightsBuilder,
    load: impl Fn(&Weights) -> brisk_models::Result<()>,
) -> Result<()> {
    let found = load(&weights.clone().headers_only().build()?);
    match found {
        Err(_) if low_bit => load(&weights.build()?)?,
        other => other?,
    }
    Ok(())
}
