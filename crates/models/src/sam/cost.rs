//! What the networks weigh and cost, from their configuration alone.

use brisk_nn::logits::MOST_HEADS;
use brisk_nn::two_way::MOST_ROWS;

use super::shared_cells::REPAYS;
use super::two_way::contracts;
use super::{ImageEncoderConfig, SamConfig};
use crate::cost::Cost;

impl SamConfig {
    /// Parts of encoding a picture of `height`×`width` pixels, as the encoder's pass names them.
    pub fn encode_cost(&self, [height, width]: [usize; 2]) -> Vec<Cost> {
        match &self.vision_config {
            ImageEncoderConfig::Vit(config) => {
                config.cost(height / config.patch_size, width / config.patch_size)
            }
            ImageEncoderConfig::TinyVit(config) => config.cost(height, width),
            ImageEncoderConfig::EfficientVit(config) => config.cost(height, width, self.grid()),
        }
    }

    /// Values that a pass of the encoder holds at its widest.
    pub fn encode_values(&self) -> u64 {
        let size = self.encoder_size();
        match &self.vision_config {
            ImageEncoderConfig::Vit(config) => config.widest(),
            _ => {
                let parts = self.encode_cost([size, size]);
                parts.iter().map(|part| part.activations).max().unwrap_or(0)
            }
        }
    }

    /// Parts of decoding the masks of one prompt of so many tokens over `cells` cells of a picture whose first
    /// layer was projected: `layers.{i}`, `tokens`, `masks`.
    pub fn decode_cost(&self, cells: usize, tokens: usize) -> Vec<Cost> {
        let config = &self.mask_decoder_config;
        let wide = config.hidden_size as u64;
        let [inner, last_inner] = [config.inner(), config.last_inner()].map(|inner| inner as u64);
        let (cells, tokens) = (cells as u64, (tokens + 1 + config.masks()) as u64);
        let mut parts = Vec::new();
        let heads = config.num_attention_heads as u64;
        let across = |inner: u64| Across {
            wide,
            inner,
            heads,
            tokens,
            cells,
        };
        for layer in 0..config.num_hidden_layers {
            let mut part = self.layer_of_tokens(layer, tokens);
            across(inner).of_tokens(&mut part, layer == 0);
            across(inner).of_cells(&mut part, layer == 0);
            parts.push(part);
        }
        let mut last = Cost::new("tokens");
        across(last_inner).of_tokens(&mut last, false);
        last.parameters += 2 * wide;
        parts.push(last);
        parts.push(self.masks(cells, wide));
        parts
    }

    /// Whether so many prompts of so many tokens, without masks, share a picture's cells.
    pub fn shares_cells(&self, prompts: usize, tokens: usize) -> bool {
        let config = &self.mask_decoder_config;
        let (heads, tokens) = (config.num_attention_heads, tokens + 1 + config.masks());
        let narrowest = config.inner().min(config.last_inner()) / heads;
        prompts >= REPAYS
            && heads <= MOST_HEADS
            && contracts(tokens, narrowest)
            && config.num_hidden_layers * heads * tokens <= MOST_ROWS
    }

    /// As [`decode_cost`](Self::decode_cost) of a prompt that [shares](Self::shares_cells) a picture's cells. What is made
    /// once for all prompts is left out.
    pub fn decode_shared_cost(&self, cells: usize, tokens: usize) -> Vec<Cost> {
        let config = &self.mask_decoder_config;
        let wide = config.hidden_size as u64;
        let [inner, last_inner] = [config.inner(), config.last_inner()].map(|inner| inner as u64);
        let (cells, tokens) = (cells as u64, (tokens + 1 + config.masks()) as u64);
        let told = config.num_attention_heads as u64 * tokens;
        // Scores by shared keys, by those of positions, and by what was told; what they sum up.
        let looked = |part: &mut Cost, inner: u64, rows: u64| {
            let of_shared = inner * tokens * if rows > 0 { 3 } else { 2 };
            part.work(
                cells * (of_shared + 2 * told * rows),
                cells * (3 * inner + 2 * rows),
            );
            part.linear(tokens, wide, 2 * inner);
            part.parameters += 3 * inner + wide + 2 * wide * inner;
        };
        let mut parts = Vec::new();
        for layer in 0..config.num_hidden_layers {
            let rows = layer as u64 * told;
            let mut part = self.layer_of_tokens(layer, tokens);
            looked(&mut part, inner, rows);
            // The other way round; and the norm's variance.
            looked(&mut part, inner, rows);
            let all = rows + told;
            part.work(cells * all * all / 2, cells * all);
            parts.push(part);
        }
        let rows = config.num_hidden_layers as u64 * told;
        let mut last = Cost::new("tokens");
        looked(&mut last, last_inner, rows);
        last.parameters += 2 * wide;
        parts.push(last);
        parts.push(self.masks(cells, rows));
        parts
    }

