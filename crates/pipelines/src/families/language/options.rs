//! Options of diffusion language models beside those that families share.

use std::path::PathBuf;

use super::algorithm::{Algorithm, CacheMode, EndTokens};
use super::decoding::Decoding;
use super::load::LoadOptions;
use super::selection::Selection;
use crate::error::{Error, Result};
use crate::options::{Definition, Heading, Honoured, Key, Kind, Options, Range, Support, keys};
use crate::request::OpenSettings;

pub use crate::options::text_keys::{
    GEN_LENGTH, QUANTIZE, STOP_TOKEN, TEMPERATURE, TOP_K, TOP_P, WITHOUT_TOKENIZER,
};

const NOT_NEGATIVE: Kind = Kind::Number(Range::of(0.0, f64::INFINITY));

/// What is kept between steps.
pub static CACHE: Key<String> = Key::new(
    "cache",
    "MODE",
    Kind::Choice(&["none", "prefix", "dual"]),
    "what is kept between steps: none, prefix (default) or dual",
)
.under(Heading::Decoding);

/// Tokens of a block.
pub static BLOCK_LENGTH: Key<usize> = Key::new(
    "block-length",
    "N",
    Kind::Whole(1, 1 << 20),
    "tokens of a block; divides --gen-length (default 32, or the model's)",
)
.under(Heading::Decoding);

/// Steps in all.
pub static DECODING_STEPS: Key<usize> = Key::new(
    "steps",
    "N",
    Kind::Whole(1, 1 << 20),
    "steps in all, each of which decides as many tokens; a multiple of the number of blocks",
)
.under(Heading::Decoding);

/// A rule of a step.
pub static THRESHOLD: Key<f64> = Key::new(
    "threshold",
    "X",
    Kind::Number(Range::ANY),
    "decide every token of at least this confidence (default 0.9)",
)
.under(Heading::Decoding);

/// A rule of a step.
pub static FACTOR: Key<f64> = Key::new(
    "factor",
    "X",
    Kind::Number(Range::above(0.0, f64::INFINITY)),
    "decide n tokens while (n + 1)(1 - confidence) is below this",
)
.under(Heading::Decoding);

/// A rule of a step.
pub static FACTOR_STRICT: Key<f64> = Key::new(
    "factor-strict",
    "X",
    Kind::Number(Range::above(0.0, f64::INFINITY)),
    "as --factor, without the reference's last candidate on top",
)
.under(Heading::Decoding);

/// A rule of a step.
pub static FRECHET: Key<f64> = Key::new(
    "frechet",
    "X",
    Kind::Number(Range::above(0.0, f64::INFINITY)),
    "decide tokens while their doubts sum to less than this (Fréchet)",
)
.under(Heading::Decoding);

/// How tokens are proposed and ordered.
pub static ALGORITHM: Key<String> = Key::new(
    "algorithm",
    "NAME",
    Kind::Choice(&[
        "low_confidence",
        "random",
        "origin",
        "maskgit_plus",
        "topk_margin",
        "entropy",
        "confidence_threshold",
        "low_confidence_dynamic",
        "low_confidence_static",
        "sequential",
        "entropy_bounded",
    ]),
    "low_confidence, random; Dream: origin, maskgit_plus, topk_margin, entropy, confidence_threshold",
)
.aliases(&["remasking"])
.under(Heading::Decoding);

/// Strength of classifier-free guidance.
pub static CFG: Key<f64> = Key::new(
    "guidance",
    "X",
    NOT_NEGATIVE,
    "strength of classifier-free guidance",
)
.aliases(&["cfg-scale"])
.under(Heading::Decoding);

/// Temperature of the order.
pub static ALGORITHM_TEMPERATURE: Key<f64> = Key::new(
    "algorithm-temperature",
    "X",
    NOT_NEGATIVE,
    "Dream: 0 (default) decides the most confident tokens, more draws them",
)
.under(Heading::Decoding)
.rare();

