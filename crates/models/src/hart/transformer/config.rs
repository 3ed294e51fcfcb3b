//! The transformer's `config.json`.

use serde::{Deserialize, Deserializer};

use super::super::Scales;
use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 16;
const LARGEST_DEPTH: usize = 1024;
const LARGEST_CONTEXT: usize = 1 << 16;
/// Steps of the process that the diffusion head was trained on.
const MOST_STEPS: usize = 1000;

/// Settings of a transformer, named as in its `config.json`; where a key is missing, the default of the
/// reference's class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct TransformerConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the residual stream.
    pub embed_dim: usize,
    /// Heads of every attention.
    pub num_heads: usize,
    /// Decides the width inside the feed-forward layers ([`Self::inner`]).
    pub mlp_ratio: f64,
    /// Kind of feed-forward layers; only `llama` is implemented.
    pub mlp_type: String,
    /// Kind of attention and norms; only `llama` is implemented.
    pub attn_type: String,
    /// Whether blocks are not modulated by the context; only `true` is implemented.
    pub disable_aln: bool,
    /// Whether they are modulated after all, by one table; only `false` is implemented.
    pub shared_aln: bool,
    /// Whether scales are embedded by their sinusoid instead of a table.
    pub use_timestep_embed: bool,
    /// Whether blocks attend to the context besides; only `false` is implemented.
    pub use_cross_attn: bool,
    /// Rows of text that stand before the codes.
    pub context_token: usize,
    /// Width of a row of text.
    pub context_dim: usize,
    /// Sides of the grids of codes.
    pub patch_nums: Vec<usize>,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f64,
    /// Whether queries and keys are normalised, with a factor for each head.
    pub attn_l2_norm: bool,
    /// Whether rows of text are normalised first.
    pub use_context_norm: bool,
    /// Width of the diffusion head.
    pub diff_width: usize,
    /// Blocks of the diffusion head.
    pub diff_depth: usize,
    /// Steps of its sampler; files hold a text.
    #[serde(deserialize_with = "steps")]
    pub num_sampling_steps: usize,
    /// Its sampler; only `iddpm` exists.
    pub sampler: String,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            depth: 16,
            embed_dim: 1024,
            num_heads: 16,
            mlp_ratio: 4.0,
            mlp_type: "gpt2".to_owned(),
            attn_type: "gpt2".to_owned(),
            disable_aln: false,
            shared_aln: false,
            use_timestep_embed: false,
            use_cross_attn: false,
            context_token: 77,
            context_dim: 768,
            patch_nums: vec![1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
            norm_eps: 1e-6,
            attn_l2_norm: false,
            use_context_norm: false,
            diff_width: 1024,
            diff_depth: 6,
            num_sampling_steps: 8,
            sampler: "iddpm".to_owned(),
        }
    }
}

/// A number, or a text of one, as the reference's files have it.
fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Spelt {
        Number(usize),
        Text(String),
    }
    match Spelt::deserialize(deserializer)? {
        Spelt::Number(count) => Ok(count),
        Spelt::Text(text) => text.trim().parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?}: expected a number of steps; other respacings are not implemented"
            ))
        }),
    }
}

impl TransformerConfig {
    /// Values of `model_type` and `architectures`.
    pub const CLASSES: [&str; 2] = ["HARTForT2I", "hart_transformer_t2i"];

