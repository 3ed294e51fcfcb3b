//! Low-rank pairs (LoRA, arXiv 2106.09685) beside the weights of a network that stay as they are: the network computes by
//! sums, and gradients of the sums become those of the pairs.

use brisk_kernels::gemm::{Threads, View, multiply};
use candle_core::{Device, Var};

use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::tensors;

/// A layer with its pair.
pub(crate) struct Pair {
    /// Its full name.
    pub layer: String,
    /// Its weight `[outputs, inputs]` with the product added, which the model computes by.
    pub weight: Var,
    /// The model's own weight.
    pub own: Vec<f32>,
    /// `A` `[rank, inputs]`
    pub down: Var,
    /// `B` `[outputs, rank]`
    pub up: Var,
}

impl Pair {
    fn size(&self) -> (usize, usize, usize) {
        let dims = self.weight.dims();
        (dims[0], dims[1], self.down.dims()[0])
    }

    /// `own + scale·B·A`
    pub fn sum(&self, down: &[f32], up: &[f32], scale: f32) -> Vec<f32> {
        let (outputs, inputs, rank) = self.size();
        let mut sum = self.own.clone();
        let (up, down) = (View::new(up, outputs, rank), View::new(down, rank, inputs));
        multiply(&mut sum, inputs, up, down, scale, true, Threads::One);
        sum
    }

    /// Gradients of `A` and `B` by that of the sum: `scale·Bᵀ·G` and `scale·G·Aᵀ`.
    pub fn pull(&self, gradient: &[f32], scale: f32) -> Result<[Vec<f32>; 2]> {
        let (outputs, inputs, rank) = self.size();
        let (down, up) = (values(&self.down)?, values(&self.up)?);
        let gradient = View::new(gradient, outputs, inputs);
        let up = View::new(&up, outputs, rank).transposed();
        let down = View::new(&down, rank, inputs).transposed();
        let mut of_down = vec![0.0; rank * inputs];
        multiply(
            &mut of_down,
            inputs,
            up,
            gradient,
            scale,
            false,
            Threads::One,
        );
        let mut of_up = vec![0.0; outputs * rank];
        multiply(&mut of_up, rank, gradient, down, scale, false, Threads::One);
        Ok([of_down, of_up])
    }
}

/// The values of a variable.
pub(crate) fn values(variable: &Var) -> Result<Vec<f32>> {
    tensors::values(&variable.as_tensor().into())
}

/// Pairs of this rank for the variables with two dimensions whose layers `chosen` picks by name: `A` normal with a
/// deviation of one over the rank, `B` zero.
///
/// # Errors
/// A rank above a layer's sizes, by `key`.
pub(crate) fn pairs(
    variables: &[(String, Var)],
    chosen: impl Fn(&str) -> bool,
    (key, rank): (&str, usize),
    seed: u64,
) -> Result<Vec<Pair>> {
    let mut found = Vec::new();
    for (name, weight) in variables {
        let Some(layer) = name.strip_suffix(".weight") else {
            continue;
        };
        let (true, &[outputs, inputs]) = (chosen(layer), weight.dims()) else {
            continue;
        };
        if rank > outputs.min(inputs) {
            return Err(Error::Recipe(format!(
                "{key} is {rank}, expected up to {} for {layer}",
                outputs.min(inputs)
            )));
        }
        let mut start = Rng::stream(seed, found.len() as u64).normals(rank * inputs);
        start.iter_mut().for_each(|value| *value /= rank as f32);
        found.push(Pair {
            layer: layer.to_owned(),
            weight: weight.clone(),
            own: values(weight)?,
            down: Var::from_vec(start, (rank, inputs), &Device::Cpu)?,
            up: Var::zeros((outputs, rank), candle_core::DType::F32, &Device::Cpu)?,
        });
    }
    Ok(found)
}

/// The variables of pairs as they are trained and stored: of each layer `lora_A` and `lora_B`.
pub(crate) fn variables(pairs: &[Pair]) -> Vec<(String, Var)> {
    let both = pairs.iter().flat_map(|pair| {
        let named = |part: &str| format!("{}.{part}.weight", pair.layer);
        [
            (named("lora_A"), pair.down.clone()),
            (named("lora_B"), pair.up.clone()),
        ]
    });
    both.collect()
}

/// Gradients of [`variables`] by those of the sums, where they have one.
pub(crate) fn pull(
    pairs: &[Pair],
    gradients: impl IntoIterator<Item = Option<Vec<f32>>>,
    scale: f32,
) -> Result<Vec<Option<Vec<f32>>>> {
    let mut pulled = Vec::with_capacity(2 * pairs.len());
    for (pair, gradient) in pairs.iter().zip(gradients) {
        match gradient {
            Some(gradient) => pulled.extend(pair.pull(&gradient, scale)?.map(Some)),
            None => pulled.extend([None, None]),
        }
    }
    Ok(pulled)
}

/// Puts the sums at this scale into the layers' weights.
pub(crate) fn renew(pairs: &[Pair], scale: f32) -> Result<()> {
    for pair in pairs {
        let sum = pair.sum(&values(&pair.down)?, &values(&pair.up)?, scale);
        tensors::set(&pair.weight, sum)?;
    }
    Ok(())
}
