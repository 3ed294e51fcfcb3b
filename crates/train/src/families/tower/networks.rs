//! The networks that learn: the tower without its depth transformer, and what compares it with texts.

use brisk_models::vila_u::tower::{Contrast, Parts, SiglipTextConfig, Tower, TowerConfig};
use brisk_nn::Weights;

use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// Parts of the tower.
pub(super) const PARTS: Parts = Parts {
    encoder: true,
    decoder: true,
    depth: false,
};

pub(super) struct Networks {
    pub tower: Tower,
    pub contrast: Contrast,
}

impl Networks {
    pub fn load(config: &TowerConfig, text: &SiglipTextConfig, weights: &Weights) -> Result<Self> {
        Ok(Self {
            contrast: Contrast::load(config.siglip()?, text, &weights.pp("rqvaesiglip"))?,
            tower: Tower::load(config, weights, PARTS)?,
        })
    }

    /// From the moving average, as it will be written when `rounded`.
    pub fn frozen(
        config: &TowerConfig,
        text: &SiglipTextConfig,
        arrays: &[NamedArray],
        rounded: bool,
    ) -> Result<Self> {
        let source = tensors::memory_source(arrays, "", rounded)?;
        Self::load(config, text, &Weights::from_source(source))
    }
}
