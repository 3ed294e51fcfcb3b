//! The model that the binary carries.

use brisk_store::ModelFolder;

include!(concat!(env!("OUT_DIR"), "/box_files.rs"));

/// What `--model` calls it.
pub const NAME: &str = "sana-emoji";

/// The model, if this build has one.
pub fn folder() -> Option<ModelFolder> {
    let files = FILES;
    (!files.is_empty()).then_some(ModelFolder::Embedded {
        label: "sana-emoji (in the box)",
        files,
    })
}

/// Bytes that it takes in the binary.
pub fn size() -> u64 {
    FILES.iter().map(|(_, bytes)| bytes.len() as u64).sum()
}
