//! The authors' own file format: their tensor names under diffusers' names, and the
//! architectures that their files leave to a table keyed by the model's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Error, Result};
use brisk_store::{MappedSource, Slice, TensorSource};

use super::config::{
    Activation, AutoencoderConfig, BlockKind, Downsample, NormKind, StageConfig, Upsample,
};

/// The architectures of the published checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The autoencoders of the paper ("in" and "mix"); `stages` is 6, 7 or 8.
    Paper {
        /// Stages of each half.
        stages: usize,
    },
    /// SANA's f32c32 (1.0 and 1.1).
    Sana,
    /// SANA's encoder with a decoder without attention.
    Lite,
    /// DC-AE 1.5; `stages` is 6 or 7.
    V15 {
        /// Stages of each half.
        stages: usize,
    },
}

/// Name without organisation, family, scaling factor where it is known.
const NAMED: [(&str, Family, Option<f64>); 11] = [
    (
        "dc-ae-f32c32-in-1.0",
        Family::Paper { stages: 6 },
        Some(0.3189),
    ),
    (
        "dc-ae-f64c128-in-1.0",
        Family::Paper { stages: 7 },
        Some(0.2889),
    ),
    (
        "dc-ae-f128c512-in-1.0",
        Family::Paper { stages: 8 },
        Some(0.4883),
    ),
    (
        "dc-ae-f32c32-mix-1.0",
        Family::Paper { stages: 6 },
        Some(0.4552),
    ),
    (
        "dc-ae-f64c128-mix-1.0",
        Family::Paper { stages: 7 },
        Some(0.4538),
    ),
    (
        "dc-ae-f128c512-mix-1.0",
        Family::Paper { stages: 8 },
        Some(0.3620),
    ),
    ("dc-ae-f32c32-sana-1.0", Family::Sana, Some(0.41407)),
    ("dc-ae-f32c32-sana-1.1", Family::Sana, Some(0.41407)),
    ("dc-ae-lite-f32c32", Family::Lite, Some(0.41407)),
    ("dc-ae-f32c128-1.5", Family::V15 { stages: 6 }, None),
    ("dc-ae-f64c128-1.5", Family::V15 { stages: 7 }, Some(0.5935)),
];

/// The names [`named_config`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, ..)| *name)
}

/// The architecture of a published checkpoint by its name, with or without organisation and
/// `-diffusers` suffix. `scaling_factor` overrides the table's.
///
/// # Errors
/// When the name isn't known (the message lists the known ones) or its scaling factor was never
/// published and none is given.
pub fn named_config(name: &str, scaling_factor: Option<f64>) -> Result<AutoencoderConfig> {
    let bare = name.rsplit('/').next().unwrap_or(name);
    let bare = bare.strip_suffix("-diffusers").unwrap_or(bare);
    let bare = if bare == "dc-ae-lite-f32c32-sana-1.1" {
        "dc-ae-lite-f32c32"
    } else {
        bare
    };
    let Some((_, family, known)) = NAMED.iter().find(|(known, ..)| *known == bare) else {
        return Err(Error::Config(format!(
            "no autoencoder named \"{name}\" is known; known names: {}",
            names().collect::<Vec<_>>().join(", ")
        )));
    };
    let factor = scaling_factor.or(*known).ok_or_else(|| {
        Error::Config(format!(
            "the scaling factor of \"{bare}\" was never published; give one (1 / the root mean \
             square of its latents)"
        ))
    })?;
    checked(family.config(factor))
}

