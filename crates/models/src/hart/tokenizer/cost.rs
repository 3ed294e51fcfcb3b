//! What the tokenizer weighs and costs, from its configuration alone.

use super::TokenizerConfig;
use crate::cost::Cost;

impl TokenizerConfig {
    /// Parts of encoding a picture into latents of `side`×`side` places and codes of `codes` places in
    /// all: `conv_in`, `down.{i}`, `mid`, `conv_out`, `quantizer`.
    pub(super) fn encode_cost(&self, side: usize, codes: usize) -> Vec<Cost> {
        let mut counter = Counter::new(self, [side; 2]);
        let deepest = self.ch_mult.len() - 1;
        counter.begin("conv_in");
        counter.conv(0, 3, 3, self.ch);
        let mut width = self.ch;
        for (level, times) in self.ch_mult.iter().enumerate() {
            counter.begin(&format!("down.{level}"));
            counter.level(level, 2, &mut width, times * self.ch);
            if level < deepest {
                counter.conv(level + 1, 3, width, width);
            }
        }
        counter.begin("mid");
        counter.middle(width);
        counter.begin("conv_out");
        counter.norm(width);
        counter.conv(deepest, 3, width, self.z_channels);
        counter.conv(
            deepest,
            self.quant_conv_ks,
            self.z_channels,
            self.z_channels,
        );
        counter.quantizer(codes, self);
        counter.parts
    }

    /// Parts of decoding a latent of `height`×`width` places: `conv_in`, `mid`, `up.{i}`, `conv_out`.
    pub fn decode_cost(&self, height: usize, width: usize) -> Vec<Cost> {
        let mut counter = Counter::new(self, [height, width]);
        let deepest = self.ch_mult.len() - 1;
        let mut width = self.ch * self.ch_mult[deepest];
        counter.begin("conv_in");
        counter.conv(
            deepest,
            self.quant_conv_ks,
            self.z_channels,
            self.z_channels,
        );
        counter.conv(deepest, 3, self.z_channels, width);
        counter.begin("mid");
        counter.middle(width);
        for (level, times) in self.ch_mult.iter().enumerate().rev() {
            counter.begin(&format!("up.{level}"));
            counter.level(level, 3, &mut width, times * self.ch);
            if level > 0 {
                counter.conv(level - 1, 3, width, width);
            }
        }
        counter.begin("conv_out");
        counter.norm(width);
        counter.conv(0, 3, width, 3);
        counter.parts
    }

    /// Values of encoder, quantizer and decoder.
    pub fn parameters(&self) -> u64 {
        self.parameter_counts().iter().sum()
    }

    /// Values of the file that are loaded; counts of training left out.
    pub(super) fn parameter_counts(&self) -> [u64; 2] {
        [self.encode_cost(0, 0), self.decode_cost(0, 0)]
            .map(|parts| parts.iter().map(|part| part.parameters).sum())
    }
}

/// Collects the layers of one part after another.
struct Counter {
    size: [usize; 2],
    deepest: usize,
    parts: Vec<Cost>,
}

impl Counter {
    fn new(config: &TokenizerConfig, size: [usize; 2]) -> Self {
        Self {
            size,
            deepest: config.ch_mult.len() - 1,
            parts: Vec::new(),
        }
    }

    fn begin(&mut self, name: &str) {
        self.parts.push(Cost::new(name));
    }

    fn places(&self, level: usize) -> u64 {
        let [height, width] = self
            .size
            .map(|side| (side << (self.deepest - level)) as u64);
        height * width
    }

    fn add(&mut self, parameters: usize, products: u64, activations: u64) {
        if let Some(part) = self.parts.last_mut() {
            part.parameters += parameters as u64;
            part.work(products, activations);
        }
    }

    /// A square kernel whose result has the places of `level`.
    fn conv(&mut self, level: usize, kernel: usize, from: usize, to: usize) {
        let (weights, places) = (kernel * kernel * from * to, self.places(level));
        self.add(
            weights + to,
            weights as u64 * places,
            (from + to) as u64 * places,
        );
    }

    fn norm(&mut self, width: usize) {
        self.add(2 * width, 0, 0);
    }

    fn block(&mut self, level: usize, from: usize, to: usize) {
        self.norm(from);
        self.conv(level, 3, from, to);
        self.norm(to);
        self.conv(level, 3, to, to);
        if from != to {
            self.conv(level, 1, from, to);
        }
    }

    fn attention(&mut self, level: usize, width: usize) {
        let places = self.places(level);
        self.norm(width);
        self.conv(level, 1, width, 3 * width);
        self.add(
            0,
            2 * places * places * width as u64,
            4 * places * width as u64,
        );
        self.conv(level, 1, width, width);
    }

    fn level(&mut self, level: usize, blocks: usize, width: &mut usize, to: usize) {
        for _ in 0..blocks {
            self.block(level, *width, to);
            *width = to;
            if level == self.deepest {
                self.attention(level, to);
            }
        }
    }

    fn middle(&mut self, width: usize) {
        self.block(self.deepest, width, width);
        self.attention(self.deepest, width);
        self.block(self.deepest, width, width);
    }

    fn quantizer(&mut self, codes: usize, config: &TokenizerConfig) {
        self.begin("quantizer");
        let width = config.z_channels;
        let table = config.vocab_size * width;
        self.add(table, (codes * table) as u64, (codes * width) as u64);
        let phi = 9 * width * width;
        self.add(config.phi_count() * (phi + width), 0, 0);
        if codes > 0 {
            // One convolution a scale but the last, over the whole grid.
            let scales = config.v_patch_nums.len().saturating_sub(1) as u64;
            let places = self.places(self.deepest);
            self.add(
                0,
                scales * phi as u64 * places,
                2 * scales * width as u64 * places,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_tokenizer_is_counted() {
        let config = TokenizerConfig {
            quantizer_type: "var_hybrid".to_owned(),
            ..TokenizerConfig::default()
        };
        let [encoder, decoder] = config.parameter_counts();
        assert_eq!((encoder + decoder) / 10_000, 10_894);
        let sum = |parts: &[Cost]| parts.iter().map(|part| part.flops).sum::<u64>() as f64 / 2e12;
        let decode = sum(&config.decode_cost(64, 64));
        assert!((decode - 3.22).abs() < 0.05, "{decode}");
    }
}
