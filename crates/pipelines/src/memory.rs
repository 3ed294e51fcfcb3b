//! Rough estimates of what a stage needs, so that a request that cannot fit is refused before it starts.

use brisk_nn::{Device, Location, Precision, Quantization};
use brisk_store::TensorSource;

use crate::error::{Error, Result};
use crate::request::StageMemory;

/// Sizes of a transformer that decide its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransformerShape {
    /// Width d.
    pub width: usize,
    /// Hidden width of the feed-forward part.
    pub hidden: usize,
    /// Blocks.
    pub blocks: usize,
}

/// Bytes that a file's tensors take as they are stored.
pub fn stored_bytes(source: &dyn TensorSource) -> u64 {
    source
        .names()
        .iter()
        .filter_map(|name| source.info(name))
        .map(|(dtype, shape)| {
            shape.iter().fold(dtype.size() as u64, |bytes, &size| {
                bytes.saturating_mul(size as u64)
            })
        })
        .fold(0, u64::saturating_add)
}

/// Number of values in a file's tensors.
pub fn stored_values(source: &dyn TensorSource) -> u64 {
    source
        .names()
        .iter()
        .filter_map(|name| source.info(name))
        .map(|(_, shape)| {
            shape
                .iter()
                .fold(1u64, |count, &size| count.saturating_mul(size as u64))
        })
        .fold(0, u64::saturating_add)
}

/// Activations of a transformer pass over `tokens` tokens: the widened feed-forward maps dominate.
pub fn transformer_activations(shape: &TransformerShape, tokens: usize) -> u64 {
    let per_token = 5 * shape.hidden as u64 + 8 * shape.width as u64;
    per_token.saturating_mul(4).saturating_mul(tokens as u64)
}

/// Cached cross-attention keys and values of `rows` captions of `length` tokens.
pub fn caption_cache(shape: &TransformerShape, rows: usize, length: usize) -> u64 {
    [2, shape.width, shape.blocks, rows, length, 4]
        .iter()
        .fold(1, |bytes, &size| bytes.saturating_mul(size as u64))
}

/// Activations of a decoder that ends in `channels` channels at full size, in one piece.
pub fn decode_whole(height: usize, width: usize, channels: usize) -> u64 {
    (height as u64 * width as u64).saturating_mul(channels as u64 * 4 * 4)
}

/// Bytes of an embedding table of `table` values, kept at `stored` bytes each, and of `layers` values
/// of linear layers that are quantized.
pub fn quantized_bytes(table: u64, layers: u64, stored: f64, how: Quantization) -> u64 {
    (table as f64 * stored + layers as f64 * how.bytes_per_value(stored)) as u64
}

/// Activations of a decoder in strips of `rows` pixel rows that keeps maps up to `largest_map` bytes whole.
/// The deep stages hold two of them at most: what is doubled, and what that gives.
pub fn decode_strips(
    height: usize,
    width: usize,
    channels: usize,
    rows: usize,
    largest_map: u64,
) -> u64 {
    let picture = height as u64 * width as u64 * 4;
    let full = picture.saturating_mul(channels as u64);
    let deep = (full / 16).max(full.min(largest_map));
    2 * deep + 3 * picture + decode_whole(rows.min(height), width, channels)
}

/// Free memory in bytes: the system's estimate, or what is left of a control group's limit if that is less.
pub fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_of_meminfo(&text));
    let read = |file: &str| {
        std::fs::read_to_string(file)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let group = read("/sys/fs/cgroup/memory.max")
        .zip(read("/sys/fs/cgroup/memory.current"))
        .map(|(limit, used)| limit.saturating_sub(used));
    match (system, group) {
        (Some(system), Some(group)) => Some(system.min(group)),
        (system, group) => system.or(group),
    }
}

fn available_of_meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Free bytes of the place where a model computes.
pub fn available_at(location: &Location) -> Option<u64> {
    match location.device() {
        None => available(),
        Some(device) => Some(device.available() as u64),
    }
}

/// Bytes of a float as a card keeps it.
pub fn element(device: &Device) -> u64 {
    match device.precision() {
        Precision::Half => 2,
        Precision::Single => 4,
    }
}

/// Bytes of an autoencoder's `count` weights as they are kept.
pub fn autoencoder_bytes(location: &Location, count: u64) -> u64 {
    match location.device() {
        // Convolutions compute on f32 copies, whatever the file holds.
        None => count.saturating_mul(4),
        // Filters over doubled maps are there once more, as four smaller ones.
        Some(device) => count.saturating_mul(element(device)) / 4 * 5,
    }
}

/// Refuses the first of some stages that needs more than is available.
pub fn check_stages(stages: &[StageMemory], suggestion: &str) -> Result<()> {
    let available = available();
    let each = |stage: &StageMemory| check(stage.stage, stage.needed, available, suggestion);
    stages.iter().try_for_each(each)
}

/// Refuses a stage that needs more than is available.
pub fn check(
    stage: &'static str,
    needed: u64,
    available: Option<u64>,
    suggestion: &str,
) -> Result<()> {
    match available {
        Some(available) if needed > available => Err(Error::Memory {
            stage,
            needed_mib: needed >> 20,
            available_mib: available >> 20,
            suggestion: suggestion.to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kibibytes() {
        let text = "MemTotal:       100 kB\nMemAvailable:    40 kB\n";
        assert_eq!(available_of_meminfo(text), Some(40 * 1024));
        assert_eq!(available_of_meminfo("MemTotal: 5 kB"), None);
        assert_eq!(available_of_meminfo("MemAvailable: much kB"), None);
    }

    #[test]
    fn a_stage_that_does_not_fit_is_refused_with_a_way_out() {
        assert!(check("decode", 10, Some(10), "").is_ok());
        assert!(check("decode", 10, None, "").is_ok());
        let error = check("decode", 3 << 20, Some(1 << 20), "use --decode strips")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("decode needs about 3 MiB") && error.contains("strips"),
            "{error}"
        );
    }

    #[test]
    fn estimates_are_in_the_right_region() {
        let sana = TransformerShape {
            width: 2240,
            hidden: 5600,
            blocks: 20,
        };
        let activations = transformer_activations(&sana, 1024) >> 20;
        assert!((100..400).contains(&activations), "{activations}");
        let whole = decode_whole(4096, 4096, 128) >> 30;
        assert!((20..60).contains(&whole), "{whole}");
        assert!(decode_strips(4096, 4096, 128, 256, 192 << 20) < decode_whole(4096, 4096, 128) / 5);
    }
}
