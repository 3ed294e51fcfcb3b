//! Muon (Jordan et al., 2024): momentum whose directions all weigh the same, for the matrices of
//! hidden layers; AdamW for everything else.

use brisk_kernels::gemm::{Threads, View, multiply};
use brisk_store::TensorSource;
use candle_core::Var;

use super::adamw::{self, AdamWOptions};
use super::{Gradients, Optimiser, StepReport};
use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// Constants of [`Muon`].
#[derive(Debug, Clone, Copy)]
pub struct MuonOptions {
    /// Decay of the momentum.
    pub momentum: f32,
    /// Newton–Schulz iterations.
    pub iterations: usize,
    /// AdamW's, for what is no matrix of a hidden layer; its weight decay and bound are everybody's.
    pub adamw: AdamWOptions,
}

impl Default for MuonOptions {
    fn default() -> Self {
        MuonOptions {
            momentum: 0.95,
            iterations: 5,
            adamw: AdamWOptions::default(),
        }
    }
}

/// Root mean square of an update in units of the learning rate, as AdamW's usually is (Liu et al.,
/// arXiv 2502.16982), so that one rate suits both.
const UPDATE_SIZE: f32 = 0.2;

enum State {
    Matrix {
        momentum: Vec<f32>,
        rows: usize,
        columns: usize,
    },
    Other(adamw::State),
}

/// The optimiser.
pub struct Muon {
    parameters: Vec<(String, Var)>,
    states: Vec<State>,
    options: MuonOptions,
    skipped: u64,
}

/// Matrices of hidden layers: two dimensions, and a number in the path.
fn is_hidden(name: &str, variable: &Var) -> bool {
    let numbered = name
        .split('.')
        .any(|part| part.bytes().all(|b| b.is_ascii_digit()));
    variable.rank() == 2 && numbered
}

impl Muon {
    /// An optimiser of f32 variables, with empty state.
    pub fn new(parameters: Vec<(String, Var)>, options: MuonOptions) -> Muon {
        let states = parameters
            .iter()
            .map(|(name, variable)| match variable.dims() {
                &[rows, columns] if is_hidden(name, variable) => State::Matrix {
                    momentum: vec![0.0; rows * columns],
                    rows,
                    columns,
                },
                _ => State::Other(adamw::State::new(variable.elem_count())),
            })
            .collect();
        Muon {
            parameters,
            states,
            options,
            skipped: 0,
        }
    }
}

/// `out = a·b + scale·c`, with `c` of out's size.
fn product(out: &mut Vec<f32>, a: View, b: View, c: Option<(&[f32], f32)>) {
    let (rows, columns) = (a.rows, b.columns);
    out.clear();
    match c {
        Some((c, scale)) => out.extend(c.iter().map(|c| c * scale)),
        None => out.resize(rows * columns, 0.0),
    }
    multiply(out, columns, a, b, 1.0, c.is_some(), Threads::One);
}

/// The matrix with its singular values moved to about one, `rows` ≤ `columns`: a quintic
/// Newton–Schulz iteration, x ← a·x + (b·g + c·g²)·x with g = x·xᵀ.
fn orthogonalise(x: &mut Vec<f32>, rows: usize, columns: usize, iterations: usize) {
    const A: f32 = 3.4445;
    const B: f32 = -4.775;
    const C: f32 = 2.0315;
    let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let inverse = (1.0 / (norm + 1e-7)) as f32;
    x.iter_mut().for_each(|v| *v *= inverse);
    let (mut gram, mut square, mut next) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..iterations {
        let view = View::new(x, rows, columns);
        product(&mut gram, view, view.transposed(), None);
        let view = View::new(&gram, rows, rows);
        product(&mut square, view, view, None);
        for (square, gram) in square.iter_mut().zip(&gram) {
            *square = B * gram + C * *square;
        }
        product(
            &mut next,
            View::new(&square, rows, rows),
            View::new(x, rows, columns),
            Some((x, A)),
        );
        std::mem::swap(x, &mut next);
    }
}

fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let at = |index: usize| x[index % rows * columns + index / rows];
    (0..rows * columns).map(at).collect()
}

/// One update of a matrix.
fn update_matrix(
    momentum: &mut [f32],
    (rows, columns): (usize, usize),
    weights: &mut [f32],
    gradient: &[f32],
    rate: f64,
    options: &MuonOptions,
) {
    let decay = options.momentum;
    // Nesterov's momentum.
    let mut step: Vec<f32> = momentum
        .iter_mut()
        .zip(gradient)
        .map(|(momentum, g)| {
            *momentum = decay * *momentum + (1.0 - decay) * g;
            decay * *momentum + (1.0 - decay) * g
        })
        .collect();
    if rows <= columns {
        orthogonalise(&mut step, rows, columns, options.iterations);
    } else {
        step = transposed(&step, rows, columns);
        orthogonalise(&mut step, columns, rows, options.iterations);
        step = transposed(&step, columns, rows);
    }
    let keep = (1.0 - rate * options.adamw.weight_decay) as f32;
    let size = rate as f32 * UPDATE_SIZE * (rows.max(columns) as f32).sqrt();
    for (weight, step) in weights.iter_mut().zip(&step) {
        *weight = *weight * keep - size * step;
    }
}

