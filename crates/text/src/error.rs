//! The errors of this crate.

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tokenizer file cannot be used.
    #[error("{label}: not a usable tokenizer.json: {reason}")]
    Load {
        /// File name or other description.
        label: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The chat template cannot be used.
    #[error("{label}: the chat template failed: {reason}")]
    Template {
        /// File name or other description.
        label: String,
        /// What went wrong.
        reason: String,
    },
    /// Text cannot be tokenised, or ids cannot be turned into text.
    #[error("{label}: {reason}")]
    Encode {
        /// The tokenizer's description.
        label: String,
        /// What went wrong.
        reason: String,
    },
    /// Tokenising gave nothing, so no model can run on it.
    #[error(
        "{label}: {what} gives no tokens; this tokenizer adds no <bos>, so the text must not be empty"
    )]
    Empty {
        /// The tokenizer's description.
        label: String,
        /// Which text.
        what: &'static str,
    },
    /// A tokenizer cannot be trained as asked.
    #[error("cannot train a tokenizer: {0}")]
    Train(String),
    /// An argument makes no sense.
    #[error("{0}")]
    Argument(String),
}
