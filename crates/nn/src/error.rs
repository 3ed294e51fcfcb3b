//! What can go wrong between weights and tensors.

use std::fmt;

use brisk_store::shown_within;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the shared blocks or of loading their weights.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tensor library refused an operation (a shape or type that does not fit).
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A card or its driver failed.
    #[error(transparent)]
    Card(#[from] brisk_cuda::Error),
    /// A weight file could not be read.
    #[error(transparent)]
    Store(#[from] brisk_store::Error),
    /// A configuration value that cannot be honoured.
    #[error("{0}")]
    Config(String),
    /// Weights that do not fit the model: everything wrong, at once.
    #[error("{0}")]
    Weights(Box<WeightReport>),
    /// NaN or infinity appeared during a forward pass.
    #[error(
        "non-finite values in {stage}, {layer}: the weights or the inputs are out of range (16-bit files of this model may need another variant)"
    )]
    NonFinite {
        /// Part of the pipeline, such as `transformer`.
        stage: String,
        /// Layer within it.
        layer: String,
    },
    /// An input of the wrong size.
    #[error("{0}")]
    Shape(String),
    /// The job is to end ([`crate::checkpoint()`]).
    #[error("stopped")]
    Stopped,
}

/// All disagreements between a model and a weight file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightReport {
    /// The file or folder.
    pub origin: String,
    /// Tensors the model needs and the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the model does not know.
    pub unexpected: Vec<String>,
    /// Tensors of another shape: name, found, expected.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors of whole numbers, which no parameter is: name and type.
    pub integers: Vec<(String, String)>,
    /// Tensors that hold NaN or infinity.
    pub non_finite: Vec<String>,
}

impl WeightReport {
    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.misshapen.is_empty()
            && self.integers.is_empty()
            && self.non_finite.is_empty()
    }
}

/// Names listed in one message; the rest are counted.
const LISTED: usize = 12;

fn list(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    lines: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    let count = lines.len();
    if count == 0 {
        return Ok(());
    }
    write!(f, "\n  {title} ({count}):")?;
    for line in lines.take(LISTED) {
        write!(f, "\n    {}", shown_within(&line, 200))?;
    }
    if count > LISTED {
        write!(f, "\n    and {} more", count - LISTED)?;
    }
    Ok(())
}

impl fmt::Display for WeightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the weights in {} do not fit the model its configuration describes",
            self.origin
        )?;
        list(f, "missing", self.missing.iter().cloned())?;
        list(
            f,
            "wrong shape",
            self.misshapen
                .iter()
                .map(|(name, found, want)| format!("{name}: found {found:?}, expected {want:?}")),
        )?;
        list(
            f,
            "no floating-point numbers",
            self.integers
                .iter()
                .map(|(name, found)| format!("{name}: found {found}, expected F32, BF16 or F16")),
        )?;
        list(f, "unexpected", self.unexpected.iter().cloned())?;
        list(
            f,
            "holding NaN or infinity",
            self.non_finite.iter().cloned(),
        )?;
        write!(
            f,
            "\n  check that config.json and the weight files belong together and are complete"
        )
    }
}
