//! Weights under the authors' names (`.pth` files and single-file checkpoints).
//!
//! [`map`] shows such a file under the names this crate loads, without copying: fused projections
//! become slices of rows. [`NativeLayout::config`] reads the configuration off the tensors' shapes;
//! only the attention's head counts are not there to see and come from a table of published widths
//! or from the caller.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use super::{Numerics, QkNorm, SanaConfig};
use crate::{Error, Result};

/// What single-file layouts put before every name.
const SINGLE_FILE_PREFIX: &str = "model.diffusion_model.";

/// Modules whose tensors are only renamed, outside the blocks.
const TOP: &[(&str, &str)] = &[
    ("x_embedder.proj", "patch_embed.proj"),
    ("t_block.1", "time_embed.linear"),
    ("y_embedder.y_proj.fc1", "caption_projection.linear_1"),
    ("y_embedder.y_proj.fc2", "caption_projection.linear_2"),
];

/// Modules whose tensors are only renamed, inside a block.
const BLOCK: &[(&str, &str)] = &[
    ("attn.proj", "attn1.to_out.0"),
    ("attn.q_norm", "attn1.norm_q"),
    ("attn.k_norm", "attn1.norm_k"),
    ("cross_attn.q_linear", "attn2.to_q"),
    ("cross_attn.q_norm", "attn2.norm_q"),
    ("cross_attn.k_norm", "attn2.norm_k"),
    ("cross_attn.proj", "attn2.to_out.0"),
    ("mlp.inverted_conv.conv", "ff.conv_inverted"),
    ("mlp.depth_conv.conv", "ff.conv_depth"),
    ("mlp.point_conv.conv", "ff.conv_point"),
];

/// Tensors that published files hold and inference does not need.
const UNUSED: &[&str] = &[
    "y_embedder.y_embedding",
    "pos_embed",
    "logvar_linear.weight",
    "logvar_linear.bias",
];

/// Head counts, which no tensor's shape tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeHeads {
    /// Heads of the linear self-attention.
    pub attention: usize,
    /// Heads of the cross attention.
    pub cross_attention: usize,
}

/// What the tensors of a file in the authors' layout say about the model.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeLayout {
    /// What stands before every name.
    pub prefix: String,
    /// Width d.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Latent channels.
    pub in_channels: usize,
    /// Predicted channels.
    pub out_channels: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Width of the text encoder's output.
    pub caption_channels: usize,
    /// Hidden channels of the Mix-FFN.
    pub hidden: usize,
    /// Whether queries and keys are normalised.
    pub qk_norm: bool,
    /// Whether self-attention's projections have biases.
    pub attention_bias: bool,
    /// Whether the model embeds the guidance strength (Sprint).
    pub guidance_embeds: bool,
    /// Side of the training latent, where the file holds its table of positions.
    pub sample_size: Option<usize>,
    /// Number of copied ControlNet blocks; 0 for a plain transformer.
    pub control_blocks: usize,
}

/// Recognises the authors' layout; none where the file is something else.
///
/// # Errors
/// The file has the layout's first tensor, but others are missing or contradict it; the message
/// names the tensor.
pub fn detect(source: &dyn TensorSource) -> Result<Option<NativeLayout>> {
    /// Dimensions of a patch of clips, which another network's file has under the same name.
    const CLIP_PATCH: usize = 5;
    const FIRST: &str = "x_embedder.proj.weight";
    /// A table of classes, which another network has in place of captions.
    const CLASSES: &str = "y_embedder.embedding_table.weight";
    let Some(prefix) = ["", SINGLE_FILE_PREFIX].into_iter().find(|prefix| {
        let info = |name: &str| source.info(&format!("{prefix}{name}"));
        info(FIRST).is_some_and(|(_, shape)| shape.len() != CLIP_PATCH) && info(CLASSES).is_none()
    }) else {
        return Ok(None);
    };
    let names: Vec<String> = source
        .names()
        .iter()
        .filter_map(|name| name.strip_prefix(prefix).map(str::to_owned))
        .collect();
    let has = |name: &str| source.info(&format!("{prefix}{name}")).is_some();
    let shape = |name: &str, rank: usize| -> Result<Vec<usize>> {
        let full = format!("{prefix}{name}");
        match source.info(&full) {
            Some((_, shape)) if shape.len() == rank && !shape.contains(&0) => Ok(shape),
            Some((_, shape)) => Err(Error::Config(format!(
                "{}: tensor `{full}` has shape {shape:?}, expected {rank} dimensions",
                source.origin(&full)
            ))),
            None => Err(Error::Config(format!(
                "{}: tensor `{full}` is missing; the file looks like a SANA checkpoint in the \
                 authors' layout but is incomplete",
                source.origin(&full)
            ))),
        }
    };
    let patch = shape(FIRST, 4)?;
    let inverted = shape("blocks.0.mlp.inverted_conv.conv.weight", 4)?;
    let output = shape("final_layer.linear.weight", 2)?;
    let caption = shape("y_embedder.y_proj.fc1.weight", 2)?;
    let sample_size = match has("pos_embed") {
        true => {
            let tokens = shape("pos_embed", 3)?[1];
            let side = tokens.isqrt();
            (side * side == tokens).then_some(side * patch[2])
        }
        false => None,
    };
    Ok(Some(NativeLayout {
        prefix: prefix.to_owned(),
        width: patch[0],
        depth: count(&names, "blocks."),
        in_channels: patch[1],
        out_channels: output[0] / (patch[2] * patch[3]).max(1),
        patch_size: patch[2],
        caption_channels: caption[1],
        hidden: inverted[0] / 2,
        qk_norm: has("blocks.0.attn.q_norm.weight"),
        attention_bias: has("blocks.0.attn.qkv.bias"),
        guidance_embeds: has("cfg_embedder.mlp.0.weight"),
        sample_size,
        control_blocks: count(&names, "controlnet."),
    }))
}

