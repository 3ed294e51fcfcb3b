//! What a run computes once of its data and keeps in its folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};

use crate::error::Result;

/// A file of tensors that says what they were made of.
pub(crate) struct Kept {
    path: PathBuf,
    made_of: BTreeMap<String, String>,
}

impl Kept {
    /// The file of this name in a run's folder; it is made of what is named, by texts that change with it.
    pub fn new(out: &Path, file: &str, made_of: &[(&str, String)]) -> Self {
        let made_of = made_of.iter();
        Self {
            path: out.join(file),
            made_of: made_of
                .map(|(name, text)| ((*name).to_owned(), text.clone()))
                .collect(),
        }
    }

    /// The values of tensors of these names and shapes; none where the file is not there, made of something else, or
    /// damaged.
    pub fn read(&self, tensors: &[(String, Vec<usize>)]) -> Option<Vec<Vec<f32>>> {
        let file = self
            .path
            .is_file()
            .then(|| SafetensorsFile::open(&self.path).ok())??;
        let said = |(name, text): (&String, &String)| file.metadata().get(name) == Some(text);
        if !self.made_of.iter().all(said) {
            return None;
        }
        let values = tensors.iter().map(|(name, shape)| {
            let view = file.view(name).ok()??;
            (view.shape == *shape && view.dtype == Dtype::F32)
                .then(|| view.to_f32().ok())
                .flatten()
        });
        values.collect()
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, tensors: &[(String, Vec<usize>)], values: &[Vec<f32>]) -> Result<()> {
        let tensors = tensors.iter().zip(values);
        let tensors: Vec<OutTensor> = tensors
            .map(|((name, shape), values)| OutTensor {
                name: name.clone(),
                dtype: Dtype::F32,
                shape: shape.clone(),
                data: bytemuck::cast_slice::<f32, u8>(values).into(),
            })
            .collect();
        Ok(write_safetensors(&self.path, &tensors, &self.made_of)?)
    }
}
