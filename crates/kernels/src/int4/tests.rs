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
                .map(|v| HalfKind::Bf16.round(v))
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

    fn parts(&self) -> Parts<'_> {
        Parts {
            outputs: self.outputs,
            inputs: self.inputs,
            codes: &self.codes,
            scales: &self.scales,
            zeros: None,
            smooth: Some(&self.smooth),
            rank: self.rank,
            down: &self.down,
            up: &self.up,
            bias: Some(&self.bias),
            half: HalfKind::Bf16,
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
                    Activations::Four => (7.0, HalfKind::Bf16.round(largest / 7.0)),
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
        let packed = Int4Linear::new(&layer.parts());
        for mode in MODES {
            let want = layer.reference(&x, mode);
            for level in Level::available() {
                let mut y = vec![f32::NAN; rows * outputs];
                forward_at(
                    level,
                    &x,
                    &SharedInput::new(vec![&packed]).unwrap(),
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
        let parts = Parts {
            outputs: 16,
            inputs: 128,
            codes: &codes,
            scales: &[1.0; 32],
            ..Parts::default()
        };
        let packed = Int4Linear::new(&parts);
        let x = vec![sign * 127.0; 8 * 128];
        for level in Level::available() {
            let mut y = vec![0.0; 8 * 16];
            forward_at(
                level,
                &x,
                &SharedInput::new(vec![&packed]).unwrap(),
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
        .map(|v| HalfKind::Bf16.round(*v))
        .collect();
    let parts = Parts {
        zeros: Some(&zeros),
        smooth: None,
        bias: None,
        ..layer.parts()
    };
    let packed = Int4Linear::new(&parts);
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
    let packed = Int4Linear::new(&layer.parts());
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
    let packed = Int4Linear::new(&layer.parts());
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

#[test]
fn layers_that_share_an_input_give_what_each_gives() {
    let (inputs, rank) = (330, 24);
    let first = Layer::new(50, inputs, rank);
    let second = Layer {
        down: first.down.clone(),
        ..Layer::new(33, inputs, rank)
    };
    let other = Layer {
        smooth: first.smooth.iter().map(|s| s * 2.0).collect(),
        ..Layer::new(33, inputs, rank)
    };
    let [first, second, other] =
        [first, second, other].map(|layer| Int4Linear::new(&layer.parts()));
    let shared = SharedInput::new(vec![&first, &second]).unwrap();
    assert!(SharedInput::new(vec![&first, &other]).is_none());
    for rows in [3, 150] {
        let x = noise(rows * inputs, 7);
        for mode in MODES {
            let alone = [&first, &second].map(|layer| {
                let mut y = vec![f32::NAN; rows * layer.outputs()];
                forward(&x, layer, mode, &Epilogue::default(), &mut y);
                y
            });
            let mut found = alone.clone().map(|y| vec![f32::NAN; y.len()]);
            let [a, b] = &mut found;
            forward_each(&x, &shared, mode, &mut [a, b]);
            assert_eq!(found, alone);
        }
    }
}
