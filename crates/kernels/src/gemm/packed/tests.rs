use super::*;
use crate::reference::{self, assert_close, noise};
use half::{bf16, f16};

#[test]
fn every_level_matches_the_reference_at_odd_sizes() {
    let sizes = [
        (1, 1, 1),
        (3, 7, 5),
        (13, 300, 33),
        (64, 257, 100),
        (200, 40, 16),
        (401, 530, 47),
    ];
    for (rows, inputs, outputs) in sizes {
        let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
        let bias = noise(outputs, 3);
        let add_bias = |_: usize, rows: &mut [f32]| {
            for row in rows.chunks_exact_mut(outputs) {
                for (y, b) in row.iter_mut().zip(&bias) {
                    *y += b;
                }
            }
        };
        let narrow: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
        let half: Vec<f16> = w.iter().map(|&v| f16::from_f32(v)).collect();
        let matrices = [
            PackedMatrix::from_f32(&w, outputs, inputs),
            PackedMatrix::from_bf16(&narrow, outputs, inputs),
            PackedMatrix::from_f16(&half, outputs, inputs),
        ];
        for matrix in &matrices {
            let rounded = matrix.unpack();
            let want = reference::linear(&x, inputs, &rounded, outputs, &bias);
            for level in Level::available() {
                let mut y = vec![f32::NAN; rows * outputs];
                forward_at(level, &x, matrix, &mut y, Some(add_bias));
                assert_close(&y, &want, 1e-5);
            }
        }
        assert_eq!(matrices[0].unpack(), w);
    }
}

#[test]
fn no_level_loses_what_f32_holds() {
    // Each value counts in every bit: products cancel to what only the last ones leave.
    let (inputs, outputs) = (64, 16);
    let x: Vec<f32> = (0..inputs)
        .map(|k| (1.0 + 0.1 * (k / 2) as f32) * if k % 2 == 0 { 1.0 } else { -1.0 + 2e-7 })
        .collect();
    let w: Vec<f32> = (0..outputs * inputs)
        .map(|i| 1.0 + (i / inputs) as f32 / 64.0)
        .collect();
    let narrow: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
    for matrix in [
        PackedMatrix::from_f32(&w, outputs, inputs),
        PackedMatrix::from_bf16(&narrow, outputs, inputs),
    ] {
        let rounded = matrix.unpack();
        for level in Level::available() {
            let mut y = vec![f32::NAN; outputs];
            forward_at(level, &x, &matrix, &mut y, NOTHING);
            for (y, w) in y.iter().zip(rounded.chunks_exact(inputs)) {
                let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let want: f64 = products.sum();
                // 64 roundings of sums up to 5.
                assert!(
                    (f64::from(*y) - want).abs() < 3e-6,
                    "{level:?}: {y}, {want}"
                );
            }
        }
    }
}

#[test]
fn largest_smallest_and_infinite_values_stay_what_they_are() {
    let identity: Vec<f32> = (0..16 * 16).map(|i| f32::from(i / 16 == i % 16)).collect();
    let narrow: Vec<bf16> = identity.iter().map(|&v| bf16::from_f32(v)).collect();
    let values = [
        f32::MAX,
        f32::MIN,
        3.3e38,
        1.2e-38,
        -1e-30,
        1.0 / 3.0,
        16_777_215.0,
        0.0,
    ];
    for matrix in [
        PackedMatrix::from_f32(&identity, 16, 16),
        PackedMatrix::from_bf16(&narrow, 16, 16),
    ] {
        for level in Level::available() {
            for value in values {
                let mut y = vec![f32::NAN; 16];
                let none = NOTHING;
                forward_at(level, &[value; 16], &matrix, &mut y, none);
                let same = y.iter().all(|y| (y - value).abs() <= 1e-38);
                assert!(same, "{level:?}: {} instead of {value}", y[0]);
            }
            for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let mut x = [1.0; 16];
                x[3] = value;
                let mut y = vec![0.0; 16];
                forward_at(level, &x, &matrix, &mut y, NOTHING);
                assert!(!y[3].is_finite(), "{level:?}: {value} became {}", y[3]);
            }
        }
    }
}