    /// What a layer's tokens do among each other.
    fn layer_of_tokens(&self, layer: usize, tokens: u64) -> Cost {
        let config = &self.mask_decoder_config;
        let [wide, inner] = [config.hidden_size, config.mlp_dim].map(|width| width as u64);
        let mut part = Cost::new(format!("layers.{layer}"));
        part.linear(tokens, wide, 4 * wide);
        part.work(2 * tokens * tokens * wide, 4 * tokens * wide);
        part.linear(tokens, wide, inner);
        part.linear(tokens, inner, wide);
        // Biases of self attention and feed-forward network, and four norms.
        part.parameters += 4 * wide + inner + wide + 8 * wide;
        part
    }

    /// Masks of cells that are known by so many values.
    fn masks(&self, cells: u64, known: u64) -> Cost {
        let config = &self.mask_decoder_config;
        let wide = config.hidden_size as u64;
        let mut masks = Cost::new("masks");
        let [quarter, eighth] = [wide / 4, wide / 8];
        masks.work(cells * known * 4 * quarter, cells * (known + 4 * quarter));
        masks.parameters += wide * 4 * quarter;
        masks.linear(4 * cells, quarter, 4 * eighth);
        let count = config.masks() as u64;
        masks.work(16 * cells * eighth * count, 16 * cells * (eighth + count));
        for _ in 0..count {
            head(&mut masks, [wide, wide, eighth], 3);
        }
        head(
            &mut masks,
            [wide, config.iou_head_hidden_dim as u64, count],
            config.iou_head_depth,
        );
        masks.parameters += quarter + eighth + 2 * quarter;
        masks
    }

    /// Values of the image encoder, and of the others.
    pub(super) fn parameter_counts(&self) -> [u64; 2] {
        let sum = |parts: &[Cost]| parts.iter().map(|part| part.parameters).sum::<u64>();
        let prompt = &self.prompt_encoder_config;
        let wide = prompt.hidden_size as u64;
        let (middle, small) = (
            prompt.mask_input_channels as u64,
            prompt.mask_input_channels as u64 / 4,
        );
        let points = prompt.num_point_embeddings as u64 + 2;
        let output = self.mask_decoder_config.masks() as u64 + 1;
        let convolutions =
            4 * small + 3 * small + 4 * small * middle + 3 * middle + middle * wide + wide;
        let rest = (points + output) * wide + convolutions + 2 * self.frequencies() as u64;
        [
            sum(&self.encode_cost([self.encoder_size(); 2])),
            rest + sum(&self.decode_cost(1, 0)),
        ]
    }
}

/// A convolution of `kernel`² taps from `pixels` places of a map on, whose norm was folded into it or that has a bias.
pub(super) fn conv(part: &mut Cost, pixels: u64, [from, to]: [usize; 2], kernel: usize) {
    let (from, to, taps) = (from as u64, to as u64, (kernel * kernel) as u64);
    part.linear(pixels, taps * from, to);
    part.activations -= pixels * (taps - 1) * from;
}

/// The same of every channel by itself, from `inputs` places to `pixels`.
pub(super) fn depthwise(
    part: &mut Cost,
    [inputs, pixels]: [u64; 2],
    channels: usize,
    kernel: usize,
) {
    let (channels, taps) = (channels as u64, (kernel * kernel) as u64);
    part.work(pixels * channels * taps, (inputs + pixels) * channels);
    part.parameters += channels * taps;
}

