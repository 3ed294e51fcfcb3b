//! VILA-U's vision tower (arXiv 2409.04429, section 3.1): codes of pictures that can be decoded and that mean what
//! captions say.
//!
//! A run has two phases. In the first, SigLIP's two halves learn alone which caption belongs to which picture; in the
//! second, the places of a picture are quantized, and what is compared with the captions is what is left of them,
//! while a decoder learns to draw them; the text encoder then stays as it is, unless the recipe says otherwise.
//! Codewords follow the vectors that take them as moving averages (arXiv 1906.00446) and are not reached by gradients;
//! those that nothing takes begin anew. The authors have published no trainer of the tower, and start from SigLIP's
//! weights where this has its first phase; their perceptual and adversarial losses are not here.

mod codebook;
mod export;
mod networks;
mod objective;
mod recipe;
mod scores;
mod texts;
mod training;

pub(crate) use export::preprocessor;
pub use recipe::TowerRecipe;
pub use training::{TowerReport, TowerStart, open_tower, train_tower};
