//! A trained autoencoder, to be built on.

use brisk_models::component::LoadSettings;
use brisk_models::hunyuan_video::autoencoder::{
    self, VideoAutoencoder, VideoAutoencoderConfig, VideoHalves,
};
use brisk_nn::Weights;
use brisk_pipelines::folder::{ComponentFolder, Opened, Wanted};
use brisk_store::ModelFolder;
use serde_json::Value;

use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// The autoencoder of a folder, its own or a pipeline's.
pub struct VideoAutoencoderFiles {
    pub(crate) opened: Opened<VideoAutoencoderConfig>,
    /// `config.json` as it stands.
    pub(crate) document: Value,
}

impl VideoAutoencoderFiles {
    /// Opens it, its weights of this variant where there is one.
    ///
    /// # Errors
    /// Files that are missing, damaged or of another network.
    pub fn open(folder: &ModelFolder, variant: Option<&str>) -> Result<Self> {
        let place = ComponentFolder::find(folder, autoencoder::COMPONENT.folders)?;
        let wanted = Wanted {
            variant: variant.map(str::to_owned),
            ..Wanted::default()
        };
        let opened = place.open(
            |bytes, label| VideoAutoencoderConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        Ok(Self {
            opened,
            document: place.config_json()?,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &VideoAutoencoderConfig {
        &self.opened.config
    }

    /// Both halves, frozen.
    pub(crate) fn load(&self) -> Result<VideoAutoencoder> {
        let weights = self.opened.parameters(&LoadSettings::default())?.build()?;
        Ok(VideoAutoencoder::load(
            self.config(),
            &weights,
            VideoHalves::Both,
        )?)
    }
}

/// An autoencoder with the given weights, frozen; as it will be written when `rounded`.
pub(super) fn frozen(
    config: &VideoAutoencoderConfig,
    arrays: &[NamedArray],
    rounded: bool,
) -> Result<VideoAutoencoder> {
    let weights = Weights::from_source(tensors::memory_source(arrays, "", rounded)?);
    Ok(VideoAutoencoder::load(config, &weights, VideoHalves::Both)?)
}
