//! What one asks of a diffusion language model, and the check against what it can do.

use brisk_models::language_model::{Attention, Family, LanguageModelConfig};

use super::algorithm::{Algorithm, CacheMode, EndTokens};
use super::proposal::Confidence;
use super::selection::Selection;
use crate::error::{Error, Result};

/// A request for text. `None` leaves a value to the model's family.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    /// What is kept between steps.
    pub cache: CacheMode,
    /// Tokens to generate.
    pub gen_length: usize,
    /// Tokens of a block; divides `gen_length`.
    pub block_length: Option<usize>,
    /// Steps in all; a multiple of the number of blocks.
    pub steps: Option<usize>,
    /// How many tokens a step decides; by default a threshold, or the quota where steps are given.
    pub selection: Option<Selection>,
    /// How tokens are proposed and ordered.
    pub algorithm: Option<Algorithm>,
    /// 0: always the most likely token.
    pub temperature: f64,
    /// Nucleus of the distribution; not for LLaDA's sampler.
    pub top_p: Option<f64>,
    /// Number of tokens to draw from; not for LLaDA's sampler.
    pub top_k: Option<usize>,
    /// Dream: 0 decides the most confident tokens, more draws them.
    pub algorithm_temperature: f64,
    /// Strength of classifier-free guidance; LLaDA's sampler only.
    pub guidance: f64,
    /// What happens to end tokens; LLaDA's sampler only.
    pub end_tokens: EndTokens,
    /// Sum of entropies that one step may decide ([`Algorithm::EntropyBounded`]).
    pub entropy_bound: f64,
    /// Positions of a sub-block (Fast-dLLM v2).
    pub sub_block_length: usize,
    /// Seed of every random number.
    pub seed: u64,
    /// Stop after a block that holds an end token; what follows is filled with it. The text before
    /// that token is the same either way.
    pub early_stop: bool,
    /// Masks in the prompt are blanks to fill in.
    pub infill: bool,
    /// Ends a text, besides what the model's configuration says.
    pub stop_tokens: Vec<u32>,
    /// The mask, where the model's configuration doesn't say or is to be overruled.
    pub mask_token: Option<u32>,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            cache: CacheMode::Prefix,
            gen_length: 128,
            block_length: None,
            steps: None,
            selection: None,
            algorithm: None,
            temperature: 0.0,
            top_p: None,
            top_k: None,
            algorithm_temperature: 0.0,
            guidance: 0.0,
            end_tokens: EndTokens::Free,
            entropy_bound: 0.1,
            sub_block_length: 8,
            seed: 0,
            early_stop: true,
            infill: false,
            stop_tokens: Vec::new(),
            mask_token: None,
        }
    }
}

/// Which decoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecoderKind {
    Blocks,
    DreamWhole,
    DreamBlocks,
    BlockCausal,
}

/// A request that fits a model, with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodingPlan {
    /// Tokens of a block.
    pub block_length: usize,
    /// Steps in all.
    pub steps: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Rule of a step.
    pub selection: Selection,
    /// How tokens are proposed and ordered.
    pub algorithm: Algorithm,
    /// The mask.
    pub mask: u32,
    /// Tokens that end a text, the one that fills up first.
    pub ends: Vec<u32>,
    pub(super) decoder: DecoderKind,
}

/// Most tokens that one request may ask for.
const MAX_LENGTH: usize = 1 << 20;
/// Fast-dLLM's block.
const BLOCK: usize = 32;

impl Decoding {
    /// Checks the request against a model and settles what was left open.
    ///
    /// # Errors
    /// A value out of range, values that contradict each other, or an option that this model does
    /// not honour; the message names the option and the numbers.
    pub fn plan(&self, config: &LanguageModelConfig) -> Result<DecodingPlan> {
        self.check_ranges()?;
        let mask = self.mask(config)?;
        let algorithm = self.algorithm_for(config)?;
        let decoder = decoder(algorithm, self.cache);
        self.check_honoured(config, algorithm, decoder)?;
        let block_length = self.block_for(config, decoder)?;
        let blocks = match decoder {
            DecoderKind::BlockCausal => self.gen_length.div_ceil(block_length),
            _ if self.gen_length == 0 => 0,
            _ if self.gen_length.is_multiple_of(block_length) => self.gen_length / block_length,
            _ => {
                return Err(Error::request(
                    "block-length",
                    format!(
                        "{block_length} does not divide --gen-length {}",
                        self.gen_length
                    ),
                ));
            }
        };
        let steps = self.steps_for(decoder, blocks, block_length)?;
        if decoder == DecoderKind::DreamWhole
            && algorithm == Algorithm::ConfidenceThreshold
            && !self.gen_length.is_multiple_of(steps)
        {
            return Err(Error::request(
                "steps",
                format!(
                    "{steps} does not divide --gen-length {}, as this algorithm needs without a cache",
                    self.gen_length
                ),
            ));
        }
        let mut ends = config.eos_token_ids.clone();
        ends.extend(&self.stop_tokens);
        for &end in &ends {
            if end as usize >= config.vocab_size {
                return Err(Error::request(
                    "stop-token",
                    format!("{end} is outside the model's {} rows", config.vocab_size),
                ));
            }
        }
        Ok(DecodingPlan {
            block_length,
            steps,
            blocks,
            selection: self.selection_for(config, algorithm)?,
            algorithm,
            mask,
            ends,
            decoder,
        })
    }

