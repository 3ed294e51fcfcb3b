//! What can go wrong on a card.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a card or its driver.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The driver's library cannot be opened.
    #[error("no NVIDIA driver was found ({0}); install one, or use --device cpu")]
    NoDriver(String),
    /// A library without the calls that are needed, or of an earlier version.
    #[error(
        "the NVIDIA driver is too old: it offers CUDA {0}, needed is CUDA 12.0 (driver 525 or newer); update it, or use \
         --device cpu"
    )]
    OldDriver(String),
    /// The driver found no card, or may not use it.
    #[error(
        "the NVIDIA driver gives no card: {0}; where this runs in a container, start that with access to the card, or use \
         --device cpu"
    )]
    NoDevice(String),
    /// There are fewer cards.
    #[error("there is no card {index}: this machine has {count}, counted from 0")]
    NoSuchCard {
        /// The one that was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A card without products of bf16.
    #[error(
        "card {name} has compute capability {major}.{minor}, needed is 8.0 (RTX 30, A10, A100 or newer); use --device cpu"
    )]
    OldCard {
        /// Its name.
        name: String,
        /// Its compute capability.
        major: u32,
        /// The second part of that.
        minor: u32,
    },
    /// Memory ran out.
    #[error(
        "the card's memory is full: {needed} bytes more were needed, {free} are free of {total}"
    )]
    OutOfMemory {
        /// Bytes that were asked for.
        needed: usize,
        /// Bytes that the driver has left.
        free: usize,
        /// Bytes of the card.
        total: usize,
    },
    /// No machine code of a kernel file can be loaded.
    #[error("the kernels of {file} cannot be loaded on this card: {reason}")]
    MachineCode {
        /// The kernel file.
        file: String,
        /// What was tried, and what the driver said.
        reason: String,
    },
    /// A call of the driver failed.
    #[error("the NVIDIA driver failed in {call}: {message}")]
    Driver {
        /// What was asked of it, a kernel with its name.
        call: String,
        /// Its answer.
        message: String,
    },
    /// Sizes or types that do not fit.
    #[error("{0}")]
    Shape(String),
}

impl Error {
    /// A tensor of another shape than an operation takes.
    pub(crate) fn shape(operation: &str, found: &[usize], expected: &str) -> Self {
        Self::Shape(format!(
            "{operation}: found a tensor of shape {found:?}, expected {expected}"
        ))
    }
}
