//! The options of `brisk text`, and the request they make.

use std::path::PathBuf;

use brisk_nn::Quantisation;
use brisk_pipelines::language::{
    Algorithm, CacheMode, EndTokens, LoadOptions, Selection, TextRequest,
};
use clap::{Args, ValueEnum};

use super::super::ThreadArguments;
use crate::failure::{Failure, Result};

/// Answer with a diffusion language model: LLaDA, Dream, SDAR, Fast-dLLM v2 and their kin
#[derive(Debug, Args)]
#[command(
    override_usage = "brisk text --model MODEL \"QUESTION\" [OPTIONS]",
    next_help_heading = "Text",
    after_help = "Without --steps a step decides every token that is sure enough (--threshold 0.9).\n\
                  Rarely needed: --end-tokens free|never|last, --entropy-bound X, --sub-block-length N,\n\
                  --stop-token ID, --mask-token ID, --block-causal N, --top-k N, --algorithm-temperature X"
)]
pub struct TextArguments {
    /// What to answer or continue, in quotes; several are decoded together
    #[arg(value_name = "PROMPT")]
    pub words: Vec<String>,
    /// The same as a flag
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Continue the text as it stands, without the model's chat template
    #[arg(long)]
    pub raw: bool,
    /// Tokens to generate (default 128)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        hide_default_value = true
    )]
    pub gen_length: usize,
    /// Fill in the masks of the prompt
    #[arg(long)]
    pub infill: bool,
    /// Decode everything, also what follows the end of the text
    #[arg(long)]
    pub no_early_stop: bool,
    /// Seed of every random number
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
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

    /// Folder or hub id (OWNER/NAME)
    #[arg(short, long, help_heading = "Model and files", value_name = "MODEL")]
    pub model: String,
    /// How linear layers keep their weights: none (default), 8bit or 4bit
    #[arg(
        long,
        help_heading = "Model and files",
        value_name = "KIND",
        default_value = "none",
        hide_default_value = true
    )]
    pub quantize: String,
    /// Keep quantised weights in this file: the first run writes it, later ones load faster
    #[arg(long, help_heading = "Model and files", value_name = "FILE")]
    pub quantized_weights: Option<PathBuf>,
    /// Variant of the weight files
    #[arg(long, help_heading = "Model and files", value_name = "NAME")]
    pub variant: Option<String>,
    /// Prompts as token ids: tensor input_ids, one prompt a row; needs no tokenizer
    #[arg(long, help_heading = "Model and files", value_name = "FILE", conflicts_with_all = ["words", "prompt", "raw"])]
    pub input_ids: Option<PathBuf>,
    /// Write prompts with answers (output_ids) and the forward passes (nfe)
    #[arg(long, help_heading = "Model and files", value_name = "FILE")]
    pub output_ids: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, help_heading = "Model and files")]
    pub json: bool,
    #[command(flatten, next_help_heading = "Model and files")]
    pub threads: ThreadArguments,
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

impl TextArguments {
    /// The prompts given as text.
    pub fn texts(&self) -> impl Iterator<Item = &String> {
        self.words.iter().chain(&self.prompt)
    }

    /// How the model is loaded: with a token file, a tokenizer is not needed.
    ///
    /// # Errors
    /// A quantisation of another name.
    pub fn load_options(&self) -> Result<LoadOptions> {
        Ok(LoadOptions {
            variant: self.variant.clone(),
            without_tokenizer: self.input_ids.is_some(),
            block_causal: self.block_causal,
            quantisation: self.quantisation()?,
            quantised_weights: self.quantized_weights.clone(),
            random: None,
        })
    }

    fn quantisation(&self) -> Result<Quantisation> {
        Quantisation::from_name(&self.quantize).map_err(|_| {
            Failure::usage(format!(
                "--quantize {}: expected none, 8bit or 4bit",
                self.quantize
            ))
        })
    }

    /// The request, as far as it can be told without the model.
    pub fn request(&self) -> Result<TextRequest> {
        if self.input_ids.is_none() && self.texts().next().is_none() {
            return Err(Failure::usage(
                "there is no prompt; give a text in quotes, or --input-ids FILE",
            ));
        }
        if let Some(text) = self.texts().find(|text| text.trim().is_empty()) {
            return Err(Failure::usage(format!(
                "the prompt {text:?} is empty; give some text"
            )));
        }
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
            infill: self.infill,
            stop_tokens: self.stop_token.clone(),
            mask_token: self.mask_token,
        })
    }
}
