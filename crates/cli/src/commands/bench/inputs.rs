//! Made-up inputs: the same in every run, of the size that trained models see.

use brisk_pipelines::diffusion::noise::TorchGenerator;
use brisk_store::Dtype;

use crate::failure::Result;
use crate::tensors::Inputs;

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

    /// One value everywhere.
    pub fn constant(self, name: &str, shape: &[usize], value: f32) -> Self {
        let count = shape.iter().product();
        let values = std::iter::repeat_n(value, count);
        self.push(name, Dtype::F32, shape, values, |value| {
            value.to_le_bytes().to_vec()
        })
    }

    /// Token ids `[1, tokens]` spread over a vocabulary, and a mask that keeps them all.
    pub fn text(self, tokens: usize, vocabulary: usize) -> Self {
        let ids = (0..tokens).map(|at| ((at * 7919 + 11) % vocabulary) as i64);
        let shape = [1, tokens];
        self.push("input_ids", Dtype::I64, &shape, ids, |id| {
            id.to_le_bytes().to_vec()
        })
        .push(
            "attention_mask",
            Dtype::I64,
            &shape,
            std::iter::repeat_n(1i64, tokens),
            |one| one.to_le_bytes().to_vec(),
        )
    }

    /// As if they had been read.
    pub fn finish(self) -> Result<Inputs> {
        Inputs::made_up(self.tensors)
    }
}