/// What happens to end tokens.
pub static END_TOKENS: Key<String> = Key::new(
    "end-tokens",
    "HOW",
    Kind::Choice(&["free", "never", "last"]),
    "tokens that end a text: free (default), never proposed, or decided last",
)
.under(Heading::Decoding)
.rare();

/// Sum of entropies of one step.
pub static ENTROPY_BOUND: Key<f64> = Key::new(
    "entropy-bound",
    "X",
    NOT_NEGATIVE,
    "entropies that one step of entropy_bounded may decide (default 0.1)",
)
.under(Heading::Decoding)
.rare();

/// Positions of a sub-block.
pub static SUB_BLOCK_LENGTH: Key<usize> = Key::new(
    "sub-block-length",
    "N",
    Kind::Whole(0, 1 << 20),
    "tokens of a sub-block of Fast-dLLM v2 (default 8)",
)
.under(Heading::Decoding)
.rare();

/// Go on after a block that holds an end token.
pub static NO_EARLY_STOP: Key<bool> = Key::new(
    "no-early-stop",
    "",
    Kind::Flag,
    "go on after a block that holds an end token",
)
.under(Heading::Decoding);

/// Masks in the prompt are blanks.
pub static INFILL: Key<bool> =
    Key::new("infill", "", Kind::Flag, "fill in the masks of the prompt").under(Heading::Text);

/// The mask.
pub static MASK_TOKEN: Key<u32> = Key::new(
    "mask-token",
    "ID",
    Kind::Whole(0, u32::MAX as u64),
    "the mask, where the model's files don't say",
)
.under(Heading::Decoding)
.rare();

/// Blocks of block-causal attention.
pub static BLOCK_CAUSAL: Key<usize> = Key::new(
    "block-causal",
    "N",
    Kind::Whole(1, 1 << 20),
    "attention with blocks of N tokens, for models whose configuration doesn't say so",
)
.on_open()
.under(Heading::Decoding)
.rare();

/// A file for quantized weights.
pub static QUANTIZED_WEIGHTS: Key<PathBuf> = Key::new(
    "quantized-weights",
    "FILE",
    Kind::Path,
    "keep quantized weights in this file: the first run writes it, later ones load faster",
)
.on_open()
.needs("quantize");

/// Which chat template.
pub static CHAT_TEMPLATE: Key<String> = Key::new(
    "chat-template",
    "NAME",
    Kind::Text,
    "chat template by name, where the model has several",
)
.on_open()
.rare();

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// What all of them honour; what a sampler does not is refused when a request is planned.
pub(super) static SUPPORT: Support = Support {
    models: "diffusion language models",
    groups: &[&[
        honoured(INFILL.definition(), ""),
        honoured(CACHE.definition(), "prefix"),
        honoured(GEN_LENGTH.definition(), "128"),
        honoured(BLOCK_LENGTH.definition(), "32, or the model's"),
        honoured(DECODING_STEPS.definition(), "as the rule needs"),
        honoured(THRESHOLD.definition(), "0.9, or the model's"),
        honoured(FACTOR.definition(), ""),
        honoured(FACTOR_STRICT.definition(), ""),
        honoured(FRECHET.definition(), ""),
        honoured(ALGORITHM.definition(), "the model's"),
        honoured(TEMPERATURE.definition(), "0"),
        honoured(TOP_P.definition(), ""),
        honoured(TOP_K.definition(), ""),
        honoured(CFG.definition(), "0"),
        honoured(ALGORITHM_TEMPERATURE.definition(), "0"),
        honoured(END_TOKENS.definition(), "free"),
        honoured(ENTROPY_BOUND.definition(), "0.1"),
        honoured(SUB_BLOCK_LENGTH.definition(), "8"),
        honoured(NO_EARLY_STOP.definition(), ""),
        honoured(keys::SEED.definition(), "0"),
        honoured(STOP_TOKEN.definition(), ""),
        honoured(MASK_TOKEN.definition(), "the model's"),
        honoured(keys::VARIANT.definition(), ""),
        honoured(keys::DEVICE.definition(), "cpu"),
        honoured(keys::PRECISE.definition(), ""),
        honoured(QUANTIZE.definition(), "none"),
        honoured(QUANTIZED_WEIGHTS.definition(), ""),
        honoured(BLOCK_CAUSAL.definition(), "the model's"),
        honoured(WITHOUT_TOKENIZER.definition(), ""),
        honoured(CHAT_TEMPLATE.definition(), "default"),
    ]],
    refused: &[],
};

