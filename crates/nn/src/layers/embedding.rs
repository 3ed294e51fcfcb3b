//! Tables of vectors, by number.

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use crate::weights::{Init, Weights};

/// A table `[count, width]` whose rows stand for tokens. It stays as it is stored; the rows that are asked
/// for become f32.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Tensor,
}

impl Embedding {
    /// Reads `weight` `[count, width]`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(weights: &Weights, count: usize, width: usize, init: Init) -> Result<Self> {
        let table = weights.get_stored("weight", &[count, width], init)?;
        Ok(Self { table })
    }

    /// The table as it is stored, which a head may share ([`crate::Linear::tied`]).
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// The rows of `ids`, `[ids, width]`.
    ///
    /// # Errors
    /// An id that is no row.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let count = self.table.dim(0)?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= count) {
            return Err(Error::Shape(format!(
                "token id {id} is outside the vocabulary of {count}; does the tokenizer belong to this \
                 model?"
            )));
        }
        let ids = Tensor::from_slice(ids, ids.len())?;
        self.table.index_select(&ids, 0)?.to_dtype(DType::F32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::variable;

    #[test]
    fn rows_are_gathered_and_gradients_reach_them() {
        let table = variable((0..6).map(|v| v as f32).collect(), &[3, 2]);
        let embedding = Embedding { table };
        let rows = embedding.forward(&[2, 0, 2]).unwrap();
        assert_eq!(
            rows.to_vec2::<f32>().unwrap(),
            [[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]
        );
        let store = rows.sum_all().unwrap().host().unwrap().backward().unwrap();
        let gradient = store
            .get(embedding.table().on_host("test").unwrap())
            .unwrap();
        assert_eq!(
            gradient.to_vec2::<f32>().unwrap(),
            [[1.0; 2], [0.0; 2], [2.0; 2]]
        );
        let refused = embedding.forward(&[1, 3]).unwrap_err().to_string();
        assert!(
            refused.contains("id 3") && refused.contains("vocabulary of 3"),
            "{refused}"
        );
    }
}
