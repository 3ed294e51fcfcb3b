//! A long short-term memory (Hochreiter and Schmidhuber 1997) along a sequence.

use super::linear::shape_error;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use candle_core::{
    CpuStorage, CustomOp2, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// Gates, in PyTorch's order: input, forget, candidate, output.
const GATES: usize = 4;

/// States `[batch, steps, hidden]` of an LSTM that starts from zeros: `gates` `[batch, steps, 4·hidden]` are what the
/// inputs and both biases add to the gates (input, forget, candidate, output, before their activations), `weight`
/// `[4·hidden, hidden]` is what the state before adds. `back` goes from the last step to the first. Differentiable.
///
/// # Errors
/// Sizes that do not fit.
pub fn lstm(gates: &Tensor, weight: &Tensor, back: bool) -> Result<Tensor> {
    let expected = format!(
        "gates [batch, steps, 4·hidden] for a weight [4·hidden, hidden], not {:?}",
        weight.dims()
    );
    let refuse = || shape_error("lstm", gates.dims(), &expected);
    let (batch, steps, wide) = gates.dims3().map_err(|_| refuse())?;
    let (rows, hidden) = weight.dims2().map_err(|_| refuse())?;
    if hidden == 0 || rows != GATES * hidden || wide != rows {
        return Err(refuse());
    }
    let shape = LstmShape {
        batch,
        steps,
        hidden,
        back,
    };
    gates
        .contiguous()?
        .apply_op2(&weight.contiguous()?, Lstm(shape))
}

#[derive(Clone, Copy, Debug)]
struct LstmShape {
    batch: usize,
    steps: usize,
    hidden: usize,
    back: bool,
}

/// Activated gates and cell of one step of one sequence.
struct Step<'a> {
    /// `[4·hidden]`.
    gates: &'a [f32],
    /// Before the step, and after it.
    cells: [&'a [f32]; 2],
}

impl LstmShape {
    /// The step that is taken as the `index`-th.
    fn place(&self, index: usize) -> usize {
        if self.back {
            self.steps - 1 - index
        } else {
            index
        }
    }

    /// States, activated gates and cells, of all sequences; in the order of places.
    fn run(&self, gates: &[f32], weight: &[f32]) -> [Vec<f32>; 3] {
        let Self {
            batch,
            steps,
            hidden,
            ..
        } = *self;
        let wide = GATES * hidden;
        let turned = transposed(weight, wide, hidden);
        let mut states = vec![0.0; batch * steps * hidden];
        let mut active = gates.to_vec();
        let mut cells = vec![0.0; batch * steps * hidden];
        for row in 0..batch {
            for index in 0..steps {
                let at = row * steps + self.place(index);
                let before = index
                    .checked_sub(1)
                    .map(|index| (row * steps + self.place(index)) * hidden);
                let own = &mut active[at * wide..][..wide];
                if let Some(before) = before {
                    let state = &states[before..][..hidden];
                    for (value, line) in state.iter().zip(turned.chunks_exact(wide)) {
                        add(own, *value, line);
                    }
                }
                for (index, gate) in own.chunks_exact_mut(hidden).enumerate() {
                    let candidate = index == 2;
                    gate.iter_mut().for_each(|x| {
                        *x = if candidate { x.tanh() } else { sigmoid(*x) };
                    });
                }
                for unit in 0..hidden {
                    let kept = before.map_or(0.0, |before| cells[before + unit]);
                    let cell = own[hidden + unit] * kept + own[unit] * own[2 * hidden + unit];
                    cells[at * hidden + unit] = cell;
                    states[at * hidden + unit] = own[3 * hidden + unit] * cell.tanh();
                }
            }
        }
        [states, active, cells]
    }

    /// Gradients of gates and weight, from that of the states.
    fn gradients(&self, gates: &[f32], weight: &[f32], grad: &[f32]) -> [Vec<f32>; 2] {
        let Self {
            batch,
            steps,
            hidden,
            ..
        } = *self;
        let wide = GATES * hidden;
        let [states, active, cells] = self.run(gates, weight);
        let mut of_gates = vec![0.0; gates.len()];
        let mut of_weight = vec![0.0; weight.len()];
        let nothing = vec![0.0; hidden];
        for row in 0..batch {
            let mut of_state = vec![0.0; hidden];
            let mut of_cell = vec![0.0; hidden];
            for index in (0..steps).rev() {
                let at = row * steps + self.place(index);
                let before = index
                    .checked_sub(1)
                    .map(|index| (row * steps + self.place(index)) * hidden);
                let kept = before.map_or(&nothing[..], |before| &cells[before..][..hidden]);
                let step = Step {
                    gates: &active[at * wide..][..wide],
                    cells: [kept, &cells[at * hidden..][..hidden]],
                };
                add(&mut of_state, 1.0, &grad[at * hidden..][..hidden]);
                let own = &mut of_gates[at * wide..][..wide];
                step.back(&of_state, &mut of_cell, own);
                of_state.fill(0.0);
                for (value, line) in own.iter().zip(weight.chunks_exact(hidden)) {
                    add(&mut of_state, *value, line);
                }
                if let Some(before) = before {
                    let state = &states[before..][..hidden];
                    for (value, line) in own.iter().zip(of_weight.chunks_exact_mut(hidden)) {
                        add(line, *value, state);
                    }
                }
            }
        }
        [of_gates, of_weight]
    }
}

impl Step<'_> {
    /// Gradients of the gates before their activations, and of the cell before the step in place of that after it.
    fn back(&self, of_state: &[f32], of_cell: &mut [f32], of_gates: &mut [f32]) {
        let hidden = of_state.len();
        for unit in 0..hidden {
            let [input, forget, candidate, output] =
                [0, 1, 2, 3].map(|gate| self.gates[gate * hidden + unit]);
            let [before, after] = self.cells.map(|cell| cell[unit]);
            let shown = after.tanh();
            let cell = of_cell[unit] + of_state[unit] * output * (1.0 - shown * shown);
            of_gates[unit] = cell * candidate * input * (1.0 - input);
            of_gates[hidden + unit] = cell * before * forget * (1.0 - forget);
            of_gates[2 * hidden + unit] = cell * input * (1.0 - candidate * candidate);
            of_gates[3 * hidden + unit] = of_state[unit] * shown * output * (1.0 - output);
            of_cell[unit] = cell * forget;
        }
    }
}

