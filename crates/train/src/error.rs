use std::path::{Path, PathBuf};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong while training or evaluating.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer, a model or its weights.
    #[error(transparent)]
    Nn(#[from] brisk_nn::Error),
    /// A sampler.
    #[error(transparent)]
    Pipeline(#[from] brisk_pipelines::Error),
    /// A weight file.
    #[error(transparent)]
    Store(#[from] brisk_store::Error),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A tokenizer.
    #[error(transparent)]
    Text(#[from] brisk_text::Error),
    /// A picture.
    #[error(transparent)]
    Media(#[from] brisk_media::Error),
    /// A data set of emoji.
    #[error(transparent)]
    DataSet(#[from] crate::data::DataError),
    /// A file that could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON document that does not say what it should.
    #[error("{label}: {source}")]
    Json {
        /// The file or recipe.
        label: String,
        /// What serde said.
        source: serde_json::Error,
    },
    /// A recipe that cannot be trained.
    #[error("recipe: {0}")]
    Recipe(String),
    /// A data set that does not fit the recipe, or is broken.
    #[error("data: {0}")]
    Data(String),
    /// A checkpoint that cannot be continued.
    #[error("checkpoint {path}: {message}")]
    Checkpoint {
        /// The checkpoint's folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// All checkpoints of a run are damaged.
    #[error("{problem}; remove {} to start anew", folder.display())]
    NoCheckpoint {
        /// What is wrong with the oldest of them.
        problem: Box<Error>,
        /// The folder that holds them.
        folder: PathBuf,
    },
    /// Too many updates had no finite gradient: so many in a row, or more than half.
    #[error(
        "training diverged: {skipped} updates {}up to step {step} had non-finite gradients; \
         lower learning_rate or clip in the recipe",
        if *in_a_row { "in a row " } else { "" }
    )]
    Diverged {
        /// The step at which training gave up.
        step: u64,
        /// How many updates were skipped.
        skipped: u64,
        /// Whether one after the other.
        in_a_row: bool,
    },
}

impl Error {
    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Pipeline(brisk_pipelines::Error::Cancelled))
    }
}

/// Attaches the path to an I/O result.
pub(crate) trait FileContext<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> FileContext<T> for std::io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
    }
}

/// Attaches a label to a serde result.
pub(crate) trait JsonContext<T> {
    fn in_document(self, label: impl std::fmt::Display) -> Result<T>;
}

impl<T> JsonContext<T> for serde_json::Result<T> {
    fn in_document(self, label: impl std::fmt::Display) -> Result<T> {
        self.map_err(|source| Error::Json {
            label: label.to_string(),
            source,
        })
    }
}
