//! The stored form of a quantized weight, and how values get into it and out of it.

use super::{Bits, GROUP};
use crate::gemm::layout::PANEL;
use crate::gemm::widen::Half;
use crate::simd::simd_dispatch;
use half::{bf16, f16};
use rayon::prelude::*;

/// Bytes of the scales of one group in one panel: a bf16 an output.
pub(super) const SCALES: usize = 2 * PANEL;

impl Bits {
    /// Bytes of one group of a panel: codes of [`PANEL`] outputs times [`GROUP`] inputs, then scales.
    pub(super) const fn block(self) -> usize {
        self.codes() + SCALES
    }

    /// Bytes of the codes of one block.
    pub(super) const fn codes(self) -> usize {
        match self {
            Bits::Four => PANEL * GROUP / 2,
            Bits::Eight => PANEL * GROUP,
        }
    }
}

/// A weight `[outputs, inputs]` of 4 or 8 bits a value, with one scale for every [`GROUP`] inputs of
/// an output.
///
/// Panels of 16 outputs follow each other; a panel is one block a group; a block holds its codes and
/// then its 16 scales. In codes of 8 bits, byte `64·s + 4·j + t` is input `4·s + t` of output `j`, as
/// a signed number. In codes of 4 bits, that byte holds inputs `8·s + t` (low) and `8·s + 4 + t`
/// (high), each raised by 8. So four inputs of an output are what one lane of an integer dot product
/// takes. Outputs past the last and inputs past the last are zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedMatrix {
    outputs: usize,
    inputs: usize,
    bits: Bits,
    panels: Vec<u8>,
}

/// Scale and codes of the values of one group.
type Quantizer = fn(&[f32; GROUP], &mut [i8; GROUP]) -> bf16;

impl QuantizedMatrix {
    /// Quantizes an f32 weight. A group that holds NaN or infinity comes out as NaN.
    ///
    /// # Panics
    /// When `w` does not hold `outputs·inputs` values; so do the other constructors.
    pub fn from_f32(w: &[f32], outputs: usize, inputs: usize, bits: Bits) -> Self {
        let copy = |from: &[f32], to: &mut [f32]| to.copy_from_slice(from);
        Self::build(w, outputs, inputs, bits, copy)
    }

    /// Quantizes a bf16 weight.
    pub fn from_bf16(w: &[bf16], outputs: usize, inputs: usize, bits: Bits) -> Self {
        Self::build(w, outputs, inputs, bits, bf16::widen)
    }

    /// Quantizes an f16 weight.
    pub fn from_f16(w: &[f16], outputs: usize, inputs: usize, bits: Bits) -> Self {
        Self::build(w, outputs, inputs, bits, f16::widen)
    }

    fn build<T: Copy + Sync>(
        w: &[T],
        outputs: usize,
        inputs: usize,
        bits: Bits,
        widen: impl Fn(&[T], &mut [f32]) + Sync,
    ) -> Self {
        assert_eq!(w.len(), outputs * inputs, "weight of {outputs}x{inputs}");
        let groups = inputs.div_ceil(GROUP);
        let mut panels = vec![0u8; outputs.div_ceil(PANEL) * groups * bits.block()];
        let quantize: Quantizer = match bits {
            Bits::Four => quantize_four,
            Bits::Eight => quantize_eight,
        };
        if panels.is_empty() {
            return Self {
                outputs,
                inputs,
                bits,
                panels,
            };
        }
        panels
            .par_chunks_exact_mut(groups * bits.block())
            .zip(w.par_chunks(PANEL * inputs))
            .for_each(|(panel, rows)| {
                let mut codes = [[0i8; GROUP]; PANEL];
                for (group, block) in panel.chunks_exact_mut(bits.block()).enumerate() {
                    let first = group * GROUP;
                    let count = GROUP.min(inputs - first);
                    for (j, (row, codes)) in rows.chunks_exact(inputs).zip(&mut codes).enumerate() {
                        let mut values = [0.0f32; GROUP];
                        widen(&row[first..first + count], &mut values[..count]);
                        let scale = quantize(&values, codes);
                        let at = bits.codes() + 2 * j;
                        block[at..at + 2].copy_from_slice(&scale.to_bits().to_le_bytes());
                    }
                    place(bits, &codes, block);
                }
            });
        Self {
            outputs,
            inputs,
            bits,
            panels,
        }
    }

