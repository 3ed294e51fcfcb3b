//! Where weights come from: safetensors, sharded indexes, data-only `.pth`, the hub cache.
//!
//! A [`TensorSource`] gives named tensors as views of bytes; no file's claim is believed before it has
//! been checked against the file's size, and no checkpoint can run code. This crate knows no tensor
//! library and no model: names, shapes and bytes only. Values are not looked at (NaN passes here).
//!
//! ```
//! use std::{borrow::Cow, collections::BTreeMap};
//! use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, safetensors_bytes};
//!
//! let tensor = OutTensor {
//!     name: "weight".into(),
//!     dtype: Dtype::F32,
//!     shape: vec![1],
//!     data: Cow::Owned(1.5f32.to_le_bytes().to_vec()),
//! };
//! let bytes = safetensors_bytes(&[tensor], &BTreeMap::new())?;
//! let file = SafetensorsFile::from_bytes(bytes, "example")?;
//! let view = file.view("weight")?.expect("it was just written");
//! assert_eq!(view.to_f32()?, [1.5]);
//! # Ok::<(), brisk_store::Error>(())
//! ```

#![deny(unsafe_code)] // two exceptions: the memory map in `bytes`, and the message when it loses its file in `lost`

mod bytes;
mod dtype;
mod error;
mod fingerprint;
mod folder;
pub mod guard;
pub mod hub;
mod impostor;
mod json;
#[allow(unsafe_code)]
mod lost;
mod mapped;
mod memory;
mod open;
pub mod output;
mod pickle;
mod picture_files;
pub mod read;
mod safetensors;
mod sharded;
mod shown;
mod summary;
mod view;
mod wrapped;
mod write;

pub use dtype::Dtype;
pub use error::{Error, Result};
pub use fingerprint::{Fingerprint, fingerprint};
pub use folder::ModelFolder;
pub use json::parse_json;
pub use lost::exit_when_a_file_is_cut;
pub use mapped::{MappedSource, Slice};
pub use memory::MemorySource;
pub use open::{open_weights, open_weights_with_metadata};
pub use output::{check_output, check_outputs};
pub use pickle::PickleFile;
pub use picture_files::{PICTURE_ENDINGS, is_picture};
pub use read::{Limit, read_json, read_text};
pub use safetensors::SafetensorsFile;
pub use sharded::ShardedSource;
pub use shown::{is_obeyed, shown, shown_within, with_causes};
pub use summary::{Summary, summarise};
pub use view::{TensorSource, TensorView, e4m3_to_f32};
pub use wrapped::unwrapped;
pub use write::{
    OutTensor, safetensors_bytes, write_atomic, write_atomic_with, write_new, write_safetensors,
};
