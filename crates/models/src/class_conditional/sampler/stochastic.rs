//! The flow's stochastic equation by Euler and Maruyama, as SiT's authors integrate it (arXiv 2401.08740): noise as strong as
//! what is left of it, and a last step without.

use brisk_nn::Tensor;

use super::{After, Noise, Predict, evenly, weighted};
use crate::Result;

/// The last step, at whose end no noise is left to divide by.
const LAST: f64 = 0.04;

pub(super) fn run(
    steps: usize,
    latents: &Tensor,
    predict: &mut Predict,
    noise: &mut Noise,
    after: &mut After,
) -> Result<Tensor> {
    let times = evenly(0.0, 1.0 - LAST, steps);
    let width = times[1] - times[0];
    let mut x = latents.clone();
    for (step, time) in times[..steps - 1].iter().enumerate() {
        x = moved(&x, *time, width, predict)?;
        let deviation = (2.0 * (1.0 - time) * width).sqrt();
        x = weighted(&[(1.0, &x), (deviation, &noise(step)?)])?;
        after(step, &x)?;
    }
    x = moved(&x, 1.0 - LAST, LAST, predict)?;
    after(steps - 1, &x)?;
    Ok(x)
}

/// Along the drift v + w·s: the velocity v, and the score s = (t·v − x) / (1 − t) times the noise's strength w = 1 − t.
fn moved(x: &Tensor, time: f64, width: f64, predict: &mut Predict) -> Result<Tensor> {
    let velocity = predict(x, time)?;
    weighted(&[(1.0 - width, x), (width * (1.0 + time), &velocity)])
}