    /// Checks a prompt against the model and the request.
    ///
    /// # Errors
    /// No tokens, ids outside the vocabulary, masks without `infill`, or more positions than the
    /// model knows.
    pub fn check_prompt(
        &self,
        prompt: &[u32],
        plan: &DecodingPlan,
        config: &LanguageModelConfig,
    ) -> Result<()> {
        let fail = |message: String| Err(Error::request("prompt", message));
        if prompt.is_empty() {
            return fail("there are no tokens to start from; give some text".into());
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= config.vocab_size) {
            return fail(format!(
                "token id {id} is outside the model's vocabulary of {}; does the tokenizer belong to this model?",
                config.vocab_size
            ));
        }
        let masks = prompt.iter().filter(|id| **id == plan.mask).count();
        if masks > 0 && !self.infill {
            return fail(format!(
                "{masks} of its {} tokens are the mask (id {}); --infill fills them in",
                prompt.len(),
                plan.mask
            ));
        }
        if self.gen_length == 0 && masks == 0 {
            return Err(Error::request(
                "gen-length",
                "0 leaves nothing to decode; expected at least 1 (or masks to --infill)",
            ));
        }
        let mut total = prompt.len().saturating_add(self.gen_length);
        if plan.decoder == DecoderKind::BlockCausal {
            total = total.next_multiple_of(plan.block_length);
        }
        if total > config.context {
            return Err(Error::request(
                "gen-length",
                format!(
                    "{} tokens of prompt and {} to generate need {total} positions, and the model knows {}",
                    prompt.len(),
                    self.gen_length,
                    config.context
                ),
            ));
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<()> {
        let fail = |option, message: String| Err(Error::request(option, message));
        if self.gen_length > MAX_LENGTH {
            return fail(
                "gen-length",
                format!("{}: expected at most {MAX_LENGTH}", self.gen_length),
            );
        }
        if self.gen_length == 0 && !self.infill {
            return fail("gen-length", "0: expected at least 1".into());
        }
        for (option, value) in [
            ("temperature", self.temperature),
            ("algorithm-temperature", self.algorithm_temperature),
            ("guidance", self.guidance),
            ("entropy-bound", self.entropy_bound),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return fail(option, format!("{value}: expected a number from 0"));
            }
        }
        if let Some(p) = self.top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return fail("top-p", format!("{p}: expected above 0, at most 1"));
        }
        if self.top_k == Some(0) {
            return fail("top-k", "0: expected at least 1".into());
        }
        match self.selection {
            Some(Selection::Threshold(x)) if !x.is_finite() => {
                fail("threshold", format!("{x}: expected a number"))
            }
            Some(Selection::Factor(x) | Selection::FactorStrict(x) | Selection::Frechet(x))
                if !(x.is_finite() && x > 0.0) =>
            {
                fail("factor", format!("{x}: expected a number above 0"))
            }
            _ => Ok(()),
        }
    }

    fn mask(&self, config: &LanguageModelConfig) -> Result<u32> {
        let Some(mask) = self.mask_token.or(config.mask_token_id) else {
            return Err(Error::request(
                "mask-token",
                "the model's files name no mask token; give its id",
            ));
        };
        if mask as usize >= config.vocab_size {
            return Err(Error::request(
                "mask-token",
                format!("{mask} is outside the model's {} rows", config.vocab_size),
            ));
        }
        Ok(mask)
    }

