//! The crate's one error type.

/// What can go wrong between a quantized file, a layer and its numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that could not be read.
    #[error(transparent)]
    Store(#[from] brisk_store::Error),
    /// A tensor that contradicts its format, or is not there.
    #[error("{file}: tensor {tensor:?}: {problem}")]
    Tensor {
        /// The file.
        file: String,
        /// Its name in the file.
        tensor: String,
        /// What was found, what was expected, and what to do.
        problem: String,
    },
    /// A file as a whole that cannot be used.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What was found, what was expected, and what to do.
        problem: String,
    },
    /// A caller's numbers do not fit together.
    #[error("{0}")]
    Invalid(String),
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
