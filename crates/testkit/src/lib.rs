//! Tolerances and golden files for tests.
//!
//! A golden is a safetensors file made by a reference implementation (see `reference/`): tensors
//! `inputs.*`, `blocks.*` in the order the reference computes them, and `outputs.*`. Large tensors
//! are thinned: `NAME.everyK` holds every K-th value of the flattened tensor, `NAME.shape` its
//! shape.
//!
//! Everything here panics with a message instead of returning errors: it is for tests only.

#![forbid(unsafe_code)]

mod toy;

pub use toy::{TOY_SIDE, TOY_WORDS, write_toy_model};

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use brisk_nn::{DType, Tensor};
use brisk_store::{Dtype, OutTensor};

/// The folder of committed goldens.
pub fn fixtures_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .canonicalize()
        .expect("the repository has a folder `fixtures`")
}

/// Name and bytes of every file of the fuzzer's seeds for `target`, in the order of their names.
///
/// # Panics
/// There are none.
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("a folder that can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (
            name.into_owned(),
            std::fs::read(&path).expect("a file that can be read"),
        )
    };
    let mut seeds: Vec<_> = entries.map(read).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds.sort();
    seeds
}

/// Reads the fuzzer's seeds for `target` with `read`, which gets name and bytes: those that begin with `good_` must be
/// read, every other one refused with a message that holds its name, where `named`.
///
/// # Panics
/// Some were not read, not refused, or without their names; all are listed.
pub fn check_seeds<T, E: std::fmt::Display>(
    target: &str,
    named: bool,
    mut read: impl FnMut(&str, &[u8]) -> Result<T, E>,
) {
    let mut wrong = Vec::new();
    for (name, bytes) in seeds(target) {
        match (read(&name, &bytes), name.starts_with("good_")) {
            (Ok(_), true) => {}
            (Ok(_), false) => wrong.push(format!("{name} was accepted")),
            (Err(error), true) => wrong.push(format!("{name} was refused: {error}")),
            (Err(error), false) => {
                let error = error.to_string();
                if named && !error.contains(&name) {
                    wrong.push(format!("{name} is not named: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{target}:\n{}", wrong.join("\n"));
}

/// All tensors of a safetensors file.
///
/// # Panics
/// The file cannot be read.
pub fn load_tensors(path: impl AsRef<Path>) -> HashMap<String, Tensor> {
    let path = path.as_ref();
    let read = || -> brisk_nn::Result<_> {
        let source = brisk_store::open_weights(path)?;
        let mut tensors = HashMap::new();
        for name in source.names() {
            if let Some(view) = source.view(&name)? {
                tensors.insert(name, Tensor::from_view(&view)?);
            }
        }
        Ok(tensors)
    };
    read().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Writes tensors of f32, i64 or u8 to a safetensors file.
///
/// # Panics
/// A tensor of another type, or a file that cannot be written.
pub fn save_tensors<N: AsRef<str>>(path: impl AsRef<Path>, tensors: &HashMap<N, Tensor>) {
    let stored = tensors.iter().map(|(name, x)| {
        let (name, shape) = (name.as_ref().to_owned(), x.dims().to_vec());
        let x = x.flatten_all().expect("one dimension");
        let (dtype, data): (_, Vec<u8>) = match x.dtype() {
            DType::F32 => (Dtype::F32, bytes::<f32, 4>(&x, f32::to_le_bytes)),
            DType::I64 => (Dtype::I64, bytes::<i64, 8>(&x, i64::to_le_bytes)),
            DType::U8 => (Dtype::U8, bytes::<u8, 1>(&x, u8::to_le_bytes)),
            other => panic!("{name}: a tensor of {other:?} cannot be saved"),
        };
        OutTensor {
            name,
            dtype,
            shape,
            data: data.into(),
        }
    });
    let stored: Vec<_> = stored.collect();
    brisk_store::write_safetensors(path.as_ref(), &stored, &BTreeMap::new())
        .unwrap_or_else(|e| panic!("{e}"));
}

fn bytes<T: brisk_nn::WithDType, const N: usize>(x: &Tensor, encode: fn(T) -> [u8; N]) -> Vec<u8> {
    let values = x.to_vec1::<T>().expect("values of its type");
    values.into_iter().flat_map(encode).collect()
}

/// The values of a tensor of any type, row by row.
///
/// # Panics
/// The tensor is of a type without conversion to f32.
pub fn values(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32)
        .and_then(|x| x.flatten_all()?.to_vec1())
        .expect("a tensor of numbers")
}

/// A picture batch `[batch, height, width, 3]` that needs no storage: the same as `pattern` of the scripts that make
/// goldens.
///
/// # Panics
/// Never.
pub fn pattern(batch: usize, height: usize, width: usize) -> Tensor {
    let mut data = Vec::with_capacity(batch * height * width * 3);
    for b in 0..batch {
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    let value = (7 * b + 31 * c + 13 * y + 29 * x + 3 * x * y) % 257;
                    data.push(value as f32 / 128.0 - 1.0);
                }
            }
        }
    }
    Tensor::from_vec(data, (batch, height, width, 3)).expect("as many values as places")
}

/// `|found - wanted| / |wanted|` in f64; the absolute norm where `wanted` is all zero, infinite
/// where a value is not finite or the lengths differ.
pub fn relative_l2(found: &[f32], wanted: &[f32]) -> f64 {
    if found.len() != wanted.len() || found.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let norm = |terms: &mut dyn Iterator<Item = f64>| terms.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = found.iter().zip(wanted);
    let difference = norm(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let size = norm(&mut wanted.iter().map(|b| f64::from(*b)));
    if size == 0.0 {
        difference
    } else {
        difference / size
    }
}

/// Asserts equal shapes and a relative L2 distance under `tolerance`; returns the distance.
///
/// # Panics
/// They differ; the message starts with `name`.
#[track_caller]
pub fn assert_close(name: &str, found: &Tensor, wanted: &Tensor, tolerance: f64) -> f64 {
    assert_eq!(found.dims(), wanted.dims(), "{name}: shapes differ");
    let distance = relative_l2(&values(found), &values(wanted));
    assert!(
        distance < tolerance,
        "{name}: relative L2 {distance:.3e}, allowed {tolerance:.1e}"
    );
    distance
}

/// One golden file, and how far what was compared with it has been off.
pub struct Golden {
    label: String,
    tensors: HashMap<String, Tensor>,
    worst: f64,
    compared: usize,
}

impl Golden {
    /// Opens `fixtures/{relative}`.
    ///
    /// # Panics
    /// The file cannot be read.
    pub fn open(relative: &str) -> Self {
        Self {
            label: relative.to_owned(),
            tensors: load_tensors(fixtures_dir().join(relative)),
            worst: 0.0,
            compared: 0,
        }
    }

    /// A whole tensor.
    ///
    /// # Panics
    /// There is none of that name.
    #[track_caller]
    pub fn get(&self, name: &str) -> Tensor {
        self.find(name)
            .unwrap_or_else(|| panic!("{} has no tensor `{name}`", self.label))
    }

    /// A whole tensor, where there is one.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).cloned()
    }

    /// Rows of a mask.
    ///
    /// # Panics
    /// There is no two-dimensional tensor of that name.
    #[track_caller]
    pub fn mask(&self, name: &str) -> Vec<Vec<bool>> {
        let rows = self
            .get(name)
            .to_dtype(DType::F32)
            .and_then(|x| x.to_vec2::<f32>());
        let rows = rows.unwrap_or_else(|e| panic!("{}: `{name}`: {e}", self.label));
        rows.into_iter()
            .map(|row| row.into_iter().map(|x| x != 0.0).collect())
            .collect()
    }

    /// Compares a tensor with the golden's whole or thinned tensor `name`. False where it has
    /// neither.
    ///
    /// # Panics
    /// Shape or values differ: relative L2 of `tolerance` or more.
    #[track_caller]
    pub fn compare(&mut self, name: &str, found: &Tensor, tolerance: f64) -> bool {
        let thinned = || {
            self.tensors
                .iter()
                .find_map(|(key, x)| Some((thinning(key, name)?, x)))
        };
        let whole = self.tensors.get(name).map(|x| (1, x));
        let Some((step, wanted)) = whole.or_else(thinned) else {
            return false;
        };
        let label = format!("{}: {name}", self.label);
        let shape = match self.tensors.get(&format!("{name}.shape")) {
            Some(shape) => values(shape).into_iter().map(|n| n as usize).collect(),
            None => wanted.dims().to_vec(),
        };
        assert_eq!(found.dims(), shape, "{label}: shapes differ");
        let found: Vec<f32> = values(found).into_iter().step_by(step).collect();
        let distance = relative_l2(&found, &values(wanted));
        assert!(
            distance < tolerance,
            "{label}: first to diverge, relative L2 {distance:.3e}, allowed {tolerance:.1e}"
        );
        self.worst = self.worst.max(distance);
        self.compared += 1;
        true
    }

    /// Largest relative L2 seen by [`Golden::compare`], and the number of comparisons.
    pub fn summary(&self) -> (f64, usize) {
        (self.worst, self.compared)
    }

    /// Prints [`Golden::summary`], for a test run with `--nocapture`.
    #[allow(clippy::print_stderr)] // a test's figures are for the person who asked to see them
    pub fn report(&self) {
        let (worst, count) = self.summary();
        eprintln!(
            "{}: {count} tensors, worst relative L2 {worst:.2e}",
            self.label
        );
    }

    /// Names that start with `prefix`, thinned ones under their plain name, sorted.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .tensors
            .keys()
            .filter(|name| name.starts_with(prefix) && !name.ends_with(".shape"))
            .map(|name| {
                name.rsplit_once(".every")
                    .map_or(&**name, |(plain, _)| plain)
                    .to_owned()
            })
            .collect();
        names.sort();
        names
    }
}

/// K where `key` is `{name}.everyK`.
fn thinning(key: &str, name: &str) -> Option<usize> {
    key.strip_prefix(name)?.strip_prefix(".every")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_relative_and_refuses_what_is_not_finite() {
        assert_eq!(relative_l2(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert!((relative_l2(&[3.0, 4.5], &[3.0, 4.0]) - 0.1).abs() < 1e-9);
        assert_eq!(relative_l2(&[0.0, 2.0], &[0.0, 0.0]), 2.0);
        assert_eq!(relative_l2(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative_l2(&[1.0], &[1.0, 1.0]), f64::INFINITY);
    }
}
