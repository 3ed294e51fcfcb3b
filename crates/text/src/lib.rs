//! Tokenizers and prompt handling.
//!
//! [`Tokenizer`] reads a `tokenizer.json`; [`ChatTemplate`] renders the conversation that a chat model expects; [`train_bpe`] makes one with Gemma's conventions; [`sana_prompt`] turns a
//! user's prompt into the token ids that SANA models expect. This crate knows nothing of tensors or models.
//!
//! ```
//! use brisk_text::{Tokenizer, sana_prompt, train_bpe};
//! let lines: Vec<String> = ["red heart", "red apple", "green heart"].map(String::from).to_vec();
//! let tokenizer = Tokenizer::from_bytes(&train_bpe(&lines, 400)?, "trained here")?;
//! let prompt = sana_prompt::encode(&tokenizer, "  Green apple ", None, sana_prompt::MAX_TOKENS)?;
//! assert_eq!(prompt.ids[0], 2, "<bos> comes first");
//! assert_eq!(tokenizer.decode(&prompt.ids)?, "green apple");
//! # Ok::<(), brisk_text::Error>(())
//! ```
#![forbid(unsafe_code)]

mod bpe;
mod chat;
mod error;
mod guard;
pub mod sana_prompt;
mod special;
mod tokenizer;
mod vocabulary;
mod words;

pub use bpe::{MIN_VOCABULARY, train_bpe};
pub use chat::{ChatMessage, ChatTemplate};
pub use error::{Error, Result};
pub use guard::is_guarded;
pub use tokenizer::Tokenizer;
pub use words::word_tokenizer;