    fn algorithm_for(&self, config: &LanguageModelConfig) -> Result<Algorithm> {
        use Algorithm as A;
        let blocks = matches!(config.attention, Attention::BlockCausal(_));
        let threshold = matches!(
            self.selection.unwrap_or(self.open_selection(config)),
            Selection::Threshold(_)
        );
        let parallel = matches!(
            self.selection,
            Some(Selection::Factor(_) | Selection::FactorStrict(_) | Selection::Frechet(_))
        );
        let usual = match config.family {
            _ if blocks && self.steps.is_some() && self.selection.is_none() => {
                A::LowConfidenceStatic
            }
            _ if blocks => A::LowConfidenceDynamic,
            Family::Dream if threshold => A::ConfidenceThreshold,
            Family::Dream if parallel && self.cache == CacheMode::None => A::LowConfidence,
            Family::Dream if parallel => A::ConfidenceThreshold,
            Family::Dream => A::Entropy,
            _ => A::LowConfidence,
        };
        let Some(algorithm) = self.algorithm else {
            return Ok(usual);
        };
        let known: &[A] = match config.family {
            _ if blocks => &[
                A::LowConfidenceDynamic,
                A::LowConfidenceStatic,
                A::Sequential,
                A::EntropyBounded,
            ],
            Family::Dream => &[
                A::Origin,
                A::MaskgitPlus,
                A::TopkMargin,
                A::Entropy,
                A::ConfidenceThreshold,
                A::LowConfidence,
                A::Random,
            ],
            _ => &[A::LowConfidence, A::Random],
        };
        if known.contains(&algorithm) {
            return Ok(algorithm);
        }
        let names: Vec<&str> = known.iter().map(|algorithm| algorithm.name()).collect();
        Err(Error::request(
            "algorithm",
            format!(
                "{} is not for {} models; expected one of {}",
                algorithm.name(),
                config.family.name(),
                names.join(", ")
            ),
        ))
    }

    /// The rule where the request has none.
    fn open_selection(&self, config: &LanguageModelConfig) -> Selection {
        if self.steps.is_some() {
            return Selection::Quota;
        }
        Selection::Threshold(match config.family {
            Family::Sdar => 0.85,
            Family::Llada2 => 0.95,
            _ => 0.9,
        })
    }

    fn selection_for(
        &self,
        config: &LanguageModelConfig,
        algorithm: Algorithm,
    ) -> Result<Selection> {
        use Algorithm as A;
        let selection = self.selection.unwrap_or_else(|| match algorithm {
            // Those spend a quota by definition.
            A::Origin | A::MaskgitPlus | A::TopkMargin | A::Entropy => Selection::Quota,
            A::LowConfidenceStatic | A::Sequential | A::EntropyBounded => Selection::Quota,
            _ => self.open_selection(config),
        });
        let fits = match algorithm {
            A::LowConfidence | A::Random => true,
            A::ConfidenceThreshold if self.cache == CacheMode::None => {
                matches!(selection, Selection::Threshold(_))
            }
            A::ConfidenceThreshold => selection != Selection::Quota,
            A::LowConfidenceDynamic => matches!(selection, Selection::Threshold(_)),
            _ => selection == Selection::Quota,
        };
        if fits {
            return Ok(selection);
        }
        let (option, other) = match selection {
            Selection::Threshold(_) => ("threshold", "confidence_threshold"),
            Selection::Quota => ("algorithm", "entropy"),
            _ => ("factor", "low_confidence"),
        };
        Err(Error::request(
            option,
            format!(
                "the algorithm {} has a rule of its own; --algorithm {other} may be what you mean",
                algorithm.name()
            ),
        ))
    }

    /// An option without effect is refused rather than ignored.
    fn check_honoured(
        &self,
        config: &LanguageModelConfig,
        algorithm: Algorithm,
        decoder: DecoderKind,
    ) -> Result<()> {
        let refuse = |option, reason: &str| {
            Err(Error::Unsupported {
                option,
                model: config.family.name().to_owned(),
                reason: reason.to_owned(),
            })
        };
        let llada = decoder == DecoderKind::Blocks;
        if !llada && self.guidance > 0.0 {
            return refuse(
                "guidance",
                "only LLaDA's sampler (--algorithm low_confidence) has it",
            );
        }
        if !llada && self.end_tokens != EndTokens::Free {
            return refuse(
                "end-tokens",
                "only LLaDA's sampler (--algorithm low_confidence) has it",
            );
        }
        if llada && (self.top_p.is_some() || self.top_k.is_some()) {
            let option = if self.top_p.is_some() {
                "top-p"
            } else {
                "top-k"
            };
            return refuse(option, "LLaDA's sampler draws from all tokens");
        }
        let orders = matches!(decoder, DecoderKind::DreamWhole | DecoderKind::DreamBlocks)
            && !matches!(
                algorithm,
                Algorithm::Origin | Algorithm::ConfidenceThreshold
            );
        if !orders && self.algorithm_temperature > 0.0 {
            return refuse(
                "algorithm-temperature",
                "only Dream's maskgit_plus, topk_margin and entropy have it",
            );
        }
        if decoder == DecoderKind::DreamBlocks
            && matches!(
                algorithm,
                Algorithm::Origin | Algorithm::MaskgitPlus | Algorithm::TopkMargin
            )
        {
            return refuse(
                "algorithm",
                "with a cache there are entropy, confidence_threshold and low_confidence; the others \
                 need --cache none",
            );
        }
        if self.infill && decoder != DecoderKind::Blocks {
            return refuse(
                "infill",
                "blanks are filled in by --algorithm low_confidence or random of models with full attention",
            );
        }
        let blocks = self
            .block_length
            .is_some_and(|length| length != self.gen_length);
        if decoder == DecoderKind::DreamWhole && blocks {
            return refuse(
                "block-length",
                "Dream's own algorithms decode the whole canvas without a cache; --algorithm low_confidence \
                 or a cache decodes in blocks",
            );
        }
        if config.family != Family::FastDllm2
            && decoder == DecoderKind::BlockCausal
            && self.cache == CacheMode::Dual
        {
            return refuse(
                "cache",
                "only Fast-dLLM v2 caches within a block; use prefix",
            );
        }
        Ok(())
    }

