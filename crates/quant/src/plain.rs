//! A model's 16-bit tensors in a 4-bit file, both ways: under other names, joined, in other orders.

use std::borrow::Cow;
use std::collections::BTreeMap;

use brisk_store::{OutTensor, TensorSource, TensorView};

use crate::error::{Error, Result};
use crate::file::NunchakuFile;
use crate::groups::{LayerGroup, LowBitLayout};
use crate::rearranged::Place;

/// Where the 16-bit tensors of the model stand in a file.
pub(crate) fn places(
    file: &NunchakuFile,
    layout: &dyn LowBitLayout,
) -> Result<BTreeMap<String, Place>> {
    let groups = layout.rearranged();
    let mut places = BTreeMap::new();
    for name in file.plain_names() {
        let Some((_, stored)) = file.source().info(&name) else {
            continue;
        };
        let part = name.rsplit_once('.').and_then(|(layer, part)| {
            let group = groups.iter().find(|group| group.file == layer)?;
            Some((group, part))
        });
        let Some((group, part)) = part else {
            let place = Place {
                source: name.clone(),
                rows: None,
                shape: stored,
            };
            places.insert(layout.plain_name(&name), place);
            continue;
        };
        if stored.first() != Some(&group.file_rows) {
            return Err(Error::Tensor {
                file: file.source().origin(&name),
                problem: format!(
                    "found shape {stored:?}, expected {} rows; is it a file for another model?",
                    group.file_rows
                ),
                tensor: name,
            });
        }
        for (layer, rows) in group.parts() {
            let place = Place {
                source: name.clone(),
                rows: Some(rows.to_vec()),
                shape: group.plain_shape(&stored, rows.len()),
            };
            places.insert(format!("{layer}.{part}"), place);
        }
    }
    Ok(places)
}

/// The reverse of what reading does to 16-bit tensors: a model's tensors, less its quantized layers,
/// under the file's names and in its order.
///
/// # Errors
/// Tensors that do not fit the layout.
pub fn plain_to_file<'a>(
    source: &'a dyn TensorSource,
    layout: &dyn LowBitLayout,
    quantized: impl Fn(&str) -> bool,
) -> Result<Vec<OutTensor<'a>>> {
    let groups = layout.rearranged();
    let mut out = Vec::new();
    for name in source.names() {
        let (layer, part) = name.rsplit_once('.').unwrap_or(("", &name));
        if quantized(layer) {
            continue;
        }
        let of_layer = |group: &&LayerGroup| group.layers.iter().any(|(name, _)| name == layer);
        let Some(group) = groups.iter().find(of_layer) else {
            if let Some(view) = source.view(&name)? {
                out.push(OutTensor {
                    name: layout.file_name(&name),
                    dtype: view.dtype,
                    shape: view.shape,
                    data: view.data,
                });
            }
            continue;
        };
        // All layers of a group are written with the first.
        if group.layers.first().is_some_and(|(name, _)| name == layer) {
            out.push(joined(source, group, part)?);
        }
    }
    Ok(out)
}

/// One tensor of all layers of a group as the file has it.
fn joined(source: &dyn TensorSource, group: &LayerGroup, part: &str) -> Result<OutTensor<'static>> {
    let mut first: Option<TensorView> = None;
    let mut data: Vec<u8> = Vec::new();
    for (layer, rows) in group.parts() {
        let name = format!("{layer}.{part}");
        let wrong = |problem: String| Error::Tensor {
            file: source.origin(&name),
            tensor: name.clone(),
            problem,
        };
        let view = source.view(&name)?;
        let view = view.ok_or_else(|| wrong("it is missing".to_owned()))?;
        if view.shape.first() != Some(&rows.len()) {
            let found = format!("found shape {:?}, expected {} rows", view.shape, rows.len());
            return Err(wrong(found));
        }
        if let Some(first) = &first
            && (first.dtype != view.dtype || first.shape[1..] != view.shape[1..])
        {
            return Err(wrong(format!(
                "found {} of shape {:?}, expected it as {}, {} of shape {:?}: one tensor in the file",
                view.dtype, view.shape, group.layers[0].0, first.dtype, first.shape
            )));
        }
        let row = view.data.len() / rows.len().max(1);
        data.resize(group.file_rows * row, 0);
        for (place, bytes) in rows.iter().zip(view.data.chunks_exact(row.max(1))) {
            data[place * row..(place + 1) * row].copy_from_slice(bytes);
        }
        first.get_or_insert(view);
    }
    let first = first.ok_or_else(|| Error::Invalid(format!("{} has no layers", group.file)))?;
    Ok(OutTensor {
        name: format!("{}.{part}", group.file),
        dtype: first.dtype,
        shape: group.file_shape(&first.shape),
        data: Cow::Owned(data),
    })
}
