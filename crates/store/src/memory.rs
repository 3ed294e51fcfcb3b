//! Tensors held in memory, for tests and for weights made on the fly.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::dtype::byte_count;
use crate::{Dtype, Error, Result, TensorSource, TensorView};

/// Tensors held in memory.
#[derive(Debug, Default)]
pub struct MemorySource {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl MemorySource {
    /// From `(name, type, shape, bytes)`; repeated names and bytes that do not fit are errors.
    pub fn new(tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>) -> Result<Self> {
        let mut source = Self::default();
        for (name, dtype, shape, data) in tensors {
            if byte_count(dtype, &shape) != Some(data.len()) {
                return Err(Error::Invalid(format!(
                    "tensor {name:?}: {dtype} of shape {shape:?} does not fit {} bytes",
                    data.len()
                )));
            }
            if source.tensors.contains_key(&name) {
                return Err(Error::Invalid(format!("tensor {name:?} is there twice")));
            }
            source.tensors.insert(name, (dtype, shape, data));
        }
        Ok(source)
    }
}

impl TensorSource for MemorySource {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        self.tensors
            .get(name)
            .map(|(dtype, shape, _)| (*dtype, shape.clone()))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>> {
        Ok(self
            .tensors
            .get(name)
            .map(|(dtype, shape, data)| TensorView {
                dtype: *dtype,
                shape: shape.clone(),
                data: Cow::Borrowed(data),
            }))
    }

    fn origin(&self, _name: &str) -> String {
        "memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_it_got_and_refuses_what_does_not_fit() {
        let tensor = |name: &str, bytes: usize| (name.into(), Dtype::F16, vec![2], vec![7; bytes]);
        let source = MemorySource::new(vec![tensor("b", 4), tensor("a", 4)]).unwrap();
        assert_eq!(source.names(), ["a", "b"]);
        assert_eq!(source.view("a").unwrap().unwrap().data.as_ref(), [7; 4]);
        assert!(source.view("c").unwrap().is_none());
        assert!(MemorySource::new(vec![tensor("a", 3)]).is_err());
        assert!(MemorySource::new(vec![tensor("a", 4), tensor("a", 4)]).is_err());
    }
}
