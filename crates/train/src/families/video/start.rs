//! A model to start from.

use std::sync::Arc;

use brisk_models::clip::{ClipText, ClipTextConfig};
use brisk_models::hunyuan_video::autoencoder::VideoAutoencoderConfig;
use brisk_models::hunyuan_video::transformer::{
    ImageCondition, VideoTransformer, VideoTransformerConfig,
};
use brisk_models::llava::{Llava, LlavaConfig};
use brisk_nn::Weights;
use brisk_pipelines::folder::{ComponentFolder, Wanted};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};

use super::NewChannels;
use super::configs::{Configs, check_autoencoder};
use super::networks::{Models, TEXT_ENCODER, TEXT_ENCODER_2, TRANSFORMER};
use super::texts::{Readers, Tokenizers};
use crate::error::{Error, Result};
use crate::families::image::start::below;
use crate::rng::Rng;
use crate::tensors::{self, NamedArray};

/// What cuts a latent into patches, whose input channels are those of the latent.
const PATCHES: &str = "transformer.x_embedder.proj.weight";
/// Where a Llama body is in LLaVA.
const BODY: &str = "language_model.model.";

/// What a run takes from another model: parameters by the names they have in training, and both tokenizers.
pub struct VideoStart {
    text: Arc<dyn TensorSource>,
    pooled: Arc<dyn TensorSource>,
    transformer: Arc<dyn TensorSource>,
    pub(crate) text_config: LlavaConfig,
    pooled_config: ClipTextConfig,
    pub(crate) transformer_config: VideoTransformerConfig,
    tokenizers: [Vec<u8>; 2],
    /// Whether pictures are new to its text encoder.
    text_alone: bool,
}

