//! Where values lie.

use std::fmt;

use brisk_cuda::Device;

use super::{OnDevice, Place, Tensor};
use crate::error::Result;

/// Ordinary memory, or a card's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Location(Option<Device>);

impl From<Device> for Location {
    fn from(device: Device) -> Self {
        Self(Some(device))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("in ordinary memory"),
            Some(device) => write!(f, "on card {}", device.card().name),
        }
    }
}

impl Location {
    /// Ordinary memory.
    pub const HOST: Self = Self(None);

    /// The card, if it is one.
    pub fn device(&self) -> Option<&Device> {
        self.0.as_ref()
    }

    /// Waits for all that was asked of a card.
    ///
    /// # Errors
    /// What went wrong there.
    pub fn wait(&self) -> Result<()> {
        match &self.0 {
            Some(device) => Ok(device.synchronize()?),
            None => Ok(()),
        }
    }
}

impl Tensor {
    /// Where it lies.
    pub fn location(&self) -> Location {
        Location(self.device().map(|tensor| tensor.device().clone()))
    }

    /// The values elsewhere; itself where they lie there. A card keeps f32 as f32 and both 16-bit floats as
    /// bf16; coming back from one, every float is f32.
    ///
    /// # Errors
    /// Types that a card does not keep, memory that ran out, and, coming from a card, what went wrong there
    /// before: faults, and values that were not finite.
    pub fn to(&self, location: &Location) -> Result<Self> {
        match (&self.0, location.device()) {
            (Place::Host(_) | Place::Dual(_), None) => Ok(self.clone()),
            (Place::Dual(_), Some(_)) => Err(super::dual::without_rule("computing on a card")),
            (Place::Host(tensor), Some(device)) => Ok(OnDevice::upload(tensor, device)?.into()),
            (Place::Device(tensor), None) => Ok(tensor.host()?.into()),
            (Place::Device(tensor), Some(device)) if tensor.device() == device => Ok(self.clone()),
            (Place::Device(tensor), Some(device)) => {
                Ok(OnDevice::upload(&tensor.host()?, device)?.into())
            }
        }
    }

    /// Waits until the values are there, which a card computes later than it is asked.
    ///
    /// # Errors
    /// What went wrong there.
    pub fn wait(&self) -> Result<()> {
        match self.device() {
            Some(tensor) => Ok(tensor.device().synchronize()?),
            None => Ok(()),
        }
    }

    /// The values where `other` lies.
    ///
    /// # Errors
    /// As [`Tensor::to`].
    pub fn beside(&self, other: &Self) -> Result<Self> {
        self.to(&other.location())
    }

    /// `(x/2 + ½)·255` within 0..255 and rounded to even, made where the values lie; none on the host.
    ///
    /// # Errors
    /// What went wrong on the card before: faults, and values that were not finite.
    pub fn signed_bytes(&self) -> Result<Option<Vec<u8>>> {
        self.device().map(OnDevice::signed_bytes).transpose()
    }
}
