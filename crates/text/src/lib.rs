//! Tokenizers and prompt handling.
//!
//! [`Tokenizer`] reads a `tokenizer.json` or a `tokenizer.model`; [`ChatTemplate`] renders the conversation that a chat model expects; [`train_bpe`] makes one with
//! SentencePiece's conventions, [`train_sentencepiece`] a `tokenizer.model`. This crate knows nothing of tensors or models.
//!
//! ```
//! use brisk_text::{Tokenizer, train_bpe};
//! let lines: Vec<String> = ["red heart", "red apple", "green heart"].map(String::from).to_vec();
//! let tokenizer = Tokenizer::from_bytes(&train_bpe(&lines, 400)?, "trained here")?;
//! let ids = tokenizer.encode("green apple")?;
//! assert_eq!(tokenizer.decode(&ids)?, "green apple");
//! # Ok::<(), brisk_text::Error>(())
//! ```
#![forbid(unsafe_code)]

mod bpe;
mod chat;
mod clip;
mod error;
mod guard;
mod kinds;
mod library;
mod limits;
mod sentencepiece;
mod special;
mod tokenizer;
mod unique;
mod vocabulary;
mod words;

pub use bpe::{MIN_VOCABULARY, train_bpe, with_pieces};
pub use chat::{ChatMessage, ChatTemplate, ChatTemplates, is_space};
pub use error::{Error, Result};
pub use guard::is_guarded;
pub use sentencepiece::{MIN_PIECES, train_sentencepiece};
pub use tokenizer::Tokenizer;
pub use words::word_tokenizer;
