//! What a request needs of memory, stage by stage.

use super::pipeline::VideoPipeline;
use super::plan::ClipPlan;
use super::text::encode;
use crate::error::Result;
use crate::memory;
use crate::request::{StageMemory, WeightBytes};

/// Bytes that a weight of a convolution takes.
const CONVOLUTION: u64 = 4;
/// Values a token takes in a block, in widths: queries, keys and values, the widened layer, and copies of both streams.
const BLOCK: u64 = 16;
/// Rows of a strip of the decoder.
pub(super) const STRIP: usize = 64;

impl VideoPipeline {
    /// Bytes of the components' weights: text encoders, transformer, autoencoder (each half).
    fn sizes(&self) -> [u64; 4] {
        let files = &self.files;
        let text = &files.text.config;
        let table = (text.text.vocab_size as u64).saturating_mul(text.text.hidden_size as u64);
        let layers = text.parameters().saturating_sub(table);
        let stored = files.text.bytes_per_value();
        let texts = memory::quantized_bytes(table, layers, stored, self.options.text_quantization);
        let how = self.options.transformer_quantization;
        let transformer = files.transformer.count() as f64
            * how.bytes_per_value(files.transformer.bytes_per_value());
        let autoencoder = files.autoencoder.count().saturating_mul(CONVOLUTION);
        [
            texts.saturating_add(files.pooled.bytes()),
            transformer as u64,
            // The encoder has about two fifths of it.
            autoencoder * 2 / 5,
            autoencoder * 3 / 5,
        ]
    }

    /// What is loaded, and what would be.
    pub fn resident_bytes(&self) -> WeightBytes {
        let [text, transformer, encoder, decoder] = self.sizes();
        let encoder = match self.files.condition() {
            Some(_) => encoder,
            None => 0,
        };
        WeightBytes::of(&[
            (text, self.text.is_some() && self.pooled.is_some()),
            (transformer, self.transformer.is_some()),
            (encoder, self.encoder.is_some() || encoder == 0),
            (decoder, self.decoder.is_some()),
        ])
    }

    /// Estimates every stage's need and refuses what cannot fit.
    pub fn plan_memory(&self, plan: &ClipPlan) -> Result<Vec<StageMemory>> {
        let available = memory::available();
        let keep = self
            .options
            .residency
            .keeps(self.resident_bytes(), available);
        let [text, transformer, encoder, decoder] = self.sizes();
        let files = &self.files;
        let unless = |loaded: bool, bytes: u64| if loaded { 0 } else { bytes };
        let needs = [
            unless(self.text.is_some(), text),
            unless(self.encoder.is_some(), encoder),
            unless(self.transformer.is_some(), transformer),
            unless(self.decoder.is_some(), decoder),
        ];
        let pixels = plan.size.map(|side| side as u64).iter().product::<u64>();
        let widest = files.autoencoder_config.block_out_channels[0] as u64;
        let map = pixels.saturating_mul(4 * widest);
        let [_, frames, rows, columns] = plan.latent_shape(files);
        let patch = files.config.patch_size;
        let patches = (frames.div_ceil(files.config.patch_size_t)
            * (rows / patch)
            * (columns / patch)) as u64;
        let words = encode(files, &plan.prompt, plan.picture.is_some())?
            .ids
            .len() as u64;
        let width = (files.config.num_attention_heads * files.config.attention_head_dim) as u64;
        let tokens = patches.saturating_add(words);
        let hidden = files.text.config.text.hidden_size as u64;
        let strip = (STRIP as u64 + 2) * plan.size[0] as u64 * widest * 4 * 4;
        let stages = [
            (
                "text",
                true,
                words.saturating_mul(4 * BLOCK * hidden),
                "use `quantize-text-encoder` 4bit, or free memory",
            ),
            (
                "encode",
                plan.picture.is_some(),
                map.saturating_mul(4),
                "make the clip smaller, or free memory",
            ),
            (
                "denoise",
                true,
                tokens.saturating_mul(4 * BLOCK * width),
                "make the clip smaller or shorter, use `quantize-transformer` 4bit, or free memory",
            ),
            (
                "decode",
                true,
                map.saturating_mul(2 * plan.frames as u64)
                    .saturating_add(strip),
                "make the clip smaller or shorter, or free memory",
            ),
        ];
        let mut planned = Vec::new();
        let mut kept = 0u64;
        for ((stage, runs, activations, instead), weights) in stages.into_iter().zip(needs) {
            if !runs {
                continue;
            }
            let needed = kept.saturating_add(weights).saturating_add(activations);
            memory::check(stage, needed, available, instead)?;
            planned.push(StageMemory { stage, needed });
            if keep {
                kept = kept.saturating_add(weights);
            }
        }
        Ok(planned)
    }
}
