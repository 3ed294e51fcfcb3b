//! Settings of TinyViT.

use brisk_store::TensorSource;
use serde::Deserialize;

use crate::Result;
use crate::config::check_count;
use crate::sam::config::{LARGEST_SIDE, LARGEST_WIDTH, MOST_LAYERS, check_multiple};
use crate::sam::shapes::Shapes;

/// Pixels of a cell of the embedding, along a side.
pub(in crate::sam) const PATCH: usize = 16;
/// Stages; the first is of convolutions.
pub(super) const STAGES: usize = 4;

/// Settings, named as the arguments of the reference's class; where a key is missing, those of MobileSAM.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct TinyVitConfig {
    /// Side of the frame that pictures are put into, in pixels.
    pub image_size: usize,
    /// Channels of the stages.
    pub embed_dims: [usize; STAGES],
    /// Their blocks.
    pub depths: [usize; STAGES],
    /// Their heads; those of the first stage are not used.
    pub num_heads: [usize; STAGES],
    /// Sides of their windows; that of the first stage is not used.
    pub window_sizes: [usize; STAGES],
    /// Inner width of feed-forward networks, in units of a stage's channels.
    pub mlp_ratio: f64,
    /// The same of the first stage's blocks.
    pub mbconv_expand_ratio: f64,
    /// Channels of the embedding of a picture.
    pub output_channels: usize,
}

impl Default for TinyVitConfig {
    fn default() -> Self {
        Self {
            image_size: 1024,
            embed_dims: [64, 128, 160, 320],
            depths: [2, 2, 6, 2],
            num_heads: [2, 4, 5, 10],
            window_sizes: [7, 7, 14, 7],
            mlp_ratio: 4.0,
            mbconv_expand_ratio: 4.0,
            output_channels: 256,
        }
    }
}

impl TinyVitConfig {
    /// The name under which it was published.
    pub fn published(&self) -> Option<&'static str> {
        (*self == Self::default()).then_some("MobileSAM")
    }

    /// Inner width of a stage's blocks.
    pub fn inner(&self, stage: usize) -> usize {
        let ratio = match stage {
            0 => self.mbconv_expand_ratio,
            _ => self.mlp_ratio,
        };
        // A quotient of whole numbers may be rounded down.
        (self.embed_dims[stage] as f64 * ratio + 1e-6) as usize
    }

    /// The step of the merging behind a stage: the last one keeps the size.
    pub(super) fn stride(stage: usize) -> usize {
        if stage + 2 < STAGES { 2 } else { 1 }
    }

    /// Checks the values by themselves.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub(in crate::sam) fn validate(&self) -> Result<()> {
        check_count("vision_config.image_size", self.image_size, LARGEST_SIDE)?;
        check_multiple(
            "vision_config.image_size",
            self.image_size,
            "patches",
            PATCH,
        )?;
        check_count(
            "vision_config.output_channels",
            self.output_channels,
            LARGEST_WIDTH,
        )?;
        for stage in 0..STAGES {
            let key = |name: &str| format!("vision_config.{name}[{stage}]");
            let width = self.embed_dims[stage];
            check_count(&key("embed_dims"), width, LARGEST_WIDTH)?;
            check_count(&key("depths"), self.depths[stage], MOST_LAYERS)?;
            let ratio = if stage == 0 {
                "mbconv_expand_ratio"
            } else {
                "mlp_ratio"
            };
            let inner = format!("vision_config.{ratio} · embed_dims[{stage}]");
            check_count(&inner, self.inner(stage), LARGEST_WIDTH)?;
            if stage == 0 {
                check_multiple(&key("embed_dims"), width, "2", 2)?;
                continue;
            }
            check_count(&key("window_sizes"), self.window_sizes[stage], LARGEST_SIDE)?;
            let heads = self.num_heads[stage];
            check_count(&key("num_heads"), heads, LARGEST_WIDTH)?;
            check_multiple(&key("embed_dims"), width, "num_heads", heads)?;
        }
        Ok(())
    }

    /// The settings of a file, by the shapes of its tensors; what has no tensor is as in MobileSAM, and loading reports
    /// it.
    pub(in crate::sam) fn of_tensors(source: &dyn TensorSource) -> Self {
        let shapes = Shapes::new(source, "image_encoder.");
        let mut config = Self::default();
        shapes.set(&mut config.embed_dims[0], "patch_embed.seq.2.c.weight", 0);
        for stage in 0..STAGES {
            let layer = format!("layers.{stage}");
            if stage + 1 < STAGES {
                let merged = format!("{layer}.downsample.conv1.c.weight");
                shapes.set(&mut config.embed_dims[stage + 1], &merged, 0);
            }
            let last = if stage == 0 { "conv1.c" } else { "attn.qkv" };
            let depth = shapes.count(|block| format!("{layer}.blocks.{block}.{last}.weight"));
            config.depths[stage] = depth;
            let biases = format!("{layer}.blocks.0.attn.attention_biases");
            shapes.set(&mut config.num_heads[stage], &biases, 0);
            if let Some(distances) = shapes.side(&biases, 1) {
                config.window_sizes[stage] = distances.isqrt();
            }
        }
        for (ratio, stage, name) in [
            (
                &mut config.mbconv_expand_ratio,
                0,
                "blocks.0.conv1.c.weight",
            ),
            (&mut config.mlp_ratio, 1, "blocks.0.mlp.fc1.weight"),
        ] {
            if let Some(&[inner, width, ..]) =
                shapes.of(&format!("layers.{stage}.{name}")).as_deref()
            {
                *ratio = inner as f64 / width.max(1) as f64;
            }
        }
        shapes.set(&mut config.output_channels, "neck.0.weight", 0);
        config
    }
}
