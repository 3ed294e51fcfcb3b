//! What a request needs of memory, stage by stage.

use brisk_nn::Quantization;

use super::load::Files;
use super::pipeline::HartPipeline;
use super::plan::{HartPlan, cache_bytes};
use crate::error::Result;
use crate::memory;
use crate::request::{StageMemory, WeightBytes};

/// Bytes that a weight of the decoder takes: Winograd's transforms of wide convolutions hold more values than
/// their kernels.
const DECODER_BYTES: u64 = 18;

impl HartPipeline {
    /// Bytes of the components' weights: text encoder, transformer, decoder.
    fn weight_bytes(&self) -> [u64; 3] {
        let text = self.files.text.as_ref().map_or(0, |text| {
            let config = &text.network.config.0;
            let table = (config.vocab_size as u64).saturating_mul(config.hidden_size as u64);
            let layers = text
                .network
                .config
                .parameters_without_head()
                .saturating_sub(table);
            let stored = text.network.bytes_per_value();
            memory::quantized_bytes(table, layers, stored, self.options.text_quantization)
        });
        [
            text,
            self.transformer_bytes(),
            self.files.decoder_parameters() * DECODER_BYTES,
        ]
    }

    /// What is loaded, and what would be.
    pub fn resident_bytes(&self) -> WeightBytes {
        let [text, transformer, decoder] = self.weight_bytes();
        WeightBytes::of(&[
            (text, self.text.is_some()),
            (transformer, self.generator.is_some()),
            (decoder, self.decoder.is_some()),
        ])
    }

    /// Bytes of the transformer's weights as they are kept; nearly all are of linear layers.
    pub fn transformer_bytes(&self) -> u64 {
        let how: Quantization = self.options.transformer_quantization;
        (self.files.parameters() as f64 * how.bytes_per_value(self.files.weight_bytes())) as u64
    }

    /// Whether components stay in memory after their stage.
    pub fn keeps_components(&self, available: Option<u64>) -> bool {
        self.options
            .residency
            .keeps(self.resident_bytes(), available)
    }

    /// Estimates every stage's need and refuses what cannot fit.
    pub fn plan_memory(&self, plan: &HartPlan) -> Result<Vec<StageMemory>> {
        let available = memory::available();
        let keep = self.keeps_components(available);
        let [text, transformer, decoder] = self.weight_bytes();
        // What is loaded already is no longer part of the free memory.
        let unless = |loaded: bool, bytes: u64| if loaded { 0 } else { bytes };
        let text = unless(self.text.is_some(), text);
        let transformer = unless(self.generator.is_some(), transformer);
        let decoder = unless(self.decoder.is_some(), decoder);
        let kept = |bytes: u64| if keep { bytes } else { 0 };
        let preview = if !plan.preview_steps.is_empty() {
            decoder.saturating_add(self.decode_bytes())
        } else {
            0
        };
        let mut stages = Vec::new();
        let draws = plan.draws(&self.files);
        for (stage, runs, needed, suggestion) in [
            (
                "text",
                draws,
                text,
                "use `quantize-text-encoder` 4bit, or free memory",
            ),
            (
                "generate",
                draws,
                [transformer, self.generate_bytes(plan), kept(text), preview]
                    .into_iter()
                    .fold(0, u64::saturating_add),
                "use `cache-type` f16, `quantize-transformer` 4bit, or free memory",
            ),
            (
                "decode",
                true,
                [decoder, self.decode_bytes(), kept(text), kept(transformer)]
                    .into_iter()
                    .fold(0, u64::saturating_add),
                "use `residency` one, or free memory",
            ),
        ] {
            if runs {
                memory::check(stage, needed, available, suggestion)?;
                stages.push(StageMemory { stage, needed });
            }
        }
        Ok(stages)
    }

    /// Keys, values and activations of the pictures that are drawn at once: the widened feed-forward maps and
    /// the logits of the last scale dominate.
    fn generate_bytes(&self, plan: &HartPlan) -> u64 {
        let config = &self.files.config;
        let pictures = plan.at_once.min(plan.images()) as u64;
        let branches = plan.branches();
        let rows = pictures * branches as u64 * (self.files.scales.side() as u64).pow(2);
        let widest =
            (3 * config.inner() + 6 * config.embed_dim).max(2 * self.files.codewords().count);
        let activations = rows.saturating_mul(4 * widest as u64);
        let cache = cache_bytes(&self.files, branches, plan.kept_as);
        pictures.saturating_mul(cache).saturating_add(activations)
    }

    /// Maps of the decoder at full size, three at a time, and the picture.
    fn decode_bytes(&self) -> u64 {
        let pixels = (self.files.pixels() as u64).pow(2);
        pixels.saturating_mul(4 * (3 * self.files.tokenizer_config.ch as u64 + 9))
    }
}

impl Files {
    /// Parameters of the transformer; its file holds masks of training besides.
    fn parameters(&self) -> u64 {
        self.config.parameter_count(self.codewords())
    }

    /// Bytes of one as it is stored.
    pub fn weight_bytes(&self) -> f64 {
        let stored = self.transformer.stored();
        let head = stored.and_then(|source| source.info("head.weight"));
        head.map_or_else(
            || self.transformer.bytes_per_value(),
            |(kind, _)| kind.size() as f64,
        )
    }

    fn decoder_parameters(&self) -> u64 {
        let parts = self.tokenizer_config.decode_cost(0, 0);
        parts.iter().map(|part| part.parameters).sum()
    }
}
