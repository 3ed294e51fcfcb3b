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
/// What makes patches of a latent, rows in the order of channels, height and width.
const PLACES: [&str; 2] = ["transformer.proj_out.weight", "transformer.proj_out.bias"];
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
    /// for it, and within a text encoder that reads pictures; where it cuts smaller patches, with what a part of a patch
    /// had.
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
        let wider = before.image_condition_type.is_none() && now.image_condition_type.is_some();
        let finer = before.patch_size > now.patch_size
            && before.patch_size.is_multiple_of(now.patch_size.max(1));
        if wider || finer {
            fitted.transformer = changed(&*self.transformer, |array| {
                if finer {
                    refine(array, [before.patch_size, now.patch_size])?;
                }
                match wider && array.name == PATCHES {
                    true => widen(array, now.in_channels, new, seed),
                    false => Ok(()),
                }
            })?;
        }
        Ok(fitted)
    }
}

/// A transformer with some arrays changed.
fn changed(
    source: &dyn TensorSource,
    change: impl Fn(&mut NamedArray) -> Result<()>,
) -> Result<Arc<dyn TensorSource>> {
    let arrays = source.names().into_iter().map(|name| {
        let (_, shape) = source
            .info(&name)
            .ok_or_else(|| Error::Data(format!("the model to start from has no {name}")))?;
        let values = tensors::read(source, &name, &shape)?;
        let mut array = NamedArray {
            name,
            shape,
            values,
        };
        change(&mut array)?;
        Ok(array)
    });
    let arrays: Vec<NamedArray> = arrays.collect::<Result<_>>()?;
    tensors::memory_source(&arrays, "", false)
}

/// From patches of `before` latents a side to smaller ones. An even latent makes the same tokens as it did: the kernel has
/// sums over what was in a new patch; what a token says of a new patch is the mean of what it said there.
fn refine(array: &mut NamedArray, [before, now]: [usize; 2]) -> Result<()> {
    let parts = (before / now).pow(2);
    let unexpected = |array: &NamedArray| {
        Error::Data(format!(
            "{} has shape {:?}; expected patches of {before} by {before}",
            array.name, array.shape
        ))
    };
    if array.name == PATCHES {
        let [width, channels, 1, height, across] = array.shape[..] else {
            return Err(unexpected(array));
        };
        if [height, across] != [before; 2] {
            return Err(unexpected(array));
        }
        array.values = summed(&array.values, [before, now], 1);
        array.shape = vec![width, channels, 1, now, now];
    } else if PLACES.contains(&array.name.as_str()) {
        let rows = array.shape.first().copied().unwrap_or(0);
        if rows == 0 || !rows.is_multiple_of(before * before) {
            return Err(unexpected(array));
        }
        array.values = summed(&array.values, [before, now], array.values.len() / rows);
        let values = array.values.iter_mut();
        values.for_each(|value| *value /= parts as f32);
        array.shape[0] = rows / parts;
    }
    Ok(())
}

/// Values `[..,before,before,inner]` as `[..,now,now,inner]`, each the sum of those in its place.
fn summed(values: &[f32], [before, now]: [usize; 2], inner: usize) -> Vec<f32> {
    let side = before / now;
    let mut sums = Vec::with_capacity(values.len() / (side * side));
    for patch in values.chunks_exact(before * before * inner) {
        let first = sums.len();
        sums.resize(first + now * now * inner, 0.0);
        for (at, cell) in patch.chunks_exact(inner).enumerate() {
            let (row, column) = (at / before / side, at % before / side);
            let place = first + (row * now + column) * inner;
            for (sum, value) in sums[place..place + inner].iter_mut().zip(cell) {
                *sum += value;
            }
        }
    }
    sums
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
    fn smaller_patches_have_what_was_in_their_place() {
        // One token of one channel: patches of 4 by 4 become such of 2 by 2.
        let array = |name: &str, shape: &[usize]| NamedArray {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values: (0..16u8).map(f32::from).collect(),
        };
        let mut kernel = array(PATCHES, &[1, 1, 1, 4, 4]);
        refine(&mut kernel, [4, 2]).unwrap();
        assert_eq!(kernel.shape, [1, 1, 1, 2, 2]);
        assert_eq!(kernel.values, [10.0, 18.0, 42.0, 50.0]);
        // Two channels of patches of 2 by 2, in two rows of weights.
        let mut rows = array(PLACES[0], &[8, 2]);
        refine(&mut rows, [2, 1]).unwrap();
        assert_eq!(
            (&rows.shape[..], &rows.values[..]),
            (&[2, 2][..], &[3.0, 4.0, 11.0, 12.0][..])
        );
        let mut other = array("transformer.norm_out.linear.bias", &[16]);
        refine(&mut other, [2, 1]).unwrap();
        assert_eq!(other.values[15], 15.0);
        let mut odd = array(PATCHES, &[1, 1, 1, 2, 8]);
        let message = refine(&mut odd, [4, 2]).unwrap_err().to_string();
        assert!(message.contains("[1, 1, 1, 2, 8]"), "{message}");
    }

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
