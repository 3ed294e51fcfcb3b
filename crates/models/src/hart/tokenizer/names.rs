//! Names of the published layout: the tokenizer stands beside the discriminator that it was trained with.

use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use crate::Result;

/// The tokenizer's place in the published class.
const TOKENIZER: &str = "vae.";
/// That of the discriminator.
const DISCRIMINATOR: &str = "disc.";

/// The tokenizer's tensors under its own names; a file of the tokenizer alone is given back as it is.
///
/// # Errors
/// As [`MappedSource::new`].
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    let names = source.names();
    if !names.iter().any(|name| name.starts_with(TOKENIZER)) {
        return Ok(source);
    }
    let kept = names
        .into_iter()
        .filter(|name| !name.starts_with(DISCRIMINATOR));
    let map = kept.map(|name| {
        let own = name.strip_prefix(TOKENIZER).unwrap_or(&name).to_owned();
        (own, Slice::whole(name))
    });
    Ok(Arc::new(MappedSource::new(source, map.collect())?))
}