    /// One matrix of the outputs of all `parts`, in their order; none where they differ in inputs or
    /// bits, or where one but the last ends within a panel.
    pub fn joined(parts: &[&Self]) -> Option<Self> {
        let (last, before) = parts.split_last()?;
        let fits = before.iter().all(|part| {
            part.outputs.is_multiple_of(PANEL)
                && part.inputs == last.inputs
                && part.bits == last.bits
        });
        fits.then(|| Self {
            outputs: parts.iter().map(|part| part.outputs).sum(),
            inputs: last.inputs,
            bits: last.bits,
            panels: parts
                .iter()
                .map(|part| &part.panels[..])
                .collect::<Vec<_>>()
                .concat(),
        })
    }

    /// Width of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bits of one value.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// The stored form, as [`QuantizedMatrix::from_stored`] takes it back.
    pub fn stored(&self) -> &[u8] {
        &self.panels
    }

    /// From the stored form; none where it has not the length that the sizes ask for.
    pub fn from_stored(panels: Vec<u8>, outputs: usize, inputs: usize, bits: Bits) -> Option<Self> {
        let length = Self::stored_length(outputs, inputs, bits)?;
        (panels.len() == length).then_some(Self {
            outputs,
            inputs,
            bits,
            panels,
        })
    }

    /// Bytes of the stored form; none where a computer could not count them.
    pub fn stored_length(outputs: usize, inputs: usize, bits: Bits) -> Option<usize> {
        let blocks = outputs
            .div_ceil(PANEL)
            .checked_mul(inputs.div_ceil(GROUP))?;
        blocks.checked_mul(bits.block())
    }

    pub(super) fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }

    /// Blocks of one panel, one a group.
    pub(super) fn panel(&self, index: usize) -> &[u8] {
        let length = self.groups() * self.bits.block();
        &self.panels[index * length..(index + 1) * length]
    }

    /// Codes `[outputs, groups·32]`, zeros behind the last input, and scales `[outputs, groups]`, in plain order.
    pub fn codes_and_scales(&self) -> (Vec<i8>, Vec<f32>) {
        let groups = self.groups();
        let mut codes = vec![0; self.outputs * groups * GROUP];
        let mut scales = vec![0.0; self.outputs * groups];
        if codes.is_empty() {
            return (codes, scales);
        }
        codes
            .par_chunks_mut(PANEL * groups * GROUP)
            .zip(scales.par_chunks_mut(PANEL * groups))
            .enumerate()
            .for_each(|(index, (codes, scales))| {
                let mut found = [[0i8; GROUP]; PANEL];
                let blocks = self.panel(index).chunks_exact(self.bits.block());
                for (group, block) in blocks.enumerate() {
                    read_codes(self.bits, block, &mut found);
                    let rows = codes
                        .chunks_exact_mut(groups * GROUP)
                        .zip(scales.chunks_exact_mut(groups));
                    for (j, (codes, scales)) in rows.enumerate() {
                        codes[group * GROUP..][..GROUP].copy_from_slice(&found[j]);
                        scales[group] = read_scale(self.bits, block, j);
                    }
                }
            });
        (codes, scales)
    }

    /// The values that the codes stand for, `[outputs, inputs]`.
    pub fn unpack(&self) -> Vec<f32> {
        let mut w = vec![0.0; self.outputs * self.inputs];
        if w.is_empty() {
            return w;
        }
        let mut codes = [[0i8; GROUP]; PANEL];
        for (index, rows) in w.chunks_mut(PANEL * self.inputs).enumerate() {
            let blocks = self.panel(index).chunks_exact(self.bits.block());
            for (group, block) in blocks.enumerate() {
                read_codes(self.bits, block, &mut codes);
                let first = group * GROUP;
                let count = GROUP.min(self.inputs - first);
                for (j, row) in rows.chunks_exact_mut(self.inputs).enumerate() {
                    let scale = read_scale(self.bits, block, j);
                    for (value, code) in row[first..first + count].iter_mut().zip(&codes[j]) {
                        *value = f32::from(*code) * scale;
                    }
                }
            }
        }
        w
    }
}

