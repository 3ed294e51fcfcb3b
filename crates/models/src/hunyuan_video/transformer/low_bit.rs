//! Transformers whose blocks are quantized by SVDQuant. No engine but this one has such files; they lie as nunchaku's of
//! other transformers do, under diffusers' names, with the projections of an attention as one layer.
//!
//! ```text
//! attn.to_qkv         attn.to_q rows, then to_k, then to_v        attn.to_out.0, ff.net.0.proj, ff.net.2
//! attn.add_qkv_proj   the same of the text                        attn.to_add_out, ff_context.net.0.proj, ff_context.net.2
//! proj_mlp, proj_out  of single blocks
//! ```

use std::sync::Arc;

use brisk_nn::{Activations, WeightsBuilder};
use brisk_quant::{LayerGroup, LowBitLayout};
use brisk_store::TensorSource;

use super::{VideoTransformerConfig, plain_names};
use crate::{Result, low_bit};

/// The sizes of a transformer that decide how its quantized layers lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoLayout {
    /// Double and single blocks.
    pub blocks: [usize; 2],
    /// Channels of a token.
    pub width: usize,
    /// Channels within an MLP.
    pub hidden: usize,
}

/// Modulations of blocks, which see one vector and may have 4-bit weights alone.
const WEIGHTS_ALONE: [&str; 3] = [".norm1.linear", ".norm1_context.linear", ".norm.linear"];
const BLOCKS: [&str; 2] = ["transformer_blocks.", "single_transformer_blocks."];

impl VideoLayout {
    /// Of a model of this configuration.
    pub fn of(config: &VideoTransformerConfig) -> Self {
        Self {
            blocks: [config.num_layers, config.num_single_layers],
            width: config.width(),
            hidden: config.hidden(),
        }
    }

    /// Layers in a block that share their input.
    fn group(
        &self,
        block: &str,
        file: &str,
        layers: &[&str],
        inputs: usize,
        outputs: usize,
    ) -> LayerGroup {
        let name = |name: &str| format!("{block}.{name}");
        let layers = layers.iter().map(|layer| (name(layer), outputs));
        LayerGroup::in_order(name(file), layers.collect(), inputs)
    }

    fn double(&self, index: usize) -> Vec<LayerGroup> {
        let block = format!("{}{index}", BLOCKS[0]);
        let Self { width, hidden, .. } = *self;
        let streams = [
            (
                ["attn.to_q", "attn.to_k", "attn.to_v"],
                "attn.to_qkv",
                ["attn.to_out.0", "ff.net.0.proj", "ff.net.2"],
            ),
            (
                ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
                "attn.add_qkv_proj",
                [
                    "attn.to_add_out",
                    "ff_context.net.0.proj",
                    "ff_context.net.2",
                ],
            ),
        ];
        let groups = streams
            .iter()
            .flat_map(|(projections, file, [output, first, second])| {
                [
                    self.group(&block, file, projections, width, width),
                    self.group(&block, output, &[output], width, width),
                    self.group(&block, first, &[first], width, hidden),
                    self.group(&block, second, &[second], hidden, width),
                ]
            });
        groups.collect()
    }

    fn single(&self, index: usize) -> [LayerGroup; 3] {
        let block = format!("{}{index}", BLOCKS[1]);
        let Self { width, hidden, .. } = *self;
        let attended = ["attn.to_q", "attn.to_k", "attn.to_v"];
        [
            self.group(&block, "attn.to_qkv", &attended, width, width),
            self.group(&block, "proj_mlp", &["proj_mlp"], width, hidden),
            self.group(&block, "proj_out", &["proj_out"], width + hidden, width),
        ]
    }
}

impl LowBitLayout for VideoLayout {
    fn class(&self) -> &'static str {
        "NunchakuHunyuanVideoTransformer3DModel"
    }

    fn accepts(&self, class: &str) -> bool {
        class.contains("HunyuanVideo")
    }

    fn groups(&self) -> Vec<LayerGroup> {
        let [double, single] = self.blocks;
        let first = (0..double).flat_map(|index| self.double(index));
        first
            .chain((0..single).flat_map(|index| self.single(index)))
            .collect()
    }

    fn rearranged(&self) -> Vec<LayerGroup> {
        Vec::new()
    }

    fn file_name(&self, plain: &str) -> String {
        plain.to_owned()
    }

    fn plain_name(&self, file: &str) -> String {
        file.to_owned()
    }

    fn has_weights_alone(&self, layer: &str) -> bool {
        BLOCKS.iter().any(|blocks| layer.starts_with(blocks))
            && WEIGHTS_ALONE.iter().any(|end| layer.ends_with(end))
    }

    fn is_copy(&self, _file_layer: &str) -> bool {
        false
    }
}

/// A transformer's parameters from a file in diffusers' layout, the authors' or a quantized one; `activations` says how
/// inputs of quantized layers are rounded.
///
/// # Errors
/// A quantized file for another model, or one that contradicts itself.
pub fn parameters(
    config: &VideoTransformerConfig,
    source: Arc<dyn TensorSource>,
    activations: Activations,
) -> Result<WeightsBuilder> {
    let source = plain_names(config, source)?;
    low_bit::parameters(Box::new(VideoLayout::of(config)), source, activations)
}
