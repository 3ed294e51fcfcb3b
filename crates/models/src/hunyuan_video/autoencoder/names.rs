//! Names of the published files: both worlds have the same, the authors behind `vae.`.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use crate::Result;

/// What stands before the names in the authors' files, and in checkpoints of trainers that hold the transformer too.
const PREFIX: &str = "vae.";
/// What stands before the transformer's names in checkpoints of trainers that hold both.
const BESIDE: [&str; 2] = ["model.", "hydit_unimodel."];
/// Tensors that only this network has.
const OWN: [&str; 2] = [
    "decoder.mid_block.resnets.0.conv1.conv.weight",
    "post_quant_conv.weight",
];

/// What stands before the network's names; none where the file holds another network.
pub(super) fn prefix(source: &dyn TensorSource) -> Option<&'static str> {
    let has = |prefix: &&str| {
        OWN.iter()
            .all(|name| source.info(&format!("{prefix}{name}")).is_some())
    };
    ["", PREFIX].into_iter().find(has)
}

/// The tensors of a file under the network's own names, without the transformer that may stand beside.
///
/// # Errors
/// As [`MappedSource::new`].
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    if prefix(&*source) != Some(PREFIX) {
        return Ok(source);
    }
    let names = source.names().into_iter();
    let beside = |name: &String| BESIDE.iter().any(|prefix| name.starts_with(prefix));
    let own = |name: String| {
        let short = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
        (short, Slice::whole(name))
    };
    let kept = names.filter(|name| !beside(name));
    let map: BTreeMap<String, Slice> = kept.map(own).collect();
    Ok(Arc::new(MappedSource::new(source, map)?))
}