/// The architecture of a file whose name isn't known, from the tensors it holds.
///
/// # Errors
/// When the names are of no known family, or when no `scaling_factor` is given and the family
/// doesn't determine it ("in" and "mix" differ by weights and scaling factor only).
pub fn detect_config(
    source: &dyn TensorSource,
    scaling_factor: Option<f64>,
) -> Result<AutoencoderConfig> {
    let family = detect(source).ok_or_else(|| {
        Error::Config(
            "the file holds no autoencoder in the authors' layout (tensors such as \
             encoder.stages.1.op_list.0.main.conv1.conv.weight)"
                .into(),
        )
    })?;
    let mut factors: Vec<f64> = NAMED
        .iter()
        .filter(|(_, known, _)| *known == family)
        .filter_map(|(_, _, factor)| *factor)
        .collect();
    factors.dedup();
    let factor = match (scaling_factor, factors.as_slice()) {
        (Some(factor), _) => factor,
        (None, [factor]) => *factor,
        (None, _) => {
            let candidates: Vec<&str> = NAMED
                .iter()
                .filter(|(_, known, _)| *known == family)
                .map(|(name, ..)| *name)
                .collect();
            return Err(Error::Config(format!(
                "the file is one of {}, which its tensors can't tell apart: give the model's name \
                 or its scaling factor",
                candidates.join(", ")
            )));
        }
    };
    checked(family.config(factor))
}

/// Which family a file in the authors' layout belongs to, if any.
pub fn detect(source: &dyn TensorSource) -> Option<Family> {
    let prefix = prefix(source)?;
    let shape = |name: &str| {
        source
            .info(&format!("{prefix}{name}"))
            .map(|(_, shape)| shape)
    };
    let stages = (0..16)
        .rev()
        .find(|stage| {
            shape(&format!(
                "encoder.stages.{stage}.op_list.0.main.conv1.conv.weight"
            ))
            .is_some()
                || shape(&format!(
                    "encoder.stages.{stage}.op_list.0.context_module.main.qkv.conv.weight"
                ))
                .is_some()
        })
        .map(|stage| stage + 1)?;
    if shape("decoder.project_in.conv.weight").is_some() {
        return matches!(stages, 6 | 7).then_some(Family::V15 { stages });
    }
    if shape("encoder.project_in.conv.weight").is_some() {
        let full_resolution = shape("decoder.stages.0.op_list.1.main.conv1.conv.weight").is_some();
        return (stages == 6).then_some(if full_resolution {
            Family::Sana
        } else {
            Family::Lite
        });
    }
    matches!(stages, 6..=8).then_some(Family::Paper { stages })
}

/// Whether the file is in the authors' layout rather than diffusers'.
pub fn is_native(source: &dyn TensorSource) -> bool {
    prefix(source).is_some()
}

/// Weights of an autoencoder under diffusers' names, whichever the file has.
///
/// # Errors
/// As [`map`].
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    Ok(match is_native(&*source) {
        true => Arc::new(map(source)?),
        false => source,
    })
}

/// The authors' names under diffusers' names, without copying. The `autoencoder.` prefix of the
/// class-conditional models' files is accepted; what else is in such a file is left out.
///
/// # Errors
/// When a fused projection doesn't have three times as many rows as columns.
pub fn map(source: Arc<dyn TensorSource>) -> Result<MappedSource> {
    let prefix = prefix(&*source).unwrap_or("");
    let mut map = BTreeMap::new();
    for name in source.names() {
        let Some(bare) = name.strip_prefix(prefix) else {
            continue;
        };
        match rename(bare) {
            // An unknown name stays, so that loading reports it.
            None => {
                map.insert(bare.to_string(), Slice::whole(&name));
            }
            Some(Renamed::Whole(new)) => {
                map.insert(new, Slice::whole(&name));
            }
            Some(Renamed::Matrix(new)) => {
                let slice = Slice::whole(&name);
                let slice = match source.info(&name) {
                    Some((_, shape)) if shape.len() == 4 => slice.reshaped(&shape[..2]),
                    _ => slice,
                };
                map.insert(new, slice);
            }
            Some(Renamed::Thirds(base)) => {
                let shape = source
                    .info(&name)
                    .map(|(_, shape)| shape)
                    .unwrap_or_default();
                let [rows, columns, ..] = shape[..] else {
                    return Err(fused_shape(&*source, &name, &shape));
                };
                if rows != 3 * columns || shape[2..].iter().any(|side| *side != 1) {
                    return Err(fused_shape(&*source, &name, &shape));
                }
                for (third, letter) in ["q", "k", "v"].into_iter().enumerate() {
                    let rows = third * columns..(third + 1) * columns;
                    let slice = Slice::rows(&name, rows).reshaped([columns, columns]);
                    map.insert(format!("{base}.to_{letter}.weight"), slice);
                }
            }
        }
    }
    Ok(MappedSource::new(source, map)?)
}

