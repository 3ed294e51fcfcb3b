//! Training on a card, by candle's operations there.
//!
//! Such a tensor is candle's as one on the CPU is, so gradients flow through it. What candle can do on a card is done
//! there; [`crate::ops`] state their own operations by candle's ([`crate::ops::accelerated`]), and whatever has no such
//! statement goes through ordinary memory and back.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

use candle_core::{Device, Result as CandleResult, Tensor as HostTensor};

use super::{Place, Tensor};
use crate::error::{Error, Result};

/// Where variables are made.
static TRAINING: RwLock<Device> = RwLock::new(Device::Cpu);

/// Makes variables of [`crate::Weights::trainable`] from now on on NVIDIA card `ordinal`. Products are of whole f32
/// there: sums and repetitions are products, too.
///
/// # Errors
/// A build without the feature `train-cuda`, or no such card.
pub fn train_on_card(ordinal: usize) -> Result<()> {
    let device = Device::new_cuda(ordinal).map_err(|error| {
        let what = match error {
            candle_core::Error::NotCompiledWithCudaSupport => {
                "this brisk cannot train on a card; build it with `--features train-cuda`, which needs the CUDA \
                 toolkit"
                    .to_owned()
            }
            error => format!("card {ordinal} cannot be used: {error}"),
        };
        Error::Config(what)
    })?;
    candle_core::cuda::set_gemm_reduced_precision_f32(false);
    *TRAINING.write().unwrap_or_else(PoisonError::into_inner) = device;
    Ok(())
}

/// Where variables are made.
pub fn training_device() -> Device {
    TRAINING
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Two operands on one device: on the card where one of them is.
pub(crate) fn side_by_side<'a>(
    a: &'a HostTensor,
    b: &'a HostTensor,
) -> CandleResult<(Cow<'a, HostTensor>, Cow<'a, HostTensor>)> {
    let device = meeting_place([a, b]);
    Ok((moved(a, &device)?, moved(b, &device)?))
}

/// Where operands meet.
pub(crate) fn meeting_place<'a>(operands: impl IntoIterator<Item = &'a HostTensor>) -> Device {
    let card = |tensor: &&HostTensor| !tensor.device().is_cpu();
    let found = operands.into_iter().find(card);
    found.map_or(Device::Cpu, |tensor| tensor.device().clone())
}

/// A tensor there.
pub(crate) fn moved<'a>(
    tensor: &'a HostTensor,
    device: &Device,
) -> CandleResult<Cow<'a, HostTensor>> {
    // Of two clones of a device one is enough: a process trains on one card.
    match tensor.device().is_cpu() == device.is_cpu() {
        true => Ok(Cow::Borrowed(tensor)),
        false => Ok(Cow::Owned(tensor.contiguous()?.to_device(device)?)),
    }
}

impl Tensor {
    /// Whether it is candle's on a card.
    pub(crate) fn is_accelerated(&self) -> bool {
        matches!(&self.0, Place::Host(tensor) if !tensor.device().is_cpu())
    }

    /// The same in ordinary memory, its values in the order of rows.
    pub(crate) fn in_order_at_hand(&self) -> Result<Self> {
        let tensor = self.contiguous()?;
        match &tensor.0 {
            Place::Host(host) if !host.device().is_cpu() => {
                Ok(moved(host, &Device::Cpu)?.into_owned().into())
            }
            _ => Ok(tensor),
        }
    }
}
