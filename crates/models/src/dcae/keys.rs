//! An autoencoder's `config.json`: the keys of diffusers' `AutoencoderDC` with its defaults.

use std::fmt;

use brisk_nn::{Error, Result};
use brisk_store::read::without_mark;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::config::{
    Activation, AutoencoderConfig, BlockKind, Downsample, NormKind, StageConfig, Upsample,
};

impl AutoencoderConfig {
    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// When a key has the wrong type, is unknown, or the values don't fit together; the message
    /// names the key, what was found and what was expected.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_slice(without_mark(bytes))
            .map_err(|error| Error::Config(format!("{label}: not JSON: {error}")))?;
        Self::from_value(value).map_err(|error| Error::Config(format!("{label}: {error}")))
    }

    fn from_value(value: serde_json::Value) -> std::result::Result<Self, String> {
        let class = value.get("_class_name").and_then(|name| name.as_str());
        if class == Some("DCAE") || value.get("encoder_width_list").is_some() {
            return Err(
                "the pre-release class \"DCAE\" (keys such as encoder_width_list) isn't \
                        supported: use the released repository of the same model, whose config has \
                        _class_name \"AutoencoderDC\""
                    .into(),
            );
        }
        if let Some(class) = class
            && class != "AutoencoderDC"
        {
            return Err(format!(
                "_class_name is \"{class}\", expected \"AutoencoderDC\""
            ));
        }
        let object = value.as_object().ok_or("expected a JSON object")?;
        if let Some(unknown) = object
            .keys()
            .find(|key| !key.starts_with('_') && !KNOWN_KEYS.contains(&key.as_str()))
        {
            return Err(format!(
                "the key \"{unknown}\" isn't known; known keys: {}",
                KNOWN_KEYS.join(", ")
            ));
        }
        let keys: Keys =
            serde_path_to_error::deserialize(value).map_err(|error| error.to_string())?;
        Self::from_keys(keys)
    }

    fn from_keys(keys: Keys) -> std::result::Result<Self, String> {
        let encoder = stages(
            "encoder",
            &keys.encoder_block_types,
            &keys.encoder_block_out_channels,
            &keys.encoder_layers_per_block,
            keys.encoder_qkv_multiscales.as_deref(),
            &OneOrMany::One("rms_norm".into()),
            &OneOrMany::One("silu".into()),
        )?;
        let decoder = stages(
            "decoder",
            &keys.decoder_block_types,
            &keys.decoder_block_out_channels,
            &keys.decoder_layers_per_block,
            keys.decoder_qkv_multiscales.as_deref(),
            &keys.decoder_norm_types,
            &keys.decoder_act_fns,
        )?;
        let config = AutoencoderConfig {
            in_channels: keys.in_channels,
            latent_channels: keys.latent_channels,
            head_dim: keys.attention_head_dim,
            encoder,
            decoder,
            // Any other string, in any case, means the other variant: published files hold
            // both "Conv" and "conv".
            downsample: if keys.downsample_block_type == "pixel_unshuffle" {
                Downsample::PixelUnshuffle
            } else {
                Downsample::Conv
            },
            upsample: if keys.upsample_block_type == "interpolate" {
                Upsample::Interpolate
            } else {
                Upsample::PixelShuffle
            },
            encoder_out_shortcut: keys.encoder_out_shortcut,
            decoder_in_shortcut: keys.decoder_in_shortcut,
            decoder_out_activation: activation("decoder_conv_act_fn", &keys.decoder_conv_act_fn)?,
            scaling_factor: keys.scaling_factor,
        };
        config.check()?;
        Ok(config)
    }
}

impl<'de> Deserialize<'de> for AutoencoderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::from_value(value).map_err(serde::de::Error::custom)
    }
}

impl Serialize for AutoencoderConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Keys::from(self).serialize(serializer)
    }
}

