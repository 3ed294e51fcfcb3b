//! The tokenizer's `config.json`.

use brisk_nn::{VqganOptions, VqganProjections};
use serde::Deserialize;

use super::super::Scales;
use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Residual blocks of each level of the encoder, which no key says.
const BLOCKS: usize = 2;
/// Channels of a picture.
const COLOURS: usize = 3;
/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 16;

/// Settings of a tokenizer, named as in its `config.json`; where a key is missing, the default of the
/// reference's class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct TokenizerConfig {
    /// Codewords.
    pub vocab_size: usize,
    /// Channels of the latent, and of a codeword.
    pub z_channels: usize,
    /// Channels behind the encoder's first convolution.
    pub ch: usize,
    /// Channels of each level, full resolution first, in units of `ch`.
    pub ch_mult: Vec<usize>,
    /// Side of the kernels before and behind the quantizer.
    pub quant_conv_ks: usize,
    /// Share of the convolution in φ; its sign means nothing, and 0 leaves φ out.
    pub quant_resi: f64,
    /// Convolutions that all scales share; 0: each scale has its own.
    pub share_quant_resi: usize,
    /// How many of their own, where that is not the number of scales.
    pub default_qresi_counts: usize,
    /// Sides of the grids of codes that it was trained with.
    pub v_patch_nums: Vec<usize>,
    /// `var_hybrid`; the reference's `var` has no residual.
    pub quantizer_type: String,
    /// Whether the file holds another decoder for sums of codewords alone, which generation does not use.
    pub double_decoder: bool,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            vocab_size: 4096,
            z_channels: 32,
            ch: 160,
            ch_mult: vec![1, 1, 2, 2, 4],
            quant_conv_ks: 3,
            quant_resi: 0.5,
            share_quant_resi: 4,
            default_qresi_counts: 0,
            v_patch_nums: vec![1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
            quantizer_type: "var".to_owned(),
            double_decoder: false,
        }
    }
}

impl TokenizerConfig {
    /// Values of `model_type` and `architectures`.
    pub(super) const CLASSES: [&str; 4] = [
        "HARTAutoEncoderWithDisc",
        "HARTAutoEncoder",
        "hart_autoencoder_with_disc",
        "hart_autoencoder",
    ];

    /// Keys that are read, or that change nothing at inference.
    pub(super) const KEYS: [&str; 19] = [
        "beta",
        "ch",
        "ch_mult",
        "default_qresi_counts",
        "disable_quant_resi",
        "double_decoder",
        "dropout",
        "freeze_codebook_for_hybrid",
        "hybrid",
        "levels",
        "quant_conv_ks",
        "quant_resi",
        "quantizer_type",
        "share_quant_resi",
        "test_mode",
        "using_znorm",
        "v_patch_nums",
        "vocab_size",
        "z_channels",
    ];

    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// Values of a wrong type, outside their range, or of what is not implemented, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let config: Self = parse(bytes, label)?;
        // One of the two names, as the same class is published under both.
        let [.., with_discriminator, alone] = Self::CLASSES;
        expect_kind(bytes, label, "model_type", with_discriminator)
            .or_else(|error| expect_kind(bytes, label, "model_type", alone).map_err(|_| error))?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// By the key, with what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        check_count("vocab_size", self.vocab_size, 1 << 24)?;
        check_count("z_channels", self.z_channels, LARGEST_WIDTH)?;
        check_count("ch", self.ch, LARGEST_WIDTH)?;
        check_count("ch_mult` (its length)", self.ch_mult.len(), 12)?;
        for multiplier in &self.ch_mult {
            check_count("ch_mult", *multiplier, LARGEST_WIDTH / self.ch)?;
        }
        if !self.ch.is_multiple_of(32) {
            return fail(format!(
                "`ch` is {}; expected a multiple of 32, the groups of the norms",
                self.ch
            ));
        }
        if self.quant_conv_ks > 31 || self.quant_conv_ks.is_multiple_of(2) {
            return fail(format!(
                "`quant_conv_ks` is {}; expected an odd number up to 31",
                self.quant_conv_ks
            ));
        }
        if !self.quant_resi.is_finite() {
            return fail(format!(
                "`quant_resi` is {}; expected a number",
                self.quant_resi
            ));
        }
        for (key, count) in [
            ("share_quant_resi", self.share_quant_resi),
            ("default_qresi_counts", self.default_qresi_counts),
        ] {
            if count > 1024 {
                return fail(format!("`{key}` is {count}; expected at most 1024"));
            }
        }
        if self.quantizer_type != "var_hybrid" {
            return fail(format!(
                "`quantizer_type` is {:?}; expected \"var_hybrid\": the quantizer without a residual is \
                 not implemented",
                self.quantizer_type
            ));
        }
        self.scales().map(drop)
    }

    /// The grids of codes that it was trained with.
    ///
    /// # Errors
    /// As [`Scales::new`].
    pub fn scales(&self) -> Result<Scales> {
        Scales::new("v_patch_nums", &self.v_patch_nums)
    }

    /// Pixels of picture per position of latent, along each axis.
    pub fn ratio(&self) -> usize {
        1 << self.ch_mult.len().saturating_sub(1)
    }

    /// Share of the convolution in φ; none where φ changes nothing.
    pub fn phi_share(&self) -> Option<f64> {
        let share = self.quant_resi.abs();
        (share > 1e-6).then_some(share)
    }

    /// Number of φ's convolutions.
    pub fn phi_count(&self) -> usize {
        match (
            self.phi_share(),
            self.share_quant_resi,
            self.default_qresi_counts,
        ) {
            (None, ..) => 0,
            (_, 0, 0) => self.v_patch_nums.len(),
            (_, 0, count) => count,
            (_, shared, _) => shared,
        }
    }

    /// What encoder and decoder are made of: attention stands in the deepest level alone.
    pub fn vqgan(&self) -> VqganOptions {
        let levels = self.ch_mult.len();
        VqganOptions {
            colours: COLOURS,
            latent: self.z_channels,
            base: self.ch,
            widths: self.ch_mult.iter().map(|times| times * self.ch).collect(),
            blocks: BLOCKS,
            attention: (1..=levels).map(|level| level == levels).collect(),
            projections: VqganProjections::Fused,
        }
    }
}