/// Scale of output `j` of a block.
pub(super) fn read_scale(bits: Bits, block: &[u8], j: usize) -> f32 {
    let at = bits.codes() + 2 * j;
    bf16::from_bits(u16::from_le_bytes([block[at], block[at + 1]])).to_f32()
}

fn place(bits: Bits, codes: &[[i8; GROUP]; PANEL], block: &mut [u8]) {
    for (j, codes) in codes.iter().enumerate() {
        match bits {
            Bits::Eight => {
                for (k, code) in codes.iter().enumerate() {
                    block[64 * (k / 4) + 4 * j + k % 4] = *code as u8;
                }
            }
            Bits::Four => {
                for (s, eight) in codes.chunks_exact(8).enumerate() {
                    for t in 0..4 {
                        let (low, high) = ((eight[t] + 8) as u8, (eight[t + 4] + 8) as u8);
                        block[64 * s + 4 * j + t] = low | high << 4;
                    }
                }
            }
        }
    }
}

/// The signed codes of a block, `[output][input]`.
pub(super) fn read_codes(bits: Bits, block: &[u8], codes: &mut [[i8; GROUP]; PANEL]) {
    for (j, codes) in codes.iter_mut().enumerate() {
        match bits {
            Bits::Eight => {
                for (k, code) in codes.iter_mut().enumerate() {
                    *code = block[64 * (k / 4) + 4 * j + k % 4] as i8;
                }
            }
            Bits::Four => {
                for (s, eight) in codes.chunks_exact_mut(8).enumerate() {
                    for t in 0..4 {
                        let byte = block[64 * s + 4 * j + t];
                        eight[t] = (byte & 15) as i8 - 8;
                        eight[t + 4] = (byte >> 4) as i8 - 8;
                    }
                }
            }
        }
    }
}

/// Largest magnitude, or NaN where a value is not finite.
#[inline(always)]
fn magnitude(values: &[f32; GROUP]) -> f32 {
    let mut largest = 0.0f32;
    let mut finite = 0.0f32;
    for value in values {
        largest = largest.max(value.abs());
        // Zero, or NaN from NaN and infinity.
        finite += value * 0.0;
    }
    largest + finite
}

/// Scale that is bf16 and no zero.
#[inline(always)]
fn usable(scale: f32) -> bf16 {
    let scale = bf16::from_f32(scale);
    if scale.to_f32() == 0.0 {
        bf16::ONE
    } else {
        scale
    }
}

