//! Models that draw in one size alone.

use crate::error::{Error, Result};
use crate::options::{Key, Options};

/// Refuses any other width and height than `size`, by the options that ask for them; `reason` says why, from `:` or `;` on.
pub(crate) fn check_only_size(
    asked: &Options,
    keys: [&'static Key<usize>; 2],
    size: [usize; 2],
    reason: &str,
) -> Result<()> {
    let [width, height] = size;
    for (key, side) in keys.into_iter().zip(size) {
        if let Some(asked) = asked.get(key).filter(|asked| *asked != side) {
            let problem = format!("{asked} pixels; this model draws {width}×{height} only{reason}");
            return Err(Error::request(key.name(), problem));
        }
    }
    Ok(())
}
