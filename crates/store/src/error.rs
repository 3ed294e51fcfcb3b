//! The crate's one error type.

use std::path::Path;

/// Everything that can go wrong while weights are found, read or written.
///
/// Every message names the file and, where there is one, the tensor or key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb ("open", "write").
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The file's bytes contradict its format.
    #[error("{file}: {problem}")]
    Malformed {
        /// The file, or the label of an embedded one.
        file: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The file is well formed but uses something brisk does not read.
    #[error("{file}: {problem}")]
    Unsupported {
        /// The file, or the label of an embedded one.
        file: String,
        /// What is not supported, and what to do instead.
        problem: String,
    },
    /// A pickle stream asks for more than data.
    #[error("{file}: pickle byte {offset}: {problem}")]
    Pickle {
        /// The file, or the label of an embedded one.
        file: String,
        /// Offset of the opcode in the pickle stream.
        offset: usize,
        /// What was found.
        problem: String,
    },
    /// A file, folder or tensor that should be there is not.
    #[error("{place}: {problem}")]
    Missing {
        /// Where it was looked for.
        place: String,
        /// What is missing, and what to do.
        problem: String,
    },
    /// Another process writes into a folder.
    #[error("{folder} is in use by {holder}; wait until it is done, or stop it")]
    InUse {
        /// The folder.
        folder: String,
        /// Who holds its lock, as far as that is known ("process 17").
        holder: String,
    },
    /// A caller asked for something that makes no sense (bad name, bad shape).
    #[error("{0}")]
    Invalid(String),
    /// The hub, or the way to it, failed.
    #[error("{0}")]
    Hub(String),
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.display().to_string(),
            source,
        }
    }

    pub(crate) fn malformed(file: &str, problem: impl Into<String>) -> Self {
        Self::Malformed {
            file: file.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn unsupported(file: &str, problem: impl Into<String>) -> Self {
        Self::Unsupported {
            file: file.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn missing(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Missing {
            place: place.into(),
            problem: problem.into(),
        }
    }
}
