//! Data sets: how they are made and how they are read back.

pub mod arithmetic;
pub mod captioned;
pub mod class_folders;
pub mod emoji;
mod error;
mod icon_set;
mod iconify;
pub mod motion;
pub mod pictures;
pub mod scene_text;
pub mod scenes;
pub(crate) mod sketch;

pub use error::DataError;

/// Whether a fixed hash of a name puts it among the one in `every` that no model is trained on.
fn is_set_aside(name: &str, every: u64) -> bool {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The low bits of FNV-1a depend on few input bits; fold the high ones in.
    (hash ^ (hash >> 32)).is_multiple_of(every)
}
