//! Keys and values as attention's products want them.

use crate::gemm::layout::PANEL;
use crate::gemm::panels::PanelSource;
use rayon::prelude::*;

/// Keys and values of one sequence and layer: slots that are written by position.
#[derive(Clone, Debug)]
pub struct PackedKeyValues {
    capacity: usize,
    heads: usize,
    dim: usize,
    /// `[head][position / 16][channel][position % 16]`
    keys: Vec<f32>,
    /// `[head][channel / 16][position][channel % 16]`
    values: Vec<f32>,
}

impl PackedKeyValues {
    /// Slots for `capacity` positions of `heads` heads with `dim` channels each, all zero.
    pub fn new(capacity: usize, heads: usize, dim: usize) -> Self {
        let (positions, channels) = (
            capacity.next_multiple_of(PANEL),
            dim.next_multiple_of(PANEL),
        );
        Self {
            capacity,
            heads,
            dim,
            keys: vec![0.0; heads * positions * dim],
            values: vec![0.0; heads * capacity * channels],
        }
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Heads of keys.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Channels of a head.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Channels of the keys of one position, all heads together.
    pub fn width(&self) -> usize {
        self.heads * self.dim
    }

    fn panels(&self) -> usize {
        self.capacity.div_ceil(PANEL)
    }

    pub(super) fn channel_panels(&self) -> usize {
        self.dim.div_ceil(PANEL)
    }

    /// Puts `keys` and `values`, both `[tokens, heads·dim]`, into the slots from `start` on.
    ///
    /// # Panics
    /// When they are not whole tokens, differ in number, or leave the slots.
    pub fn write(&mut self, start: usize, keys: &[f32], values: &[f32]) {
        let (width, dim) = (self.width(), self.dim);
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
            end <= self.capacity,
            "slots {start} to {end} of {}",
            self.capacity
        );
        if tokens == 0 {
            return;
        }
        let (panels, capacity) = (self.panels(), self.capacity);
        let channel_panels = self.channel_panels();
        let each_key = self.keys.par_chunks_exact_mut(panels * PANEL * dim);
        let each_value = self
            .values
            .par_chunks_exact_mut(capacity * channel_panels * PANEL);
        let work = |head: usize, packed_keys: &mut [f32], packed_values: &mut [f32]| {
            for panel in start / PANEL..end.div_ceil(PANEL) {
                let first = (panel * PANEL).max(start);
                let last = ((panel + 1) * PANEL).min(end);
                let packed = &mut packed_keys[panel * PANEL * dim..(panel + 1) * PANEL * dim];
                for position in first..last {
                    let row = &keys[(position - start) * width + head * dim..][..dim];
                    for (slot, key) in packed.chunks_exact_mut(PANEL).zip(row) {
                        slot[position % PANEL] = *key;
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
                    slot[..channels].copy_from_slice(&row[from..from + channels]);
                }
            }
        };
        each_key
            .zip(each_value)
            .enumerate()
            .with_min_len(if tokens * width < 1 << 15 {
                self.heads
            } else {
                1
            })
            .for_each(|(head, (keys, values))| work(head, keys, values));
    }

    /// Takes over the first `end` positions of `other`.
    ///
    /// # Panics
    /// When heads or channels differ, or one of the two has fewer positions.
    pub fn take(&mut self, other: &Self, end: usize) {
        assert!(
            self.heads == other.heads && self.dim == other.dim,
            "{} heads of {} channels, not {} of {}",
            self.heads,
            self.dim,
            other.heads,
            other.dim
        );
        assert!(
            end <= self.capacity.min(other.capacity),
            "{end} of {} and {} positions",
            self.capacity,
            other.capacity
        );
        let begin = |to: &mut [f32], from: &[f32], [to_row, from_row, length]: [usize; 3]| {
            if length > 0 {
                let rows = to.par_chunks_exact_mut(to_row);
                let rows = rows.zip(from.par_chunks_exact(from_row));
                rows.for_each(|(to, from)| to[..length].copy_from_slice(&from[..length]));
            }
        };
        let key = PANEL * self.dim;
        let rows = [self.panels(), other.panels(), end.div_ceil(PANEL)].map(|count| count * key);
        begin(&mut self.keys, &other.keys, rows);
        let rows = [self.capacity, other.capacity, end].map(|count| count * PANEL);
        begin(&mut self.values, &other.values, rows);
    }

    /// A panel of 16 keys, from channel `channel` on.
    fn key_panel(&self, head: usize, panel: usize, channel: usize) -> &[f32] {
        let first = (head * self.panels() + panel) * self.dim;
        &self.keys[(first + channel) * PANEL..(first + self.dim) * PANEL]
    }

    /// A panel of 16 channels, from position `position` on.
    fn value_panel(&self, head: usize, panel: usize, position: usize) -> &[f32] {
        let first = (head * self.channel_panels() + panel) * self.capacity;
        &self.values[(first + position) * PANEL..(first + self.capacity) * PANEL]
    }
}

/// Panels of 16 keys from a channel on.
pub(super) struct KeyPanels<'a> {
    pub keys: &'a PackedKeyValues,
    pub head: usize,
    pub channel: usize,
}

impl PanelSource<f32> for KeyPanels<'_> {
    fn panel<'a>(&'a self, index: usize, _: &'a mut [f32]) -> &'a [f32] {
        self.keys.key_panel(self.head, index, self.channel)
    }
}

/// Panels of 16 channels from a position on.
pub(super) struct ValuePanels<'a> {
    pub keys: &'a PackedKeyValues,
    pub head: usize,
    pub position: usize,
}

impl PanelSource<f32> for ValuePanels<'_> {
    fn panel<'a>(&'a self, index: usize, _: &'a mut [f32]) -> &'a [f32] {
        self.keys.value_panel(self.head, index, self.position)
    }
}
