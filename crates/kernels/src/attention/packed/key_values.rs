//! Keys and values as attention's products want them.

use crate::gemm::layout::{DEPTH, PANEL};
use crate::gemm::panels::PanelSource;
use crate::gemm::widen::Half;
use crate::simd::prefetch;
use half::f16;
use rayon::prelude::*;

/// What keys and values are kept as.
trait Slot: Copy + Default + Send + Sync {
    /// Rounds a value to it.
    fn of(value: f32) -> Self;
    /// Some of them as f32, in `scratch` where they are something else.
    fn widened<'a>(kept: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32];
}

impl Slot for f32 {
    fn of(value: f32) -> Self {
        value
    }

    fn widened<'a>(kept: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        kept
    }
}

impl Slot for f16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn widened<'a>(kept: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
        // No product takes more of a panel at once.
        let count = kept.len().min(DEPTH * PANEL);
        let wide = &mut scratch[..count];
        Self::widen(&kept[..count], wide);
        wide
    }
}

#[derive(Clone, Debug)]
struct Slots<T> {
    /// `[head][position / 16][channel][position % 16]`
    keys: Vec<T>,
    /// `[head][channel / 16][position][channel % 16]`
    values: Vec<T>,
}

#[derive(Clone, Debug)]
enum Kept {
    F32(Slots<f32>),
    F16(Slots<f16>),
}

/// Keys and values of one sequence and layer: slots that are written by position.
#[derive(Clone, Debug)]
pub struct PackedKeyValues {
    sizes: Sizes,
    kept: Kept,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    capacity: usize,
    heads: usize,
    dim: usize,
}

impl PackedKeyValues {
    /// Slots for `capacity` positions of `heads` heads with `dim` channels each, all zero.
    pub fn new(capacity: usize, heads: usize, dim: usize) -> Self {
        let sizes = Sizes {
            capacity,
            heads,
            dim,
        };
        Self {
            kept: Kept::F32(sizes.slots()),
            sizes,
        }
    }

    /// The same in half the memory: values are rounded to f16, and those beyond 65504 become infinite.
    pub fn half(capacity: usize, heads: usize, dim: usize) -> Self {
        let sizes = Sizes {
            capacity,
            heads,
            dim,
        };
        Self {
            kept: Kept::F16(sizes.slots()),
            sizes,
        }
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> usize {
        self.sizes.capacity
    }

    /// Heads of keys.
    pub fn heads(&self) -> usize {
        self.sizes.heads
    }

    /// Channels of a head.
    pub fn dim(&self) -> usize {
        self.sizes.dim
    }

    /// Channels of the keys of one position, all heads together.
    pub fn width(&self) -> usize {
        self.sizes.width()
    }

    pub(super) fn channel_panels(&self) -> usize {
        self.sizes.channel_panels()
    }

    /// Puts `keys` and `values`, both `[tokens, heads·dim]`, into the slots from `start` on.
    ///
    /// # Panics
    /// When they are not whole tokens, differ in number, or leave the slots.
    pub fn write(&mut self, start: usize, keys: &[f32], values: &[f32]) {
        match &mut self.kept {
            Kept::F32(slots) => slots.write(self.sizes, start, keys, values),
            Kept::F16(slots) => slots.write(self.sizes, start, keys, values),
        }
    }

    /// Takes over the first `end` positions of `other`.
    ///
    /// # Panics
    /// When heads, channels or what values are kept as differ, or one of the two has fewer positions.
    pub fn take(&mut self, other: &Self, end: usize) {
        let (sizes, others) = (self.sizes, other.sizes);
        assert!(
            sizes.heads == others.heads && sizes.dim == others.dim,
            "{} heads of {} channels, not {} of {}",
            sizes.heads,
            sizes.dim,
            others.heads,
            others.dim
        );
        assert!(
            end <= sizes.capacity.min(others.capacity),
            "{end} of {} and {} positions",
            sizes.capacity,
            others.capacity
        );
        match (&mut self.kept, &other.kept) {
            (Kept::F32(slots), Kept::F32(from)) => slots.take(from, [sizes, others], end),
            (Kept::F16(slots), Kept::F16(from)) => slots.take(from, [sizes, others], end),
            _ => panic!("caches of two types"),
        }
    }

    /// Whether values are kept as those of `other` are.
    pub fn is_alike(&self, other: &Self) -> bool {
        matches!(
            (&self.kept, &other.kept),
            (Kept::F32(_), Kept::F32(_)) | (Kept::F16(_), Kept::F16(_))
        )
    }

    /// A panel of 16 keys, from channel `channel` on.
    fn key_panel<'a>(
        &'a self,
        [head, panel, channel]: [usize; 3],
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        let dim = self.sizes.dim;
        let first = (head * self.sizes.panels() + panel) * dim;
        let range = (first + channel) * PANEL..(first + dim) * PANEL;
        match &self.kept {
            Kept::F32(slots) => f32::widened(&slots.keys[range], scratch),
            Kept::F16(slots) => f16::widened(&slots.keys[range], scratch),
        }
    }