impl From<&AutoencoderConfig> for Keys {
    fn from(config: &AutoencoderConfig) -> Self {
        fn each<T>(stages: &[StageConfig], value: impl Fn(&StageConfig) -> T) -> Vec<T> {
            stages.iter().map(value).collect()
        }
        let block = |stage: &StageConfig| {
            match stage.block {
                BlockKind::ResBlock => "ResBlock",
                BlockKind::EfficientVit => "EfficientViTBlock",
            }
            .to_string()
        };
        let norm = |stage: &StageConfig| {
            match stage.norm {
                NormKind::Rms => "rms_norm",
                NormKind::Batch => "batch_norm",
            }
            .to_string()
        };
        let (encoder, decoder) = (&config.encoder, &config.decoder);
        Keys {
            class_name: Some("AutoencoderDC".into()),
            in_channels: config.in_channels,
            latent_channels: config.latent_channels,
            attention_head_dim: config.head_dim,
            encoder_block_types: OneOrMany::Many(each(encoder, block)),
            decoder_block_types: OneOrMany::Many(each(decoder, block)),
            encoder_block_out_channels: each(encoder, |stage| stage.channels),
            decoder_block_out_channels: each(decoder, |stage| stage.channels),
            encoder_layers_per_block: each(encoder, |stage| stage.layers),
            decoder_layers_per_block: each(decoder, |stage| stage.layers),
            encoder_qkv_multiscales: Some(each(encoder, |stage| stage.scales.clone())),
            decoder_qkv_multiscales: Some(each(decoder, |stage| stage.scales.clone())),
            downsample_block_type: match config.downsample {
                Downsample::PixelUnshuffle => "pixel_unshuffle",
                Downsample::Conv => "Conv",
            }
            .into(),
            upsample_block_type: match config.upsample {
                Upsample::PixelShuffle => "pixel_shuffle",
                Upsample::Interpolate => "interpolate",
            }
            .into(),
            decoder_norm_types: OneOrMany::Many(each(decoder, norm)),
            decoder_act_fns: OneOrMany::Many(each(decoder, |stage| stage.activation.name().into())),
            encoder_out_shortcut: config.encoder_out_shortcut,
            decoder_in_shortcut: config.decoder_in_shortcut,
            decoder_conv_act_fn: config.decoder_out_activation.name().into(),
            scaling_factor: config.scaling_factor,
        }
    }
}

pub(super) const KNOWN_KEYS: [&str; 19] = [
    "in_channels",
    "latent_channels",
    "attention_head_dim",
    "encoder_block_types",
    "decoder_block_types",
    "encoder_block_out_channels",
    "decoder_block_out_channels",
    "encoder_layers_per_block",
    "decoder_layers_per_block",
    "encoder_qkv_multiscales",
    "decoder_qkv_multiscales",
    "downsample_block_type",
    "upsample_block_type",
    "decoder_norm_types",
    "decoder_act_fns",
    "encoder_out_shortcut",
    "decoder_in_shortcut",
    "decoder_conv_act_fn",
    "scaling_factor",
];

/// A value for all stages, or one for each.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, name: &str) -> std::result::Result<OneOrMany, E> {
                Ok(OneOrMany::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<OneOrMany, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(OneOrMany::Many(names))
            }
        }

        deserializer.deserialize_any(Names)
    }
}

/// The file's own layout, with the defaults of absent keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    class_name: Option<String>,
    in_channels: usize,
    latent_channels: usize,
    attention_head_dim: usize,
    encoder_block_types: OneOrMany,
    decoder_block_types: OneOrMany,
    encoder_block_out_channels: Vec<usize>,
    decoder_block_out_channels: Vec<usize>,
    encoder_layers_per_block: Vec<usize>,
    decoder_layers_per_block: Vec<usize>,
    encoder_qkv_multiscales: Option<Vec<Vec<usize>>>,
    decoder_qkv_multiscales: Option<Vec<Vec<usize>>>,
    downsample_block_type: String,
    upsample_block_type: String,
    decoder_norm_types: OneOrMany,
    decoder_act_fns: OneOrMany,
    encoder_out_shortcut: bool,
    decoder_in_shortcut: bool,
    decoder_conv_act_fn: String,
    scaling_factor: f64,
}