    /// Keys that are read, or that change nothing at inference.
    pub const KEYS: [&str; 31] = [
        "attn_drop_rate",
        "attn_l2_norm",
        "attn_type",
        "cond_drop_rate",
        "context_dim",
        "context_norm_scale",
        "context_token",
        "depth",
        "diff_depth",
        "diff_width",
        "diffusion_batch_mul",
        "diffusion_head_repeats",
        "disable_aln",
        "drop_path_rate",
        "drop_rate",
        "embed_dim",
        "flash_if_available",
        "fused_if_available",
        "mlp_ratio",
        "mlp_type",
        "norm_eps",
        "num_heads",
        "num_sampling_steps",
        "patch_nums",
        "sampler",
        "sep_aln_pooling_mode",
        "shared_aln",
        "use_context_norm",
        "use_cross_attn",
        "use_timestep_embed",
        "vae_path",
    ];

    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// Values of a wrong type, outside their range, or of what is not implemented, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let config: Self = parse(bytes, label)?;
        expect_kind(bytes, label, "model_type", Self::CLASSES[1])?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// By the key, with what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        check_count("depth", self.depth, LARGEST_DEPTH)?;
        check_count("embed_dim", self.embed_dim, LARGEST_WIDTH)?;
        check_count("num_heads", self.num_heads, LARGEST_WIDTH)?;
        check_count("context_token", self.context_token, LARGEST_CONTEXT)?;
        check_count("context_dim", self.context_dim, LARGEST_WIDTH)?;
        check_count("diff_width", self.diff_width, LARGEST_WIDTH)?;
        check_count("diff_depth", self.diff_depth, LARGEST_DEPTH)?;
        if !self.embed_dim.is_multiple_of(4 * self.num_heads) {
            return fail(format!(
                "`embed_dim` is {}; expected a multiple of `num_heads` = {} whose heads have a multiple of 4 \
                 channels",
                self.embed_dim, self.num_heads
            ));
        }
        for (key, value, wanted) in [
            ("mlp_type", &self.mlp_type, "llama"),
            ("attn_type", &self.attn_type, "llama"),
            ("sampler", &self.sampler, "iddpm"),
        ] {
            if value != wanted {
                return fail(format!(
                    "`{key}` is {value:?}; expected {wanted:?}, nothing else is implemented"
                ));
            }
        }
        for (key, value, wanted) in [
            ("disable_aln", self.disable_aln, true),
            ("shared_aln", self.shared_aln, false),
            ("use_cross_attn", self.use_cross_attn, false),
        ] {
            if value != wanted {
                return fail(format!(
                    "`{key}` is {value}; expected {wanted}, nothing else is implemented"
                ));
            }
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return fail(format!(
                "`norm_eps` is {}; expected 0 or more",
                self.norm_eps
            ));
        }
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio <= 256.0) {
            return fail(format!(
                "`mlp_ratio` is {}; expected a number above 0, at most 256",
                self.mlp_ratio
            ));
        }
        if !(2..=MOST_STEPS).contains(&self.num_sampling_steps) {
            return fail(format!(
                "`num_sampling_steps` is {}; expected 2 to {MOST_STEPS}",
                self.num_sampling_steps
            ));
        }
        self.scales().map(drop)
    }

    /// The grids of codes.
    ///
    /// # Errors
    /// As [`Scales::new`].
    pub fn scales(&self) -> Result<Scales> {
        Scales::new("patch_nums", &self.patch_nums)
    }

    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// Width inside a feed-forward layer: two thirds of `mlp_ratio` times the width, up to a multiple of 256.
    pub fn inner(&self) -> usize {
        let wanted = self.embed_dim as f64 * self.mlp_ratio * 2.0 / 3.0;
        (wanted + 255.0) as usize / 256 * 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TransformerConfig> {
        let whole = format!(
            r#"{{"mlp_type": "llama", "attn_type": "llama", "disable_aln": true, {text}}}"#
        );
        TransformerConfig::from_json(whole.as_bytes(), "llm/config.json")
    }

    #[test]
    fn steps_are_a_text_or_a_number() {
        for text in [r#""5""#, "5"] {
            let config = read(&format!(r#""num_sampling_steps": {text}"#)).unwrap();
            assert_eq!(config.num_sampling_steps, 5);
        }
    }

    #[test]
    fn the_published_width_is_reproduced() {
        let config = read(r#""embed_dim": 1536, "num_heads": 24"#).unwrap();
        assert_eq!((config.inner(), config.head_dim()), (4096, 64));
    }

    #[test]
    fn what_is_not_implemented_is_named() {
        for (text, words) in [
            (r#""mlp_type": "gpt2""#, "`mlp_type` is \"gpt2\""),
            (r#""use_cross_attn": true"#, "`use_cross_attn` is true"),
            (r#""num_sampling_steps": "ddim8""#, "ddim8"),
            (r#""num_sampling_steps": "1""#, "`num_sampling_steps` is 1"),
            (r#""patch_nums": [1, 3, 2]"#, "`patch_nums` is [1, 3, 2]"),
            (r#""num_heads": 7"#, "`num_heads` = 7"),
            (r#""model_type": "var""#, "model_type"),
        ] {
            let error = match text.contains("mlp_type") {
                true => TransformerConfig::from_json(format!("{{{text}}}").as_bytes(), "c"),
                false => read(text),
            };
            let error = error.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
