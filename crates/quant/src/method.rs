//! One layer from weights and calibration inputs to 4-bit codes and a branch: the paper's method and
//! the baselines it is compared with.
//!
//! All errors are of the layer's output on the calibration inputs, with rounded activations.

use brisk_kernels::gemm::{Threads, View, multiply};

use crate::error::{Error, Result};
use crate::gptq::{self, GptqSettings};
use crate::integer::{GROUP, Integers, round_activations};
use crate::record::{Codes, Record};
use crate::smooth::{self, Exponents};
use crate::svd::{Solver, truncated};
use crate::{Branch, HalfType};

/// How a layer is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Round to nearest.
    Rtn,
    /// Smoothing, then round to nearest.
    Smooth,
    /// A branch from the weight's SVD, the rest rounded to nearest; no smoothing.
    Svd,
    /// Smoothing, branch with refinement, round to nearest.
    SvdQuant,
    /// As [`Method::SvdQuant`], the rest rounded by GPTQ.
    SvdQuantGptq,
}

impl Method {
    /// All methods, worst first.
    pub const ALL: [Method; 5] = [
        Method::Rtn,
        Method::Smooth,
        Method::Svd,
        Method::SvdQuant,
        Method::SvdQuantGptq,
    ];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Rtn => "rtn",
            Method::Smooth => "smooth",
            Method::Svd => "svd",
            Method::SvdQuant => "svdquant",
            Method::SvdQuantGptq => "svdquant+gptq",
        }
    }

    fn smooths(self) -> bool {
        !matches!(self, Method::Rtn | Method::Svd)
    }

    fn has_branch(self) -> bool {
        !matches!(self, Method::Rtn | Method::Smooth)
    }
}

/// Settings of [`quantize`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The method.
    pub method: Method,
    /// Width of the branch, a multiple of 16.
    pub rank: usize,
    /// Steps of the smoothing search; it tries 2·grids − 1 candidates.
    pub grids: usize,
    /// Most iterations of the branch's refinement; it stops at the first that is no better.
    pub iterations: usize,
    /// How singular vectors are found.
    pub solver: Solver,
    /// Largest activation code while errors are measured: 7 for 4 bits, 127 for 8.
    pub activation_most: f32,
    /// Type of scales and factors.
    pub half: HalfType,
    /// Of GPTQ.
    pub gptq: GptqSettings,
}

impl Settings {
    /// The paper's: rank 32, 20 grid steps, up to 100 iterations, 4-bit activations.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            rank: 32,
            grids: 20,
            iterations: 100,
            solver: Solver::Randomised,
            activation_most: 7.0,
            half: HalfType::Bf16,
            gptq: GptqSettings::default(),
        }
    }
}

/// What went through a layer in full precision.
#[derive(Clone, Copy, Debug)]
pub struct Calibration<'a> {
    /// `[rows, width]`
    pub inputs: &'a [f32],
    /// Inputs of the layer.
    pub width: usize,
}

/// How far the quantized layer's outputs are from the full layer's, on the calibration inputs.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct LayerError {
    /// Sum of squared differences.
    pub squared: f64,
    /// Sum of squares of the full layer's outputs.
    pub reference: f64,
}

impl LayerError {
    /// The root of their quotient.
    pub fn relative(&self) -> f64 {
        if self.reference > 0.0 {
            (self.squared / self.reference).sqrt()
        } else {
            self.squared.sqrt()
        }
    }
}

/// A quantized layer, in plain order, and how it was found.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The layer; inputs are padded to whole groups. Its bias is for the caller to set.
    pub record: Record,
    /// Its error.
    pub error: LayerError,
    /// Exponents of the smoothing factors.
    pub exponents: Exponents,
    /// Iterations of the branch that were no worse than the one before.
    pub iterations: usize,
}

/// Quantizes the layers `weights`, which share their input, as one: `outputs[i]` rows of the
/// calibration's width each. They share smoothing factors and `down`.
///
/// # Errors
/// Sizes that do not fit, values that are not finite, no calibration rows.
pub fn quantize(
    weights: &[&[f32]],
    outputs: &[usize],
    calibration: Calibration,
    settings: &Settings,
) -> Result<Quantized> {
    let width = calibration.width;
    check(weights, outputs, calibration, settings)?;
    let padded = width.next_multiple_of(GROUP);
    let weight: Vec<f32> = weights.concat();
    let weight = pad_columns(&weight, width, padded);
    let inputs = pad_columns(calibration.inputs, width, padded);
    let search = Search::new(&weight, &inputs, padded, settings);
    let exponents = if settings.method.smooths() {
        search.best_exponents()
    } else {
        Exponents::default()
    };
    let layer = search.smoothed(exponents);
    let (solution, iterations) = if settings.method.has_branch() {
        let most = match settings.method {
            Method::Svd => 1,
            _ => settings.iterations,
        };
        search.refine(&layer, most)
    } else {
        (search.round(&layer, None), 0)
    };
    let solution = match settings.method {
        Method::SvdQuantGptq => search.gptq(&layer, solution),
        _ => solution,
    };
    let error = LayerError {
        squared: search.error(&layer, &solution),
        reference: search.outputs.iter().map(|y| f64::from(*y).powi(2)).sum(),
    };
    Ok(Quantized {
        record: Record {
            outputs: weight.len() / padded,
            inputs: padded,
            half: settings.half,
            codes: Codes::Int4(solution.weight),
            smooth: layer.smooth,
            smooth_orig: None,
            bias: None,
            branch: solution.branch,
        },
        error,
        exponents,
        iterations,
    })
}

