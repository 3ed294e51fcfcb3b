//! The transformer in 4 bits, by SVDQuant.

use brisk_models::hunyuan_video::transformer::{VideoLayout, VideoTransformerConfig};
use brisk_nn::InputWatcher;
use brisk_quant::LowBitLayout;

use super::pipeline::VideoPipeline;
use crate::error::{Error, Result};
use crate::events::Control;
use crate::options::{keys, video_keys};
use crate::quantize::{Calibration, Component, Layout, Quantizable};
use crate::request::{VideoModel, VideoRequest};

/// How the layers of a transformer with this configuration lie in 4-bit files.
///
/// # Errors
/// A configuration of another model.
pub(super) fn low_bit_layout(config: &[u8], label: &str) -> Result<Box<dyn LowBitLayout>> {
    let config = VideoTransformerConfig::from_json(config, label)?;
    Ok(Box::new(VideoLayout::of(&config)))
}

impl Quantizable for VideoPipeline {
    fn components(&self) -> Vec<Component> {
        vec![Component {
            name: "transformer",
            source: self.files.transformer.stored().cloned(),
            layout: Layout::SvdQuant(Box::new(VideoLayout::of(&self.files.config))),
            file: "diffusion_pytorch_model.safetensors",
        }]
    }

    fn check(&self, calibration: &Calibration) -> Result<()> {
        self.plan(&self.request(calibration, 0)?).map(drop)
    }

    fn watch(&mut self, _component: &str, watcher: InputWatcher) {
        self.transformer = None;
        self.watcher = Some(watcher);
    }

    fn run(&mut self, calibration: &Calibration, index: usize, control: &Control) -> Result<()> {
        let plan = self.plan(&self.request(calibration, index)?)?;
        self.generate(&plan, control).map(drop)
    }

    fn release(&mut self) {
        VideoModel::release(self);
    }
}

impl VideoPipeline {
    /// What is made of a prompt.
    fn request(&self, calibration: &Calibration, index: usize) -> Result<VideoRequest> {
        let mut request = VideoRequest::new(&calibration.prompts[index]);
        request.options = request
            .options
            .with(&keys::SEED, index as u64)
            .with_some(&keys::STEPS, calibration.steps)
            .with_some(&video_keys::WIDTH, calibration.size)
            .with_some(&video_keys::HEIGHT, calibration.size);
        if !self.needs_image() {
            return Ok(request);
        }
        let pictures = &calibration.pictures;
        let Some(picture) = pictures.get(index % pictures.len().max(1)) else {
            return Err(Error::request(
                "image",
                "this model begins clips with a picture; give one or several for the calibration",
            ));
        };
        request.options.set(&video_keys::IMAGE, picture.clone());
        Ok(request)
    }
}
