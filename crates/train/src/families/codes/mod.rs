//! HART's transformer, its diffusion head and a text encoder, trained together on the codes of a frozen
//! hybrid tokenizer (arXiv 2410.10812, sections 3.2 and 3.3).
//!
//! Every picture is encoded once: codes of all scales, and what the scales before the last leave of its latent.
//! An update predicts the codes of every scale by those of the scales before it, in one pass; of the last scale
//! only some places are kept. The diffusion head learns what the codes leave there. Some texts are left out, so
//! that the model can be guided. The authors have published no trainer; what they leave open is settled by the
//! recipe.

mod draws;
mod export;
mod lessons;
mod networks;
mod objective;
mod recipe;
mod tokenizer_files;
mod training;

pub use networks::open_codes_start;
pub use recipe::{CodesRecipe, DiffusionLoss, DropLaw, KeptPlaces};
pub use tokenizer_files::TokenizerFiles;
pub use training::train_codes;