    /// A panel of 16 channels, from position `position` on.
    fn value_panel<'a>(
        &'a self,
        [head, panel, position]: [usize; 3],
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        let capacity = self.sizes.capacity;
        let first = (head * self.sizes.channel_panels() + panel) * capacity;
        let range = (first + position) * PANEL..(first + capacity) * PANEL;
        match &self.kept {
            Kept::F32(slots) => f32::widened(&slots.values[range], scratch),
            Kept::F16(slots) => f16::widened(&slots.values[range], scratch),
        }
    }
}

impl Sizes {
    fn slots<T: Slot>(self) -> Slots<T> {
        let (positions, channels) = (
            self.capacity.next_multiple_of(PANEL),
            self.dim.next_multiple_of(PANEL),
        );
        Slots {
            keys: vec![T::default(); self.heads * positions * self.dim],
            values: vec![T::default(); self.heads * self.capacity * channels],
        }
    }

    fn width(self) -> usize {
        self.heads * self.dim
    }

    fn panels(self) -> usize {
        self.capacity.div_ceil(PANEL)
    }

    fn channel_panels(self) -> usize {
        self.dim.div_ceil(PANEL)
    }
}

impl<T: Slot> Slots<T> {
    fn write(&mut self, sizes: Sizes, start: usize, keys: &[f32], values: &[f32]) {
        let (width, dim) = (sizes.width(), sizes.dim);
        if width == 0 {
            return;
        }
        let tokens = keys.len() / width;
        assert!(
            keys.len() == tokens * width && values.len() == keys.len(),
            "{} keys and {} values in rows of {width}",
            keys.len(),
            values.len()
        );
        let end = start + tokens;
        assert!(
            end <= sizes.capacity,
            "slots {start} to {end} of {}",
            sizes.capacity
        );
        if tokens == 0 {
            return;
        }
        let (panels, capacity) = (sizes.panels(), sizes.capacity);
        let channel_panels = sizes.channel_panels();
        let each_key = self.keys.par_chunks_exact_mut(panels * PANEL * dim);
        let each_value = self
            .values
            .par_chunks_exact_mut(capacity * channel_panels * PANEL);
        let work = |head: usize, packed_keys: &mut [T], packed_values: &mut [T]| {
            for panel in start / PANEL..end.div_ceil(PANEL) {
                let first = (panel * PANEL).max(start);
                let last = ((panel + 1) * PANEL).min(end);
                let packed = &mut packed_keys[panel * PANEL * dim..(panel + 1) * PANEL * dim];
                for position in first..last {
                    let row = &keys[(position - start) * width + head * dim..][..dim];
                    for (slot, key) in packed.chunks_exact_mut(PANEL).zip(row) {
                        slot[position % PANEL] = T::of(*key);
                    }
                }
            }
            for (panel, packed) in packed_values.chunks_exact_mut(capacity * PANEL).enumerate() {
                let channels = PANEL.min(dim - panel * PANEL);
                for (slot, row) in packed[start * PANEL..]
                    .chunks_exact_mut(PANEL)
                    .zip(values.chunks_exact(width))
                {
                    let from = head * dim + panel * PANEL;
                    for (slot, value) in slot.iter_mut().zip(&row[from..from + channels]) {
                        *slot = T::of(*value);
                    }
                }
            }
        };
        each_key
            .zip(each_value)
            .enumerate()
            .with_min_len(if tokens * width < 1 << 15 {
                sizes.heads
            } else {
                1
            })
            .for_each(|(head, (keys, values))| work(head, keys, values));
    }

    fn take(&mut self, other: &Self, [sizes, others]: [Sizes; 2], end: usize) {
        let begin = |to: &mut [T], from: &[T], [to_row, from_row, length]: [usize; 3]| {
            if length > 0 {
                let rows = to.par_chunks_exact_mut(to_row);
                let rows = rows.zip(from.par_chunks_exact(from_row));
                rows.for_each(|(to, from)| to[..length].copy_from_slice(&from[..length]));
            }
        };
        let key = PANEL * sizes.dim;
        let rows = [sizes.panels(), others.panels(), end.div_ceil(PANEL)].map(|count| count * key);
        begin(&mut self.keys, &other.keys, rows);
        let rows = [sizes.capacity, others.capacity, end].map(|count| count * PANEL);
        begin(&mut self.values, &other.values, rows);
    }
}

/// Panels of 16 keys from a channel on.
pub(super) struct KeyPanels<'a> {
    pub keys: &'a PackedKeyValues,
    pub head: usize,
    pub channel: usize,
}

impl PanelSource<f32> for KeyPanels<'_> {
    fn panel<'a>(&'a self, index: usize, scratch: &'a mut [f32]) -> &'a [f32] {
        self.keys
            .key_panel([self.head, index, self.channel], scratch)
    }

    fn ahead(&self) -> usize {
        prefetch::AHEAD
    }
}

/// Panels of 16 channels from a position on.
pub(super) struct ValuePanels<'a> {
    pub keys: &'a PackedKeyValues,
    pub head: usize,
    pub position: usize,
}

impl PanelSource<f32> for ValuePanels<'_> {
    fn panel<'a>(&'a self, index: usize, scratch: &'a mut [f32]) -> &'a [f32] {
        self.keys
            .value_panel([self.head, index, self.position], scratch)
    }

    fn ahead(&self) -> usize {
        prefetch::AHEAD
    }
}