fn check(
    weights: &[&[f32]],
    outputs: &[usize],
    calibration: Calibration,
    settings: &Settings,
) -> Result<()> {
    let invalid = |problem: String| Err(Error::Invalid(problem));
    let Calibration { inputs, width } = calibration;
    let fits = |(weight, rows): (&&[f32], &usize)| rows.checked_mul(width) == Some(weight.len());
    if width == 0 || weights.is_empty() || weights.len() != outputs.len() {
        return invalid("a layer without inputs or outputs can't be quantized".to_owned());
    }
    if !weights.iter().zip(outputs).all(fits) {
        let sizes: Vec<usize> = weights.iter().map(|w| w.len()).collect();
        return invalid(format!(
            "weights of {sizes:?} values, expected {outputs:?} rows of {width}"
        ));
    }
    if inputs.is_empty() || !inputs.len().is_multiple_of(width) {
        return invalid(format!(
            "{} calibration values, expected at least one row of {width}",
            inputs.len()
        ));
    }
    if !inputs
        .iter()
        .chain(weights.iter().flat_map(|w| w.iter()))
        .all(|v| v.is_finite())
    {
        return invalid("weights or calibration inputs hold NaN or infinity".to_owned());
    }
    if !settings.rank.is_multiple_of(16) || settings.rank == 0 || settings.grids == 0 {
        return invalid(format!(
            "rank {} and {} grid steps, expected a multiple of 16 and at least 1",
            settings.rank, settings.grids
        ));
    }
    Ok(())
}

fn pad_columns(values: &[f32], width: usize, padded: usize) -> Vec<f32> {
    if width == padded {
        return values.to_vec();
    }
    let mut out = vec![0.0; values.len() / width * padded];
    for (to, from) in out.chunks_exact_mut(padded).zip(values.chunks_exact(width)) {
        to[..width].copy_from_slice(from);
    }
    out
}

/// A layer after smoothing.
struct Smoothed {
    smooth: Vec<f32>,
    /// `[outputs, width]`, times the factors.
    weight: Vec<f32>,
    /// `[rows, width]`, divided by them.
    inputs: Vec<f32>,
    /// The same, rounded.
    rounded: Vec<f32>,
}

/// A branch and the rounded rest.
#[derive(Clone)]
struct Solution {
    weight: Integers,
    branch: Option<Branch>,
}

struct Search<'a> {
    weight: &'a [f32],
    inputs: &'a [f32],
    /// Of the full layer, `[rows, outputs]`.
    outputs: Vec<f32>,
    width: usize,
    settings: &'a Settings,
}

impl<'a> Search<'a> {
    fn new(weight: &'a [f32], inputs: &'a [f32], width: usize, settings: &'a Settings) -> Self {
        let (rows, count) = (inputs.len() / width, weight.len() / width);
        let mut outputs = vec![0.0; rows * count];
        let w = View::new(weight, count, width).transposed();
        let x = View::new(inputs, rows, width);
        multiply(&mut outputs, count, x, w, 1.0, false, Threads::Pool);
        Self {
            weight,
            inputs,
            outputs,
            width,
            settings,
        }
    }

    fn smoothed(&self, exponents: Exponents) -> Smoothed {
        let peaks = |values| smooth::column_peaks(values, self.width);
        let smooth = smooth::factors(&peaks(self.inputs), &peaks(self.weight), exponents);
        let half = self.settings.half;
        let hold = |factor: &f32| match half.round(*factor) {
            held if held.is_finite() && held > 0.0 => held,
            _ => 1.0,
        };
        let smooth: Vec<f32> = smooth.iter().map(hold).collect();
        let scale = |values: &[f32], by: &dyn Fn(f32, f32) -> f32| {
            let mut out = values.to_vec();
            for row in out.chunks_exact_mut(self.width) {
                row.iter_mut()
                    .zip(&smooth)
                    .for_each(|(v, s)| *v = by(*v, *s));
            }
            out
        };
        let inputs = scale(self.inputs, &|x, s| x / s);
        let mut rounded = inputs.clone();
        round_activations(&mut rounded, GROUP, self.settings.activation_most);
        let weight = scale(self.weight, &|w, s| w * s);
        Smoothed {
            smooth,
            weight,
            inputs,
            rounded,
        }
    }

