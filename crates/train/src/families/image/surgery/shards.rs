//! Weights that may be too many for memory, in one file or several with an index, as large models are published.

use std::path::{Path, PathBuf};

use brisk_store::{OutTensor, write_safetensors};
use serde_json::{Map, Value, json};

use crate::error::{FileContext, Result};
use crate::session::write_json;

/// Bytes of a file at most, a single tensor aside: what is kept in memory until it is written.
const FILE_BYTES: u64 = 2 << 30;

/// Takes tensors one by one.
pub(super) struct ShardWriter<'a> {
    folder: PathBuf,
    stem: &'static str,
    limit: u64,
    pending: Vec<OutTensor<'a>>,
    bytes: u64,
    /// Names of the tensors of every file that is written.
    files: Vec<Vec<String>>,
    total: u64,
}

impl<'a> ShardWriter<'a> {
    /// Files in a folder that is there, called `stem`.
    pub fn new(folder: &Path, stem: &'static str) -> Self {
        Self {
            folder: folder.to_owned(),
            stem,
            limit: FILE_BYTES,
            pending: Vec::new(),
            bytes: 0,
            files: Vec::new(),
            total: 0,
        }
    }

    /// Adds a tensor.
    pub fn push(&mut self, tensor: OutTensor<'a>) -> Result<()> {
        let bytes = tensor.data.len() as u64;
        if !self.pending.is_empty() && self.bytes + bytes > self.limit {
            self.flush()?;
        }
        self.bytes += bytes;
        self.pending.push(tensor);
        Ok(())
    }

    fn temporary(&self, index: usize) -> PathBuf {
        self.folder.join(format!("{}-{index}.part", self.stem))
    }

    fn flush(&mut self) -> Result<()> {
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        write_safetensors(&self.temporary(self.files.len()), &self.pending, &metadata)?;
        let names = self.pending.drain(..).map(|tensor| tensor.name).collect();
        self.files.push(names);
        self.total += self.bytes;
        self.bytes = 0;
        Ok(())
    }

    /// Writes what is left, and the index where there are several files.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        let count = self.files.len();
        let mut places = Map::new();
        for (index, names) in self.files.iter().enumerate() {
            let name = match count {
                1 => format!("{}.safetensors", self.stem),
                _ => format!("{}-{:05}-of-{count:05}.safetensors", self.stem, index + 1),
            };
            let from = self.temporary(index);
            std::fs::rename(&from, self.folder.join(&name)).at(&from)?;
            places.extend(
                names
                    .iter()
                    .map(|tensor| (tensor.clone(), Value::from(name.clone()))),
            );
        }
        if count == 1 {
            return Ok(());
        }
        let index = json!({"metadata": {"total_size": self.total}, "weight_map": places});
        let file = format!("{}.safetensors.index.json", self.stem);
        write_json(&self.folder.join(file), &index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_store::{Dtype, ModelFolder};
    use std::borrow::Cow;

    #[test]
    fn many_tensors_become_files_that_open_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("transformer");
        std::fs::create_dir(&part).unwrap();
        for limit in [24, 1000] {
            let mut writer = ShardWriter::new(&part, "diffusion_pytorch_model");
            writer.limit = limit;
            for index in 0..5u8 {
                writer
                    .push(OutTensor {
                        name: format!("t{index}"),
                        dtype: Dtype::U8,
                        shape: vec![10],
                        data: Cow::Owned(vec![index; 10]),
                    })
                    .unwrap();
            }
            writer.finish().unwrap();
            let model = ModelFolder::Disk(folder.path().to_owned());
            let source = model.open_component("transformer", None).unwrap();
            assert_eq!(source.names(), ["t0", "t1", "t2", "t3", "t4"]);
            assert_eq!(*source.view("t3").unwrap().unwrap().data, [3; 10]);
            let files = std::fs::read_dir(&part).unwrap().count();
            assert_eq!(files, if limit == 24 { 4 } else { 1 });
            std::fs::remove_dir_all(&part).unwrap();
            std::fs::create_dir(&part).unwrap();
        }
    }
}
