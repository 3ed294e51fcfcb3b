//! Back into plain weights.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use brisk_quant::{HalfType, LowBitLayout, LowBitModel, NunchakuFile};
use brisk_store::{Dtype, Limit, OutTensor, read_text};

use crate::error::{Error, Result};
use crate::registry;

/// The configuration beside a transformer's file, or in its folder.
pub fn config_beside(input: &Path) -> PathBuf {
    let folder = match input.is_dir() {
        true => input,
        false => input.parent().unwrap_or(Path::new("")),
    };
    folder.join("config.json")
}

/// The tensors of a quantized transformer, a file or folder, under plain names: 4-bit layers as the plain
/// weights they stand for, in bfloat16. Its configuration is `config`, or the one that the file brings, or
/// the one beside it.
///
/// # Errors
/// Files that cannot be read, of a model that is not known, or that contradict themselves.
pub fn unpack(input: &Path, config: Option<&Path>) -> Result<Vec<OutTensor<'static>>> {
    let failed = |error| Error::quantized(error, input.display().to_string());
    let file = NunchakuFile::open(input).map_err(failed)?;
    let brought = match config {
        Some(_) => None,
        None => file.config().map_err(failed)?,
    };
    let (json, label) = match brought {
        Some(config) => (config.to_string(), format!("{} (metadata)", file.label())),
        None => {
            let path = config.map_or_else(|| config_beside(input), Path::to_owned);
            let text = read_text(&path, Limit::SETTINGS).map_err(|error| {
                Error::folder(
                    input.display().to_string(),
                    format!("brings no configuration: {error}; give one with --config"),
                )
            })?;
            (text, path.display().to_string())
        }
    };
    let layout = registry::low_bit_layout(json.as_bytes(), &label)?;
    tensors(layout, file)
}

fn tensors(layout: Box<dyn LowBitLayout>, file: NunchakuFile) -> Result<Vec<OutTensor<'static>>> {
    let label = file.label().to_owned();
    let failed = |error| Error::quantized(error, label.clone());
    let model = LowBitModel::new(file, layout).map_err(&failed)?;
    let mut tensors = Vec::new();
    for name in model.plain().names() {
        if let Some(view) = model.plain().view(&name)? {
            tensors.push(OutTensor {
                name,
                dtype: view.dtype,
                shape: view.shape,
                data: Cow::Owned(view.data.into_owned()),
            });
        }
    }
    let unpacked = model.unpack(|(name, shape, values)| {
        tensors.push(OutTensor {
            name,
            dtype: Dtype::BF16,
            shape,
            data: Cow::Owned(HalfType::Bf16.bytes(&values)),
        });
        Ok::<(), brisk_quant::Error>(())
    });
    unpacked.map_err(&failed)?;
    Ok(tensors)
}
