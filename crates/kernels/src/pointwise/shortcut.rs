//! Shortcuts without parameters around a halving or doubling of a feature map (DC-AE, arXiv
//! 2410.10733, §3.2): an index map between space and channels, added without being made.

/// A map `[batch, height, width, channels]` and how it is seen from one of another size.
#[derive(Clone, Copy, Debug)]
pub struct Shortcut<'a> {
    /// The map's values.
    pub x: &'a [f32],
    /// Its rows.
    pub height: usize,
    /// Its columns.
    pub width: usize,
    /// Its channels.
    pub channels: usize,
    /// Where it is added.
    pub kind: ShortcutKind,
}

/// Direction of a [`Shortcut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortcutKind {
    /// To twice the size: channels are repeated to four times the output's, each group of four
    /// becomes a square of 2×2 pixels (pixel shuffle).
    Up,
    /// To half the size: squares of 2×2 pixels become channels (pixel unshuffle), of which
    /// neighbouring ones are averaged.
    Down,
}

impl Shortcut<'_> {
    /// Whether a result of `channels` channels can take this shortcut.
    pub fn fits(&self, channels: usize) -> bool {
        let even = self.height.is_multiple_of(2) && self.width.is_multiple_of(2);
        match self.kind {
            ShortcutKind::Up => (4 * channels).is_multiple_of(self.channels),
            ShortcutKind::Down => even && (4 * self.channels).is_multiple_of(channels),
        }
    }

    /// Adds what the shortcut gives for one pixel of the result; pixels are counted through the batch.
    #[inline(always)]
    pub(crate) fn add(&self, pixel: usize, out: &mut [f32]) {
        match self.kind {
            ShortcutKind::Up => self.add_up(pixel, out),
            ShortcutKind::Down => self.add_down(pixel, out),
        }
    }

    #[inline(always)]
    fn add_up(&self, pixel: usize, out: &mut [f32]) {
        let (row, column) = (pixel / (2 * self.width), pixel % (2 * self.width));
        let source = (row / 2 * self.width + column / 2) * self.channels;
        let x = &self.x[source..][..self.channels];
        // Channel c of the output sees channel (4c + tap)/times.
        let (tap, times) = (2 * (row % 2) + column % 2, 4 * out.len() / self.channels);
        match times {
            4 => out.iter_mut().zip(x).for_each(|(y, x)| *y += x),
            2 => {
                for (y, pair) in out.iter_mut().zip(x.chunks_exact(2)) {
                    *y += pair[tap / 2];
                }
            }
            _ => {
                for (c, y) in out.iter_mut().enumerate() {
                    *y += x[(4 * c + tap) / times];
                }
            }
        }
    }

    #[inline(always)]
    fn add_down(&self, pixel: usize, out: &mut [f32]) {
        let half = self.width / 2;
        let (row, column) = (pixel / half, pixel % half);
        let pixel_at = |tap: usize| {
            let at = (2 * row + tap / 2) * self.width + 2 * column + tap % 2;
            &self.x[at * self.channels..][..self.channels]
        };
        let taps = [pixel_at(0), pixel_at(1), pixel_at(2), pixel_at(3)];
        // Channel c of the output is the mean of `group` unshuffled channels, four to one of the map.
        let group = 4 * self.channels / out.len();
        match group {
            4 => {
                for (c, y) in out.iter_mut().enumerate() {
                    *y += (taps[0][c] + taps[1][c] + taps[2][c] + taps[3][c]) * 0.25;
                }
            }
            2 => {
                for (c, pair) in out.chunks_exact_mut(2).enumerate() {
                    pair[0] += (taps[0][c] + taps[1][c]) * 0.5;
                    pair[1] += (taps[2][c] + taps[3][c]) * 0.5;
                }
            }
            _ => {
                for (c, y) in out.iter_mut().enumerate() {
                    let channels = c * group..(c + 1) * group;
                    let sum: f32 = channels.map(|u| taps[u % 4][u / 4]).sum();
                    *y += sum / group as f32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pointwise::resample;
    use crate::reference::{assert_close, noise};

    #[test]
    fn doubling_matches_repeating_and_shuffling() {
        let (batch, height, width) = (2, 3, 5);
        for (channels, outputs) in [(8, 8), (8, 4), (8, 2), (3, 6), (12, 9)] {
            let x = noise(batch * height * width * channels, 1);
            let times = 4 * outputs / channels;
            let repeated: Vec<f32> = x.iter().flat_map(|v| vec![*v; times]).collect();
            let mut want = vec![0.0; repeated.len()];
            resample::pixel_shuffle(&repeated, batch, height, width, 4 * outputs, &mut want);
            let shortcut = Shortcut {
                x: &x,
                height,
                width,
                channels,
                kind: ShortcutKind::Up,
            };
            assert!(shortcut.fits(outputs) && !shortcut.fits(5));
            let mut found = vec![0.0; want.len()];
            for (pixel, out) in found.chunks_exact_mut(outputs).enumerate() {
                shortcut.add(pixel, out);
            }
            assert_close(&found, &want, 1e-7);
        }
    }

    #[test]
    fn halving_matches_unshuffling_and_averaging() {
        let (batch, height, width) = (2, 4, 6);
        for (channels, outputs) in [(8, 8), (8, 16), (8, 32), (6, 8), (8, 4)] {
            let x = noise(batch * height * width * channels, 1);
            let mut rearranged = vec![0.0; x.len()];
            resample::pixel_unshuffle(&x, batch, height, width, channels, &mut rearranged);
            let group = 4 * channels / outputs;
            let mean = |g: &[f32]| g.iter().sum::<f32>() / group as f32;
            let want: Vec<f32> = rearranged.chunks_exact(group).map(mean).collect();
            let shortcut = Shortcut {
                x: &x,
                height,
                width,
                channels,
                kind: ShortcutKind::Down,
            };
            assert!(shortcut.fits(outputs) && !shortcut.fits(7));
            let mut found = vec![0.0; want.len()];
            for (pixel, out) in found.chunks_exact_mut(outputs).enumerate() {
                shortcut.add(pixel, out);
            }
            assert_close(&found, &want, 1e-6);
        }
    }
}
