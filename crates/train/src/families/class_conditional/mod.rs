//! Class-conditional transformers of the DC-AE paper (arXiv 2410.10733), trained on the latents of a frozen autoencoder.
//!
//! Every picture is encoded once, and its latent kept in the run's folder. An update noises latents by the process that the
//! configuration names and asks the network what was added: the noise itself (UViT), the noise and the bounds of its
//! variance (DiT, arXiv 2102.09672), or the velocity of a straight flow (USiT and SiT, arXiv 2401.08740). Some classes are
//! left out, so that the model can be guided.

mod classes;
mod export;
mod objective;
mod recipe;
mod training;

pub use recipe::{ClassLaw, ClassRecipe};
pub use training::{ClassReport, train_class};
