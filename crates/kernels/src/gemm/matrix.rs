//! A weight that was packed once, when it was loaded.

use super::layout::{PANEL, Pair};
use super::widen::Half;
use crate::simd::{prefetch, simd_dispatch};
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;

/// A weight `[outputs, inputs]` in panels of 16 outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMatrix {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

/// Panel after panel; within one, value (k, j) at `k·16 + j`, or pairs of inner values. Outputs past the
/// last, and the second inner value of a last pair where there is none, are zeros.
#[derive(Clone, Debug, PartialEq)]
enum Panels {
    F32(Vec<f32>),
    Bf16(Vec<Pair>),
    F16(Vec<f16>),
}

fn pack_pairs(w: &[bf16], outputs: usize, inputs: usize) -> Vec<Pair> {
    assert_eq!(w.len(), outputs * inputs, "weight of {outputs}x{inputs}");
    let pairs = inputs.div_ceil(2);
    let mut panels = vec![Pair::default(); outputs.div_ceil(PANEL) * pairs];
    if inputs == 0 {
        return panels;
    }
    panels
        .par_chunks_exact_mut(pairs)
        .zip(w.par_chunks(PANEL * inputs))
        .for_each(|(panel, rows)| {
            // Blocks of inputs, so that the panel's part stays in the first-level cache.
            for first in (0..pairs).step_by(32) {
                let last = (first + 32).min(pairs);
                for (j, row) in rows.chunks_exact(inputs).enumerate() {
                    let values = row[2 * first..].chunks(2);
                    for (pair, values) in panel[first..last].iter_mut().zip(values) {
                        let second = values.get(1).map_or(0, |value| value.to_bits());
                        pair.0[j] = u32::from(values[0].to_bits()) | u32::from(second) << 16;
                    }
                }
            }
        });
    panels
}

fn pack<T: Copy + Default + Send + Sync>(w: &[T], outputs: usize, inputs: usize) -> Vec<T> {
    assert_eq!(w.len(), outputs * inputs, "weight of {outputs}x{inputs}");
    let mut panels = vec![T::default(); outputs.div_ceil(PANEL) * PANEL * inputs];
    if inputs == 0 {
        return panels;
    }
    panels
        .par_chunks_exact_mut(PANEL * inputs)
        .zip(w.par_chunks(PANEL * inputs))
        .for_each(|(panel, rows)| {
            // Blocks of inputs, so that the panel's part stays in the first-level cache.
            for first in (0..inputs).step_by(64) {
                let last = (first + 64).min(inputs);
                for (j, row) in rows.chunks_exact(inputs).enumerate() {
                    for k in first..last {
                        panel[k * PANEL + j] = row[k];
                    }
                }
            }
        });
    panels
}

