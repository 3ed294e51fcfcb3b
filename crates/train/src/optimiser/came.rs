use brisk_store::TensorSource;
use candle_core::Var;

use super::momentum::{EightBit, Momentum, NamedCodes};
use super::{Gradients, Optimiser, StepReport};
use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// Constants of [`Came`]; the defaults are those SANA was trained with.
#[derive(Debug, Clone, Copy)]
pub struct CameOptions {
    /// Decay of the momentum, of the squared gradient and of the instability.
    pub betas: (f64, f64, f64),
    /// Added to the squared gradient and to the squared instability.
    pub epsilons: (f64, f64),
    /// Bound of the root mean square of one parameter's update (d in the paper).
    pub update_bound: f64,
    /// Decoupled weight decay, on every parameter.
    pub weight_decay: f64,
    /// Bound of the norm over all gradients.
    pub clip: Option<f64>,
    /// Keeps the momentum of large parameters in 8 bits (CAME-8bit).
    pub eight_bit: Option<EightBit>,
}

impl Default for CameOptions {
    fn default() -> Self {
        CameOptions {
            betas: (0.9, 0.999, 0.9999),
            epsilons: (1e-30, 1e-16),
            update_bound: 1.0,
            weight_decay: 0.0,
            clip: None,
            eight_bit: None,
        }
    }
}

/// Row and column means of the squares of a matrix.
#[derive(Debug, Clone)]
struct Factors {
    rows: Vec<f32>,
    columns: Vec<f32>,
}

#[derive(Debug)]
enum Second {
    Factored { square: Factors, residual: Factors },
    Full(Vec<f32>),
}

#[derive(Debug)]
struct State {
    momentum: Momentum,
    second: Second,
}

/// CAME (confidence-guided adaptive memory-efficient optimisation), without bias correction. Matrices and 1×1 convolutions
/// keep the second moments as row and column means; all other parameters keep them in full and have no confidence term.
/// With [`CameOptions::eight_bit`] the momentum of large ones lies in blocks of 8 bits between updates (CAME-8bit).
pub struct Came {
    parameters: Vec<(String, Var)>,
    states: Vec<State>,
    options: CameOptions,
    skipped: u64,
}

/// `[out, in]` of a parameter whose moments are factored.
fn matrix_shape(dims: &[usize]) -> Option<(usize, usize)> {
    match *dims {
        [rows, columns] | [rows, columns, 1, 1] => Some((rows, columns)),
        _ => None,
    }
}

impl Factors {
    fn zeros(rows: usize, columns: usize) -> Factors {
        Factors {
            rows: vec![0.0; rows],
            columns: vec![0.0; columns],
        }
    }

    /// Moves the means towards those of `square(values)`.
    fn update(&mut self, values: &[f32], beta: f64, square: impl Fn(f32) -> f32) {
        let width = self.columns.len();
        let mut column_sums = vec![0f64; width];
        for (row, mean) in values.chunks_exact(width).zip(&mut self.rows) {
            let mut sum = 0f64;
            for (value, column) in row.iter().zip(&mut column_sums) {
                let squared = f64::from(square(*value));
                sum += squared;
                *column += squared;
            }
            *mean = (beta * f64::from(*mean) + (1.0 - beta) * sum / width as f64) as f32;
        }
        let height = self.rows.len() as f64;
        for (mean, sum) in self.columns.iter_mut().zip(column_sums) {
            *mean = (beta * f64::from(*mean) + (1.0 - beta) * sum / height) as f32;
        }
    }

    /// Calls `apply(index, factor)` with factor = (row / mean of rows)^-1/2 · column^-1/2 for every element.
    fn for_each(&self, mut apply: impl FnMut(usize, f32)) {
        let mean = self.rows.iter().map(|r| f64::from(*r)).sum::<f64>() / self.rows.len() as f64;
        let columns: Vec<f32> = self
            .columns
            .iter()
            .map(|column| (1.0 / f64::from(*column).sqrt()) as f32)
            .collect();
        for (index, row) in self.rows.iter().enumerate() {
            let row = (mean / f64::from(*row)).sqrt() as f32;
            for (offset, column) in columns.iter().enumerate() {
                apply(index * columns.len() + offset, row * column);
            }
        }
    }
}

