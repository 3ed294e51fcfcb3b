//! From noise to a clean latent: what every family of diffusion models shares.
//!
//! [`schedulers`] are time grids and update rules, [`noise`] draws what torch draws, [`guidance`]
//! combines velocities, [`resolution`] knows trained sizes, [`preview`] shows at next to no
//! cost what becomes of a picture. [`denoise`] walks a [`VelocityModel`] along
//! a grid: pictures and guidance branches form rows, which go through the network in chunks of bounded
//! size.

pub mod denoise;
pub mod guidance;
pub mod latents;
pub mod noise;
pub mod preview;
pub mod resolution;
pub mod schedulers;

pub use denoise::{Branch, Denoiser, Done, Row, VelocityModel};

use crate::error::{Error, Result};

/// How latents become pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecodeMode {
    /// Whole up to 1024 × 1024 pixels where memory allows, strips above.
    #[default]
    Auto,
    /// In one piece.
    Whole,
    /// In horizontal strips that give the same numbers as [`DecodeMode::Whole`].
    Strips,
    /// In overlapping blended tiles as diffusers does it; numbers differ from the others.
    Tiled,
}

impl DecodeMode {
    const NAMES: [(&'static str, Self); 4] = [
        ("auto", Self::Auto),
        ("whole", Self::Whole),
        ("strips", Self::Strips),
        ("tiled", Self::Tiled),
    ];

    /// The mode of a name, [`DecodeMode::Auto`] for none.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: Option<&str>) -> Result<Self> {
        let Some(name) = name else {
            return Ok(Self::Auto);
        };
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, mode)| *mode).ok_or_else(|| {
            Error::request(
                "decode",
                format!("unknown mode {name:?}; use auto, whole, strips or tiled"),
            )
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, mode)| *mode == self);
        found.map_or("", |(name, _)| name)
    }
}

/// First step of a run that starts from a picture: the share 1 − `strength` of the steps is skipped.
pub fn start_index(steps: usize, strength: f64) -> usize {
    let kept = (steps as f64 * strength).min(steps as f64);
    (steps as f64 - kept).max(0.0) as usize
}