/// One more than the highest index after `prefix`.
fn count(names: &[String], prefix: &str) -> usize {
    names
        .iter()
        .filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse().ok())
        .map(|index: usize| index.saturating_add(1))
        .max()
        .unwrap_or(0)
        // An index beyond the number of tensors cannot be part of a whole model.
        .min(names.len())
}

impl NativeLayout {
    /// The configuration of the (base) transformer. `heads` may be left out for the published
    /// widths 1152 and 2240. The 2K and 4K models are known by their table of positions.
    ///
    /// # Errors
    /// An unknown width without `heads`, or heads that do not divide the width.
    pub fn config(&self, heads: Option<NativeHeads>) -> Result<SanaConfig> {
        let heads = match (heads, self.width) {
            (Some(heads), _) => heads,
            (None, 1152) => NativeHeads {
                attention: 36,
                cross_attention: 16,
            },
            (None, 2240) => NativeHeads {
                attention: 70,
                cross_attention: 20,
            },
            (None, width) => {
                return Err(Error::Config(format!(
                    "the file does not say how many attention heads its width {width} has \
                     (known widths: 1152, 2240); give the head counts"
                )));
            }
        };
        for (name, count) in [
            ("self-attention", heads.attention),
            ("cross-attention", heads.cross_attention),
        ] {
            if count == 0 || !self.width.is_multiple_of(count) {
                return Err(Error::Config(format!(
                    "{count} {name} heads do not divide the width {}",
                    self.width
                )));
            }
        }
        let config = SanaConfig {
            in_channels: self.in_channels,
            out_channels: Some(self.out_channels),
            num_attention_heads: heads.attention,
            attention_head_dim: self.width / heads.attention,
            num_layers: self.depth,
            num_cross_attention_heads: heads.cross_attention,
            cross_attention_head_dim: self.width / heads.cross_attention,
            cross_attention_dim: self.width,
            caption_channels: self.caption_channels,
            mlp_ratio: ratio(self.hidden, self.width),
            attention_bias: self.attention_bias,
            sample_size: self.sample_size.unwrap_or(32),
            patch_size: self.patch_size,
            interpolation_scale: match self.sample_size {
                Some(64) => Some(1.0),
                Some(128) => Some(2.0),
                _ => None,
            },
            guidance_embeds: self.guidance_embeds,
            qk_norm: self.qk_norm.then_some(QkNorm::RmsNormAcrossHeads),
            numerics: Numerics::Diffusers,
            ..SanaConfig::default()
        };
        config.validate()?;
        Ok(config)
    }

    /// The slices that make up one block `from` (under [`Self::prefix`]) under the name `to`.
    pub(crate) fn block_slices(&self, map: &mut Names, from: &str, to: &str) {
        let d = self.width;
        for (old, new) in BLOCK {
            for leaf in ["weight", "bias"] {
                map.rename(
                    &format!("{from}.{old}.{leaf}"),
                    format!("{to}.{new}.{leaf}"),
                );
            }
        }
        map.rename(
            &format!("{from}.scale_shift_table"),
            format!("{to}.scale_shift_table"),
        );
        for leaf in ["weight", "bias"] {
            for (i, letter) in ["q", "k", "v"].into_iter().enumerate() {
                let name = format!("{to}.attn1.to_{letter}.{leaf}");
                map.cut(&format!("{from}.attn.qkv.{leaf}"), name, i * d..(i + 1) * d);
            }
            for (i, letter) in ["k", "v"].into_iter().enumerate() {
                let name = format!("{to}.attn2.to_{letter}.{leaf}");
                let from = format!("{from}.cross_attn.kv_linear.{leaf}");
                map.cut(&from, name, i * d..(i + 1) * d);
            }
        }
    }