impl Default for Keys {
    fn default() -> Self {
        let widths = vec![128, 256, 512, 512, 1024, 1024];
        Keys {
            class_name: None,
            in_channels: 3,
            latent_channels: 32,
            attention_head_dim: 32,
            encoder_block_types: OneOrMany::One("ResBlock".into()),
            decoder_block_types: OneOrMany::One("ResBlock".into()),
            encoder_block_out_channels: widths.clone(),
            decoder_block_out_channels: widths,
            encoder_layers_per_block: vec![2, 2, 2, 3, 3, 3],
            decoder_layers_per_block: vec![3; 6],
            encoder_qkv_multiscales: None,
            decoder_qkv_multiscales: None,
            downsample_block_type: "pixel_unshuffle".into(),
            upsample_block_type: "pixel_shuffle".into(),
            decoder_norm_types: OneOrMany::One("rms_norm".into()),
            decoder_act_fns: OneOrMany::One("silu".into()),
            encoder_out_shortcut: true,
            decoder_in_shortcut: true,
            decoder_conv_act_fn: "relu".into(),
            scaling_factor: 1.0,
        }
    }
}

/// Spreads the lists of one half over its stages.
fn stages(
    half: &str,
    blocks: &OneOrMany,
    channels: &[usize],
    layers: &[usize],
    scales: Option<&[Vec<usize>]>,
    norms: &OneOrMany,
    activations: &OneOrMany,
) -> std::result::Result<Vec<StageConfig>, String> {
    let count = channels.len();
    let same_length = |key: &str, found: usize| {
        if found == count {
            return Ok(());
        }
        Err(format!(
            "{key} has {found} entries, {half}_block_out_channels {count}: \
             expected as many"
        ))
    };
    let spread = |key: &str, value: &OneOrMany| -> std::result::Result<Vec<String>, String> {
        match value {
            OneOrMany::One(one) => Ok(vec![one.clone(); count]),
            OneOrMany::Many(many) => {
                same_length(key, many.len())?;
                Ok(many.clone())
            }
        }
    };
    same_length(&format!("{half}_layers_per_block"), layers.len())?;
    let blocks_key = format!("{half}_block_types");
    let blocks = spread(&blocks_key, blocks)?;
    let norms = spread("decoder_norm_types", norms)?;
    let activations = spread("decoder_act_fns", activations)?;
    if let Some(scales) = scales {
        same_length(&format!("{half}_qkv_multiscales"), scales.len())?;
    }
    (0..count)
        .map(|index| {
            let block = match blocks[index].as_str() {
                "ResBlock" => BlockKind::ResBlock,
                "EfficientViTBlock" => BlockKind::EfficientVit,
                other => {
                    return Err(format!(
                        "{blocks_key}[{index}] is \"{other}\", expected \
                         \"ResBlock\" or \"EfficientViTBlock\""
                    ));
                }
            };
            let norm = match norms[index].as_str() {
                "rms_norm" => NormKind::Rms,
                "batch_norm" => NormKind::Batch,
                other => {
                    return Err(format!(
                        "decoder_norm_types[{index}] is \"{other}\", expected \
                         \"rms_norm\" or \"batch_norm\""
                    ));
                }
            };
            let scales = match (block, scales) {
                (BlockKind::ResBlock, _) => Vec::new(),
                (BlockKind::EfficientVit, Some(scales)) => scales[index].clone(),
                // Absent key: the default list of the class, [[], [], [], [5], [5], [5]].
                (BlockKind::EfficientVit, None) if index < 3 => Vec::new(),
                (BlockKind::EfficientVit, None) => vec![5],
            };
            Ok(StageConfig {
                block,
                channels: channels[index],
                layers: layers[index],
                scales,
                norm,
                activation: activation("decoder_act_fns", &activations[index])?,
            })
        })
        .collect()
}

fn activation(key: &str, name: &str) -> std::result::Result<Activation, String> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        other => Err(format!(
            "{key} is \"{other}\", expected \"silu\" or \"relu\""
        )),
    }
}
