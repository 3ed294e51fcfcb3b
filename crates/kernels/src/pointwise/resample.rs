//! Rearrangements between space and channels over channels-last maps.

use crate::parallel;

/// `[batch, height, width, channels]` to half the size and four times the channels, output channel
/// `4c + 2·dy + dx` (PyTorch's order).
pub fn pixel_unshuffle(
    x: &[f32],
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    y: &mut [f32],
) {
    assert!(
        height.is_multiple_of(2) && width.is_multiple_of(2),
        "{height}x{width} is not even"
    );
    assert!(
        x.len() == batch * height * width * channels && y.len() == x.len(),
        "pixel_unshuffle"
    );
    let (h, w) = (height / 2, width / 2);
    parallel::rows_mut(y, w * 4 * channels, |first, chunk| {
        for (row, out) in chunk.chunks_exact_mut(w * 4 * channels).enumerate() {
            let (b, i) = ((first + row) / h, (first + row) % h);
            for dy in 0..2 {
                let line = &x[(b * height + 2 * i + dy) * width * channels..][..width * channels];
                for (j, out) in out.chunks_exact_mut(4 * channels).enumerate() {
                    for dx in 0..2 {
                        let from = &line[(2 * j + dx) * channels..][..channels];
                        for (c, &v) in from.iter().enumerate() {
                            out[4 * c + 2 * dy + dx] = v;
                        }
                    }
                }
            }
        }
    });
}

/// Inverse of [`pixel_unshuffle`]: `height`, `width` and `channels` are those of the small input,
/// whose channels are a multiple of four.
pub fn pixel_shuffle(
    x: &[f32],
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    y: &mut [f32],
) {
    assert!(
        channels.is_multiple_of(4),
        "{channels} channels are not a multiple of 4"
    );
    assert!(
        x.len() == batch * height * width * channels && y.len() == x.len(),
        "pixel_shuffle"
    );
    let c = channels / 4;
    let line = 2 * width * c;
    parallel::rows_mut(y, line, |first, chunk| {
        for (row, out) in chunk.chunks_exact_mut(line).enumerate() {
            let (b, i) = ((first + row) / (2 * height), (first + row) % (2 * height));
            let from = &x[(b * height + i / 2) * width * channels..][..width * channels];
            for (j, out) in out.chunks_exact_mut(c).enumerate() {
                let pixel = &from[j / 2 * channels..][..channels];
                for (k, out) in out.iter_mut().enumerate() {
                    *out = pixel[4 * k + 2 * (i % 2) + j % 2];
                }
            }
        }
    });
}

/// Every pixel becomes a 2×2 square.
pub fn upsample_nearest(
    x: &[f32],
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    y: &mut [f32],
) {
    assert!(
        x.len() == batch * height * width * channels && y.len() == 4 * x.len(),
        "upsample"
    );
    let line = 2 * width * channels;
    parallel::rows_mut(y, line, |first, chunk| {
        for (row, out) in chunk.chunks_exact_mut(line).enumerate() {
            let (b, i) = ((first + row) / (2 * height), (first + row) % (2 * height));
            let from = &x[(b * height + i / 2) * width * channels..][..width * channels];
            for (pair, pixel) in out
                .chunks_exact_mut(2 * channels)
                .zip(from.chunks_exact(channels))
            {
                pair[..channels].copy_from_slice(pixel);
                pair[channels..].copy_from_slice(pixel);
            }
        }
    });
}

/// Gradient of [`upsample_nearest`]: sums of 2×2 squares. Sizes are those of the small map.
pub fn upsample_nearest_backward(
    dy: &[f32],
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    dx: &mut [f32],
) {
    assert!(
        dx.len() == batch * height * width * channels && dy.len() == 4 * dx.len(),
        "upsample"
    );
    let line = width * channels;
    parallel::rows_mut(dx, line, |first, chunk| {
        for (row, out) in chunk.chunks_exact_mut(line).enumerate() {
            let start = (first + row) * 4 * line;
            let (top, bottom) = dy[start..start + 4 * line].split_at(2 * line);
            for (j, out) in out.chunks_exact_mut(channels).enumerate() {
                let at = 2 * j * channels;
                for (c, out) in out.iter_mut().enumerate() {
                    *out = top[at + c]
                        + top[at + channels + c]
                        + bottom[at + c]
                        + bottom[at + channels + c];
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{dot, noise};

    #[test]
    fn shuffle_places_channels_as_torch_does_and_inverts() {
        let (b, h, w, c) = (2, 4, 6, 3);
        let x = noise(b * h * w * c, 1);
        let mut y = vec![0.0; x.len()];
        pixel_unshuffle(&x, b, h, w, c, &mut y);
        for (i, j, ch, dy, dx) in [(0, 0, 0, 0, 1), (1, 2, 2, 1, 0), (1, 1, 1, 1, 1)] {
            let got = y[((h / 2 + i) * (w / 2) + j) * 4 * c + 4 * ch + 2 * dy + dx];
            assert_eq!(got, x[((h + 2 * i + dy) * w + 2 * j + dx) * c + ch]);
        }
        let mut back = vec![0.0; x.len()];
        pixel_shuffle(&y, b, h / 2, w / 2, 4 * c, &mut back);
        assert_eq!(back, x);
    }

    #[test]
    fn upsample_gradient_is_the_transpose() {
        let (b, h, w, c) = (2, 3, 2, 5);
        let (x, dy) = (noise(b * h * w * c, 1), noise(4 * b * h * w * c, 2));
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        upsample_nearest(&x, b, h, w, c, &mut y);
        assert_eq!(y[(2 * w + 1) * c + 2], x[2]);
        upsample_nearest_backward(&dy, b, h, w, c, &mut dx);
        assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-4);
    }
}
