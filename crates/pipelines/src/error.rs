//! What can go wrong between a request and its pictures.

use crate::request::ResultKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of a pipeline. Messages name the option, file or stage, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the request is out of range or contradicts another.
    #[error("{option}: {message}")]
    Request {
        /// Name of the option, without dashes.
        option: &'static str,
        /// What was found, what is allowed.
        message: String,
    },
    /// What an option names cannot be read.
    #[error("{option}: {source}")]
    Option {
        /// Name of the option, without dashes.
        option: &'static str,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The loaded model has no use for an option that was given.
    #[error("{option} is not available with {model}: {reason}")]
    Unsupported {
        /// Name of the option, without dashes.
        option: &'static str,
        /// Model that refuses it.
        model: String,
        /// Why, and what to use instead.
        reason: String,
    },
    /// The model gives something else than was asked for.
    #[error("{model} gives {}, not {}", names(gives), wanted.name())]
    WrongResult {
        /// The model.
        model: String,
        /// What was asked for.
        wanted: ResultKind,
        /// What it gives.
        gives: Vec<ResultKind>,
    },
    /// A plan was given to another model than made it.
    #[error("this plan was made by another model than {model}; plan the request again")]
    ForeignPlan {
        /// The model that was asked to run it.
        model: String,
    },
    /// The folder is no model that this crate runs.
    #[error("{folder}: {message}")]
    Folder {
        /// Folder or file of the model.
        folder: String,
        /// What is missing or unknown.
        message: String,
    },
    /// A configuration file asks for something that is not implemented or makes no sense.
    #[error("{file}: {message}")]
    Config {
        /// Configuration file.
        file: String,
        /// Key, value, and what is accepted.
        message: String,
    },
    /// The job needs more memory than is free.
    #[error(
        "{stage} needs about {needed_mib} MiB of memory and {available_mib} MiB are available; {suggestion}"
    )]
    Memory {
        /// Stage with the highest estimate.
        stage: &'static str,
        /// Estimated need in MiB.
        needed_mib: u64,
        /// Free memory in MiB.
        available_mib: u64,
        /// A request that would need less.
        suggestion: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Weights, folders and files.
    #[error(transparent)]
    Store(#[from] brisk_store::Error),
    /// Pictures.
    #[error(transparent)]
    Media(#[from] brisk_media::Error),
    /// Tokenizers and prompts.
    #[error(transparent)]
    Text(#[from] brisk_text::Error),
    /// Tensors, layers and models.
    #[error(transparent)]
    Nn(brisk_nn::Error),
}

impl From<brisk_nn::Error> for Error {
    fn from(error: brisk_nn::Error) -> Self {
        match error {
            brisk_nn::Error::Stopped => Self::Cancelled,
            other => Self::Nn(other),
        }
    }
}

fn names(kinds: &[ResultKind]) -> String {
    if kinds.is_empty() {
        return "judgements of pictures (`brisk image --best-of N --judge`)".to_owned();
    }
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    names.join(" and ")
}

impl Error {
    /// Whether the request itself is at fault (exit code 2) rather than the run (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Request { .. } | Self::Unsupported { .. } | Self::WrongResult { .. }
        )
    }

    /// Whether a computation gave values that are not finite.
    pub fn is_non_finite(&self) -> bool {
        matches!(self, Self::Nn(brisk_nn::Error::NonFinite { .. }))
    }

    /// The option at fault, where one is.
    pub fn option(&self) -> Option<&'static str> {
        match self {
            Self::Request { option, .. }
            | Self::Unsupported { option, .. }
            | Self::Option { option, .. } => Some(option),
            _ => None,
        }
    }

    /// Says that this went wrong with what an option names.
    pub fn of(self, option: &'static str) -> Self {
        Self::Option {
            option,
            source: Box::new(self),
        }
    }

    /// What is wrong with quantized weights, which says its file itself; where only numbers are at fault, they are
    /// `label`'s.
    pub(crate) fn quantized(error: brisk_quant::Error, label: impl Into<String>) -> Self {
        match error {
            brisk_quant::Error::Store(error) => error.into(),
            brisk_quant::Error::File { file, problem } => Self::folder(file, problem),
            brisk_quant::Error::Tensor {
                file,
                tensor,
                problem,
            } => Self::folder(file, format!("tensor {tensor:?}: {problem}")),
            brisk_quant::Error::Invalid(problem) => Self::folder(label, problem),
        }
    }

    /// An option with a value that cannot be served.
    pub fn request(option: &'static str, message: impl Into<String>) -> Self {
        Self::Request {
            option,
            message: message.into(),
        }
    }

    pub(crate) fn config(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            file: file.into(),
            message: message.into(),
        }
    }

    /// A folder that is no model, or not whole.
    pub fn folder(folder: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Folder {
            folder: folder.into(),
            message: message.into(),
        }
    }
}