#[test]
fn joined_matrices_give_the_parts_results_side_by_side() {
    let (rows, inputs) = (33, 90);
    let x = noise(rows * inputs, 1);
    let weights = [
        noise(32 * inputs, 2),
        noise(16 * inputs, 3),
        noise(5 * inputs, 4),
    ];
    let outputs = [32, 16, 5];
    let parts: Vec<PackedMatrix> = weights
        .iter()
        .zip(outputs)
        .map(|(w, outputs)| PackedMatrix::from_f32(w, outputs, inputs))
        .collect();
    let all = PackedMatrix::joined(&parts.iter().collect::<Vec<_>>()).unwrap();
    let mut y = vec![0.0; rows * 53];
    multiply(&x, &all, &mut y);
    let mut column = 0;
    for (part, outputs) in parts.iter().zip(outputs) {
        let mut alone = vec![0.0; rows * outputs];
        multiply(&x, part, &mut alone);
        for (row, alone) in y.chunks_exact(53).zip(alone.chunks_exact(outputs)) {
            assert_eq!(row[column..column + outputs], *alone);
        }
        column += outputs;
    }
    assert!(
        PackedMatrix::joined(&[&parts[2], &parts[0]]).is_none(),
        "a cut panel"
    );
    let half: Vec<bf16> = weights[0].iter().map(|&v| bf16::from_f32(v)).collect();
    let half = PackedMatrix::from_bf16(&half, 32, inputs);
    assert!(
        PackedMatrix::joined(&[&half, &parts[0]]).is_none(),
        "two types"
    );
    assert!(PackedMatrix::joined(&[]).is_none());
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (rows, inputs, outputs) = (150, 300, 70);
    let x = noise(rows * inputs, 1);
    let w = PackedMatrix::from_f32(&noise(outputs * inputs, 2), outputs, inputs);
    let results: Vec<Vec<f32>> = [1, 2, 3, 8]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let mut y = vec![0.0; rows * outputs];
            pool.unwrap().install(|| forward(&x, &w, &mut y, |_, _| ()));
            y
        })
        .collect();
    assert!(results.iter().all(|y| *y == results[0]));
}

#[test]
fn results_do_not_depend_on_a_rows_company() {
    // More inner values than any level takes at once for many rows, and an odd end.
    let (rows, inputs, outputs) = (80, 1111, 70);
    let x = noise(rows * inputs, 1);
    let w = noise(outputs * inputs, 2);
    let narrow: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
    for w in [
        PackedMatrix::from_f32(&w, outputs, inputs),
        PackedMatrix::from_bf16(&narrow, outputs, inputs),
    ] {
        for level in Level::available() {
            let run = |x: &[f32]| {
                let mut y = vec![f32::NAN; x.len() / inputs * outputs];
                forward_at(level, x, &w, &mut y, NOTHING);
                y
            };
            let all = run(&x);
            for count in [1, 2, 7, 13, 16, 17, 32, 33, 48] {
                let some = run(&x[5 * inputs..(5 + count) * inputs]);
                assert!(
                    some == all[5 * outputs..(5 + count) * outputs],
                    "{count} at {level:?}"
                );
            }
        }
    }
}

#[test]
fn every_row_is_finished_once() {
    for rows in [1, 40, 64, 500] {
        let w = PackedMatrix::from_f32(&noise(20 * 9, 2), 20, 9);
        let mut y = vec![0.0; rows * 20];
        forward(&vec![0.0; rows * 9], &w, &mut y, |first, run| {
            for (offset, row) in run.chunks_exact_mut(20).enumerate() {
                row.iter_mut()
                    .for_each(|y| *y += (first + offset) as f32 + 1.0);
            }
        });
        for (row, values) in y.chunks_exact(20).enumerate() {
            assert!(values.iter().all(|y| *y == row as f32 + 1.0));
        }
    }
}
