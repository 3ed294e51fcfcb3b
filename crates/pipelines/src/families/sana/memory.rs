//! What a request needs of memory, stage by stage, and what follows from it.

use brisk_models::dcae::LARGEST_MAP;
use brisk_nn::Quantization;

use super::SanaPipeline;
use super::plan::SanaPlan;
use crate::diffusion::DecodeMode;
use crate::diffusion::denoise::rows_at_once;
use crate::error::Result;
use crate::families::decode;
use crate::memory::{self, TransformerShape, element};
use crate::request::{StageMemory, WeightBytes};
use crate::residency::Residency;

/// Bytes of a card that stay free where all components are kept: what a run at 1024 px takes besides.
const CARD_ROOM: u64 = 3 << 29;

/// Prompt tokens that are counted on; longer prompts are rare and cost little.
const USUAL_TOKENS: usize = 64;

impl SanaPipeline {
    /// Bytes of the components' weights: text encoder, transformer with ControlNet, autoencoder.
    fn weight_bytes(&self) -> [u64; 3] {
        let files = &self.files;
        let control = files.control.as_ref();
        let control = control.map_or(0, |control| control.network.bytes());
        [
            self.text_bytes(),
            self.transformer_bytes().saturating_add(control),
            memory::autoencoder_bytes(&self.options.location, files.vae.count()),
        ]
    }

    /// What is loaded, and what would be.
    pub(super) fn resident_bytes(&self) -> WeightBytes {
        let [text, transformer, autoencoder] = self.weight_bytes();
        // Either half is loaded apart, the encoder for pictures to start from only.
        let halves = u64::from(self.encoder.is_some()) + u64::from(self.decoder.is_some());
        let mut bytes = WeightBytes::of(&[
            (text, self.text.is_some()),
            (transformer, self.transformer.is_some()),
            (autoencoder, false),
        ]);
        bytes.loaded = bytes.loaded.saturating_add(autoencoder / 2 * halves);
        bytes
    }

    /// Bytes of the transformer's weights as they are kept; nearly all are of linear layers.
    pub fn transformer_bytes(&self) -> u64 {
        let (weights, how) = (
            &self.files.transformer,
            self.options.transformer_quantization,
        );
        match how {
            // A card keeps codes of 4 bits as 8.
            Quantization::None => self.as_kept(weights.bytes(), weights.count(), 2),
            _ => memory::quantized_bytes(0, weights.count(), weights.bytes_per_value(), how),
        }
    }

    /// Bytes of the text encoder's weights: its table as stored, its layers as they are quantized.
    fn text_bytes(&self) -> u64 {
        let (text, config) = (&self.files.text, &self.files.text.config);
        let how = self.options.text_quantization;
        if how == Quantization::None {
            return self.as_kept(text.bytes(), text.count(), 1);
        }
        let table = (config.vocab_size as u64).saturating_mul(config.hidden_size as u64);
        let layers = text.count().saturating_sub(table);
        memory::quantized_bytes(table, layers, text.bytes_per_value(), how)
    }

    /// Bytes of weights that a file has in so many: a card keeps all floats in one type, and codes of few bits in
    /// `widened` times as many.
    fn as_kept(&self, stored: u64, count: u64, widened: u64) -> u64 {
        match self.options.location.device() {
            None => stored,
            Some(_) if stored < count => widened * stored,
            Some(device) => count.saturating_mul(element(device)),
        }
    }

    /// Free bytes where the networks compute.
    pub(super) fn available(&self) -> Option<u64> {
        memory::available_at(&self.options.location)
    }

