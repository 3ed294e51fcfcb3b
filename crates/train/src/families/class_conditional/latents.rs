//! Latents of the training pictures: encoded once, kept in the run's folder.

use std::path::Path;

use brisk_models::class_conditional::ClassConditionalConfig;
use brisk_models::dcae::Autoencoder;
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};

use super::classes::Classes;
use crate::data::emoji::EmojiData;
use crate::error::{Error, JsonContext, Result};
use crate::eval;
use crate::inputs::Inputs;

/// The file in a run's folder.
const FILE: &str = "latents.safetensors";
const TENSOR: &str = "latents";
/// What they were made of, and of which pictures.
const MADE_OF: [&str; 2] = ["inputs", "pictures"];

/// The latents of the training pictures, scaled as the network sees them.
pub(super) struct Latents {
    /// `[pictures, side, side, channels]`
    values: Vec<f32>,
    /// Values of each.
    each: usize,
}

impl Latents {
    /// Those that the run's folder holds of the same pictures and autoencoder; else they are encoded, and kept there.
    ///
    /// # Errors
    /// Pictures or an autoencoder that do not fit the network, or a file that cannot be written.
    pub fn of(
        data: &EmojiData,
        classes: &Classes,
        autoencoder: &Autoencoder,
        config: &ClassConditionalConfig,
        inputs: &Inputs,
        out: &Path,
        control: &Control,
    ) -> Result<Self> {
        let (side, channels) = (config.input_size, config.in_channels);
        check(data, autoencoder, config)?;
        let each = side * side * channels;
        let shape = vec![classes.pictures.len(), side, side, channels];
        let text = |value: serde_json::Result<String>| value.in_document(FILE);
        let made_of = [
            text(serde_json::to_string(inputs))?,
            text(serde_json::to_string(&classes.pictures))?,
        ];
        let path = out.join(FILE);
        if let Some(values) = kept(&path, &shape, &made_of) {
            return Ok(Self { values, each });
        }
        control.stage("encoding the pictures", Work::Run, 0);
        let rows = eval::scaled_latents(autoencoder, data, &classes.pictures, control)?;
        let values = rows.concat();
        let tensor = OutTensor {
            name: TENSOR.to_owned(),
            dtype: Dtype::F32,
            shape,
            data: bytemuck::cast_slice::<f32, u8>(&values).into(),
        };
        let names = MADE_OF.iter().map(|name| (*name).to_owned());
        let metadata = names.zip(made_of).collect();
        write_safetensors(&path, &[tensor], &metadata)?;
        Ok(Self { values, each })
    }

    /// The latent of a picture, by its place among those that are trained on.
    pub fn get(&self, slot: usize) -> &[f32] {
        &self.values[slot * self.each..(slot + 1) * self.each]
    }

    /// Values of a latent.
    pub fn each(&self) -> usize {
        self.each
    }
}

/// The values of a file of the same pictures by the same autoencoder; none where it is of others, or damaged.
fn kept(path: &Path, shape: &[usize], made_of: &[String; 2]) -> Option<Vec<f32>> {
    let file = path.is_file().then(|| SafetensorsFile::open(path).ok())??;
    let of = |name: &&str| file.metadata().get(*name);
    if MADE_OF.iter().map(of).ne(made_of.iter().map(Some)) {
        return None;
    }
    let view = file.view(TENSOR).ok()??;
    (view.shape == shape && view.dtype == Dtype::F32)
        .then(|| view.to_f32().ok())
        .flatten()
}

fn check(
    data: &EmojiData,
    autoencoder: &Autoencoder,
    config: &ClassConditionalConfig,
) -> Result<()> {
    let (ratio, channels) = (autoencoder.ratio(), autoencoder.config().latent_channels);
    if channels != config.in_channels {
        return Err(Error::Data(format!(
            "the autoencoder's latents have {channels} channels, network.in_channels is {}; expected the same",
            config.in_channels
        )));
    }
    let wanted = config.input_size * ratio;
    if data.size != wanted {
        return Err(Error::Data(format!(
            "pictures of {} px; network.input_size {} of {ratio} px a cell needs {wanted}",
            data.size, config.input_size
        )));
    }
    Ok(())
}
