//! Values of options, and the Rust types they are read as.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_media::{Clip, Picture};
use brisk_store::open_weights;
use serde_json::{Value as Json, json};

use super::{Codes, keys};
use crate::error::{Error, Result};

/// A tensor `[images, channels, rows, columns]` that a caller gives or takes: noise, or latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Images, channels, rows, columns.
    pub shape: [usize; 4],
    /// Row-major values.
    pub values: Vec<f32>,
}

impl Latents {
    /// Reads a tensor of a safetensors file.
    ///
    /// # Errors
    /// No such file or tensor, or another number of dimensions.
    pub fn open(file: &Path, name: &str) -> Result<Self> {
        let (shape, values) = open_tensor(file, name, "four")?;
        Ok(Self { shape, values })
    }

    /// Checks that a request can start from them.
    ///
    /// # Errors
    /// Another shape than `expected`, or values that do not fill it or are not finite, by the name of the option.
    pub(crate) fn check(&self, expected: [usize; 4]) -> Result<()> {
        let wrong = |message: String| Err(Error::request(keys::LATENTS.name(), message));
        if self.shape != expected {
            return wrong(format!(
                "have shape {:?}; this request needs {expected:?}",
                self.shape
            ));
        }
        if self.values.len() != expected.iter().product::<usize>() {
            let held = self.values.len();
            return wrong(format!("hold {held} values for shape {expected:?}"));
        }
        if self.values.iter().any(|value| !value.is_finite()) {
            return wrong("hold a value that is not finite".to_owned());
        }
        Ok(())
    }
}

/// A tensor `[1, channels, frames, rows, columns]` that a caller gives or takes: the noise or the latents of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipLatents {
    /// One, channels, frames, rows, columns.
    pub shape: [usize; 5],
    /// Row-major values.
    pub values: Vec<f32>,
}

impl ClipLatents {
    /// Reads a tensor of a safetensors file.
    ///
    /// # Errors
    /// No such file or tensor, or another number of dimensions.
    pub fn open(file: &Path, name: &str) -> Result<Self> {
        let (shape, values) = open_tensor(file, name, "five")?;
        Ok(Self { shape, values })
    }
}

/// A tensor of a safetensors file, with as many dimensions as `dimensions` says in words.
fn open_tensor<const N: usize>(
    file: &Path,
    name: &str,
    dimensions: &str,
) -> Result<([usize; N], Vec<f32>)> {
    let source = open_weights(file)?;
    let wrong = |message: String| Error::config(file.display().to_string(), message);
    let Some((_, shape)) = source.info(name) else {
        let mut names = source.names();
        names.truncate(8);
        return Err(wrong(format!(
            "there is no tensor {name:?}; it holds {}",
            names.join(", ")
        )));
    };
    let shape: [usize; N] = shape.as_slice().try_into().map_err(|_| {
        wrong(format!(
            "{name} has shape {shape:?}; expected {dimensions} dimensions"
        ))
    })?;
    let values = match source.view(name)? {
        Some(view) => view.to_f32()?,
        None => Vec::new(),
    };
    Ok((shape, values))
}

/// A value of any kind.
#[derive(Debug, Clone)]
pub enum Value {
    /// On or off.
    Flag(bool),
    /// A whole number.
    Whole(u64),
    /// A number.
    Number(f64),
    /// Whole numbers.
    Wholes(Vec<u64>),
    /// Numbers.
    Numbers(Vec<f64>),
    /// A text, a word, or the name of a model.
    Text(String),
    /// A picture.
    Picture(Arc<Picture>),
    /// Pictures.
    Pictures(Vec<Arc<Picture>>),
    /// A clip.
    Clip(Arc<Clip>),
    /// A tensor.
    Latents(Arc<Latents>),
    /// A tensor of a clip.
    ClipLatents(Arc<ClipLatents>),
    /// Codes.
    Codes(Arc<Codes>),
    /// A file or folder.
    Path(PathBuf),
    /// Files.
    Paths(Vec<PathBuf>),
}

impl Value {
    /// Lists grow; of other values the later one counts.
    pub(super) fn followed_by(self, later: Self) -> Self {
        match (self, later) {
            (Self::Wholes(mut first), Self::Wholes(second)) => {
                first.extend(second);
                Self::Wholes(first)
            }
            (Self::Numbers(mut first), Self::Numbers(second)) => {
                first.extend(second);
                Self::Numbers(first)
            }
            (Self::Paths(mut first), Self::Paths(second)) => {
                first.extend(second);
                Self::Paths(first)
            }
            (Self::Pictures(mut first), Self::Pictures(second)) => {
                first.extend(second);
                Self::Pictures(first)
            }
            (_, later) => later,
        }
    }

