//! Made-up inputs: the same in every run, of the size that trained models see.

use crate::Result;

use super::NamedTensors;

/// Collects made-up tensors; floats come from one generator in the order they are asked for.
pub struct Examples<'a> {
    normal: &'a mut dyn FnMut(usize) -> Vec<f32>,
    tensors: NamedTensors,
}

impl<'a> Examples<'a> {
    /// `normal` draws so many values of a normal distribution.
    pub fn new(normal: &'a mut dyn FnMut(usize) -> Vec<f32>) -> Self {
        Self {
            normal,
            tensors: NamedTensors::default(),
        }
    }

    /// Normal values of this deviation, cut off at ±1 where they stand for a picture.
    pub(crate) fn normal(
        &mut self,
        name: &str,
        shape: &[usize],
        deviation: f32,
        cut: bool,
    ) -> Result<()> {
        let limit = if cut { 1.0 } else { f32::INFINITY };
        let values = (self.normal)(shape.iter().product());
        let values = values
            .into_iter()
            .map(|value| (deviation * value).clamp(-limit, limit));
        self.tensors.insert_floats(name, shape, values.collect())
    }

    /// One value everywhere.
    pub(crate) fn constant(&mut self, name: &str, shape: &[usize], value: f32) -> Result<()> {
        let values = vec![value; shape.iter().product()];
        self.tensors.insert_floats(name, shape, values)
    }

    /// Token ids `[1, tokens]` spread over a vocabulary, and a mask that keeps them all.
    pub(crate) fn text(&mut self, tokens: usize, vocabulary: usize) -> Result<()> {
        let ids = (0..tokens).map(|at| ((at * 7919 + 11) % vocabulary) as u32);
        self.tensors
            .insert_ids("input_ids", &[1, tokens], ids.collect())?;
        self.constant("attention_mask", &[1, tokens], 1.0)
    }

    /// What was collected.
    pub(crate) fn take(&mut self) -> NamedTensors {
        std::mem::take(&mut self.tensors)
    }
}
