//! What every configuration file needs: parsing that names the key, and range checks.

use brisk_store::read::without_mark;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Reads JSON into `T`; a value of the wrong type is reported with its key.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], label: &str) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(without_mark(bytes));
    serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        // A path of nothing stands for the whole file.
        let place = match e.path().iter().next() {
            Some(_) => format!("`{}`: ", e.path()),
            None => String::new(),
        };
        Error::Config(format!("{label}: {place}{}", e.inner()))
    })
}

/// Puts the file's name before what a check of its values found.
pub(crate) fn checked(result: Result<()>, label: &str) -> Result<()> {
    result.map_err(|e| Error::Config(format!("{label}: {e}")))
}

/// Refuses a file that says it belongs to another model; one that says nothing passes.
pub(crate) fn expect_kind(bytes: &[u8], label: &str, key: &str, expected: &str) -> Result<()> {
    let file: serde_json::Map<String, serde_json::Value> = parse(bytes, label)?;
    match file.get(key).and_then(|kind| kind.as_str()) {
        Some(kind) if kind != expected => Err(Error::Config(format!(
            "{label}: `{key}` is {kind:?}; expected {expected:?}, this file belongs to another model"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a count of zero, and one so large that sums of sizes could overflow.
pub(crate) fn check_count(key: &str, value: usize, limit: usize) -> Result<()> {
    if value == 0 || value > limit {
        return Err(Error::Config(format!(
            "`{key}` is {value}; expected 1 to {limit}"
        )));
    }
    Ok(())
}
