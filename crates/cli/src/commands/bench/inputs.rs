//! Made-up inputs: the same in every run, of the size that trained models see.

use brisk_nn::tensor_file::TensorFile;
use brisk_pipelines::diffusion::noise::TorchGenerator;
use brisk_store::Dtype;

use crate::failure::Result;

/// Collects tensors; floats come from one generator in the order they are asked for.
pub struct MadeUp {
    generator: TorchGenerator,
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl MadeUp {
    /// No tensors yet.
    pub fn new() -> Self {
        Self {
            generator: TorchGenerator::new(0),
            tensors: Vec::new(),
        }
    }

    fn push<T>(
        mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        values: impl IntoIterator<Item = T>,
        bytes: impl Fn(T) -> Vec<u8>,
    ) -> Self {
        let data = values.into_iter().flat_map(bytes).collect();
        self.tensors
            .push((name.to_owned(), dtype, shape.to_vec(), data));
        self
    }

    /// Normal values of this deviation, cut off at ±1 where they stand for a picture.
    pub fn normal(mut self, name: &str, shape: &[usize], deviation: f32, cut: bool) -> Self {
        let values = self.generator.randn(shape.iter().product());
        let limit = if cut { 1.0 } else { f32::INFINITY };
        let values = values
            .into_iter()
            .map(|value| (deviation * value).clamp(-limit, limit));
        self.push(name, Dtype::F32, shape, values, |value| {
            value.to_le_bytes().to_vec()
        })
    }

    /// As if they had been read.
    pub fn finish(self) -> Result<TensorFile> {
        Ok(TensorFile::made_up(self.tensors)?)
    }
}
