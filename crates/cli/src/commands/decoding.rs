//! The decoding options that `brisk text` and `brisk eval text` share.

use brisk_pipelines::language::{Algorithm, CacheMode, EndTokens, Selection, TextRequest};
use clap::{Args, ValueEnum};

use crate::failure::{Failure, Result};

/// How a model decodes: the options that `brisk text` and `brisk eval text` share.
#[derive(Debug, Args)]
pub struct DecodingArguments {
    /// Tokens to generate (default 128)
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "N",
        default_value_t = 128,
        hide_default_value = true
    )]
    pub gen_length: usize,
    /// Decode everything, also what follows the end of the text
    #[arg(long, help_heading = "Decoding")]
    pub no_early_stop: bool,
    /// Seed of every random number
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub seed: u64,
    /// What is kept between steps: none, prefix (default) or dual
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "MODE",
        default_value = "prefix",
        hide_default_value = true
    )]
    pub cache: String,
    /// Tokens of a block; divides --gen-length (default 32, or the model's)
    #[arg(long, help_heading = "Decoding", value_name = "N")]
    pub block_length: Option<usize>,
    /// Steps in all; a multiple of the number of blocks
    #[arg(long, help_heading = "Decoding", value_name = "N")]
    pub steps: Option<usize>,
    /// Decide every token of at least this confidence (default 0.9)
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub threshold: Option<f64>,
    /// Decide n tokens while (n + 1)(1 - confidence) is below this
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub factor: Option<f64>,
    /// As --factor, without the reference's last candidate on top
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub factor_strict: Option<f64>,
    /// Decide tokens while their doubts sum to less than this (Fréchet)
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub frechet: Option<f64>,
    /// low_confidence, random; Dream: origin, maskgit_plus, topk_margin, entropy, confidence_threshold
    #[arg(
        long,
        visible_alias = "remasking",
        help_heading = "Decoding",
        value_name = "NAME"
    )]
    pub algorithm: Option<String>,
    /// 0 (default) takes the most likely tokens
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "X",
        default_value_t = 0.0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub temperature: f64,
    /// Draw from the most likely tokens that have this much of the probability
    #[arg(
        long,
        help_heading = "Decoding",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub top_p: Option<f64>,
    /// Strength of classifier-free guidance
    #[arg(
        long,
        visible_alias = "cfg-scale",
        help_heading = "Decoding",
        value_name = "X",
        default_value_t = 0.0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub guidance: f64,
    #[arg(long, hide = true)]
    pub top_k: Option<usize>,
    #[arg(
        long,
        hide = true,
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub algorithm_temperature: f64,
    #[arg(long, hide = true, value_enum, default_value = "free")]
    pub end_tokens: EndTokenChoice,
    #[arg(
        long,
        hide = true,
        default_value_t = 0.1,
        allow_negative_numbers = true
    )]
    pub entropy_bound: f64,
    #[arg(long, hide = true, default_value_t = 8)]
    pub sub_block_length: usize,
    #[arg(long, hide = true)]
    pub stop_token: Vec<u32>,
    #[arg(long, hide = true)]
    pub mask_token: Option<u32>,
    #[arg(long, hide = true)]
    pub block_causal: Option<usize>,
}

/// What happens to tokens that end a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EndTokenChoice {
    /// Tokens like others.
    Free,
    /// The first is never proposed.
    Never,
    /// Decided last.
    Last,
}

impl DecodingArguments {
    /// The request, as far as it can be told without the model.
    pub fn request(&self, infill: bool) -> Result<TextRequest> {
        let rules = [
            ("--threshold", self.threshold.map(Selection::Threshold)),
            ("--factor", self.factor.map(Selection::Factor)),
            (
                "--factor-strict",
                self.factor_strict.map(Selection::FactorStrict),
            ),
            ("--frechet", self.frechet.map(Selection::Frechet)),
        ];
        let given: Vec<_> = rules.iter().filter(|(_, rule)| rule.is_some()).collect();
        if let [(first, _), (second, _), ..] = given[..] {
            return Err(Failure::usage(format!(
                "{first} and {second} are two rules for the same step; give one"
            )));
        }
        Ok(TextRequest {
            cache: CacheMode::from_name(&self.cache)?,
            gen_length: self.gen_length,
            block_length: self.block_length,
            steps: self.steps,
            selection: given.first().and_then(|(_, rule)| *rule),
            algorithm: self
                .algorithm
                .as_deref()
                .map(Algorithm::from_name)
                .transpose()?,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            algorithm_temperature: self.algorithm_temperature,
            guidance: self.guidance,
            end_tokens: match self.end_tokens {
                EndTokenChoice::Free => EndTokens::Free,
                EndTokenChoice::Never => EndTokens::Never,
                EndTokenChoice::Last => EndTokens::Last,
            },
            entropy_bound: self.entropy_bound,
            sub_block_length: self.sub_block_length,
            seed: self.seed,
            early_stop: !self.no_early_stop,
            infill,
            stop_tokens: self.stop_token.clone(),
            mask_token: self.mask_token,
        })
    }
}
