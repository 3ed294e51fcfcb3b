//! Constants that every layer and every update need again.

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Result, Tensor};

/// Constants that are kept, the last ones that were new.
const MOST: usize = 32;

/// The constant of a kind and its sizes on a device, made where it is not there.
pub(super) fn kept(
    kind: &'static str,
    sizes: [usize; 3],
    device: &Device,
    make: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    type Known = ((&'static str, [usize; 3]), Tensor);
    static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let same =
        |(key, tensor): &&Known| *key == (kind, sizes) && tensor.device().same_device(device);
    if let Some((_, tensor)) = known.iter().find(same) {
        return Ok(tensor.clone());
    }
    let tensor = make()?;
    if known.len() == MOST {
        known.remove(0);
    }
    known.push(((kind, sizes), tensor.clone()));
    Ok(tensor)
}
