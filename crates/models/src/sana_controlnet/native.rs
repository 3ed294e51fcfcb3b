//! ControlNet files under the authors' names: a whole base model and the copied blocks in one file.

use std::sync::Arc;

use brisk_store::{MappedSource, TensorSource};

use super::SanaControlNetConfig;
use crate::sana::SanaConfig;
use crate::sana::native::{self, Names, NativeHeads};
use crate::{Error, Result};

/// Both models of one file. They were trained with
/// [`ControlWiring::Native`](crate::sana::ControlWiring::Native).
pub struct NativeControlNet {
    /// Configuration of the base transformer.
    pub base_config: SanaConfig,
    /// The base transformer's weights.
    pub base: MappedSource,
    /// Configuration of the ControlNet.
    pub config: SanaControlNetConfig,
    /// The ControlNet's weights; its embeddings are the base's, as in the authors' code.
    pub controlnet: MappedSource,
}

/// Splits a file; `heads` as in [`NativeLayout::config`](native::NativeLayout::config).
///
/// # Errors
/// The file is not in the authors' layout or holds no copied blocks, or its head counts are unknown.
pub fn split(
    source: Arc<dyn TensorSource>,
    heads: Option<NativeHeads>,
) -> Result<NativeControlNet> {
    let layout = native::require(source.as_ref())?;
    if layout.control_blocks == 0 {
        return Err(Error::Config(
            "the file holds a transformer but no `controlnet.` tensors".into(),
        ));
    }
    let base_config = layout.config(heads)?;
    let config = SanaControlNetConfig {
        transformer: SanaConfig {
            num_layers: layout.control_blocks,
            ..base_config.clone()
        },
    };
    let mut names = Names::new(source.as_ref(), &layout.prefix);
    layout.embedding_slices(&mut names);
    for leaf in ["weight", "bias"] {
        names.rename(
            &format!("controlnet.0.before_proj.{leaf}"),
            format!("input_block.{leaf}"),
        );
    }
    for index in 0..layout.control_blocks {
        let from = format!("controlnet.{index}");
        layout.block_slices(
            &mut names,
            &format!("{from}.copied_block"),
            &format!("transformer_blocks.{index}"),
        );
        for leaf in ["weight", "bias"] {
            names.rename(
                &format!("{from}.after_proj.{leaf}"),
                format!("controlnet_blocks.{index}.{leaf}"),
            );
        }
    }
    let slices = names.finish(|name| !name.starts_with("controlnet."))?;
    Ok(NativeControlNet {
        base_config,
        base: native::map(source.clone())?,
        config,
        controlnet: MappedSource::new(source, slices)?,
    })
}