impl PackedMatrix {
    /// Packs an f32 weight.
    ///
    /// # Panics
    /// When `w` does not hold `outputs·inputs` values; so do the other constructors.
    pub fn from_f32(w: &[f32], outputs: usize, inputs: usize) -> Self {
        let panels = Panels::F32(pack(w, outputs, inputs));
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// Packs a bf16 weight, which stays bf16.
    pub fn from_bf16(w: &[bf16], outputs: usize, inputs: usize) -> Self {
        let panels = Panels::Bf16(pack_pairs(w, outputs, inputs));
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// Packs an f16 weight, which stays f16.
    pub fn from_f16(w: &[f16], outputs: usize, inputs: usize) -> Self {
        let panels = Panels::F16(pack(w, outputs, inputs));
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// One matrix of the outputs of all `parts`, in their order; none where they differ in inputs or
    /// type, or where one but the last ends within a panel.
    pub fn joined(parts: &[&Self]) -> Option<Self> {
        let (last, before) = parts.split_last()?;
        let whole = before.iter().all(|part| part.outputs.is_multiple_of(PANEL));
        if !whole || parts.iter().any(|part| part.inputs != last.inputs) {
            return None;
        }
        macro_rules! join {
            ($kind:path) => {{
                let mut all = Vec::new();
                for part in parts {
                    let $kind(panels) = &part.panels else {
                        return None;
                    };
                    all.extend_from_slice(panels);
                }
                $kind(all)
            }};
        }
        Some(Self {
            outputs: parts.iter().map(|part| part.outputs).sum(),
            inputs: last.inputs,
            panels: match last.panels {
                Panels::F32(_) => join!(Panels::F32),
                Panels::Bf16(_) => join!(Panels::Bf16),
                Panels::F16(_) => join!(Panels::F16),
            },
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

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(panels) => 4 * panels.len(),
            Panels::Bf16(panels) => size_of_val(panels.as_slice()),
            Panels::F16(panels) => 2 * panels.len(),
        }
    }

    /// The weight as it was before packing, in f32.
    pub fn unpack(&self) -> Vec<f32> {
        let mut w = vec![0.0; self.outputs * self.inputs];
        if self.inputs == 0 {
            return w;
        }
        let mut scratch = vec![0.0; PANEL * self.inputs];
        for (index, rows) in w.chunks_mut(PANEL * self.inputs).enumerate() {
            let panel = self.panel(index, 0, self.inputs, &mut scratch);
            for (j, row) in rows.chunks_exact_mut(self.inputs).enumerate() {
                for (k, value) in row.iter_mut().enumerate() {
                    *value = panel[k * PANEL + j];
                }
            }
        }
        w
    }

    /// Rows `first..first + depth` of a panel in f32; `scratch` is used where the weight is stored
    /// otherwise.
    pub(super) fn panel<'a>(
        &'a self,
        index: usize,
        first: usize,
        depth: usize,
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        let start = (index * self.inputs + first) * PANEL;
        let range = start..start + depth * PANEL;
        let scratch = &mut scratch[..depth * PANEL];
        match &self.panels {
            Panels::F32(panels) => return &panels[range],
            Panels::Bf16(_) => widen_pairs(self.pairs(index, first, depth), scratch),
            Panels::F16(panels) => f16::widen(&panels[range], scratch),
        }
        scratch
    }

    /// Whether panels are stored in pairs of bf16.
    pub(super) fn holds_pairs(&self) -> bool {
        matches!(self.panels, Panels::Bf16(_))
    }

    /// Inner values `first..first + depth`, `first` even, of a panel of a matrix that
    /// [holds pairs](Self::holds_pairs).
    pub(super) fn pairs(&self, index: usize, first: usize, depth: usize) -> &[Pair] {
        debug_assert!(first.is_multiple_of(2));
        let start = index * self.inputs.div_ceil(2) + first / 2;
        match &self.panels {
            Panels::Bf16(panels) => &panels[start..start + depth.div_ceil(2)],
            _ => unreachable!("asked for a bf16 matrix alone"),
        }
    }

    /// Asks for part `part` of `parts` of some inner values of a panel.
    pub(super) fn fetch(&self, index: usize, inputs: Range<usize>, part: usize, parts: usize) {
        let from = inputs.start + inputs.len() * part / parts;
        let to = inputs.start + inputs.len() * (part + 1) / parts;
        let range = (index * self.inputs + from) * PANEL..(index * self.inputs + to) * PANEL;
        match &self.panels {
            Panels::F32(panels) => prefetch::near(&panels[range]),
            Panels::Bf16(_) => prefetch::near(self.pairs(index, from / 2 * 2, to - from)),
            Panels::F16(panels) => prefetch::near(&panels[range]),
        }
    }
}

simd_dispatch! {
    fn widen_pairs(pairs: &[Pair], out: &mut [f32]) {
        for (pair, out) in pairs.iter().zip(out.chunks_mut(2 * PANEL)) {
            let (even, odd) = out.split_at_mut(PANEL);
            even.copy_from_slice(&pair.widen(false));
            // The last pair may have but one.
            if odd.len() == PANEL {
                odd.copy_from_slice(&pair.widen(true));
            }
        }
    }
}
