//! Where results go: names, places that must be kept apart, temporary names, folders in use.

mod claim;
mod lock;
mod overlap;
mod place;
mod temporary;
#[cfg(target_os = "linux")]
pub(crate) mod unnamed;

pub use claim::UnusedNames;
pub use lock::FolderLock;
pub use overlap::{check_output, check_outputs};
pub use place::{check_writable, numbered};
pub(crate) use temporary::Temporary;
pub use temporary::TemporaryFolder;
