//! `controlnet/config.json`.

use serde::Deserialize;
use serde_json::Value;

use crate::Result;
use crate::config::{checked, expect_kind};
use crate::sana::SanaConfig;

/// Copied blocks where the file does not say.
const DEFAULT_LAYERS: usize = 7;

/// Settings of a SANA ControlNet: those of the transformer it copies, with its own depth.
#[derive(Debug, Clone, PartialEq)]
pub struct SanaControlNetConfig {
    /// Width, heads and embeddings, as in the transformer; `num_layers` counts the copied blocks.
    pub transformer: SanaConfig,
}

impl SanaControlNetConfig {
    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// As [`SanaConfig::from_json`]; also a setting that a ControlNet cannot have.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Depth {
            num_layers: Option<Value>,
        }
        expect_kind(bytes, label, "_class_name", "SanaControlNetModel")?;
        let mut transformer = SanaConfig::from_json_of_any_kind(bytes, label)?;
        let depth: Depth = crate::config::parse(bytes, label)?;
        if depth.num_layers.is_none() {
            transformer.num_layers = DEFAULT_LAYERS;
        }
        let config = Self { transformer };
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        self.transformer.validate()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let d = self.transformer.width() as u64;
        let blocks = self.transformer.num_layers as u64;
        let projection = d * d + d;
        self.transformer.embedding_parameters()
            + blocks * (self.transformer.block_parameters() + projection)
            + projection
    }
}
