//! What a request needs of memory, and what it costs.

use brisk_models::Cost;
use brisk_models::dcae::LARGEST_MAP;
use brisk_nn::Quantization;

use super::pipeline::ClassPipeline;
use super::plan::ClassPlan;
use crate::diffusion::DecodeMode;
use crate::error::Result;
use crate::families::decode;
use crate::memory::{self, TransformerShape, element};
use crate::request::{StageCost, StageMemory, WeightBytes};

impl ClassPipeline {
    /// Bytes of the networks' weights as they are kept: transformer, autoencoder.
    fn networks(&self) -> [u64; 2] {
        [
            self.transformer_bytes(),
            memory::autoencoder_bytes(&self.options.location, self.files.vae.count()),
        ]
    }

    /// Bytes of the transformer's weights as they are kept; nearly all are of linear layers.
    pub fn transformer_bytes(&self) -> u64 {
        let weights = &self.files.transformer;
        let count = weights.config.parameters();
        (count as f64 * self.bytes_per_weight()) as u64
    }

    /// Bytes of one of them.
    fn bytes_per_weight(&self) -> f64 {
        let how = self.options.quantization;
        match (how, self.options.location.device()) {
            (Quantization::None, Some(device)) => element(device) as f64,
            _ => how.bytes_per_value(self.files.transformer.bytes_per_value()),
        }
    }

    /// Free bytes where the networks compute.
    pub fn available(&self) -> Option<u64> {
        memory::available_at(&self.options.location)
    }

    /// What is loaded, and what would be.
    pub fn resident_bytes(&self) -> WeightBytes {
        let [transformer, autoencoder] = self.networks();
        WeightBytes::of(&[
            (transformer, self.transformer.is_some()),
            (autoencoder, self.decoder.is_some()),
        ])
    }

    /// Whether networks stay in memory after their stage.
    pub fn keeps_networks(&self, available: Option<u64>) -> bool {
        let residency = self.options.residency;
        residency.keeps(self.resident_bytes(), available)
    }

    /// Estimates every stage's need, refuses what cannot fit, and settles how to decode.
    pub fn plan_memory(&self, plan: &ClassPlan) -> Result<(DecodeMode, Vec<StageMemory>)> {
        let available = self.available();
        let device = self.options.location.device();
        let [transformer, autoencoder] = self.networks();
        // What is loaded already is no longer part of the free memory.
        let unless = |loaded: bool, bytes: u64| if loaded { 0 } else { bytes };
        let transformer = unless(self.transformer.is_some(), transformer);
        let autoencoder = unless(self.decoder.is_some(), autoencoder);
        let kept = match self.keeps_networks(available) {
            true => transformer,
            false => 0,
        };
        let side = self.files.pixels();
        let stage = self.files.vae.config.decoder.first();
        let channels = stage.map_or(128, |stage| stage.channels);
        // The estimates are of maps in f32.
        let maps = |bytes: u64| device.map_or(bytes, |device| bytes / 4 * element(device));
        let whole = maps(memory::decode_whole(side, side, channels));
        let weights = autoencoder.saturating_add(kept);
        let fits = available.is_none_or(|available| whole.saturating_add(weights) <= available);
        let mode = decode::resolve_mode(plan.decode, (side, side), fits, device.is_some());
        let decoded = match mode {
            DecodeMode::Strips => {
                let rows = decode::strip_rows(side);
                let strips = memory::decode_strips(side, side, channels, rows, LARGEST_MAP as u64);
                maps(strips)
            }
            _ => whole,
        };
        let mut stages = Vec::new();
        for (stage, needed, suggestion) in [
            (
                "denoise",
                transformer.saturating_add(self.activations(plan)),
                "use `quantize-transformer` 4bit, or free memory",
            ),
            (
                "decode",
                decoded.saturating_add(weights),
                "use `residency` one, or free memory",
            ),
        ] {
            memory::check(stage, needed, available, suggestion)?;
            stages.push(StageMemory { stage, needed });
        }
        Ok((mode, stages))
    }

    /// Of the pictures that are drawn at once; what earlier blocks gave waits for later ones.
    fn activations(&self, plan: &ClassPlan) -> u64 {
        let config = &self.files.transformer.config;
        let rows = plan.at_once.min(plan.images()) * plan.branches();
        let tokens = rows.saturating_mul(config.tokens());
        let shape = TransformerShape {
            width: config.hidden_size,
            hidden: config.inner(),
            blocks: config.depth,
        };
        let kept =
            (tokens as u64).saturating_mul(4 * (config.hidden_size * config.depth / 2) as u64);
        memory::transformer_activations(&shape, tokens).saturating_add(kept)
    }

    /// Costs of the stages `denoise` and `decode`. Of a way whose steps are found as it goes nothing is known before,
    /// and only decoding is counted.
    pub fn stage_costs(&self, plan: &ClassPlan) -> Vec<StageCost> {
        let (images, device) = (plan.images() as u64, self.options.location.device());
        let mut costs = Vec::new();
        if let Some(evaluations) = plan.evaluations {
            let network = &self.files.transformer;
            let step = Cost::sum("denoise", &network.config.step_cost());
            let step = step.for_batch(plan.images() * plan.branches());
            costs.push(StageCost {
                cost: step.repeated(evaluations as u64),
                weight_bytes: self.bytes_per_weight(),
            });
        }
        let side = self.files.pixels();
        let decode = Cost::sum("decode", &self.files.vae.config.decode_cost(side, side));
        costs.push(StageCost {
            cost: decode.repeated(images),
            weight_bytes: device.map_or(4.0, |device| element(device) as f64),
        });
        costs
    }
}