simd_dispatch! {
    /// Codes of −127..127 under the scale that makes the largest 127.
    fn quantize_eight(values: &[f32; GROUP], codes: &mut [i8; GROUP]) -> bf16 {
        let scale = usable(magnitude(values) / 127.0);
        let inverse = 1.0 / scale.to_f32();
        for (code, value) in codes.iter_mut().zip(values) {
            *code = (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
        }
        scale
    }
}

simd_dispatch! {
    /// Codes of −8..7. The value of largest magnitude becomes −8, so that all sixteen codes are
    /// used; then the scale is the one that fits those codes best (least squares).
    fn quantize_four(values: &[f32; GROUP], codes: &mut [i8; GROUP]) -> bf16 {
        let largest = magnitude(values);
        let mut negative = false;
        for value in values { negative |= *value == -largest; }
        let start = if negative { largest } else { -largest } / 8.0;
        let inverse = if start.abs() > f32::MIN_POSITIVE { 1.0 / start } else { 0.0 };
        let (mut products, mut squares) = ([0.0f32; 8], [0.0f32; 8]);
        for (codes, values) in codes.chunks_exact_mut(8).zip(values.chunks_exact(8)) {
            for lane in 0..8 {
                let code = (values[lane] * inverse).round_ties_even().clamp(-8.0, 7.0);
                codes[lane] = code as i8;
                products[lane] += code * values[lane];
                squares[lane] += code * code;
            }
        }
        let (products, squares): (f32, f32) = (products.iter().sum(), squares.iter().sum());
        usable(if squares == 0.0 { start } else { products / squares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::noise;

    /// Relative L2 of what was lost.
    fn loss(w: &[f32], bits: Bits, outputs: usize, inputs: usize) -> f32 {
        let back = QuantizedMatrix::from_f32(w, outputs, inputs, bits).unpack();
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
        (square(&mut w.iter().zip(&back).map(|(a, b)| a - b)) / square(&mut w.iter().copied()))
            .sqrt()
    }

    /// Near enough to normal for a spread of magnitudes.
    fn normal(count: usize) -> Vec<f32> {
        let parts: Vec<Vec<f32>> = (0..6).map(|seed| noise(count, 10 + seed)).collect();
        (0..count)
            .map(|i| parts.iter().map(|part| part[i]).sum())
            .collect()
    }

    #[test]
    fn losses_of_a_normal_weight_are_those_documented() {
        let w = normal(96 * 512);
        let (four, eight) = (
            loss(&w, Bits::Four, 96, 512),
            loss(&w, Bits::Eight, 96, 512),
        );
        assert!((0.06..0.09).contains(&four), "{four}");
        assert!((0.003..0.006).contains(&eight), "{eight}");
    }

    #[test]
    fn values_on_the_grid_come_back_exactly() {
        for (bits, low, high) in [(Bits::Four, -8, 7), (Bits::Eight, -127, 127)] {
            let count = GROUP as i32;
            let code = |k: i32| {
                if k == 5 {
                    low
                } else {
                    low + (k * 37) % (high - low + 1)
                }
            };
            let w: Vec<f32> = (0..3 * count)
                .map(|k| code(k % count) as f32 * 0.25)
                .collect();
            let matrix = QuantizedMatrix::from_f32(&w, 3, GROUP, bits);
            assert_eq!(matrix.unpack(), w);
            assert_eq!(matrix.bytes(), bits.block());
        }
    }

    #[test]
    fn odd_sizes_zeros_and_types() {
        let w = vec![0.0; 5 * 7];
        for bits in [Bits::Four, Bits::Eight] {
            assert_eq!(QuantizedMatrix::from_f32(&w, 5, 7, bits).unpack(), w);
            let narrow: Vec<bf16> = noise(17 * 45, 3).into_iter().map(bf16::from_f32).collect();
            let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
            let from_wide = QuantizedMatrix::from_f32(&wide, 17, 45, bits);
            assert_eq!(QuantizedMatrix::from_bf16(&narrow, 17, 45, bits), from_wide);
            let half: Vec<f16> = narrow.iter().map(|v| f16::from_f32(v.to_f32())).collect();
            let wide: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
            let from_wide = QuantizedMatrix::from_f32(&wide, 17, 45, bits);
            assert_eq!(QuantizedMatrix::from_f16(&half, 17, 45, bits), from_wide);
            assert_eq!(from_wide.bytes(), 2 * 2 * bits.block());
            let stored = from_wide.stored().to_vec();
            let back = QuantizedMatrix::from_stored(stored.clone(), 17, 45, bits);
            assert_eq!(back, Some(from_wide));
            assert_eq!(QuantizedMatrix::from_stored(stored, 17, 70, bits), None);
            assert_eq!(QuantizedMatrix::from_f32(&[], 0, 8, bits).unpack(), []);
            assert_eq!(QuantizedMatrix::from_f32(&[], 3, 0, bits).unpack(), []);
        }
    }

    #[test]
    fn joined_matrices_hold_their_parts() {
        let (a, b) = (noise(32 * 40, 1), noise(5 * 40, 2));
        let quantized =
            |w: &[f32], outputs: usize, bits| QuantizedMatrix::from_f32(w, outputs, 40, bits);
        let (four, rest) = (quantized(&a, 32, Bits::Four), quantized(&b, 5, Bits::Four));
        let all = QuantizedMatrix::joined(&[&four, &rest]).unwrap();
        assert_eq!(all.unpack(), [four.unpack(), rest.unpack()].concat());
        assert_eq!(QuantizedMatrix::joined(&[&rest, &four]), None);
        assert_eq!(
            QuantizedMatrix::joined(&[&four, &quantized(&b, 5, Bits::Eight)]),
            None
        );
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for bits in [Bits::Four, Bits::Eight] {
                let mut w = noise(2 * 64, 1);
                w[40] = bad;
                let back = QuantizedMatrix::from_f32(&w, 2, 64, bits).unpack();
                assert!(back[32..64].iter().any(|v| v.is_nan()));
                assert!(back[..32].iter().chain(&back[64..]).all(|v| v.is_finite()));
            }
        }
    }
}
