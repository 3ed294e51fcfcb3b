use super::*;
use crate::attention::AttentionShape;
use crate::reference::{self, assert_close, noise};

fn wanted(q: &[f32], heads: usize, k: &[f32], v: &[f32], groups: usize, dim: usize) -> Vec<f32> {
    let shape = AttentionShape {
        batch: 1,
        queries: q.len() / (heads * dim),
        keys: k.len() / (groups * dim),
        heads,
        key_value_heads: groups,
        dim,
        scale: 0.3,
        softcap: None,
        causal_offset: None,
        window: None,
        key_mask: None,
    };
    reference::attention(&shape, q, k, v)
}

#[test]
fn every_level_matches_the_reference_at_odd_sizes() {
    for (queries, heads, groups, dim, capacity, end) in [
        (1, 1, 1, 1, 1, 1),
        (3, 4, 2, 6, 40, 33),
        (32, 4, 1, 64, 300, 300),
        (33, 2, 2, 20, 600, 514),
        (5, 80, 1, 8, 20, 17),
        (2, 2, 1, 300, 270, 260),
    ] {
        let (q, width) = (noise(queries * heads * dim, 1), groups * dim);
        let (k, v) = (noise(end * width, 2), noise(end * width, 3));
        let want = wanted(&q, heads, &k, &v, groups, dim);
        let mut keys = PackedKeyValues::new(capacity, groups, dim);
        // What stands behind the end is not seen.
        keys.write(
            0,
            &vec![9.0; capacity * width],
            &vec![f32::MAX; capacity * width],
        );
        let middle = end / 3;
        keys.write(middle, &k[middle * width..], &v[middle * width..]);
        keys.write(0, &k[..middle * width], &v[..middle * width]);
        for level in Level::available() {
            let mut o = vec![f32::NAN; q.len()];
            forward_at(level, &q, heads, &keys, Ends::Same(end), 0.3, None, &mut o);
            assert_close(&o, &want, 1e-5);
        }
    }
}

/// In any order, some without keys, some tasks of more keys than fit into a block.
#[test]
fn queries_see_as_many_keys_as_they_are_told() {
    let (queries, heads, groups, dim, capacity) = (150, 4, 2, 20, 600);
    let (q, width) = (noise(queries * heads * dim, 1), groups * dim);
    let (k, v) = (noise(capacity * width, 2), noise(capacity * width, 3));
    let mut keys = PackedKeyValues::new(capacity, groups, dim);
    keys.write(0, &k, &v);
    let ends: Vec<usize> = (0..queries).map(|i| i * 7919 % (capacity + 1)).collect();
    assert!(ends.contains(&0));
    for level in Level::available() {
        let mut o = vec![f32::NAN; q.len()];
        forward_at(
            level,
            &q,
            heads,
            &keys,
            Ends::Each(&ends),
            0.3,
            None,
            &mut o,
        );
        let rows = q.chunks(heads * dim).zip(o.chunks(heads * dim));
        for ((q, found), end) in rows.zip(&ends) {
            let mut alone = vec![f32::NAN; q.len()];
            forward_at(
                level,
                q,
                heads,
                &keys,
                Ends::Same(*end),
                0.3,
                None,
                &mut alone,
            );
            assert_eq!(found, alone, "{end} keys");
            let seen = end * width;
            assert_close(
                found,
                &wanted(q, heads, &k[..seen], &v[..seen], groups, dim),
                1e-5,
            );
        }
    }
}

#[test]
fn large_scores_and_no_keys() {
    let (dim, end) = (16, 400);
    let k: Vec<f32> = (0..end).flat_map(|i| vec![i as f32; dim]).collect();
    let mut keys = PackedKeyValues::new(end, 1, dim);
    keys.write(0, &k, &k);
    let mut o = vec![0.0; dim];
    forward(&vec![50.0; dim], 1, &keys, Ends::Same(end), 1.0, &mut o);
    assert_eq!(o, [399.0; 16]);
    forward(&[f32::NAN; 16], 1, &keys, Ends::Same(end), 1.0, &mut o);
    assert!(o.iter().all(|o| o.is_nan()));
    forward(&[1.0; 16], 1, &keys, Ends::Same(0), 1.0, &mut o);
    assert_eq!(o, [0.0; 16]);
}

#[test]
fn rows_depend_on_neither_threads_nor_company() {
    let (queries, heads, dim, end) = (70, 4, 32, 300);
    let mut keys = PackedKeyValues::new(end, 2, dim);
    keys.write(0, &noise(end * 64, 1), &noise(end * 64, 2));
    let q = noise(queries * heads * dim, 3);
    let run = |threads: usize, q: &[f32]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let mut o = vec![0.0; q.len()];
        pool.unwrap()
            .install(|| forward(q, heads, &keys, Ends::Same(end), 0.2, &mut o));
        o
    };
    let all = run(1, &q);
    assert!([2, 8].into_iter().all(|threads| run(threads, &q) == all));
    let width = heads * dim;
    for row in [0, 17, 69] {
        let range = row * width..(row + 1) * width;
        assert_eq!(run(2, &q[range.clone()]), all[range]);
    }
}

/// What f16 holds exactly gives the same; anything else is off by its rounding.
#[test]
fn half_the_memory_gives_nearly_the_same() {
    let (queries, heads, groups, dim, end) = (70, 4, 2, 300, 530);
    let (q, width) = (noise(queries * heads * dim, 1), groups * dim);
    let (k, v) = (noise(end * width, 2), noise(end * width, 3));
    let exact = |x: &[f32]| -> Vec<f32> {
        let rounded = x.iter().map(|x| half::f16::from_f32(*x).to_f32());
        rounded.collect()
    };
    let run = |keys: &mut PackedKeyValues, k: &[f32], v: &[f32]| {
        keys.write(0, k, v);
        let mut o = vec![f32::NAN; q.len()];
        forward(&q, heads, keys, Ends::Same(end), 0.1, &mut o);
        o
    };
    let full = |k: &[f32], v: &[f32]| run(&mut PackedKeyValues::new(600, groups, dim), k, v);
    let mut kept = PackedKeyValues::half(600, groups, dim);
    let found = run(&mut kept, &k, &v);
    assert_eq!(found, full(&exact(&k), &exact(&v)));
    assert_close(&found, &full(&k, &v), 2e-3);
    // Taken over, and written behind.
    let mut room = PackedKeyValues::half(540, groups, dim);
    room.take(&kept, 100);
    room.write(100, &k[100 * width..], &v[100 * width..]);
    let mut o = vec![f32::NAN; q.len()];
    forward(&q, heads, &room, Ends::Same(end), 0.1, &mut o);
    assert_eq!(o, found);
    assert!(room.is_alike(&kept) && !room.is_alike(&PackedKeyValues::new(1, groups, dim)));
}
