//! Where a model computes: the processor or a card.

use brisk_nn::{Device, Location, Precision};

use crate::error::{Error, Result};
use crate::options::keys;

/// How locations are written.
pub const VALUES: &str = "auto, cpu, cuda or cuda:N";

/// The place that `name` asks for: `cpu`; `cuda` or `cuda:N`, card N; `auto`, card 0 where there is one. On a
/// card everything is f32 where `precise`, else bf16 with sums of f32.
///
/// # Errors
/// Another name, a card that cannot be used, or `precise` without a card.
pub fn location(name: &str, precise: bool) -> Result<Location> {
    let refuse = |message: String| Error::request(keys::DEVICE.name(), message);
    let precision = match precise {
        true => Precision::Single,
        false => Precision::Half,
    };
    if name == "cpu" {
        return match precise {
            false => Ok(Location::HOST),
            true => Err(Error::request(
                keys::PRECISE.name(),
                "the processor computes in f32 anyway; it is for a card (`device`)",
            )),
        };
    }
    if name == "auto" {
        // Why there is none, `brisk doctor` says.
        return Ok(Device::open(0, precision).map_or(Location::HOST, Into::into));
    }
    let index = index(name).ok_or_else(|| refuse(format!("{name:?}: expected {VALUES}")))?;
    let device = Device::open(index, precision).map_err(|error| refuse(error.to_string()))?;
    Ok(device.into())
}

/// The number of a card: 0 of `cuda`, N of `cuda:N`.
fn index(name: &str) -> Option<usize> {
    match name.strip_prefix("cuda")? {
        "" => Some(0),
        rest => rest.strip_prefix(':')?.parse().ok(),
    }
}

/// Lets trainings that begin from now on compute their gradients at `name`: `cpu`, `cuda` or `cuda:N`, in f32.
///
/// # Errors
/// As [`location`]; a card needs a build with the feature `train-cuda`.
pub fn train_on(name: &str) -> Result<()> {
    if name == "cpu" {
        return Ok(());
    }
    let refuse = |message: String| Error::request(keys::DEVICE.name(), message);
    let index =
        index(name).ok_or_else(|| refuse(format!("{name:?}: expected cpu, cuda or cuda:N")))?;
    brisk_nn::train_on_card(index).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_or_refused() {
        assert_eq!(location("cpu", false).unwrap(), Location::HOST);
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda0", ""] {
            let refused = location(wrong, false).unwrap_err().to_string();
            assert!(refused.contains(VALUES), "{refused}");
        }
        assert!(location("cpu", true).is_err());
        // With a card or without, `auto` gives a place.
        assert!(train_on("cpu").is_ok());
        for wrong in ["auto", "gpu", "cuda:999"] {
            let refused = train_on(wrong).unwrap_err().to_string();
            assert!(refused.starts_with("device"), "{refused}");
        }
        let place = location("auto", false).unwrap();
        assert_eq!(
            place == Location::HOST,
            Device::open(0, Precision::Half).is_err()
        );
        // No machine has so many.
        let refused = location("cuda:999", false).unwrap_err().to_string();
        let known = ["NVIDIA driver", "there is no card 999"];
        assert!(
            refused.starts_with("device") && known.iter().any(|text| refused.contains(text)),
            "{refused}"
        );
    }
}
