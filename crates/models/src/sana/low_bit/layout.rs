//! SANA's layers in nunchaku files.
//!
//! ```text
//! attn.qkv_proj       attn1.to_q rows, then for every head its rows of to_k and of to_v
//! attn.out_proj       attn1.to_out.0
//! cross_attn.q_linear attn2.to_q            cross_attn.out_proj   attn2.to_out.0
//! cross_attn.kv_linear (16 bits)            attn2.to_k rows, then to_v
//! ff.inverted_conv    ff.conv_inverted, value and gate channels in turn
//! ff.depth_conv (16 bits, [channels, 3, 3, 1])  ff.conv_depth, channels in the same order
//! ff.point_conv       ff.conv_point
//! ```

use std::sync::Arc;

use brisk_quant::groups::Kernel;
use brisk_quant::integer::GROUP;
use brisk_quant::layout::TILE;
use brisk_quant::{LayerGroup, LowBitLayout};

use crate::sana::SanaConfig;

/// The sizes of a SANA transformer that decide how its quantized layers lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SanaLayout {
    /// Blocks.
    pub layers: usize,
    /// Channels of a token.
    pub width: usize,
    /// Channels of a self-attention head.
    pub head_dim: usize,
    /// Channels of the cross attention.
    pub cross_width: usize,
    /// Channels between the feed-forward convolutions, after the gate.
    pub hidden: usize,
}

/// Layers that keep full activations and may have 4-bit weights.
const WEIGHTS_ALONE: [&str; 5] = [
    "attn2.to_k",
    "attn2.to_v",
    "caption_projection.linear_1",
    "caption_projection.linear_2",
    "time_embed.linear",
];

/// Beginnings of names within a block: in the model, in the file.
const RENAMED: [(&str, &str); 2] = [("attn1.", "attn."), ("attn2.", "cross_attn.")];

impl SanaLayout {
    /// Of a model of this configuration.
    pub fn of(config: &SanaConfig) -> Self {
        Self {
            layers: config.num_layers,
            width: config.width(),
            head_dim: config.attention_head_dim,
            cross_width: config.cross_width(),
            hidden: config.hidden(),
        }
    }

    /// Queries, then keys and values in turn, head by head.
    fn attention_rows(&self) -> Arc<[usize]> {
        let (width, dim) = (self.width, self.head_dim);
        let padded = width.next_multiple_of(TILE);
        let head = |i: usize| padded + i / dim * 2 * dim + i % dim;
        let keys = (0..width).map(head);
        let values = (0..width).map(|i| head(i) + dim);
        (0..width).chain(keys).chain(values).collect()
    }

    /// Value and gate channels in turn.
    fn gated_rows(&self) -> Arc<[usize]> {
        let hidden = self.hidden;
        (0..2 * hidden)
            .map(|i| 2 * (i % hidden) + i / hidden)
            .collect()
    }

    /// Rows that are stored of the gated channels.
    fn gated_count(&self) -> usize {
        2 * self.hidden.next_multiple_of(GROUP)
    }
}

/// `transformer_blocks.3.attn1.to_q` as `transformer_blocks.3` and `attn1.to_q`.
fn block_and_name(path: &str) -> Option<(&str, &str)> {
    let start = "transformer_blocks.";
    let (index, name) = path.strip_prefix(start)?.split_once('.')?;
    index.parse::<usize>().ok()?;
    Some((&path[..start.len() + index.len()], name))
}

fn renamed(path: &str, to: impl Fn(&str) -> Option<String>) -> String {
    let found = block_and_name(path).and_then(|(block, name)| Some((block, to(name)?)));
    match found {
        Some((block, name)) => format!("{block}.{name}"),
        None => path.to_owned(),
    }
}

impl LowBitLayout for SanaLayout {
    fn class(&self) -> &'static str {
        "NunchakuSanaTransformer2DModel"
    }

    fn accepts(&self, class: &str) -> bool {
        class.contains("Sana")
    }

    fn groups(&self) -> Vec<LayerGroup> {
        let Self {
            width,
            cross_width,
            hidden,
            ..
        } = *self;
        let (attention, gated) = (self.attention_rows(), self.gated_rows());
        let block = |index: usize| {
            let name = |name: &str| format!("transformer_blocks.{index}.{name}");
            let one = |file: &str, layer: &str, outputs: usize, inputs: usize| {
                LayerGroup::in_order(name(file), vec![(name(layer), outputs)], inputs)
            };
            let attended = ["attn1.to_q", "attn1.to_k", "attn1.to_v"];
            [
                LayerGroup {
                    file: name("attn.qkv_proj"),
                    layers: attended.map(|layer| (name(layer), width)).to_vec(),
                    inputs: width,
                    kernel: Kernel::Matrix,
                    rows: attention.clone(),
                    file_rows: 3 * width.next_multiple_of(TILE),
                },
                one("attn.out_proj", "attn1.to_out.0", width, width),
                one("cross_attn.q_linear", "attn2.to_q", cross_width, width),
                one("cross_attn.out_proj", "attn2.to_out.0", width, cross_width),
                LayerGroup {
                    kernel: Kernel::Pointwise,
                    rows: gated.clone(),
                    file_rows: self.gated_count().next_multiple_of(TILE),
                    ..one("ff.inverted_conv", "ff.conv_inverted", 2 * hidden, width)
                },
                LayerGroup {
                    kernel: Kernel::Pointwise,
                    ..one("ff.point_conv", "ff.conv_point", width, hidden)
                },
            ]
        };
        (0..self.layers).flat_map(block).collect()
    }

    fn rearranged(&self) -> Vec<LayerGroup> {
        let gated = self.gated_rows();
        let block = |index: usize| {
            let name = |name: &str| format!("transformer_blocks.{index}.{name}");
            let cross = ["attn2.to_k", "attn2.to_v"].map(|layer| (name(layer), self.cross_width));
            let keys_values = LayerGroup {
                file_rows: 2 * self.cross_width,
                ..LayerGroup::in_order(name("cross_attn.kv_linear"), cross.to_vec(), self.width)
            };
            let depth = LayerGroup {
                file: name("ff.depth_conv"),
                layers: vec![(name("ff.conv_depth"), 2 * self.hidden)],
                inputs: 1,
                kernel: Kernel::Depthwise,
                rows: gated.clone(),
                file_rows: self.gated_count(),
            };
            [keys_values, depth]
        };
        (0..self.layers).flat_map(block).collect()
    }

    fn file_name(&self, plain: &str) -> String {
        renamed(plain, |name| {
            let each = RENAMED.iter();
            each.filter_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
                .next()
        })
    }

    fn plain_name(&self, file: &str) -> String {
        renamed(file, |name| {
            let each = RENAMED.iter();
            each.filter_map(|(to, from)| Some(format!("{to}{}", name.strip_prefix(from)?)))
                .next()
        })
    }

    fn has_weights_alone(&self, layer: &str) -> bool {
        WEIGHTS_ALONE.iter().any(|end| {
            layer
                .strip_suffix(end)
                .is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }

    fn is_copy(&self, file_layer: &str) -> bool {
        // The values once more, for perturbed attention.
        file_layer.ends_with(".attn.pag_to_v")
    }
}