impl VideoStart {
    /// Opens a model's folder, its weights of this variant where there is one.
    ///
    /// # Errors
    /// Parts that are missing, damaged or of another network.
    pub fn open(folder: &ModelFolder, variant: Option<&str>) -> Result<Self> {
        let wanted = Wanted {
            variant: variant.map(str::to_owned),
            ..Wanted::default()
        };
        let place = |part| ComponentFolder::new(folder, part);
        let text = place(TEXT_ENCODER).open(
            |bytes, label| LlavaConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let pooled = place(TEXT_ENCODER_2).open(
            |bytes, label| ClipTextConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let transformer = place(TRANSFORMER).open(
            |bytes, label| VideoTransformerConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let tokenizer = |part| place(part).read("tokenizer.json");
        Ok(Self {
            text: below(TEXT_ENCODER, &text)?,
            pooled: below(TEXT_ENCODER_2, &pooled)?,
            transformer: below(TRANSFORMER, &transformer)?,
            text_config: *text.config,
            pooled_config: *pooled.config,
            transformer_config: *transformer.config,
            tokenizers: [tokenizer("tokenizer")?, tokenizer("tokenizer_2")?],
            text_alone: false,
        })
    }

    pub(crate) fn tokenizers(&self) -> Result<Tokenizers> {
        Tokenizers::from_files(self.tokenizers.clone())
    }

    /// What is taken: of the text encoder, of the whole text's, of the transformer.
    pub(crate) fn sources(&self) -> [Arc<dyn TensorSource>; 3] {
        [&self.text, &self.pooled, &self.transformer].map(Arc::clone)
    }

    /// Refuses a model that cannot be distilled on clips of `size` pixels.
    pub(crate) fn check_few_steps(&self, vae: &VideoAutoencoderConfig, size: usize) -> Result<()> {
        let config = &self.transformer_config;
        if config.guidance_embeds {
            return Err(Error::Data(
                "the teacher's transformer embeds its guidance (guidance_embeds): it is distilled already".to_owned(),
            ));
        }
        if config.image_condition_type == Some(ImageCondition::TokenReplace) {
            return Err(Error::Data(
                "the teacher's image_condition_type is \"token_replace\"; expected \"latent_concat\" or none".to_owned(),
            ));
        }
        check_autoencoder(config, vae, size)
    }

    /// Its networks, frozen.
    pub(crate) fn models(&self) -> Result<Models> {
        let part = |source: &Arc<dyn TensorSource>, name| {
            Weights::from_source(Arc::clone(source)).pp(name)
        };
        let transformer = part(&self.transformer, TRANSFORMER);
        Ok(Models {
            text: Llava::load(&self.text_config, &part(&self.text, TEXT_ENCODER))?,
            pooled: ClipText::load(&self.pooled_config, &part(&self.pooled, TEXT_ENCODER_2))?,
            transformer: VideoTransformer::load(&self.transformer_config, &transformer)?,
        })
    }

    /// What its text encoders take.
    pub(crate) fn readers(&self) -> Readers {
        let longest = self.pooled_config.max_position_embeddings;
        Readers::new(&self.text_config, self.is_shown(), longest)
    }

    /// Whether its transformer is shown the first frame.
    pub(crate) fn is_shown(&self) -> bool {
        self.transformer_config.image_condition_type.is_some()
    }

    pub(super) fn reads_text_alone(&self) -> bool {
        self.text_alone
    }

    /// As a model of these configurations begins: where it is shown the first frame and this one is not, with channels
    /// for it, and within a text encoder that reads pictures.
    pub(super) fn fitted(&self, configs: &Configs, new: NewChannels, seed: u64) -> Result<Self> {
        let mut fitted = Self {
            text: Arc::clone(&self.text),
            pooled: Arc::clone(&self.pooled),
            transformer: Arc::clone(&self.transformer),
            text_config: self.text_config.clone(),
            pooled_config: self.pooled_config.clone(),
            transformer_config: self.transformer_config.clone(),
            tokenizers: self.tokenizers.clone(),
            text_alone: self.text_config.vision.is_none() && configs.text.vision.is_some(),
        };
        if fitted.text_alone {
            let names = self.text.names().into_iter();
            let map = names.map(|name| {
                let short = name.strip_prefix(&format!("{TEXT_ENCODER}."));
                let short = short.unwrap_or(&name);
                (format!("{TEXT_ENCODER}.{BODY}{short}"), Slice::whole(name))
            });
            fitted.text = Arc::new(MappedSource::new(self.text.clone(), map.collect())?);
        }
        let (before, now) = (&self.transformer_config, &configs.transformer);
        if before.image_condition_type.is_none() && now.image_condition_type.is_some() {
            fitted.transformer = widened(&*self.transformer, now, new, seed)?;
        }
        Ok(fitted)
    }
}

/// The transformer with input channels behind those that it has.
fn widened(
    source: &dyn TensorSource,
    config: &VideoTransformerConfig,
    new: NewChannels,
    seed: u64,
) -> Result<Arc<dyn TensorSource>> {
    let arrays = source.names().into_iter().map(|name| {
        let (_, shape) = source
            .info(&name)
            .ok_or_else(|| Error::Data(format!("the model to start from has no {name}")))?;
        let values = tensors::read(source, &name, &shape)?;
        Ok(NamedArray {
            name,
            shape,
            values,
        })
    });
    let mut arrays: Vec<NamedArray> = arrays.collect::<Result<_>>()?;
    if let Some(patches) = arrays.iter_mut().find(|array| array.name == PATCHES) {
        widen(patches, config.in_channels, new, seed)?;
    }
    tensors::memory_source(&arrays, "", false)
}

/// A kernel `[width,channels,..]` with more channels.
fn widen(array: &mut NamedArray, channels: usize, new: NewChannels, seed: u64) -> Result<()> {
    let (width, before) = match array.shape[..] {
        [width, before, ..] if before <= channels => (width, before),
        _ => {
            return Err(Error::Data(format!(
                "{} has shape {:?}; expected up to {channels} channels",
                array.name, array.shape
            )));
        }
    };
    let each = array.values.len() / (width * before).max(1);
    let (mean, deviation) = moments(&array.values);
    let added = (channels - before) * each;
    let mut rng = Rng::new(seed);
    let mut values = Vec::with_capacity(width * channels * each);
    for row in array.values.chunks_exact(before * each) {
        values.extend(row);
        match new {
            NewChannels::Zero => values.extend(std::iter::repeat_n(0.0, added)),
            NewChannels::Normal => {
                let normals = rng.normals(added).into_iter();
                values.extend(normals.map(|normal| mean + deviation * normal));
            }
        }
    }
    array.values = values;
    array.shape[1] = channels;
    Ok(())
}

/// Mean and standard deviation.
fn moments(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let square = values.iter().map(|v| (f64::from(*v) - mean).powi(2));
    (mean as f32, (square.sum::<f64>() / count).sqrt() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_channels_come_behind_the_old_ones() {
        let old = NamedArray {
            name: PATCHES.to_owned(),
            shape: vec![2, 2, 1, 1, 2],
            values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        };
        let mut zero = old.clone();
        widen(&mut zero, 3, NewChannels::Zero, 1).unwrap();
        assert_eq!(zero.shape, [2, 3, 1, 1, 2]);
        assert_eq!(
            zero.values,
            [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0]
        );
        let mut normal = old.clone();
        widen(&mut normal, 2002, NewChannels::Normal, 1).unwrap();
        assert_eq!(normal.values[..4], [1.0, 2.0, 3.0, 4.0]);
        let (mean, deviation) = moments(&normal.values[4..4004]);
        let (wanted, spread) = moments(&old.values);
        assert!((mean - wanted).abs() < 0.2 && (deviation - spread).abs() < 0.2);
        assert!(widen(&mut zero, 2, NewChannels::Zero, 1).is_err());
    }
}
