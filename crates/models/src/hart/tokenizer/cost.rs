//! What the tokenizer weighs and costs, from its configuration alone.

use super::TokenizerConfig;
use crate::cost::Cost;
use crate::vqgan::Counter;

impl TokenizerConfig {
    /// Parts of encoding a picture into latents of `side`×`side` places and codes of `codes` places in
    /// all: `conv_in`, `down.{i}`, `mid`, `conv_out`, `quantizer`.
    pub(super) fn encode_cost(&self, side: usize, codes: usize) -> Vec<Cost> {
        let mut counter = Counter::new(self.vqgan(), [side; 2]);
        counter.encoder();
        self.quant_conv(&mut counter);
        self.quantizer(codes, &mut counter);
        counter.finish()
    }

    /// Parts of decoding a latent of `height`×`width` places: `conv_in`, `mid`, `up.{i}`, `conv_out`.
    pub fn decode_cost(&self, height: usize, width: usize) -> Vec<Cost> {
        let mut counter = Counter::new(self.vqgan(), [height, width]);
        counter.begin("conv_in");
        self.quant_conv(&mut counter);
        counter.decoder();
        counter.finish()
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

    fn quant_conv(&self, counter: &mut Counter) {
        let (kernel, width) = (self.quant_conv_ks, self.z_channels);
        counter.conv(counter.deepest(), kernel, width, width);
    }

    fn quantizer(&self, codes: usize, counter: &mut Counter) {
        counter.begin("quantizer");
        let width = self.z_channels;
        let table = self.vocab_size * width;
        counter.add(table, (codes * table) as u64, (codes * width) as u64);
        let phi = 9 * width * width;
        counter.add(self.phi_count() * (phi + width), 0, 0);
        if codes > 0 {
            // One convolution a scale but the last, over the whole grid.
            let scales = self.v_patch_nums.len().saturating_sub(1) as u64;
            let places = counter.places(counter.deepest());
            counter.add(
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
