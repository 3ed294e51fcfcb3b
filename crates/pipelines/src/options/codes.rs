//! Codes of pictures that a caller gives or takes.

use std::collections::BTreeMap;
use std::path::Path;

use brisk_store::open_weights;

use crate::error::{Error, Result};

/// Codes of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeTensor {
    /// Pictures, then places.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<u32>,
}

/// Numbers of codewords that an autoregressive model draws, by the names that its files have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Codes(pub BTreeMap<String, CodeTensor>);

impl Codes {
    /// Reads the tensors of a safetensors file, all of which hold whole numbers.
    ///
    /// # Errors
    /// No such file, no tensor in it, or one whose values are no codes.
    pub fn open(file: &Path) -> Result<Self> {
        let source = open_weights(file)?;
        let label = file.display().to_string();
        let wrong = |message: String| Error::config(label.clone(), message);
        let mut tensors = BTreeMap::new();
        for name in source.names() {
            let Some(view) = source.view(&name)? else {
                continue;
            };
            let problem = |problem: String| wrong(format!("tensor \"{name}\" {problem}"));
            let values = view.to_i64().map_err(|error| problem(error.to_string()))?;
            if values.is_empty() {
                return Err(problem(format!("is empty (shape {:?})", view.shape)));
            }
            let values = values.into_iter().map(|code| {
                u32::try_from(code)
                    .map_err(|_| problem(format!("holds {code}; expected a code, 0 or more")))
            });
            let tensor = CodeTensor {
                shape: view.shape.clone(),
                values: values.collect::<Result<_>>()?,
            };
            tensors.insert(name.clone(), tensor);
        }
        if tensors.is_empty() {
            return Err(wrong("it holds no tensors; expected codes".to_owned()));
        }
        Ok(Self(tensors))
    }

    /// The codes of several pictures one after another, as one file holds them.
    ///
    /// # Errors
    /// Pictures whose tensors have other names or shapes.
    pub fn stacked<'a>(pictures: impl IntoIterator<Item = &'a Self>) -> Result<Self> {
        let mut all = Self::default();
        for (index, picture) in pictures.into_iter().enumerate() {
            for (name, tensor) in &picture.0 {
                if index == 0 {
                    all.0.insert(name.clone(), tensor.clone());
                    continue;
                }
                let Some(whole) = all.0.get_mut(name) else {
                    return Err(unlike(name));
                };
                if whole.shape.get(1..) != tensor.shape.get(1..) {
                    return Err(unlike(name));
                }
                whole.shape[0] += tensor.shape[0];
                whole.values.extend(&tensor.values);
            }
        }
        Ok(all)
    }
}

fn unlike(name: &str) -> Error {
    Error::request("codes", format!("\"{name}\" is not alike in all pictures"))
}

#[cfg(test)]
mod tests {
    use brisk_store::{Dtype, OutTensor, write_safetensors};

    use super::*;

    fn written(dtype: Dtype, data: Vec<u8>) -> Result<Codes> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("codes.safetensors");
        let tensor = OutTensor {
            name: "codes.0".to_owned(),
            dtype,
            shape: vec![1, 2],
            data: data.into(),
        };
        write_safetensors(&file, &[tensor], &Default::default()).unwrap();
        Codes::open(&file)
    }

    #[test]
    fn whole_numbers_are_codes() {
        let bytes = |values: [i64; 2]| values.map(i64::to_le_bytes).concat();
        let codes = written(Dtype::I64, bytes([7, 0])).unwrap();
        assert_eq!(codes.0["codes.0"].values, [7, 0]);
        for values in [[7, -1], [7, 1 << 40]] {
            let error = written(Dtype::I64, bytes(values)).unwrap_err().to_string();
            assert!(
                error.contains("codes.0") && error.contains(&values[1].to_string()),
                "{error}"
            );
        }
        assert!(written(Dtype::F32, vec![0; 8]).is_err());
        let both = Codes::stacked([&codes, &codes]).unwrap();
        assert_eq!(both.0["codes.0"].shape, [2, 2]);
        assert_eq!(both.0["codes.0"].values, [7, 0, 7, 0]);
        assert!(Codes::stacked([&codes, &Codes::default(), &both]).is_ok());
    }
}
