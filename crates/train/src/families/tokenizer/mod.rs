//! HART's hybrid tokenizer (arXiv 2410.10812, section 3.1): pictures as codes of several scales and a rest.
//!
//! A run has two phases. In the first, encoder, codebook and decoder learn from sums of codewords alone, as
//! VAR's tokenizer does (arXiv 2404.02905), from which the authors start. In the second, only the decoder
//! learns: at random it gets the sum of codewords or the latent as it is, so that in the end it draws both.
//! The authors add an adversarial and a perceptual loss; here pixels alone count.

mod level;
mod objective;
mod recipe;
mod revive;
mod training;

pub use recipe::{QuantizationLoss, TokenizerRecipe};
pub use training::{TokenizerReport, open_tokenizer, train_tokenizer};
