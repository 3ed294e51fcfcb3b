//! Names of the published files.

use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use crate::Result;

/// What data-parallel training puts before every name.
const WRAPPER: &str = "module.";
/// What batch norms count in training.
const COUNTED: &str = ".num_batches_tracked";
/// A tensor that only this network has.
pub(super) const OWN: &str = "SequenceModeling.0.rnn.weight_ih_l0_reverse";

/// The tensors of a file under the network's own names, without what only training uses.
///
/// # Errors
/// As [`MappedSource::new`].
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    let names = source.names();
    let wrapped = source.info(OWN).is_none();
    if !wrapped && !names.iter().any(|name| name.ends_with(COUNTED)) {
        return Ok(source);
    }
    let own = names.into_iter().filter(|name| !name.ends_with(COUNTED));
    let map = own.map(|name| {
        let plain = name.strip_prefix(WRAPPER).unwrap_or(&name).to_owned();
        (plain, Slice::whole(name))
    });
    let map = map.collect();
    Ok(Arc::new(MappedSource::new(source, map)?))
}

/// Whether a file holds this network.
pub(super) fn is_own(source: &dyn TensorSource) -> bool {
    [OWN.to_owned(), format!("{WRAPPER}{OWN}")]
        .iter()
        .any(|name| source.info(name).is_some())
}
