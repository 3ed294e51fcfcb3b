//! A batch: a file of requests, each with a name under which its results are found.

mod entry;
mod input;
mod options;
mod record;

pub use entry::{Entry, MOST_NAME, is_name};
pub use input::Input;
pub use options::{BatchOptions, Shard};
pub use record::{Failure, Record, Status, WrittenFile};

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Digits of a batch's id.
const ID: usize = 16;

/// The id of a batch: a hash of its file, its options and the weights that answer, so that the same work has
/// the same name everywhere.
pub fn id(input: &Input, options: &BatchOptions, models: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    hash.update(input.hash.as_bytes());
    hash.update(options.canonical().as_bytes());
    for (name, slug) in models {
        // Lengths before names, so that neighbours cannot trade letters.
        for part in [name, slug] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    let mut id = hex(&hash.finalize());
    id.truncate(ID);
    id
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// SHA-256 of some bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