    /// As JSON; none for what is too large to stand in a description.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Flag(value) => json!(value),
            Self::Whole(value) => json!(value),
            Self::Number(value) => json!(value),
            Self::Wholes(value) => json!(value),
            Self::Numbers(value) => json!(value),
            Self::Text(value) => json!(value),
            Self::Path(value) => json!(value.display().to_string()),
            Self::Paths(value) => {
                let names = value.iter().map(|path| path.display().to_string());
                json!(names.collect::<Vec<_>>())
            }
            Self::Picture(_)
            | Self::Pictures(_)
            | Self::Clip(_)
            | Self::Latents(_)
            | Self::ClipLatents(_)
            | Self::Codes(_) => {
                return None;
            }
        })
    }
}

/// A Rust type that an option's value has.
pub trait OptionValue: Sized {
    /// As a value.
    fn into_value(self) -> Value;
    /// Back; none for a value of another kind.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! option_value {
    ($type:ty, $value:ident => $into:expr, $pattern:pat => $from:expr) => {
        impl OptionValue for $type {
            fn into_value(self) -> Value {
                let $value = self;
                $into
            }

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $from,
                    _ => None,
                }
            }
        }
    };
}

option_value!(bool, v => Value::Flag(v), Value::Flag(v) => Some(*v));
option_value!(u64, v => Value::Whole(v), Value::Whole(v) => Some(*v));
option_value!(usize, v => Value::Whole(v as u64), Value::Whole(v) => usize::try_from(*v).ok());
option_value!(u32, v => Value::Whole(v.into()), Value::Whole(v) => u32::try_from(*v).ok());
option_value!(f64, v => Value::Number(v), Value::Number(v) => Some(*v));
option_value!(f32, v => Value::Number(shortest(v)), Value::Number(v) => Some(*v as f32));
option_value!(String, v => Value::Text(v), Value::Text(v) => Some(v.clone()));
option_value!(PathBuf, v => Value::Path(v), Value::Path(v) => Some(v.clone()));
option_value!(Vec<PathBuf>, v => Value::Paths(v), Value::Paths(v) => Some(v.clone()));
option_value!(Arc<Picture>, v => Value::Picture(v), Value::Picture(v) => Some(v.clone()));
option_value!(
    Vec<Arc<Picture>>,
    v => Value::Pictures(v),
    Value::Pictures(v) => Some(v.clone())
);
option_value!(Arc<Clip>, v => Value::Clip(v), Value::Clip(v) => Some(v.clone()));
option_value!(Arc<Codes>, v => Value::Codes(v), Value::Codes(v) => Some(v.clone()));
option_value!(Arc<ClipLatents>, v => Value::ClipLatents(v), Value::ClipLatents(v) => Some(v.clone()));
option_value!(Arc<Latents>, v => Value::Latents(v), Value::Latents(v) => Some(v.clone()));
option_value!(
    Vec<usize>,
    v => Value::Wholes(v.into_iter().map(|each| each as u64).collect()),
    Value::Wholes(v) => v.iter().map(|each| usize::try_from(*each).ok()).collect()
);
option_value!(
    Vec<u32>,
    v => Value::Wholes(v.into_iter().map(u64::from).collect()),
    Value::Wholes(v) => v.iter().map(|each| u32::try_from(*each).ok()).collect()
);
option_value!(Vec<f64>, v => Value::Numbers(v), Value::Numbers(v) => Some(v.clone()));
option_value!(
    Vec<f32>,
    v => Value::Numbers(v.into_iter().map(shortest).collect()),
    Value::Numbers(v) => Some(v.iter().map(|each| *each as f32).collect())
);

/// The number that a person would have written: 0.1, not 0.10000000149.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_precision_keeps_its_spelling() {
        assert_eq!(0.1f32.into_value().to_json(), Some(json!(0.1)));
        assert!(f32::NAN.into_value().to_json().is_some());
        assert_eq!(f32::from_value(&Value::Number(4.5)), Some(4.5));
        assert_eq!(u32::from_value(&Value::Whole(1 << 40)), None);
    }

    #[test]
    fn a_tensor_of_another_shape_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.safetensors");
        let tensor = brisk_store::OutTensor {
            name: "latents".to_owned(),
            dtype: brisk_store::Dtype::F32,
            shape: vec![2],
            data: vec![0u8; 8].into(),
        };
        brisk_store::write_safetensors(&file, &[tensor], &Default::default()).unwrap();
        let error = Latents::open(&file, "latents").unwrap_err().to_string();
        assert!(error.contains("shape [2]"), "{error}");
        let error = Latents::open(&file, "noise").unwrap_err().to_string();
        assert!(error.contains("it holds latents"), "{error}");
    }
}