    fn block_for(&self, config: &LanguageModelConfig, decoder: DecoderKind) -> Result<usize> {
        let length = match (decoder, config.attention, self.block_length) {
            (DecoderKind::DreamWhole, ..) => self.gen_length.max(1),
            (_, Attention::BlockCausal(block), None) => block,
            (_, Attention::BlockCausal(block), Some(asked)) if asked != block => {
                return Err(Error::request(
                    "block-length",
                    format!(
                        "{asked}: the model's attention has blocks of {block} (--block-causal {asked} where its \
                         configuration doesn't say so)"
                    ),
                ));
            }
            (.., Some(asked)) => asked,
            (.., None) if self.gen_length.is_multiple_of(BLOCK) && self.gen_length > 0 => BLOCK,
            (.., None) => self.gen_length.max(1),
        };
        if length == 0 {
            return Err(Error::request("block-length", "0: expected at least 1"));
        }
        let sub = self.sub_block_length;
        if config.family == Family::FastDllm2 && (sub == 0 || !length.is_multiple_of(sub)) {
            return Err(Error::request(
                "sub-block-length",
                format!("{sub} does not divide the block of {length}"),
            ));
        }
        Ok(length)
    }

    fn steps_for(&self, decoder: DecoderKind, blocks: usize, block_length: usize) -> Result<usize> {
        let all = match decoder {
            DecoderKind::BlockCausal => blocks * block_length,
            _ => self.gen_length,
        };
        let Some(steps) = self.steps else {
            return Ok(all.max(1));
        };
        let fail = |message: String| Err(Error::request("steps", message));
        let least = match decoder {
            // The block variant spends its first step on the block's first token.
            DecoderKind::DreamBlocks if block_length > 1 => 2 * blocks,
            DecoderKind::DreamWhole => 1,
            _ => blocks.max(1),
        };
        if steps < least {
            return fail(format!(
                "{steps} steps cannot fill {} tokens in {blocks} blocks; expected at least {least}",
                self.gen_length
            ));
        }
        if steps > MAX_LENGTH {
            return fail(format!("{steps}: expected at most {MAX_LENGTH}"));
        }
        if decoder != DecoderKind::DreamWhole && blocks > 0 && !steps.is_multiple_of(blocks) {
            return fail(format!(
                "{steps} is no multiple of the {blocks} blocks (--gen-length {} by --block-length {block_length})",
                self.gen_length
            ));
        }
        Ok(steps)
    }
}

impl DecodingPlan {
    /// Steps of one block.
    pub fn steps_per_block(&self) -> usize {
        self.steps / self.blocks.max(1)
    }

    /// The confidence that the algorithm orders by.
    pub(super) fn confidence(&self) -> Confidence {
        match self.algorithm {
            Algorithm::TopkMargin => Confidence::Margin,
            Algorithm::Entropy => Confidence::Entropy,
            _ => Confidence::Probability,
        }
    }
}

fn decoder(algorithm: Algorithm, cache: CacheMode) -> DecoderKind {
    use Algorithm as A;
    match algorithm {
        A::LowConfidence | A::Random => DecoderKind::Blocks,
        A::LowConfidenceDynamic | A::LowConfidenceStatic | A::Sequential | A::EntropyBounded => {
            DecoderKind::BlockCausal
        }
        _ if cache == CacheMode::None => DecoderKind::DreamWhole,
        _ => DecoderKind::DreamBlocks,
    }
}
