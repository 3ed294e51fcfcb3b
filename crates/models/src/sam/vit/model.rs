//! The network: a ViT (arXiv 2203.16527) over patches, and a neck to the width of the mask decoder.

use brisk_nn::{Conv2d, ConvOptions, Init, LayerNorm, Tensor, Trace, Weights, check_finite};

use super::VisionConfig;
use super::attention::VisionAttention;
use crate::sam::config::activation;
use crate::sam::feed_forward::FeedForward;
use crate::sam::neck::Neck;
use crate::{Error, Result};

/// The network.
#[derive(Debug)]
pub(in crate::sam) struct Vit {
    patches: Conv2d,
    positions: Option<Tensor>,
    layers: Vec<Layer>,
    neck: Neck,
    patch: usize,
}

impl Vit {
    /// Reads `patch_embed`, `pos_embed`, `layers` and `neck`.
    ///
    /// # Errors
    /// A file that cannot be read; what is missing or of another shape is told by [`Weights::finish`].
    pub(in crate::sam) fn load(config: &VisionConfig, weights: &Weights) -> Result<Self> {
        let (width, grid) = (config.hidden_size, config.grid());
        let patch = ConvOptions {
            kernel: config.patch_size,
            stride: config.patch_size,
            padding: 0,
            ..ConvOptions::SAME_3X3
        };
        let patches = weights.pp("patch_embed").pp("projection");
        let patches = Conv2d::load(&patches, config.num_channels, width, patch)?;
        let positions = match config.use_abs_pos {
            true => Some(weights.get("pos_embed", &[1, grid, grid, width], Init::Zeros)?),
            false => None,
        };
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::load(&weights.pp("layers").pp(layer), config, layer));
        Ok(Self {
            patches,
            positions,
            layers: layers.collect::<Result<_>>()?,
            neck: Neck::load(
                &weights.pp("neck"),
                config.hidden_size,
                config.output_channels,
            )?,
            patch: config.patch_size,
        })
    }

    /// Normalised pictures `[B,H,W,3]`, of whole patches and of the size of the frame where places have vectors
    /// of their own, to embeddings `[B,H/patch,W/patch,C]`. `trace` sees `patch_embed`, `layers.{i}` and `neck`.
    ///
    /// # Errors
    /// Pictures of another size, or a non-finite activation.
    pub(in crate::sam) fn forward(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (_, height, width, _) = pictures.dims4()?;
        if !height.is_multiple_of(self.patch) || !width.is_multiple_of(self.patch) {
            return Err(Error::Shape(format!(
                "pictures of {height}x{width} pixels; expected sides of whole patches of {} pixels",
                self.patch
            )));
        }
        let mut x = self.patches.forward(pictures)?;
        trace.see("patch_embed", &x);
        if let Some(positions) = &self.positions {
            if x.dims()[1..] != positions.dims()[1..] {
                return Err(Error::Shape(format!(
                    "pictures of {height}x{width} pixels; expected {side}x{side}, whose places have vectors of \
                     their own",
                    side = positions.dim(1)? * self.patch
                )));
            }
            x = x.broadcast_add(positions)?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            let name = format!("layers.{index}");
            check_finite(&x, "image encoder", &name)?;
            trace.see(&name, &x);
        }
        let x = self.neck.forward(&x)?;
        check_finite(&x, "image encoder", "neck")?;
        trace.see("neck", &x);
        Ok(x)
    }
}

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    attention: VisionAttention,
    norm2: LayerNorm,
    feed_forward: FeedForward,
}

impl Layer {
    fn load(weights: &Weights, config: &VisionConfig, layer: usize) -> Result<Self> {
        let width = config.hidden_size;
        let norm =
            |name: &str| LayerNorm::load(&weights.pp(name), width, config.layer_norm_eps, true);
        let act = activation("vision_config.hidden_act", &config.hidden_act)?;
        Ok(Self {
            norm1: norm("layer_norm1")?,
            attention: VisionAttention::load(&weights.pp("attn"), config, layer)?,
            norm2: norm("layer_norm2")?,
            feed_forward: FeedForward::load(&weights.pp("mlp"), width, config.inner(), act)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attention.forward(&self.norm1.forward(x)?, x)?;
        self.feed_forward.forward(&self.norm2.forward(&x)?, &x)
    }
}
