use super::*;
use crate::reference::{self, assert_close, assert_gradient, noise};

fn shapes() -> Vec<AttentionShape> {
    let base = AttentionShape {
        batch: 2,
        queries: 5,
        keys: 7,
        heads: 4,
        key_value_heads: 4,
        dim: 6,
        scale: 0.4,
        softcap: None,
        causal_offset: None,
        window: None,
        key_mask: None,
    };
    let first = vec![true, true, false, true, false, false, false];
    vec![
        base.clone(),
        AttentionShape {
            key_value_heads: 2,
            softcap: Some(0.7),
            ..base.clone()
        },
        AttentionShape {
            causal_offset: Some(2),
            ..base.clone()
        },
        AttentionShape {
            causal_offset: Some(2),
            window: Some(3),
            ..base.clone()
        },
        AttentionShape {
            key_mask: Some(vec![first, vec![true; 7]]),
            ..base.clone()
        },
        AttentionShape {
            queries: 150,
            keys: 3,
            ..base.clone()
        },
        AttentionShape {
            queries: 40,
            key_value_heads: 2,
            key_mask: Some(vec![
                vec![true; 7],
                [vec![true; 4], vec![false; 3]].concat(),
            ]),
            ..base.clone()
        },
        AttentionShape {
            queries: 1,
            keys: 1,
            ..base
        },
    ]
}

#[test]
fn forward_and_gradients_match() {
    for shape in shapes() {
        let q = noise(shape.batch * shape.queries * shape.heads * shape.dim, 1);
        let k = noise(
            shape.batch * shape.keys * shape.key_value_heads * shape.dim,
            2,
        );
        let (v, dy) = (noise(k.len(), 3), noise(q.len(), 4));
        let mut o = vec![9.0; q.len()];
        forward(&shape, &q, &k, &v, &mut o);
        assert_close(&o, &reference::attention(&shape, &q, &k, &v), 1e-5);
        let (dq, dk, dv) = backward(&shape, &q, &k, &v, &dy);
        let loss = |q: &[f32], k: &[f32], v: &[f32]| {
            reference::dot(&reference::attention(&shape, q, k, v), &dy)
        };
        assert_gradient(&q, &dq, |x| loss(x, &k, &v));
        assert_gradient(&k, &dk, |x| loss(&q, x, &v));
        assert_gradient(&v, &dv, |x| loss(&q, &k, x));
    }
}

#[test]
fn fully_masked_query_gives_zero() {
    let shape = AttentionShape {
        key_mask: Some(vec![vec![false; 7], vec![true; 7]]),
        ..shapes()[0].clone()
    };
    let (q, k) = (noise(2 * 5 * 24, 1), noise(2 * 7 * 24, 2));
    let mut o = vec![9.0; q.len()];
    forward(&shape, &q, &k, &k, &mut o);
    assert!(o[..5 * 24].iter().all(|&x| x == 0.0) && o[5 * 24..].iter().all(|x| x.is_finite()));
}

#[test]
fn what_is_no_number_stays_so() {
    let rows = [
        vec![f32::NAN; 3],
        vec![f32::NEG_INFINITY, f32::NAN],
        (0..40)
            .map(|i| if i == 21 { f32::NAN } else { 1.0 })
            .collect(),
    ];
    for mut row in rows {
        softmax(&mut row, None);
        assert!(row.iter().any(|p| p.is_nan()), "{row:?}");
    }
    let mut row = vec![f32::NEG_INFINITY; 20];
    softmax(&mut row, None);
    assert_eq!(row, vec![0.0; 20]);
}
