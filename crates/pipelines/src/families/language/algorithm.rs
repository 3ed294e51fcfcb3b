//! The choices that have names: caches, algorithms, end tokens.

use crate::error::{Error, Result};

/// What is kept between the steps of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// Nothing: every step computes the whole canvas.
    None,
    /// Keys and values of everything before the block. Exact for block-causal models, an
    /// approximation for the others.
    Prefix,
    /// Those of everything but the block; for block-causal models those of everything but a
    /// sub-block of the block.
    Dual,
}

/// How tokens are proposed and ordered, under the names that the references use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// LLaDA's and Fast-dLLM's: block by block, by the probability of the proposed token.
    LowConfidence,
    /// LLaDA's: block by block, in random order.
    Random,
    /// Dream's: every token is decided at a time of its own, drawn at random.
    Origin,
    /// Dream's: by the probability of the proposed token.
    MaskgitPlus,
    /// Dream's: by the distance of the two highest probabilities.
    TopkMargin,
    /// Dream's: by the entropy.
    Entropy,
    /// Dream's with Fast-dLLM's threshold.
    ConfidenceThreshold,
    /// Block-causal models: all above the threshold, or the step's quota where those are fewer.
    LowConfidenceDynamic,
    /// Block-causal models: the step's quota, most confident first.
    LowConfidenceStatic,
    /// Block-causal models: the step's quota, from left to right.
    Sequential,
    /// Block-causal models: the surest tokens whose entropies sum to at most the bound.
    EntropyBounded,
}

impl Algorithm {
    /// All, by name.
    pub const ALL: [(&'static str, Self); 11] = [
        ("low_confidence", Self::LowConfidence),
        ("random", Self::Random),
        ("origin", Self::Origin),
        ("maskgit_plus", Self::MaskgitPlus),
        ("topk_margin", Self::TopkMargin),
        ("entropy", Self::Entropy),
        ("confidence_threshold", Self::ConfidenceThreshold),
        ("low_confidence_dynamic", Self::LowConfidenceDynamic),
        ("low_confidence_static", Self::LowConfidenceStatic),
        ("sequential", Self::Sequential),
        ("entropy_bounded", Self::EntropyBounded),
    ];

    /// The algorithm of a name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, algorithm)| *algorithm).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            Error::request(
                "algorithm",
                format!("{name:?} is unknown; expected one of {}", names.join(", ")),
            )
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, algorithm)| *algorithm == self);
        found.map_or("", |(name, _)| name)
    }
}

/// What happens to tokens that end a text (LLaDA tends to end too early when it decodes long
/// blocks).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndTokens {
    /// They are tokens like others.
    Free,
    /// The first end token is never proposed (`logits_eos_inf`).
    Never,
    /// End tokens are decided last (`confidence_eos_eot_inf`).
    Last,
}

impl CacheMode {
    const NAMES: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("prefix", Self::Prefix),
        ("dual", Self::Dual),
    ];

    /// The mode of a name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn from_name(name: &str) -> Result<Self> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, mode)| *mode).ok_or_else(|| {
            Error::request(
                "cache",
                format!("{name:?} is unknown; expected none, prefix or dual"),
            )
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, mode)| *mode == self);
        found.map_or("", |(name, _)| name)
    }
}
