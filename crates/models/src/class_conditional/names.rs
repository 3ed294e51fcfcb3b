//! Names of the published files: bare, beside an autoencoder, or as the authors' trainer writes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use super::Architecture;
use crate::Result;

/// What stands before the network's names: nothing, the published files' name for it, and those of the trainer.
const PREFIXES: [&str; 4] = ["", "diffusion_model.", "uvit.", "dit."];
/// The autoencoder that published files hold besides, which is a network of its own.
const AUTOENCODER: &str = "autoencoder.";
/// Classes in the files of the first U-ViT, and here.
const CLASSES: [&str; 2] = ["label_emb.weight", "label_emb.embedding_table.weight"];
/// A tensor that only one of the networks has.
const TELLING: [(Architecture, &str, &str); 2] = [
    (
        Architecture::UVit,
        "patch_embed.proj.weight",
        "decoder_pred.weight",
    ),
    (
        Architecture::Dit,
        "x_embedder.proj.weight",
        "y_embedder.embedding_table.weight",
    ),
];

/// A file that holds one of the networks.
pub(super) struct Layout {
    pub architecture: Architecture,
    /// What stands before its names.
    pub prefix: &'static str,
    /// Shape of the patches' convolution, `[width, channels, patch, patch]`.
    pub patches: Vec<usize>,
}

/// Which network a file holds, and under which names; none where it holds another one.
pub(super) fn layout(source: &dyn TensorSource) -> Option<Layout> {
    PREFIXES.into_iter().find_map(|prefix| {
        TELLING
            .into_iter()
            .find_map(|(architecture, patches, own)| {
                let shape = |name: &str| source.info(&format!("{prefix}{name}")).map(|(_, s)| s);
                shape(own)?;
                let patches = shape(patches).filter(|shape| shape.len() == 4)?;
                Some(Layout {
                    architecture,
                    prefix,
                    patches,
                })
            })
    })
}

/// The tensors of a file under the network's own names; nothing is copied. An autoencoder beside it is left out.
///
/// # Errors
/// A file that cannot be mapped.
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    let Some(Layout { prefix, .. }) = layout(&*source) else {
        return Ok(source);
    };
    let names = source.names();
    let [old, new] = CLASSES;
    let plain = |name: &str| match name.strip_prefix(prefix) {
        Some(rest) if rest == old => new.to_owned(),
        Some(rest) => rest.to_owned(),
        // What is not the network's is reported under its own name.
        None => name.to_owned(),
    };
    let beside = names.iter().any(|name| name.starts_with(AUTOENCODER));
    if prefix.is_empty() && !beside && !names.iter().any(|name| name == old) {
        return Ok(source);
    }
    let kept = names.iter().filter(|name| !name.starts_with(AUTOENCODER));
    let map: BTreeMap<String, Slice> = kept
        .map(|name| (plain(name), Slice::whole(name.clone())))
        .collect();
    Ok(Arc::new(MappedSource::new(source, map)?))
}
