//! Names and shapes alone: what a model asks for, without its values.

use super::ledger::lock;
use crate::error::Result;
use crate::tensor::{DType, Tensor};
use candle_core::Var;
use std::sync::Mutex;

/// A tensor's name and shape.
pub type NamedShape = (String, Vec<usize>);

/// What was asked for, in order.
#[derive(Default)]
pub(super) struct Headers(Mutex<Vec<NamedShape>>);

impl Headers {
    /// Keeps name and shape; what stands for the parameter takes no memory.
    pub fn ask(&self, path: &str, shape: &[usize]) -> Result<Tensor> {
        lock(&self.0).push((path.to_owned(), shape.to_vec()));
        // As a variable is no constant, layers leave it as it is instead of packing it.
        let zero = Var::from_tensor(Tensor::zeros((), DType::F32)?.on_host("a look at headers")?)?;
        Tensor::from(zero.as_tensor()).broadcast_as(shape)
    }

    /// All of them; what a layer reads twice is asked for once.
    pub fn asked(&self) -> Vec<NamedShape> {
        let asked = lock(&self.0);
        let mut seen = std::collections::HashSet::new();
        let first = asked.iter().filter(|(name, _)| seen.insert(name));
        first.cloned().collect()
    }
}
