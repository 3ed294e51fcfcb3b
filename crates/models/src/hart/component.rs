//! The transformer from outside: taught, its diffusion head alone, and drawing with the tokenizer beside it.

mod configuration;
mod entries;
mod runs;

pub use configuration::COMPONENT;
