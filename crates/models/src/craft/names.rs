//! Names of the published files.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use crate::Result;

/// What the files' names begin with: data-parallel training, and EasyOCR's trainer.
const WRAPPERS: [&str; 2] = ["module.", "craft."];
/// What batch norms count in training.
const COUNTED: &str = ".num_batches_tracked";
/// A tensor that only this network has, and one that only its link refiner has.
pub(super) const OWN: &str = "basenet.slice5.1.weight";
pub(super) const OF_REFINER: &str = "aspp1.0.weight";

/// The tensors of a file under the own names of the network, or of its link refiner, without what wrappers put before them, what stands beside
/// the network, and what only training uses.
///
/// # Errors
/// As [`MappedSource::new`].
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    let names = source.names();
    let prefix = prefix(&*source);
    let wrapped = !prefix.is_empty() || names.iter().any(|name| name.ends_with(COUNTED));
    if !wrapped {
        return Ok(source);
    }
    let own = |name: &String| name.starts_with(&prefix) && !name.ends_with(COUNTED);
    let map: BTreeMap<String, Slice> = names
        .into_iter()
        .filter(own)
        .map(|name| (name[prefix.len()..].to_owned(), Slice::whole(name)))
        .collect();
    Ok(Arc::new(MappedSource::new(source, map)?))
}

/// What all names of the network, or of its refiner, begin with.
pub(super) fn prefix(source: &dyn TensorSource) -> String {
    let [parallel, trainer] = WRAPPERS;
    let candidates = ["", parallel, trainer].map(str::to_owned);
    let both = [
        format!("{trainer}{parallel}"),
        format!("{parallel}{trainer}"),
    ];
    let mut all = candidates.into_iter().chain(both);
    let has = |prefix: &str, own: &str| source.info(&format!("{prefix}{own}")).is_some();
    all.find(|prefix| has(prefix, OWN) || has(prefix, OF_REFINER))
        .unwrap_or_default()
}
