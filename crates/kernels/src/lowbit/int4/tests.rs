//! The layer against its plain statement.

use super::forward::forward_at;
use super::*;
use crate::pointwise::epilogue::{Epilogue, Residual};
use crate::reference::{assert_close, noise};
use crate::simd::Level;

struct Layer {
    outputs: usize,
    inputs: usize,
    rank: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    smooth: Vec<f32>,
    down: Vec<f32>,
    up: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    fn new(outputs: usize, inputs: usize, rank: usize) -> Self {
        let groups = inputs.div_ceil(GROUP);
        let held = |values: Vec<f32>| -> Vec<f32> {
            values
                .into_iter()
                .map(|v| HalfType::Bf16.round(v))
                .collect()
        };
        let codes = noise(outputs * groups * GROUP, 1);
        Self {
            outputs,
            inputs,
            rank,
            // −8 now and then, which files of others may hold.
            codes: codes
                .iter()
                .map(|v| (v * 8.4).round().clamp(-8.0, 7.0) as i8)
                .collect(),
            scales: held(
                noise(outputs * groups, 2)
                    .iter()
                    .map(|v| 0.02 + 0.01 * v)
                    .collect(),
            ),
            smooth: held(noise(inputs, 3).iter().map(|v| 1.5 + v).collect()),
            down: held(noise(rank * inputs, 4)),
            up: held(noise(outputs * rank, 5).iter().map(|v| 0.1 * v).collect()),
            bias: noise(outputs, 6),
        }
    }

    fn weight(&self) -> Int4Weight {
        Int4Weight {
            outputs: vec![self.outputs],
            inputs: self.inputs,
            codes: self.codes.clone(),
            scales: self.scales.clone(),
            zeros: None,
            smooth: Some(self.smooth.clone()),
            branch: Some(Branch {
                rank: self.rank,
                down: self.down.clone(),
                up: self.up.clone(),
            }),
            bias: Some(self.bias.clone()),
            half: HalfType::Bf16,
        }
    }

    /// The definition, one output at a time, in f64.
    fn reference(&self, x: &[f32], activations: Activations) -> Vec<f32> {
        let (inputs, groups) = (self.inputs, self.inputs.div_ceil(GROUP));
        let mut y = Vec::new();
        for x in x.chunks_exact(inputs) {
            let mut smoothed: Vec<f32> = x
                .iter()
                .zip(&self.smooth)
                .map(|(x, s)| x * (1.0 / s))
                .collect();
            smoothed.resize(groups * GROUP, 0.0);
            for values in smoothed.chunks_exact_mut(GROUP) {
                let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let (most, scale) = match activations {
                    Activations::Full => continue,
                    Activations::Eight => (127.0, largest / 127.0),
                    Activations::Four => (7.0, HalfType::Bf16.round(largest / 7.0)),
                };
                if largest > 0.0 {
                    let inverse = most / largest;
                    values
                        .iter_mut()
                        .for_each(|v| *v = (*v * inverse).round_ties_even() * scale);
                }
            }
            let between: Vec<f64> = (0..self.rank)
                .map(|r| {
                    let down = &self.down[r * inputs..][..inputs];
                    x.iter()
                        .zip(down)
                        .map(|(x, d)| f64::from(*x) * f64::from(*d))
                        .sum()
                })
                .collect();
            for o in 0..self.outputs {
                let mut sum = f64::from(self.bias[o]);
                for (k, v) in smoothed.iter().enumerate() {
                    let code = f64::from(self.codes[o * groups * GROUP + k]);
                    sum += f64::from(*v) * code * f64::from(self.scales[o * groups + k / GROUP]);
                }
                for (r, b) in between.iter().enumerate() {
                    sum += b * f64::from(self.up[o * self.rank + r]);
                }
                y.push(sum as f32);
            }
        }
        y
    }
}

const MODES: [Activations; 3] = [Activations::Eight, Activations::Four, Activations::Full];