    /// Patch, time and caption embedding.
    pub(crate) fn embedding_slices(&self, map: &mut Names) {
        for leaf in ["weight", "bias"] {
            for (old, new) in TOP {
                map.rename(&format!("{old}.{leaf}"), format!("{new}.{leaf}"));
            }
            let time = if self.guidance_embeds {
                "time_embed.timestep_embedder"
            } else {
                "time_embed.emb.timestep_embedder"
            };
            for (index, linear) in [(0, "linear_1"), (2, "linear_2")] {
                map.rename(
                    &format!("t_embedder.mlp.{index}.{leaf}"),
                    format!("{time}.{linear}.{leaf}"),
                );
                map.rename(
                    &format!("cfg_embedder.mlp.{index}.{leaf}"),
                    format!("time_embed.guidance_embedder.{linear}.{leaf}"),
                );
            }
        }
        map.rename("attention_y_norm.weight", "caption_norm.weight".into());
    }
}

/// A ratio whose product with `width` truncates to `hidden` again.
fn ratio(hidden: usize, width: usize) -> f64 {
    let ratio = hidden as f64 / width as f64;
    if (ratio * width as f64) as usize == hidden {
        ratio
    } else {
        (hidden as f64 + 0.5) / width as f64
    }
}

/// Collects the slices of a [`MappedSource`]; names that the file lacks are left out, so that the
/// loader reports them under the name it asks for.
pub(crate) struct Names<'a> {
    source: &'a dyn TensorSource,
    prefix: &'a str,
    slices: BTreeMap<String, Slice>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(source: &'a dyn TensorSource, prefix: &'a str) -> Self {
        Self {
            source,
            prefix,
            slices: BTreeMap::new(),
        }
    }

    pub(crate) fn rename(&mut self, from: &str, to: String) {
        self.add(from, to, None);
    }

    fn cut(&mut self, from: &str, to: String, rows: Range<usize>) {
        self.add(from, to, Some(rows));
    }

    fn add(&mut self, from: &str, to: String, rows: Option<Range<usize>>) {
        let source = format!("{}{from}", self.prefix);
        if self.source.info(&source).is_some() {
            let slice = Slice {
                source,
                rows,
                shape: None,
            };
            self.slices.insert(to, slice);
        }
    }

    /// The map; names of the file that are neither in it nor `known` are an error.
    pub(crate) fn finish(self, known: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Slice>> {
        let used: std::collections::BTreeSet<&str> =
            self.slices.values().map(|s| s.source.as_str()).collect();
        let strange: Vec<String> = self
            .source
            .names()
            .into_iter()
            .filter(|name| {
                let inner = name.strip_prefix(self.prefix);
                !used.contains(name.as_str())
                    && inner.is_some_and(|n| !UNUSED.contains(&n) && !known(n))
            })
            .collect();
        if let Some(first) = strange.first() {
            return Err(Error::Config(format!(
                "{}: {} unexpected tensors, the first is `{first}`; \
                 this is not a SANA checkpoint brisk knows",
                self.source.origin(first),
                strange.len()
            )));
        }
        Ok(self.slices)
    }
}

/// The transformer's tensors under diffusers' names, whichever the file has.
///
/// # Errors
/// As [`detect`] and [`map`].
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    Ok(match detect(source.as_ref())? {
        Some(_) => Arc::new(map(source)?),
        None => source,
    })
}

/// The transformer of a file in the authors' layout, under the names
/// [`SanaTransformer::load`](super::SanaTransformer::load) reads. Of a ControlNet file this is the
/// base model.
///
/// # Errors
/// The file is not in that layout, or holds tensors of neither a transformer nor a ControlNet.
pub fn map(source: Arc<dyn TensorSource>) -> Result<MappedSource> {
    let layout = require(source.as_ref())?;
    let mut names = Names::new(source.as_ref(), &layout.prefix);
    layout.embedding_slices(&mut names);
    for index in 0..layout.depth {
        let (from, to) = (
            format!("blocks.{index}"),
            format!("transformer_blocks.{index}"),
        );
        layout.block_slices(&mut names, &from, &to);
    }
    for leaf in ["weight", "bias"] {
        names.rename(
            &format!("final_layer.linear.{leaf}"),
            format!("proj_out.{leaf}"),
        );
    }
    names.rename("final_layer.scale_shift_table", "scale_shift_table".into());
    let slices = names.finish(|name| name.starts_with("controlnet."))?;
    Ok(MappedSource::new(source, slices)?)
}

/// [`detect`], with an error where the layout is another.
pub(crate) fn require(source: &dyn TensorSource) -> Result<NativeLayout> {
    detect(source)?.ok_or_else(|| {
        Error::Config(
            "the file has no tensor `x_embedder.proj.weight`: \
             it is not a SANA checkpoint in the authors' layout"
                .into(),
        )
    })
}