impl State {
    fn new(dims: &[usize], eight_bit: Option<EightBit>) -> State {
        let count = dims.iter().product();
        let shape = matrix_shape(dims);
        let second = match shape {
            Some((rows, columns)) => Second::Factored {
                square: Factors::zeros(rows, columns),
                residual: Factors::zeros(rows, columns),
            },
            None => Second::Full(vec![0.0; count]),
        };
        State {
            momentum: Momentum::zeros(dims, shape.is_some(), eight_bit),
            second,
        }
    }

    /// One update; `gradient` is used up as scratch.
    fn update(
        &mut self,
        weights: &mut [f32],
        gradient: &mut [f32],
        rate: f64,
        options: &CameOptions,
    ) {
        let (beta1, beta2, beta3) = options.betas;
        let (epsilon1, epsilon2) = (options.epsilons.0 as f32, options.epsilons.1 as f32);
        match &mut self.second {
            Second::Factored { square, .. } => {
                square.update(gradient, beta2, |g| g * g + epsilon1);
                square.for_each(|index, factor| gradient[index] *= factor);
            }
            Second::Full(square) => {
                for (g, mean) in gradient.iter_mut().zip(square) {
                    *mean = (beta2 * f64::from(*mean)
                        + (1.0 - beta2) * f64::from(*g * *g + epsilon1))
                        as f32;
                    *g /= mean.sqrt();
                }
            }
        }
        let squares: f64 = gradient.iter().map(|u| f64::from(*u).powi(2)).sum();
        let root_mean_square = (squares / gradient.len().max(1) as f64).sqrt();
        let bound = (root_mean_square / options.update_bound).max(1.0) as f32;
        let (beta1, rest) = (beta1 as f32, (1.0 - beta1) as f32);
        let keep = (1.0 - options.weight_decay * rate) as f32;
        let rate = rate as f32;
        let second = &mut self.second;
        self.momentum.update(|momentum| {
            for (u, momentum) in gradient.iter_mut().zip(&mut *momentum) {
                *u /= bound;
                *momentum = beta1 * *momentum + rest * *u;
                *u -= *momentum;
            }
            match second {
                Second::Factored { residual, .. } => {
                    residual.update(gradient, beta3, |instability| {
                        instability * instability + epsilon2
                    });
                    residual.for_each(|index, factor| {
                        weights[index] = weights[index] * keep - rate * momentum[index] * factor;
                    });
                }
                Second::Full(_) => {
                    for (weight, momentum) in weights.iter_mut().zip(momentum) {
                        *weight = *weight * keep - rate * *momentum;
                    }
                }
            }
        });
    }

    /// The second moments under the names of the reference, each with whether it has the parameter's shape.
    fn moments_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>, bool)> {
        match &mut self.second {
            Second::Factored { square, residual } => vec![
                ("exp_avg_sq_row", &mut square.rows, false),
                ("exp_avg_sq_col", &mut square.columns, false),
                ("exp_avg_res_row", &mut residual.rows, false),
                ("exp_avg_res_col", &mut residual.columns, false),
            ],
            Second::Full(square) => vec![("exp_avg_sq", square, true)],
        }
    }
}

impl Came {
    /// An optimiser of f32 variables, with empty state.
    pub fn new(parameters: Vec<(String, Var)>, options: CameOptions) -> Came {
        let states = parameters
            .iter()
            .map(|(_, variable)| State::new(variable.dims(), options.eight_bit))
            .collect();
        Came {
            parameters,
            states,
            options,
            skipped: 0,
        }
    }
}