#[test]
fn every_level_and_mode_matches_the_definition_at_odd_sizes() {
    let sizes = [
        (1, 1, 1, 0),
        (3, 64, 16, 16),
        (5, 100, 33, 16),
        (37, 192, 72, 32),
        (130, 600, 40, 48),
        (70, 330, 20, 300),
    ];
    for (rows, inputs, outputs, rank) in sizes {
        let layer = Layer::new(outputs, inputs, rank);
        let mut x = noise(rows * inputs, 7);
        x.chunks_exact_mut(inputs)
            .for_each(|row| row[inputs / 2] *= 40.0);
        x[..inputs].fill(0.0);
        let packed = Int4Linear::new(&layer.weight());
        for mode in MODES {
            let want = layer.reference(&x, mode);
            for level in Level::available() {
                let mut y = vec![f32::NAN; rows * outputs];
                forward_at(
                    level,
                    &x,
                    (&packed, 0..1),
                    mode,
                    &Epilogue::default(),
                    &mut [&mut y],
                );
                assert_close(&y, &want, 3e-5);
            }
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    // All codes at the ends, all activations at the ends, both signs.
    for (code, sign) in [(-8, 1.0), (-8, -1.0), (7, 1.0), (7, -1.0)] {
        let codes = vec![code; 16 * 128];
        let packed = Int4Linear::new(&Int4Weight {
            outputs: vec![16],
            inputs: 128,
            codes,
            scales: vec![1.0; 32],
            ..Int4Weight::default()
        });
        let x = vec![sign * 127.0; 8 * 128];
        for level in Level::available() {
            let mut y = vec![0.0; 8 * 16];
            forward_at(
                level,
                &x,
                (&packed, 0..1),
                Activations::Eight,
                &Epilogue::default(),
                &mut [&mut y],
            );
            let want = f32::from(code) * sign * 127.0 * 128.0;
            assert!(
                y.iter().all(|y| (y - want).abs() < 0.5),
                "{level:?} {code} {sign}: {}",
                y[0]
            );
        }
    }
}

#[test]
fn zero_points_are_added_to_unrounded_products() {
    let (outputs, inputs) = (20, 128);
    let layer = Layer::new(outputs, inputs, 0);
    let zeros: Vec<f32> = noise(outputs * 2, 9)
        .iter()
        .map(|v| HalfType::Bf16.round(*v))
        .collect();
    let packed = Int4Linear::new(&Int4Weight {
        zeros: Some(zeros.clone()),
        smooth: None,
        bias: None,
        ..layer.weight()
    });
    assert!(!packed.rounds_activations());
    let x = noise(3 * inputs, 8);
    let mut y = vec![0.0; 3 * outputs];
    forward(&x, &packed, Activations::Full, &Epilogue::default(), &mut y);
    let weight: Vec<f32> = (0..outputs * inputs)
        .map(|i| {
            let grid = i / inputs * 2 + i % inputs / GROUP;
            f32::from(layer.codes[i]) * layer.scales[grid] + zeros[grid]
        })
        .collect();
    let want = crate::reference::linear(&x, inputs, &weight, outputs, &[0.0; 20]);
    assert_close(&y, &want, 1e-5);
}

#[test]
fn what_is_not_finite_stays_so() {
    let layer = Layer::new(16, 64, 0);
    let packed = Int4Linear::new(&layer.weight());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = noise(4 * 64, 1);
        x[64 + 9] = bad;
        for mode in MODES {
            let mut y = vec![0.0; 4 * 16];
            forward(&x, &packed, mode, &Epilogue::default(), &mut y);
            assert!(y[16..32].iter().all(|y| !y.is_finite()), "{bad} {mode:?}");
            assert!(y[..16].iter().chain(&y[32..]).all(|y| y.is_finite()));
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads_and_rows_are_finished_once() {
    let (rows, inputs, outputs) = (150, 320, 70);
    let layer = Layer::new(outputs, inputs, 16);
    let packed = Int4Linear::new(&layer.weight());
    let (x, residual) = (noise(rows * inputs, 1), noise(rows * outputs, 2));
    for mode in MODES {
        let results: Vec<Vec<f32>> = [1, 2, 3, 16]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let mut y = vec![0.0; rows * outputs];
                let steps = Epilogue {
                    residual: Some(Residual::Rows(&residual)),
                    ..Epilogue::default()
                };
                pool.unwrap()
                    .install(|| forward(&x, &packed, mode, &steps, &mut y));
                y
            })
            .collect();
        assert!(results.iter().all(|y| *y == results[0]));
        let mut plain = vec![0.0; rows * outputs];
        forward(&x, &packed, mode, &Epilogue::default(), &mut plain);
        let want: Vec<f32> = plain.iter().zip(&residual).map(|(y, r)| y + r).collect();
        assert_close(&results[0], &want, 1e-6);
    }
}

/// Three layers of odd widths that were quantized together.
fn together() -> Int4Weight {
    let (outputs, inputs, rank) = ([50, 33, 1], 330, 24);
    Int4Weight {
        outputs: outputs.to_vec(),
        ..Layer::new(outputs.iter().sum(), inputs, rank).weight()
    }
}

#[test]
fn layers_that_share_an_input_give_what_each_gives() {
    let whole = together();
    let linear = Int4Linear::new(&whole);
    let alone: Vec<Int4Linear> = whole.split().iter().map(Int4Linear::new).collect();
    for rows in [3, 150] {
        let x = noise(rows * whole.inputs, 7);
        for mode in MODES {
            for chosen in [0..3, 0..2, 2..3] {
                let want: Vec<Vec<f32>> = alone[chosen.clone()]
                    .iter()
                    .map(|layer| {
                        let mut y = vec![f32::NAN; rows * layer.outputs()];
                        forward(&x, layer, mode, &Epilogue::default(), &mut y);
                        y
                    })
                    .collect();
                let mut found = want.clone();
                found.iter_mut().for_each(|y| y.fill(f32::NAN));
                let mut rooms: Vec<&mut [f32]> = found.iter_mut().map(Vec::as_mut_slice).collect();
                forward_each(&x, &linear, chosen, mode, &mut rooms);
                assert_eq!(found, want);
            }
        }
    }
}

#[test]
fn what_layers_share_is_held_once() {
    let whole = together();
    let bytes = |weight: &Int4Weight| Int4Linear::new(weight).bytes();
    let apart: usize = whole.split().iter().map(bytes).sum();
    let branch = whole.branch.as_ref().unwrap();
    let shared = 2 * branch.down.len() + 4 * whole.inputs;
    assert!(
        bytes(&whole) + 2 * shared <= apart,
        "{} {apart}",
        bytes(&whole)
    );
}

#[test]
fn a_wider_branch_adds_its_product() {
    let layer = Layer::new(20, 70, 16);
    let more = Branch {
        rank: 3,
        down: noise(3 * 70, 11),
        up: noise(20 * 3, 12),
    };
    let mut wide = layer.weight();
    wide.widen_branch(more.clone());
    let mut joined = Layer::new(20, 70, 19);
    joined.down = [&layer.down[..], &more.down].concat();
    let rows = layer.up.chunks(16).zip(more.up.chunks(3));
    joined.up = rows.flat_map(|(a, b)| [a, b].concat()).collect();
    assert_eq!(wide, joined.weight());
    let mut bare = Int4Weight {
        branch: None,
        ..layer.weight()
    };
    bare.widen_branch(more.clone());
    assert_eq!(bare.branch, Some(more));
    assert!(bare.fits() && wide.fits());
}
