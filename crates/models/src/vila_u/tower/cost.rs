//! What the tower weighs and costs, from its configuration alone.

use super::{Parts, TowerConfig};
use crate::cost::Cost;
use crate::vqgan::Counter;

impl TowerConfig {
    /// Values of the file that are read for these parts, the codebooks included.
    pub fn parameter_count(&self, parts: Parts) -> u64 {
        let books = if self.shared_codebook { 1 } else { self.depth };
        let mut count = books as u64 * (self.n_embed as u64 + 1) * self.embed_dim as u64;
        if let (true, Some(siglip)) = (parts.encoder, &self.siglip) {
            count += siglip.parameters();
        }
        if parts.decoder {
            count += self.decode_parameters();
        }
        if parts.depth {
            count += self.head.parameters();
        }
        count
    }

    fn decode_parameters(&self) -> u64 {
        let parts = self.decoder_parts([0; 2]);
        parts.iter().map(|part| part.parameters).sum()
    }

    /// Parts of encoding a picture: `embeddings`, `layers`, `quantizer`.
    pub fn encode_cost(&self) -> Vec<Cost> {
        let Some(siglip) = &self.siglip else {
            return Vec::new();
        };
        let [places, width, inner, patch] = [
            self.places(),
            siglip.hidden_size,
            siglip.intermediate_size,
            siglip.patch_size,
        ]
        .map(|size| size as u64);
        let mut embeddings = Cost::new("embeddings");
        embeddings.linear(places, 3 * patch * patch, width);
        let mut layer = Cost::new("layers");
        for (from, to) in [
            (width, 3 * width),
            (width, width),
            (width, inner),
            (inner, width),
        ] {
            layer.linear(places, from, to);
        }
        layer.work(2 * places * places * width, 4 * places * width);
        let mut quantizer = Cost::new("quantizer");
        let depth = self.depth as u64;
        quantizer.linear(places * depth, width, self.n_embed as u64);
        vec![
            embeddings,
            layer.repeated(siglip.layers() as u64),
            quantizer,
        ]
    }

    /// Parts of decoding a picture: `conv_in`, `mid`, `up.{i}`, `conv_out`.
    pub fn decode_cost(&self) -> Vec<Cost> {
        self.decoder_parts(self.decoder_latent_shape.unwrap_or([self.grid; 2]))
    }

    fn decoder_parts(&self, size: [usize; 2]) -> Vec<Cost> {
        let mut counter = Counter::new(self.vqgan(), size);
        counter.begin("conv_in");
        let deepest = counter.deepest();
        counter.conv(deepest, 1, self.embed_dim, self.decoder.z_channels);
        counter.decoder();
        counter.finish()
    }
}