    /// Whether components stay in memory after their stage.
    pub(super) fn keeps_components(&self, available: Option<u64>) -> bool {
        match self.options.residency {
            Residency::KeepAll => true,
            Residency::OneAtATime => false,
            Residency::Auto => {
                let loaded =
                    self.text.is_some() && self.transformer.is_some() && self.decoder.is_some();
                let all = self
                    .weight_bytes()
                    .iter()
                    .fold(0u64, |sum, &bytes| sum.saturating_add(bytes));
                let fit = |available: u64| match self.options.location.device() {
                    None => all <= available / 2,
                    Some(_) => all.saturating_add(CARD_ROOM) <= available,
                };
                loaded || available.is_some_and(fit)
            }
        }
    }

    /// Estimates every stage's need, refuses what can't fit, and settles how to decode.
    pub(super) fn plan_memory(&self, plan: &SanaPlan) -> Result<(DecodeMode, Vec<StageMemory>)> {
        let available = self.available();
        let keep = self.keeps_components(available);
        let device = self.options.location.device();
        let [text, transformer, autoencoder] = self.weight_bytes();
        // What is loaded already is no longer part of the free memory.
        let text = if self.text.is_some() { 0 } else { text };
        let transformer = if self.transformer.is_some() {
            0
        } else {
            transformer
        };
        let autoencoder = if self.decoder.is_some() {
            0
        } else {
            autoencoder
        };

        let config = &self.files.transformer.config;
        let shape = TransformerShape {
            width: config.width(),
            hidden: config.hidden(),
            blocks: config.num_layers,
        };
        let branches = 1 + usize::from(plan.negative.is_some()) + usize::from(plan.pag.is_some());
        let tokens = self.tokens(plan);
        let rows = rows_at_once(plan.images * branches, tokens);
        let captions = plan.max_tokens.min(USUAL_TOKENS);
        let denoise =
            memory::transformer_activations(&shape, rows.saturating_mul(tokens)).saturating_add(
                memory::caption_cache(&shape, plan.images * branches, captions),
            );

        let channels = self
            .files
            .vae
            .config
            .decoder
            .first()
            .map_or(128, |stage| stage.channels);
        // The estimates are of maps in f32.
        let maps = |bytes: u64| device.map_or(bytes, |device| bytes / 4 * element(device));
        let whole = maps(memory::decode_whole(plan.height, plan.width, channels));
        let rows = decode::strip_rows(plan.width);
        let strips =
            memory::decode_strips(plan.height, plan.width, channels, rows, LARGEST_MAP as u64);
        let strips = maps(strips);
        let kept_before = if keep {
            text.saturating_add(transformer)
        } else {
            0
        };
        let weights = autoencoder.saturating_add(kept_before);
        let whole_fits =
            available.is_none_or(|available| whole.saturating_add(weights) <= available);
        let size = (plan.height, plan.width);
        let mode = decode::resolve_mode(plan.decode, size, whole_fits, device.is_some());
        let decode = match mode {
            DecodeMode::Auto | DecodeMode::Whole => whole,
            DecodeMode::Strips => strips,
            DecodeMode::Tiled => {
                memory::decode_whole(512, 512, channels)
                    + memory::decode_whole(plan.height, plan.width, 6)
            }
        };
        let preview = if plan.shows_whole_previews(&self.files) {
            autoencoder.saturating_add(decode)
        } else {
            0
        };
        let kept_text = if keep { text } else { 0 };
        let mut stages = Vec::new();
        for (stage, needed, suggestion) in [
            (
                "text",
                text,
                match device {
                    None => "use a model with a smaller text encoder, or free memory",
                    Some(_) => "use `quantize-text-encoder` 4bit, or `device` cpu",
                },
            ),
            (
                "denoise",
                denoise
                    .saturating_add(transformer)
                    .saturating_add(kept_text)
                    .saturating_add(preview),
                "use a smaller `width` and `height`, or a smaller model",
            ),
            (
                "decode",
                decode.saturating_add(weights),
                "use `decode` strips, or a smaller `width` and `height`",
            ),
        ] {
            memory::check(stage, needed, available, suggestion)?;
            stages.push(StageMemory { stage, needed });
        }
        Ok((mode, stages))
    }
}
