//! Rotary position embedding, in the half-split convention of Llama and Gemma checkpoints:
//! channel `i` of a head turns with channel `i + dim/2`.

use crate::parallel;

/// Turns `x` `[batch, tokens, heads·dim]` in place by the angles of positions `offset + token`.
/// With `inverse` it turns back, which is also the gradient.
pub fn rotate(
    x: &mut [f32],
    tokens: usize,
    heads: usize,
    dim: usize,
    theta: f32,
    offset: usize,
    inverse: bool,
) {
    let (width, half) = (heads * dim, dim / 2);
    assert!(
        dim.is_multiple_of(2) && tokens > 0 && width > 0,
        "rotary needs even heads, not {dim}"
    );
    assert_eq!(
        x.len() % (tokens * width),
        0,
        "rows of {tokens} tokens of {width} channels"
    );
    let mut angles = vec![0.0f32; tokens * dim];
    for (t, row) in angles.chunks_exact_mut(dim).enumerate() {
        for i in 0..half {
            let frequency = 1.0 / theta.powf((2 * i) as f32 / dim as f32);
            let angle = (offset + t) as f32 * frequency;
            row[i] = angle.cos();
            row[half + i] = if inverse { -angle.sin() } else { angle.sin() };
        }
    }
    parallel::rows_mut(x, width, |first, chunk| {
        for (row, x) in chunk.chunks_exact_mut(width).enumerate() {
            let angles = &angles[(first + row) % tokens * dim..][..dim];
            let (cosines, sines) = angles.split_at(half);
            for head in x.chunks_exact_mut(dim) {
                let (a, b) = head.split_at_mut(half);
                for i in 0..half {
                    let (p, q) = (a[i], b[i]);
                    a[i] = p * cosines[i] - q * sines[i];
                    b[i] = q * cosines[i] + p * sines[i];
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, noise};

    #[test]
    fn turns_by_the_angle_of_the_position_and_back() {
        let (tokens, heads, dim) = (3, 2, 4);
        let x = noise(2 * tokens * heads * dim, 1);
        let mut y = x.clone();
        rotate(&mut y, tokens, heads, dim, 100.0, 5, false);
        // Token 2 of row 1, head 1, channel 1: frequency 1/100^(2/4) = 0.1, position 7.
        let at = ((tokens + 2) * heads + 1) * dim + 1;
        let (s, c) = (0.7f32.sin(), 0.7f32.cos());
        assert!((y[at] - (x[at] * c - x[at + 2] * s)).abs() < 1e-6);
        assert!((y[at + 2] - (x[at + 2] * c + x[at] * s)).abs() < 1e-6);
        rotate(&mut y, tokens, heads, dim, 100.0, 5, true);
        assert_close(&y, &x, 1e-6);
    }
}