impl Optimiser for Came {
    fn step(&mut self, gradients: Gradients, learning_rate: f64) -> Result<StepReport> {
        let options = &self.options;
        gradients.apply(
            &self.parameters,
            &mut self.states,
            options.clip,
            &mut self.skipped,
            |state, weights, gradient| state.update(weights, gradient, learning_rate, options),
        )
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn state(&self) -> Vec<NamedArray> {
        let mut arrays = Vec::new();
        for ((name, variable), state) in self.parameters.iter().zip(&self.states) {
            state.momentum.arrays(name, variable.dims(), &mut arrays);
            let mut push = |kind: &str, values: &Vec<f32>, shape: Vec<usize>| {
                arrays.push(NamedArray {
                    name: format!("{kind}.{name}"),
                    shape,
                    values: values.clone(),
                });
            };
            match &state.second {
                Second::Factored { square, residual } => {
                    for (kind, values) in [
                        ("exp_avg_sq_row", &square.rows),
                        ("exp_avg_sq_col", &square.columns),
                        ("exp_avg_res_row", &residual.rows),
                        ("exp_avg_res_col", &residual.columns),
                    ] {
                        push(kind, values, vec![values.len()]);
                    }
                }
                Second::Full(square) => push("exp_avg_sq", square, variable.dims().to_vec()),
            }
        }
        arrays
    }

    fn codes(&self) -> Vec<NamedCodes> {
        let states = self.parameters.iter().zip(&self.states);
        states
            .filter_map(|((name, variable), state)| state.momentum.codes(name, variable.dims()))
            .collect()
    }

    fn load_state(&mut self, source: &dyn TensorSource, skipped: u64) -> Result<()> {
        for ((name, variable), state) in self.parameters.iter().zip(&mut self.states) {
            state.momentum.load(source, name, variable.dims())?;
            for (kind, values, whole) in state.moments_mut() {
                let shape = if whole {
                    variable.dims().to_vec()
                } else {
                    vec![values.len()]
                };
                *values = tensors::read(source, &format!("{kind}.{name}"), &shape)?;
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

    /// The update of one parameter in f64, element by element as the formulas read.
    struct Scalar {
        rows: usize,
        columns: usize,
        factored: bool,
        m: Vec<f64>,
        v: Vec<f64>,
        r: Vec<f64>,
        c: Vec<f64>,
        rs: Vec<f64>,
        cs: Vec<f64>,
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    impl Scalar {
        fn new(rows: usize, columns: usize, factored: bool) -> Scalar {
            Scalar {
                rows,
                columns,
                factored,
                m: vec![0.0; rows * columns],
                v: vec![0.0; rows * columns],
                r: vec![0.0; rows],
                c: vec![0.0; columns],
                rs: vec![0.0; rows],
                cs: vec![0.0; columns],
            }
        }

        fn step(&mut self, p: &mut [f64], g: &[f64], lr: f64, wd: f64) {
            let at = |o: usize, i: usize| o * self.columns + i;
            let total = g.len();
            let mut u = vec![0.0; total];
            if self.factored {
                for o in 0..self.rows {
                    let row: Vec<f64> = (0..self.columns)
                        .map(|i| g[at(o, i)].powi(2) + 1e-30)
                        .collect();
                    self.r[o] = 0.999 * self.r[o] + 0.001 * mean(&row);
                }
                for i in 0..self.columns {
                    let column: Vec<f64> = (0..self.rows)
                        .map(|o| g[at(o, i)].powi(2) + 1e-30)
                        .collect();
                    self.c[i] = 0.999 * self.c[i] + 0.001 * mean(&column);
                }
                for o in 0..self.rows {
                    for i in 0..self.columns {
                        u[at(o, i)] = g[at(o, i)]
                            * (self.r[o] / mean(&self.r)).powf(-0.5)
                            * self.c[i].powf(-0.5);
                    }
                }
            } else {
                for (k, u) in u.iter_mut().enumerate() {
                    self.v[k] = 0.999 * self.v[k] + 0.001 * (g[k].powi(2) + 1e-30);
                    *u = g[k] * self.v[k].powf(-0.5);
                }
            }
            let norm = u.iter().map(|x| x * x).sum::<f64>().sqrt();
            let bound = f64::max(1.0, norm / (total as f64).sqrt());
            u.iter_mut().for_each(|x| *x /= bound);
            for (m, u) in self.m.iter_mut().zip(&u) {
                *m = 0.9 * *m + 0.1 * u;
            }
            let mut delta = self.m.clone();
            if self.factored {
                let s: Vec<f64> = (0..total)
                    .map(|k| (u[k] - self.m[k]).powi(2) + 1e-16)
                    .collect();
                for o in 0..self.rows {
                    let row: Vec<f64> = (0..self.columns).map(|i| s[at(o, i)]).collect();
                    self.rs[o] = 0.9999 * self.rs[o] + 0.0001 * mean(&row);
                }
                for i in 0..self.columns {
                    let column: Vec<f64> = (0..self.rows).map(|o| s[at(o, i)]).collect();
                    self.cs[i] = 0.9999 * self.cs[i] + 0.0001 * mean(&column);
                }
                for o in 0..self.rows {
                    for i in 0..self.columns {
                        delta[at(o, i)] *=
                            (self.rs[o] / mean(&self.rs)).powf(-0.5) * self.cs[i].powf(-0.5);
                    }
                }
            }
            for k in 0..total {
                p[k] -= wd * lr * p[k];
                p[k] -= lr * delta[k];
            }
        }
    }

    fn compare(dims: &[usize], rows: usize, columns: usize, factored: bool) {
        let mut rng = Rng::new(dims.len() as u64);
        let count = rows * columns;
        let start = rng.normals(count);
        let variable = Var::from_vec(start.clone(), dims, &Device::Cpu).unwrap();
        let options = CameOptions {
            weight_decay: 0.3,
            ..CameOptions::default()
        };
        let mut optimiser = Came::new(vec![("w".to_owned(), variable.clone())], options);
        let mut scalar = Scalar::new(rows, columns, factored);
        let mut weights: Vec<f64> = start.iter().map(|w| f64::from(*w)).collect();
        for _ in 0..6 {
            let gradient = rng.normals(count);
            let factor = Tensor::from_slice(&gradient, dims, &Device::Cpu).unwrap();
            let loss = (variable.as_tensor() * factor).unwrap().sum_all().unwrap();
            optimiser.step(gradients(&variable, &loss), 1e-3).unwrap();
            let gradient: Vec<f64> = gradient.iter().map(|g| f64::from(*g)).collect();
            scalar.step(&mut weights, &gradient, 1e-3, 0.3);
        }
        for (got, want) in tensors::values(&variable.as_tensor().into())
            .unwrap()
            .iter()
            .zip(&weights)
        {
            let error = (f64::from(*got) - want).abs();
            assert!(error < 1e-5 + 1e-4 * want.abs(), "{dims:?}: {got} {want}");
        }
    }

    #[test]
    fn agrees_with_the_scalar_statement() {
        compare(&[4, 6], 4, 6, true);
        compare(&[4, 6, 1, 1], 4, 6, true);
        compare(&[4, 1, 3, 3], 4, 9, false);
        compare(&[5], 1, 5, false);
    }

    #[test]
    fn zero_gradients_stay_finite() {
        let variable = Var::ones((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut optimiser = Came::new(
            vec![("w".to_owned(), variable.clone())],
            CameOptions::default(),
        );
        let loss = (variable.as_tensor() * 0.0).unwrap().sum_all().unwrap();
        optimiser.step(gradients(&variable, &loss), 1e-3).unwrap();
        assert_eq!(
            tensors::values(&variable.as_tensor().into()).unwrap(),
            [1.0; 6]
        );
    }
}