impl Decoding {
    /// Reads the options of a request.
    pub(super) fn read(asked: &Options) -> Result<Self> {
        let rules = [
            (&THRESHOLD, Selection::Threshold as fn(f64) -> Selection),
            (&FACTOR, Selection::Factor),
            (&FACTOR_STRICT, Selection::FactorStrict),
            (&FRECHET, Selection::Frechet),
        ];
        let mut selection = None;
        let mut first = "";
        for (key, rule) in rules {
            let Some(value) = asked.get(key) else {
                continue;
            };
            if selection.is_some() {
                return Err(Error::request(
                    key.name(),
                    format!(
                        "`{first}` and `{}` are two rules for the same step; give one",
                        key.name()
                    ),
                ));
            }
            (selection, first) = (Some(rule(value)), key.name());
        }
        let usual = Self::default();
        Ok(Self {
            cache: match asked.get(&CACHE) {
                Some(name) => CacheMode::from_name(&name)?,
                None => usual.cache,
            },
            gen_length: asked.get(&GEN_LENGTH).unwrap_or(usual.gen_length),
            block_length: asked.get(&BLOCK_LENGTH),
            steps: asked.get(&DECODING_STEPS),
            selection,
            algorithm: asked
                .get(&ALGORITHM)
                .map(|name| Algorithm::from_name(&name))
                .transpose()?,
            temperature: asked.get(&TEMPERATURE).unwrap_or(usual.temperature),
            top_p: asked.get(&TOP_P),
            top_k: asked.get(&TOP_K),
            algorithm_temperature: asked
                .get(&ALGORITHM_TEMPERATURE)
                .unwrap_or(usual.algorithm_temperature),
            guidance: asked.get(&CFG).unwrap_or(usual.guidance),
            end_tokens: match asked.get(&END_TOKENS).as_deref() {
                Some("never") => EndTokens::Never,
                Some("last") => EndTokens::Last,
                _ => EndTokens::Free,
            },
            entropy_bound: asked.get(&ENTROPY_BOUND).unwrap_or(usual.entropy_bound),
            sub_block_length: asked
                .get(&SUB_BLOCK_LENGTH)
                .unwrap_or(usual.sub_block_length),
            seed: asked.get(&keys::SEED).unwrap_or(usual.seed),
            early_stop: !asked.get(&NO_EARLY_STOP).unwrap_or(false),
            infill: asked.get(&INFILL).unwrap_or(false),
            stop_tokens: asked.get(&STOP_TOKEN).unwrap_or_default(),
            mask_token: asked.get(&MASK_TOKEN),
        })
    }
}

impl LoadOptions {
    /// Reads the options of opening.
    pub(super) fn read(settings: &OpenSettings) -> Result<Self> {
        let asked = &settings.options;
        let quantize = asked.get(&QUANTIZE).unwrap_or_else(|| "none".to_owned());
        let place = asked.get(&keys::DEVICE).unwrap_or_else(|| "cpu".to_owned());
        let precise = asked.get(&keys::PRECISE).unwrap_or(false);
        Ok(Self {
            location: crate::device::location(&place, precise)?,
            variant: asked.get(&keys::VARIANT),
            chat_template: asked.get(&CHAT_TEMPLATE),
            without_tokenizer: asked.get(&WITHOUT_TOKENIZER).unwrap_or(false),
            block_causal: asked.get(&BLOCK_CAUSAL),
            quantization: brisk_nn::Quantization::from_name(&quantize)?,
            quantized_weights: asked.get(&QUANTIZED_WEIGHTS),
            plan_only: settings.plan_only,
            random: settings.random,
        })
    }
}
