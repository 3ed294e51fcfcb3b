//! Why the work on a batch stops.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why it stops.
#[derive(Debug)]
pub enum Error {
    /// What was asked for makes no sense; says where, what was expected, and what to do.
    Usage(String),
    /// It does not work out.
    Failed(String),
    /// There is no room where results go.
    NoRoom(String),
    /// The models.
    Models(brisk::Error),
    /// Somebody asked to stop.
    Stopped,
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed(message) | Self::NoRoom(message) => {
                formatter.write_str(message)
            }
            Self::Models(error) => error.fmt(formatter),
            Self::Stopped => formatter.write_str("stopped"),
        }
    }
}

impl std::error::Error for Error {}

impl From<brisk_server::StartError> for Error {
    fn from(error: brisk_server::StartError) -> Self {
        use brisk_server::StartError;
        match error {
            StartError::Models(error) => Self::Models(error),
            StartError::Settings(message) => Self::Usage(message),
            StartError::System(..) => Self::Failed(error.to_string()),
        }
    }
}

/// Whether the system says that there is no room on a disk.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