/// `into += factor · from`.
fn add(into: &mut [f32], factor: f32, from: &[f32]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += factor * from;
    }
}

fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column]))
        .collect()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

struct Lstm(LstmShape);

impl CustomOp2 for Lstm {
    fn name(&self) -> &'static str {
        "lstm"
    }

    fn cpu_fwd(
        &self,
        gates: &CpuStorage,
        gates_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let shape = &self.0;
        let [states, ..] = shape.run(
            cpu_slice(gates, gates_layout)?,
            cpu_slice(weight, weight_layout)?,
        );
        let dims = (shape.batch, shape.steps, shape.hidden);
        Ok((CpuStorage::F32(states), dims.into()))
    }

    fn bwd(
        &self,
        gates: &HostTensor,
        weight: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
        let dims = [gates.dims().to_vec(), weight.dims().to_vec()];
        with_slices!([gates, weight, grad], {
            let [of_gates, of_weight] = self.0.gradients(gates, weight, grad);
            Ok((
                Some(tensor(of_gates, &dims[0])?),
                Some(tensor(of_weight, &dims[1])?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LstmShape = LstmShape {
        batch: 2,
        steps: 5,
        hidden: 3,
        back: false,
    };

    fn made() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let some = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|at| (at as f32 * step).sin()).collect()
        };
        (some(2 * 5 * 12, 0.7), some(36, 1.3), some(2 * 5 * 3, 0.9))
    }

    #[test]
    fn gradients_are_slopes() {
        let (gates, weight, grad) = made();
        for back in [false, true] {
            let shape = LstmShape { back, ..SHAPE };
            let value = |gates: &[f32], weight: &[f32]| -> f64 {
                let [states, ..] = shape.run(gates, weight);
                let pairs = states.iter().zip(&grad);
                pairs.map(|(a, b)| f64::from(a * b)).sum()
            };
            let found = shape.gradients(&gates, &weight, &grad);
            for (which, found) in found.iter().enumerate() {
                for at in 0..found.len() {
                    let moved = |by: f32| {
                        let (mut gates, mut weight) = (gates.clone(), weight.clone());
                        [&mut gates, &mut weight][which][at] += by;
                        value(&gates, &weight)
                    };
                    let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                    let off = (slope - f64::from(found[at])).abs();
                    assert!(off < 2e-3, "{which} {at} {slope} {}", found[at]);
                }
            }
        }
    }

    #[test]
    fn backwards_is_forwards_of_what_is_turned_round() {
        let (gates, weight, _) = made();
        let one = LstmShape { batch: 1, ..SHAPE };
        let [forwards, ..] = one.run(&gates[..60], &weight);
        let turned: Vec<f32> = gates[..60].chunks(12).rev().flatten().copied().collect();
        let [backwards, ..] = LstmShape { back: true, ..one }.run(&turned, &weight);
        let back: Vec<f32> = backwards.chunks(3).rev().flatten().copied().collect();
        assert_eq!(forwards, back);
    }

    #[test]
    fn sizes_must_fit() {
        let gates = Tensor::zeros((1, 2, 8), crate::DType::F32).unwrap();
        let weight = Tensor::zeros((8, 3), crate::DType::F32).unwrap();
        assert!(lstm(&gates, &weight, false).is_err());
    }
}
