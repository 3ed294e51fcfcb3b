//! A recogniser of words (CRNN, arXiv 1507.05717, as EasyOCR trains it): convolutions make a column of features for
//! every four pixels of a line, two bidirectional LSTMs read them, and each column becomes a character or none.

mod component;
mod config;
mod cost;
mod decode;
mod lstm;
mod model;
mod names;

pub use component::COMPONENT;
pub use config::CrnnConfig;
pub use decode::{Reading, read};
pub use model::Crnn;
pub use names::plain_names;
