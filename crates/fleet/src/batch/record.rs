//! What became of a request: a line of results.jsonl.

use brisk_server::ApiError;
use serde::{Deserialize, Serialize};

/// Whether there are results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There are.
    Done,
    /// There will be none.
    Failed,
    /// There are none, and nobody says why.
    Missing,
}

/// A file with a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Where, below the folder of the batch.
    pub path: String,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// Number of its bytes.
    pub bytes: u64,
}

/// Why there are none. Says what is wrong by field, and never quotes what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// As HTTP's errors have it, such as `unknown_field`.
    pub code: String,
    /// The field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// In words.
    pub message: String,
}

impl Failure {
    /// A failure without a field at fault.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            param: None,
            message: message.into(),
        }
    }
}

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        Self {
            code: error.code.to_owned(),
            param: error.param.clone(),
            message: error.message.clone(),
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub custom_id: String,
    /// Whether there are results.
    pub status: Status,
    /// The files, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<WrittenFile>,
    /// Seed of the first result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Seconds that making them took; absent where they were there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Who made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The how manieth try it was, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl Record {
    /// Results.
    pub fn done(name: &str, files: Vec<WrittenFile>) -> Self {
        Self {
            custom_id: name.to_owned(),
            status: Status::Done,
            files,
            seed: None,
            seconds: None,
            worker: None,
            attempt: None,
            error: None,
        }
    }

    /// None, and why.
    pub fn failed(name: &str, error: Failure) -> Self {
        Self {
            status: Status::Failed,
            error: Some(error),
            ..Self::done(name, Vec::new())
        }
    }

    /// None, and nobody says why.
    pub fn missing(name: &str) -> Self {
        Self {
            status: Status::Missing,
            ..Self::done(name, Vec::new())
        }
    }
}