    /// The candidate of the smallest error; of equals the last.
    fn best_exponents(&self) -> Exponents {
        let mut best = (f64::INFINITY, Exponents::default());
        for exponents in smooth::candidates(self.settings.grids) {
            let layer = self.smoothed(exponents);
            let solution = if self.settings.method.has_branch() {
                self.refine(&layer, 1).0
            } else {
                self.round(&layer, None)
            };
            let error = self.error(&layer, &solution);
            if error <= best.0 {
                best = (error, exponents);
            }
        }
        best.1
    }

    /// Rounds what a branch leaves.
    fn round(&self, layer: &Smoothed, branch: Option<Branch>) -> Solution {
        let rest = self.rest(layer, branch.as_ref());
        let weight = Integers::round(&rest, self.width, GROUP, 7.0, self.settings.half);
        Solution { weight, branch }
    }

    /// The smoothed weight less the branch, as the branch will be stored.
    fn rest(&self, layer: &Smoothed, branch: Option<&Branch>) -> Vec<f32> {
        let mut rest = layer.weight.clone();
        if let Some(Branch { rank, down, up }) = branch {
            let mut smoothed = down.clone();
            for row in smoothed.chunks_exact_mut(self.width) {
                row.iter_mut().zip(&layer.smooth).for_each(|(d, s)| *d *= s);
            }
            let a = View::new(up, rest.len() / self.width, *rank);
            let b = View::new(&smoothed, *rank, self.width);
            multiply(&mut rest, self.width, a, b, -1.0, true, Threads::Pool);
        }
        rest
    }

    /// The branch of `target`, padded to the rank that is asked for, in its stored type.
    fn branch(&self, target: &[f32], smooth: &[f32]) -> Branch {
        let (rank, width, half) = (self.settings.rank, self.width, self.settings.half);
        let found = truncated(target, width, rank, self.settings.solver);
        let mut down = vec![0.0; rank * width];
        for (to, from) in down
            .chunks_exact_mut(width)
            .zip(found.down.chunks_exact(width))
        {
            for ((to, from), smooth) in to.iter_mut().zip(from).zip(smooth) {
                *to = half.round(from / smooth);
            }
        }
        let mut up = vec![0.0; target.len() / width * rank];
        let pairs = up
            .chunks_exact_mut(rank)
            .zip(found.up.chunks_exact(found.rank));
        for (to, from) in pairs {
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = half.round(*from));
        }
        Branch { rank, down, up }
    }

    /// Finds the branch of what rounding leaves and rounds what the branch leaves, in turn, until it
    /// gets no better.
    fn refine(&self, layer: &Smoothed, most: usize) -> (Solution, usize) {
        let mut target = layer.weight.clone();
        let mut best: Option<(f64, Solution)> = None;
        let mut count = 0;
        for _ in 0..most.max(1) {
            let branch = self.branch(&target, &layer.smooth);
            let solution = self.round(layer, Some(branch));
            if most > 1 {
                let error = self.error(layer, &solution);
                if best.as_ref().is_some_and(|(least, _)| error > *least) {
                    break;
                }
                let values = solution.weight.values();
                for ((t, w), q) in target.iter_mut().zip(&layer.weight).zip(&values) {
                    *t = w - q;
                }
                let same = best.as_ref().is_some_and(|(least, _)| error == *least);
                best = Some((error, solution));
                count += 1;
                if same {
                    break;
                }
            } else {
                best = Some((0.0, solution));
                count = 1;
            }
        }
        match best {
            Some((_, solution)) => (solution, count),
            None => (self.round(layer, None), 0),
        }
    }

    /// Rounds the rest again by GPTQ; kept where it is better.
    fn gptq(&self, layer: &Smoothed, solution: Solution) -> Solution {
        let rest = self.rest(layer, solution.branch.as_ref());
        let weight = gptq::round(
            &rest,
            self.width,
            &layer.inputs,
            &solution.weight,
            7.0,
            &self.settings.gptq,
        );
        let found = Solution {
            weight,
            branch: solution.branch.clone(),
        };
        if self.error(layer, &found) <= self.error(layer, &solution) {
            found
        } else {
            solution
        }
    }

    /// Sum of squared differences between the outputs of the quantized layer and of the full one.
    fn error(&self, layer: &Smoothed, solution: &Solution) -> f64 {
        let width = self.width;
        let (rows, count) = (self.inputs.len() / width, self.weight.len() / width);
        let mut y: Vec<f32> = self.outputs.iter().map(|y| -y).collect();
        let values = solution.weight.values();
        let x = View::new(&layer.rounded, rows, width);
        let w = View::new(&values, count, width).transposed();
        multiply(&mut y, count, x, w, 1.0, true, Threads::Pool);
        if let Some(Branch { rank, down, up }) = &solution.branch {
            let mut between = vec![0.0; rows * rank];
            let x = View::new(self.inputs, rows, width);
            let down = View::new(down, *rank, width).transposed();
            multiply(&mut between, *rank, x, down, 1.0, false, Threads::Pool);
            let up = View::new(up, count, *rank).transposed();
            let between = View::new(&between, rows, *rank);
            multiply(&mut y, count, between, up, 1.0, true, Threads::Pool);
        }
        y.iter().map(|y| f64::from(*y).powi(2)).sum()
    }
}
