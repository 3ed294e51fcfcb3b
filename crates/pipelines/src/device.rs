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
    let index = name.strip_prefix("cuda").and_then(|rest| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(':')?.parse().ok(),
    });
    let index = index.ok_or_else(|| refuse(format!("{name:?}: expected {VALUES}")))?;
    let device = Device::open(index, precision).map_err(|error| refuse(error.to_string()))?;
    Ok(device.into())
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