/// An attention between tokens and the cells of a picture.
struct Across {
    wide: u64,
    inner: u64,
    heads: u64,
    tokens: u64,
    cells: u64,
}

impl Across {
    /// Whether tokens go through the projections of cells in their stead.
    fn contracted(&self) -> bool {
        contracts(self.tokens as usize, (self.inner / self.heads) as usize)
    }

    /// Both products of every token, head by head, with cells of `first` and of all channels.
    fn products(&self, part: &mut Cost, first: u64) {
        let scores = self.tokens * self.heads;
        part.work(
            scores * self.cells * (first + self.wide),
            2 * self.cells * (self.wide + scores),
        );
    }

    /// Tokens look at cells, whose keys and values may be there already.
    fn of_tokens(&self, part: &mut Cost, projected: bool) {
        let contracted = self.contracted() && !projected;
        let rows = match (projected, contracted) {
            (true, _) => 0,
            (false, true) => self.tokens,
            (false, false) => self.cells,
        };
        part.linear(self.tokens, self.wide, self.inner);
        part.linear(rows, self.wide, 2 * self.inner);
        part.linear(self.tokens, self.inner, self.wide);
        part.parameters += 3 * self.inner + self.wide;
        match contracted {
            true => self.products(part, self.wide),
            false => part.work(
                2 * self.tokens * self.cells * self.inner,
                2 * (self.tokens + self.cells) * self.inner,
            ),
        }
    }

    /// Cells look at tokens; their queries may be there already.
    fn of_cells(&self, part: &mut Cost, projected: bool) {
        let contracted = self.contracted();
        let queries = match (projected, contracted) {
            (true, _) => 0,
            (false, true) => self.tokens,
            (false, false) => self.cells,
        };
        part.linear(queries, self.wide, self.inner);
        part.linear(self.tokens, self.wide, 2 * self.inner);
        let results = if contracted { self.tokens } else { self.cells };
        part.linear(results, self.inner, self.wide);
        part.parameters += 3 * self.inner + self.wide;
        match contracted {
            true => self.products(part, if projected { self.inner } else { self.wide }),
            false => part.work(
                2 * self.tokens * self.cells * self.inner,
                2 * (self.tokens + self.cells) * self.inner,
            ),
        }
    }
}

fn head(part: &mut Cost, [inputs, inner, outputs]: [u64; 3], layers: usize) {
    for layer in 0..layers {
        let from = if layer == 0 { inputs } else { inner };
        let to = if layer + 1 == layers { outputs } else { inner };
        part.linear(1, from, to);
        part.parameters += to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 484 billion multiply-adds with windows as the reference pads them; the projections here leave the
    /// padding out.
    #[test]
    fn the_published_encoder_is_counted() {
        let config = SamConfig::default();
        assert_eq!(config.parameter_counts()[0], 89_670_912);
        let parts = config.encode_cost([1024, 1024]);
        let giga = parts.iter().map(|part| part.flops).sum::<u64>() as f64 / 2e9;
        assert!((440.0..486.0).contains(&giga), "{giga}");
        // A prompt of a point and no point beside it.
        let prompt = config.decode_cost(64 * 64, 2);
        let giga = prompt.iter().map(|part| part.flops).sum::<u64>() as f64 / 2e9;
        assert!((0.8..0.9).contains(&giga), "{giga}");
        // Beside others they share the picture.
        assert!(config.shares_cells(4, 2) && !config.shares_cells(3, 2));
        assert!(!config.shares_cells(4, 30));
        let prompt = config.decode_shared_cost(64 * 64, 2);
        let giga = prompt.iter().map(|part| part.flops).sum::<u64>() as f64 / 2e9;
        assert!((0.4..0.5).contains(&giga), "{giga}");
        // One of many points, whose tokens are not cheaper than the picture.
        let prompt = config.decode_cost(64 * 64, 30);
        let giga = prompt.iter().map(|part| part.flops).sum::<u64>() as f64 / 2e9;
        assert!((1.3..1.7).contains(&giga), "{giga}");
    }
}
