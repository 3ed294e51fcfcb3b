//! Tensors by name.

use std::collections::BTreeMap;

use brisk_nn::Tensor;

use crate::{Error, Result};

/// What a component takes or gives: floats as f32, ids as u32, masks as f32 of 0 and 1.
#[derive(Debug, Clone, Default)]
pub struct NamedTensors(BTreeMap<String, Tensor>);

impl NamedTensors {
    /// A tensor; none where there is none of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// A tensor that has to be there.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn required(&self, name: &str) -> Result<&Tensor> {
        let missing = || Error::Shape(format!("there is no tensor \"{name}\""));
        self.get(name).ok_or_else(missing)
    }

    /// Adds a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// The tensors called `prefix` with 0, 1, … after it.
    pub fn series(&self, prefix: &str) -> Vec<Tensor> {
        let named = (0..).map_while(|index| self.get(&format!("{prefix}{index}")));
        named.cloned().collect()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Ids `[B,T]` with their shape.
    ///
    /// # Errors
    /// There is no such tensor of two dimensions.
    pub fn ids(&self, name: &str) -> Result<([usize; 2], Vec<u32>)> {
        let tensor = self.required(name)?;
        let (batch, tokens) = tensor.dims2()?;
        Ok(([batch, tokens], tensor.flatten_all()?.to_vec1()?))
    }

    /// The rows of a mask `[B,T]`; none where there is no tensor of this name.
    ///
    /// # Errors
    /// A tensor of other dimensions.
    pub fn mask(&self, name: &str) -> Result<Option<Vec<Vec<bool>>>> {
        let Some(tensor) = self.get(name) else {
            return Ok(None);
        };
        let rows = tensor.to_vec2::<f32>()?;
        let kept = |row: Vec<f32>| row.into_iter().map(|value| value != 0.0).collect();
        Ok(Some(rows.into_iter().map(kept).collect()))
    }

    /// The value of a tensor of one value; none where there is no tensor of this name.
    ///
    /// # Errors
    /// A tensor of several values.
    pub fn scalar(&self, name: &str) -> Result<Option<f32>> {
        let Some(tensor) = self.get(name) else {
            return Ok(None);
        };
        match tensor.flatten_all()?.to_vec1::<f32>()?[..] {
            [value] => Ok(Some(value)),
            _ => Err(Error::Shape(format!(
                "tensor \"{name}\" has shape {:?}, expected one value",
                tensor.dims()
            ))),
        }
    }

    /// Adds floats.
    ///
    /// # Errors
    /// Another number of values than the shape has places.
    pub fn insert_floats(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<()> {
        self.insert(name, floats(values, shape)?);
        Ok(())
    }

    /// Adds ids.
    ///
    /// # Errors
    /// As [`Self::insert_floats`].
    pub fn insert_ids(&mut self, name: &str, shape: &[usize], values: Vec<u32>) -> Result<()> {
        self.insert(name, ids(values, shape)?);
        Ok(())
    }
}

impl FromIterator<(String, Tensor)> for NamedTensors {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// A tensor of floats.
pub(crate) fn floats(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape)
}

/// A tensor of ids.
pub(crate) fn ids(values: Vec<u32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape)
}
