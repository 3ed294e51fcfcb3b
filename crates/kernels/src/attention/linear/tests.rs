use super::*;
use crate::reference::{self, assert_close, assert_gradient, noise};

#[test]
fn forward_and_gradients_match() {
    for (batch, tokens, heads, dim) in [(1, 1, 1, 4), (2, 5, 3, 8), (1, 40, 2, 32)] {
        let shape = LinearAttentionShape {
            batch,
            tokens,
            heads,
            dim,
            eps: 1e-15,
        };
        let n = batch * tokens * heads * dim;
        // Shifted so that few products vanish and the quotient is smooth.
        let positive = |seed| noise(n, seed).iter().map(|v| v + 0.4).collect::<Vec<f32>>();
        let (q, k, v, dy) = (positive(1), positive(2), noise(n, 3), noise(n, 4));
        let mut o = vec![0.0; n];
        forward(&shape, &q, &k, &v, &mut o);
        assert_close(&o, &reference::linear_attention(&shape, &q, &k, &v), 1e-4);
        let (dq, dk, dv) = backward(&shape, &q, &k, &v, &dy);
        let loss = |q: &[f32], k: &[f32], v: &[f32]| {
            reference::dot(&reference::linear_attention(&shape, q, k, v), &dy)
        };
        assert_gradient(&q, &dq, |x| loss(x, &k, &v));
        assert_gradient(&k, &dk, |x| loss(&q, x, &v));
        assert_gradient(&v, &dv, |x| loss(&q, &k, x));
    }
}

#[test]
fn interleaved_operands_equal_separate_ones() {
    for (batch, tokens, heads, dim) in [(1, 1, 1, 1), (2, 7, 3, 5), (1, 40, 2, 32)] {
        let shape = LinearAttentionShape {
            batch,
            tokens,
            heads,
            dim,
            eps: 1e-15,
        };
        let width = heads * dim;
        let count = batch * tokens;
        let sources = [noise(3 * count * width, 1), noise(3 * count * width, 2)];
        let mut o = vec![f32::NAN; 2 * count * width];
        forward_interleaved(&shape, &[&sources[0], &sources[1]], &mut o);
        for (index, source) in sources.iter().enumerate() {
            let part = |part: usize| -> Vec<f32> {
                let pieces = source.chunks_exact(dim).skip(part).step_by(3);
                pieces.flatten().copied().collect()
            };
            let mut want = vec![0.0; count * width];
            forward(&shape, &part(0), &part(1), &part(2), &mut want);
            let found: Vec<f32> = o
                .chunks_exact(width)
                .skip(index)
                .step_by(2)
                .flatten()
                .copied()
                .collect();
            assert_eq!(found, want);
        }

        // In strips of the tokens of one picture after the other.
        let slice = |source: usize, b: usize, tokens_of: std::ops::Range<usize>| {
            let at = |token: usize| 3 * (b * tokens + token) * width;
            &sources[source][at(tokens_of.start)..at(tokens_of.end)]
        };
        let mut states = InterleavedStates::new(2, &shape);
        for b in 0..batch {
            for first in (0..tokens).step_by(3) {
                let strip = first..(first + 3).min(tokens);
                let part = LinearAttentionShape {
                    tokens: strip.len(),
                    ..shape
                };
                states.add(&part, b, &[slice(0, b, strip.clone()), slice(1, b, strip)]);
            }
        }
        let mut strips = vec![f32::NAN; o.len()];
        attend_interleaved(&shape, &[&sources[0], &sources[1]], &states, &mut strips);
        assert_eq!(strips, o);
    }
}

#[test]
fn query_without_positive_channel_gives_zero() {
    let shape = LinearAttentionShape {
        batch: 1,
        tokens: 2,
        heads: 1,
        dim: 4,
        eps: 1e-15,
    };
    let mut o = vec![9.0; 8];
    forward(&shape, &[-1.0; 8], &[1.0; 8], &[3.0; 8], &mut o);
    assert_eq!(o, [0.0; 8]);
}
