//! The nvfp4 format: 4-bit floats in groups of 16 inputs, each group with an 8-bit scale.

use brisk_store::{Dtype, e4m3_to_f32};

use crate::HalfType;
use crate::error::Result;
use crate::integer::MICRO_GROUP;
use crate::layout;
use crate::reader::{Reader, dtype_of, half_of};
use crate::record::CHANNEL_SCALES;

/// The sizes that a 4-bit float (`e2m1`) can have; its fourth bit is the sign.
pub const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The value of an `e2m1` code, 0 to 15.
pub fn e2m1_value(code: u8) -> f32 {
    let size = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { size } else { -size }
}

/// The nearest `e2m1` code; a tie goes to the even one.
pub fn e2m1_code(value: f32) -> u8 {
    let size = value.abs();
    let above = E2M1.iter().position(|v| *v >= size).unwrap_or(7);
    let code = if above == 0 {
        0
    } else {
        let (low, high) = (size - E2M1[above - 1], E2M1[above] - size);
        match low.total_cmp(&high) {
            std::cmp::Ordering::Less => above - 1,
            std::cmp::Ordering::Greater => above,
            std::cmp::Ordering::Equal => above - above % 2,
        }
    };
    code as u8 | if value < 0.0 { 8 } else { 0 }
}

/// The nearest `e4m3fn` byte of a size between 0 and 448, ties to even.
pub fn e4m3_code(value: f32) -> u8 {
    let value = value.clamp(0.0, 448.0);
    // Positive codes are in order, so the nearest is one of two neighbours.
    let (mut low, mut high) = (0u8, 0x7e);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if e4m3_to_f32(middle) <= value {
            low = middle;
        } else {
            high = middle;
        }
    }
    let below = value - e4m3_to_f32(low);
    let above = e4m3_to_f32(high) - value;
    match below.total_cmp(&above) {
        std::cmp::Ordering::Less => low,
        std::cmp::Ordering::Greater => high,
        std::cmp::Ordering::Equal => low + low % 2,
    }
}

/// A weight in nvfp4: value = e2m1(code)·e4m3(scale)·tensor_scale·channel_scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Floats {
    /// `e2m1` `[outputs, inputs]`, 0 to 15.
    pub codes: Vec<u8>,
    /// `e4m3fn` `[outputs, inputs / 16]`
    pub scales: Vec<u8>,
    /// One factor for all, and the type that it is stored in.
    pub tensor_scale: Option<(f32, Dtype)>,
    /// One factor an output.
    pub channel_scales: Option<Vec<f32>>,
}

impl Floats {
    /// Rounds a weight `[outputs, inputs]` to nearest.
    ///
    /// # Panics
    /// When its length is not a multiple of 16.
    pub fn round(weight: &[f32], half: HalfType) -> Self {
        assert!(weight.len().is_multiple_of(MICRO_GROUP));
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let tensor_scale = match half.round(largest(weight) / 6.0 / 448.0) {
            0.0 => 1.0,
            scale => scale,
        };
        let mut codes = Vec::with_capacity(weight.len());
        let mut scales = Vec::with_capacity(weight.len() / MICRO_GROUP);
        for values in weight.chunks_exact(MICRO_GROUP) {
            let scale = e4m3_code(largest(values) / 6.0 / tensor_scale);
            let step = e4m3_to_f32(scale) * tensor_scale;
            scales.push(scale);
            codes.extend(
                values
                    .iter()
                    .map(|v| if step == 0.0 { 0 } else { e2m1_code(v / step) }),
            );
        }
        Self {
            codes,
            scales,
            tensor_scale: Some((tensor_scale, dtype_of(half))),
            channel_scales: None,
        }
    }

    /// Reads what belongs to `codes` `[outputs, inputs]`.
    pub(crate) fn read(
        reader: &Reader,
        codes: Vec<u8>,
        outputs: usize,
        inputs: usize,
        half: HalfType,
    ) -> Result<Self> {
        let groups = inputs / MICRO_GROUP;
        let bytes = reader.bytes("wscales", &[Dtype::F8E4M3], &[groups, outputs])?;
        let scales = layout::unpack(&bytes[..], groups, |n, g| {
            layout::micro_scale_place(n, g, inputs)
        });
        if let Some(place) = scales.iter().position(|s| e4m3_to_f32(*s).is_nan()) {
            let problem = format!("scale {place} is NaN; the file is damaged");
            return Err(reader.error("wscales", problem));
        }
        let packed = reader
            .has(CHANNEL_SCALES)
            .then(|| reader.halves(CHANNEL_SCALES, half, &[outputs]))
            .transpose()?;
        let channel_scales =
            packed.map(|packed| layout::unpack(&packed, 1, |n, _| layout::scale_place(n, 0, 1)));
        Ok(Self {
            codes,
            scales,
            tensor_scale: read_tensor_scale(reader)?,
            channel_scales,
        })
    }

    /// `[outputs, inputs]`.
    pub fn values(&self, inputs: usize) -> Vec<f32> {
        let whole = self.tensor_scale.map_or(1.0, |(scale, _)| scale);
        let groups = inputs / MICRO_GROUP;
        let value = |(index, codes): (usize, &[u8])| -> Vec<f32> {
            let channels = self.channel_scales.as_ref();
            let channel = channels.map_or(1.0, |s| s[index / groups]);
            let step = e4m3_to_f32(self.scales[index]) * whole * channel;
            codes.iter().map(|code| e2m1_value(*code) * step).collect()
        };
        let codes = self.codes.chunks_exact(MICRO_GROUP).enumerate();
        codes.flat_map(value).collect()
    }
}

fn read_tensor_scale(reader: &Reader) -> Result<Option<(f32, Dtype)>> {
    if !reader.has("wtscale") {
        return Ok(None);
    }
    let (dtype, _) = reader.info("wtscale")?;
    let scale = match half_of(dtype) {
        Some(half) => reader.halves("wtscale", half, &[1])?[0],
        None => {
            let bytes = reader.bytes("wtscale", &[Dtype::F32], &[1])?;
            let first = bytes.first_chunk();
            first.map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes))
        }
    };
    if !scale.is_finite() {
        return Err(reader.error("wtscale", format!("it is {scale}; the file is damaged")));
    }
    Ok(Some((scale, dtype)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_round_to_nearest_with_ties_to_even() {
        for code in 0..16 {
            if code != 8 {
                assert_eq!(e2m1_code(e2m1_value(code)), code);
            }
        }
        let cases = [
            (0.25, 0),
            (0.75, 2),
            (1.25, 2),
            (1.75, 4),
            (2.5, 4),
            (3.5, 6),
            (5.0, 6),
            (9.0, 7),
        ];
        for (value, code) in cases {
            assert_eq!(e2m1_code(value), code, "{value}");
        }
        for byte in 0..0x7f {
            assert_eq!(e4m3_code(e4m3_to_f32(byte)), byte);
        }
        assert_eq!(e4m3_code(1e9), 0x7e);
        assert_eq!(e4m3_code(17.0), e4m3_code(16.0));
    }
}