impl Optimiser for Muon {
    fn step(&mut self, gradients: Gradients, learning_rate: f64) -> Result<StepReport> {
        let options = &self.options;
        gradients.apply(
            &self.parameters,
            &mut self.states,
            options.adamw.clip,
            &mut self.skipped,
            |state, weights, gradient| match state {
                State::Matrix {
                    momentum,
                    rows,
                    columns,
                } => {
                    let shape = (*rows, *columns);
                    update_matrix(momentum, shape, weights, gradient, learning_rate, options);
                }
                State::Other(state) => {
                    state.update(weights, gradient, learning_rate, &options.adamw);
                }
            },
        )
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn state(&self) -> Vec<NamedArray> {
        let mut arrays = Vec::new();
        for ((name, variable), state) in self.parameters.iter().zip(&self.states) {
            match state {
                State::Matrix { momentum, .. } => arrays.push(NamedArray {
                    name: format!("momentum.{name}"),
                    shape: variable.dims().to_vec(),
                    values: momentum.clone(),
                }),
                State::Other(state) => state.arrays(name, variable.dims(), &mut arrays),
            }
        }
        arrays
    }

    fn load_state(&mut self, source: &dyn TensorSource, skipped: u64) -> Result<()> {
        for ((name, variable), state) in self.parameters.iter().zip(&mut self.states) {
            match state {
                State::Matrix { momentum, .. } => {
                    *momentum =
                        tensors::read(source, &format!("momentum.{name}"), variable.dims())?;
                }
                State::Other(state) => state.load(source, name, variable.dims())?,
            }
        }
        self.skipped = skipped;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimiser::tests::gradients;
    use crate::rng::Rng;
    use candle_core::{Device, Tensor};

    /// x·xᵀ of a matrix whose rows are not more than its columns.
    fn gram(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let mut out = Vec::new();
        let view = View::new(x, rows, columns);
        product(&mut out, view, view.transposed(), None);
        out
    }

    #[test]
    fn singular_values_move_to_about_one() {
        let mut rng = Rng::new(3);
        for (rows, columns) in [(4, 4), (5, 12), (1, 7)] {
            let mut x = rng.normals(rows * columns);
            orthogonalise(&mut x, rows, columns, 5);
            // The iteration stops at singular values from 0.7 to 1.2, so x·xᵀ has eigenvalues
            // from 0.45 to 1.5, and so does its diagonal.
            let gram = gram(&x, rows, columns);
            for row in 0..rows {
                let own = gram[row * rows + row];
                assert!((0.3..1.6).contains(&own), "{rows}x{columns}: {own}");
            }
        }
    }

    #[test]
    fn tall_matrices_are_updated_as_their_transposes() {
        let mut rng = Rng::new(5);
        let (start, gradient) = (rng.normals(12), rng.normals(12));
        let options = MuonOptions::default();
        let mut wide = start.clone();
        update_matrix(&mut [0.0; 12], (3, 4), &mut wide, &gradient, 0.1, &options);
        let mut tall = transposed(&start, 3, 4);
        let turned = transposed(&gradient, 3, 4);
        update_matrix(&mut [0.0; 12], (4, 3), &mut tall, &turned, 0.1, &options);
        for (a, b) in wide.iter().zip(transposed(&tall, 4, 3)) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn only_matrices_of_numbered_layers_are_orthogonalised_and_the_state_returns() {
        let variable = |values: Vec<f32>| Var::from_vec(values, (2, 2), &Device::Cpu).unwrap();
        let (hidden, table) = (variable(vec![1.0; 4]), variable(vec![1.0; 4]));
        let parameters = vec![
            ("blocks.0.q.weight".to_owned(), hidden.clone()),
            ("wte.weight".to_owned(), table.clone()),
        ];
        let mut optimiser = Muon::new(parameters.clone(), MuonOptions::default());
        let names: Vec<String> = optimiser.state().into_iter().map(|a| a.name).collect();
        assert_eq!(names[0], "momentum.blocks.0.q.weight");
        assert_eq!(names.len(), 4);
        let factor = Tensor::new(&[[3f32, 0.0], [0.0, 0.5]], &Device::Cpu).unwrap();
        let loss = (hidden.as_tensor() * &factor).unwrap().sum_all().unwrap();
        let gradients = |loss: &Tensor| {
            Gradients::sum(&parameters, &[(1.0, loss.backward().unwrap())]).unwrap()
        };
        optimiser.step(gradients(&loss), 0.1).unwrap();
        let moved = tensors::values(&hidden.as_tensor().into()).unwrap();
        let (large, small) = (1.0 - moved[0], 1.0 - moved[3]);
        assert!(small > 0.5 * large, "both directions move: {large} {small}");
        assert_eq!(moved[1], 1.0);

        let arrays = optimiser.state();
        let source = tensors::memory_source(&arrays, "", false).unwrap();
        let mut other = Muon::new(parameters.clone(), MuonOptions::default());
        other.load_state(&*source, 3).unwrap();
        assert_eq!((other.state(), other.skipped()), (arrays, 3));
    }

    #[test]
    fn a_quadratic_is_minimised() {
        let variable = Var::from_vec(vec![1f32, -2.0, 0.5, 3.0], (2, 2), &Device::Cpu).unwrap();
        let mut optimiser = Muon::new(
            vec![("layers.0.w".to_owned(), variable.clone())],
            MuonOptions::default(),
        );
        for step in 0..200 {
            let loss = variable.as_tensor().sqr().unwrap().sum_all().unwrap();
            let rate = 0.2 * (1.0 - f64::from(step) / 200.0);
            optimiser.step(gradients(&variable, &loss), rate).unwrap();
        }
        let left = tensors::values(&variable.as_tensor().into()).unwrap();
        assert!(left.iter().all(|w| w.abs() < 0.1), "{left:?}");
    }
}