fn fused_shape(source: &dyn TensorSource, name: &str, shape: &[usize]) -> Error {
    Error::Config(format!(
        "{}: tensor \"{name}\" has shape {shape:?}, expected [3c, c, 1, 1]",
        source.origin(name)
    ))
}

/// What stands before `encoder.` and `decoder.` in a file of this layout.
fn prefix(source: &dyn TensorSource) -> Option<&'static str> {
    let names = source.names();
    ["", "autoencoder."].into_iter().find(|prefix| {
        names.iter().any(|name| {
            name.strip_prefix(prefix).is_some_and(|bare| {
                bare.starts_with("encoder.stages.") || bare.starts_with("decoder.stages.")
            })
        })
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Renamed {
    Whole(String),
    /// A 1x1 convolution that becomes a matrix.
    Matrix(String),
    /// The fused projection of the attention with this name.
    Thirds(String),
}

/// diffusers' name of a tensor, `None` where this layout has no such tensor.
fn rename(name: &str) -> Option<Renamed> {
    let (half, rest) = name.split_once('.')?;
    if half != "encoder" && half != "decoder" {
        return None;
    }
    let (part, rest) = rest.split_once('.')?;
    let whole = |new: String| Some(Renamed::Whole(new));
    match part {
        "project_in" => {
            let rest = rest.strip_prefix("main.").unwrap_or(rest);
            // One "conv." is the module's own; a second one is kept for the factor-2 form.
            whole(format!("{half}.conv_in.{}", rest.strip_prefix("conv.")?))
        }
        "project_out" => {
            let rest = rest.strip_prefix("main.").unwrap_or(rest);
            let (index, rest) = rest.strip_prefix("op_list.")?.split_once('.')?;
            match (half, index) {
                ("decoder", "0") => whole(format!("decoder.norm_out.{rest}")),
                ("encoder", "0") | ("decoder", "2") => {
                    whole(format!("{half}.conv_out.{}", rest.strip_prefix("conv.")?))
                }
                _ => None,
            }
        }
        "stages" => {
            let (stage, rest) = rest.split_once('.')?;
            let (block, rest) = rest.strip_prefix("op_list.")?.split_once('.')?;
            let blocks = if half == "encoder" {
                "down_blocks"
            } else {
                "up_blocks"
            };
            rename_in_block(&format!("{half}.{blocks}.{stage}.{block}"), rest)
        }
        _ => None,
    }
}

fn rename_in_block(block: &str, rest: &str) -> Option<Renamed> {
    if let Some(rest) = rest.strip_prefix("context_module.main.") {
        let attention = format!("{block}.attn");
        if rest == "qkv.conv.weight" {
            return Some(Renamed::Thirds(attention));
        }
        if rest == "proj.conv.weight" {
            return Some(Renamed::Matrix(format!("{attention}.to_out.weight")));
        }
        if let Some(leaf) = rest.strip_prefix("proj.norm.") {
            return Some(Renamed::Whole(format!("{attention}.norm_out.{leaf}")));
        }
        let (scale, rest) = rest.strip_prefix("aggreg.")?.split_once('.')?;
        let (index, leaf) = rest.split_once('.')?;
        let projection = match index {
            "0" => "proj_in",
            "1" => "proj_out",
            _ => return None,
        };
        return Some(Renamed::Whole(format!(
            "{attention}.to_qkv_multiscale.{scale}.{projection}.{leaf}"
        )));
    }
    let table: &[(&str, &str)] = match rest.strip_prefix("local_module.main.") {
        Some(_) => &[
            (
                "local_module.main.inverted_conv.conv.",
                "conv_out.conv_inverted.",
            ),
            ("local_module.main.depth_conv.conv.", "conv_out.conv_depth."),
            ("local_module.main.point_conv.conv.", "conv_out.conv_point."),
            ("local_module.main.point_conv.norm.", "conv_out.norm."),
        ],
        None => &[
            ("main.conv1.conv.", "conv1."),
            ("main.conv2.conv.", "conv2."),
            ("main.conv2.norm.", "norm."),
            // A resampler, whose convolution is wrapped once or twice.
            ("main.conv.conv.", "conv."),
            ("main.conv.", "conv."),
        ],
    };
    let (old, new) = table.iter().find(|(old, _)| rest.starts_with(old))?;
    Some(Renamed::Whole(format!(
        "{block}.{new}{}",
        &rest[old.len()..]
    )))
}

fn checked(config: AutoencoderConfig) -> Result<AutoencoderConfig> {
    config.validate()?;
    Ok(config)
}

impl Family {
    fn config(self, scaling_factor: f64) -> AutoencoderConfig {
        let deepest = match self {
            Family::V15 { .. } => 1024,
            _ => 2048,
        };
        let widths = [128, 256, 512, 512, 1024, 1024, deepest, deepest];
        let half = |depths: &[usize], attention: Option<&[usize]>, batch_norm: bool| {
            let stage = |(index, layers): (usize, &usize)| {
                let local = index < 3;
                StageConfig {
                    block: match attention {
                        Some(_) if !local => BlockKind::EfficientVit,
                        _ => BlockKind::ResBlock,
                    },
                    channels: widths[index],
                    layers: *layers,
                    scales: match attention {
                        Some(scales) if !local => scales.to_vec(),
                        _ => Vec::new(),
                    },
                    norm: if batch_norm && local {
                        NormKind::Batch
                    } else {
                        NormKind::Rms
                    },
                    activation: match batch_norm && local {
                        true => Activation::Relu,
                        false => Activation::Silu,
                    },
                }
            };
            depths.iter().enumerate().map(stage).collect::<Vec<_>>()
        };
        let (encoder, decoder) = match self {
            Family::Paper { stages } => (
                half(&[0, 4, 8, 2, 2, 2, 2, 2][..stages], Some(&[]), false),
                half(&[0, 5, 10, 2, 2, 2, 2, 2][..stages], Some(&[]), true),
            ),
            Family::Sana => (
                half(&[2, 2, 2, 3, 3, 3], Some(&[5]), false),
                half(&[3; 6], Some(&[5]), false),
            ),
            Family::Lite => (
                half(&[2, 2, 2, 3, 3, 3], Some(&[5]), false),
                half(&[0, 3, 5, 4, 4, 4], None, false),
            ),
            Family::V15 { stages } => (
                half(&[0, 5, 10, 4, 4, 4, 4][..stages], None, false),
                half(&[0, 5, 10, 4, 4, 4, 4][..stages], None, false),
            ),
        };
        let shortcuts = !matches!(self, Family::V15 { .. });
        AutoencoderConfig {
            in_channels: 3,
            latent_channels: match self {
                Family::Paper { stages: 7 } | Family::V15 { .. } => 128,
                Family::Paper { stages: 8 } => 512,
                _ => 32,
            },
            head_dim: 32,
            encoder,
            decoder,
            downsample: match self {
                Family::Sana | Family::Lite => Downsample::Conv,
                _ => Downsample::PixelUnshuffle,
            },
            upsample: match self {
                Family::Sana => Upsample::Interpolate,
                _ => Upsample::PixelShuffle,
            },
            encoder_out_shortcut: shortcuts,
            decoder_in_shortcut: shortcuts,
            decoder_out_activation: match self {
                Family::Paper { .. } | Family::Sana => Activation::Relu,
                _ => Activation::Silu,
            },
            scaling_factor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_diffusers() {
        let whole = |name: &str| Some(Renamed::Whole(name.into()));
        for (old, new) in [
            (
                "encoder.project_in.conv.weight",
                whole("encoder.conv_in.weight"),
            ),
            (
                "encoder.project_in.conv.conv.bias",
                whole("encoder.conv_in.conv.bias"),
            ),
            (
                "decoder.project_in.main.conv.bias",
                whole("decoder.conv_in.bias"),
            ),
            (
                "decoder.project_in.conv.bias",
                whole("decoder.conv_in.bias"),
            ),
            (
                "encoder.project_out.main.op_list.0.conv.weight",
                whole("encoder.conv_out.weight"),
            ),
            (
                "encoder.project_out.op_list.0.conv.weight",
                whole("encoder.conv_out.weight"),
            ),
            (
                "decoder.project_out.op_list.0.weight",
                whole("decoder.norm_out.weight"),
            ),
            (
                "decoder.project_out.op_list.2.conv.bias",
                whole("decoder.conv_out.bias"),
            ),
            (
                "decoder.project_out.op_list.2.conv.conv.bias",
                whole("decoder.conv_out.conv.bias"),
            ),
            (
                "decoder.stages.1.op_list.2.main.conv2.norm.running_var",
                whole("decoder.up_blocks.1.2.norm.running_var"),
            ),
            (
                "encoder.stages.3.op_list.0.context_module.main.aggreg.0.1.weight",
                whole("encoder.down_blocks.3.0.attn.to_qkv_multiscale.0.proj_out.weight"),
            ),
            (
                "encoder.stages.3.op_list.3.main.conv.conv.bias",
                whole("encoder.down_blocks.3.3.conv.bias"),
            ),
            (
                "encoder.stages.3.op_list.3.main.conv.bias",
                whole("encoder.down_blocks.3.3.conv.bias"),
            ),
            (
                "decoder.stages.5.op_list.0.context_module.main.qkv.conv.weight",
                Some(Renamed::Thirds("decoder.up_blocks.5.0.attn".into())),
            ),
            (
                "decoder.stages.5.op_list.0.context_module.main.proj.conv.weight",
                Some(Renamed::Matrix(
                    "decoder.up_blocks.5.0.attn.to_out.weight".into(),
                )),
            ),
            (
                "decoder.stages.5.op_list.0.local_module.main.point_conv.norm.bias",
                whole("decoder.up_blocks.5.0.conv_out.norm.bias"),
            ),
            ("diffusion_model.blocks.0.weight", None),
            ("encoder.project_out.op_list.1.conv.weight", None),
        ] {
            assert_eq!(rename(old), new, "{old}");
        }
    }

    #[test]
    fn named_configs() {
        for name in names() {
            assert!(named_config(name, Some(1.0)).is_ok(), "{name}");
        }
        let config = named_config("mit-han-lab/dc-ae-f64c128-in-1.0-diffusers", None).unwrap();
        assert_eq!((config.ratio(), config.latent_channels), (64, 128));
        assert_eq!(config.scaling_factor, 0.2889);
        assert_eq!(
            named_config("dc-ae-f32c32-in-1.0", Some(0.5))
                .unwrap()
                .scaling_factor,
            0.5
        );
        let unknown = named_config("dc-ae-turbo", None).unwrap_err().to_string();
        assert!(unknown.contains("dc-ae-f32c32-sana-1.1"), "{unknown}");
        let factor = named_config("dc-ae-f32c128-1.5", None)
            .unwrap_err()
            .to_string();
        assert!(factor.contains("scaling factor"), "{factor}");
    }
}
