//! What can be quantized of SANA's pipelines: the transformer by SVDQuant, the text encoder by AWQ.

use brisk_models::gemma2::Gemma2Layout;
use brisk_models::sana::{SanaConfig, SanaLayout};
use brisk_nn::InputWatcher;
use brisk_quant::LowBitLayout;

use super::SanaPipeline;
use crate::error::Result;
use crate::events::Control;
use crate::options::keys;
use crate::quantize::{Calibration, Component, Layout, Quantizable};
use crate::request::{ImageModel, ImageRequest};

/// How the layers of a transformer with this configuration lie in 4-bit files.
///
/// # Errors
/// A configuration of another model.
pub(super) fn low_bit_layout(config: &[u8], label: &str) -> Result<Box<dyn LowBitLayout>> {
    let config = SanaConfig::from_json(config, label)?;
    Ok(Box::new(SanaLayout::of(&config)))
}

const TRANSFORMER: &str = "transformer";
const TEXT_ENCODER: &str = "text_encoder";

impl Quantizable for SanaPipeline {
    fn components(&self) -> Vec<Component> {
        let layout = SanaLayout::of(self.transformer_config());
        let transformer = Component {
            name: TRANSFORMER,
            source: self.transformer_source().cloned(),
            layout: Layout::SvdQuant(Box::new(layout)),
            file: "diffusion_pytorch_model.safetensors",
        };
        let encoder = self.text_source().map(|source| Component {
            name: TEXT_ENCODER,
            source: Some(source.clone()),
            layout: Layout::Awq(Box::new(Gemma2Layout::of(self.text_config(), &**source))),
            file: "model.safetensors",
        });
        [Some(transformer), encoder].into_iter().flatten().collect()
    }

    fn check(&self, calibration: &Calibration) -> Result<()> {
        self.plan(&request(calibration, 0)).map(drop)
    }

    fn watch(&mut self, component: &str, watcher: InputWatcher) {
        match component {
            TEXT_ENCODER => self.watch_text_encoder(watcher),
            _ => self.watch_transformer(watcher),
        }
    }

    fn run(&mut self, calibration: &Calibration, index: usize, control: &Control) -> Result<()> {
        self.draw(&request(calibration, index), control).map(drop)
    }

    fn release(&mut self) {
        SanaPipeline::release(self);
    }
}

/// What is drawn for a prompt.
fn request(calibration: &Calibration, index: usize) -> ImageRequest {
    ImageRequest::new(calibration.prompts[index].clone())
        .with(&keys::SEED, index as u64)
        .with_some(&keys::STEPS, calibration.steps)
        .with_some(&keys::WIDTH, calibration.size)
        .with_some(&keys::HEIGHT, calibration.size)
}
