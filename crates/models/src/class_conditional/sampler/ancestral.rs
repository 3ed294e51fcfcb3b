//! Ancestral steps of Gaussian diffusion, as DiT's authors run it: respaced, with the variance that the network chooses, and
//! without cutting the clean estimate off.

use brisk_nn::Tensor;

use super::{After, Noise, Predict};
use crate::Result;
use crate::diffusion_schedule::DiffusionSchedule;

pub(super) fn run(
    steps: usize,
    latents: &Tensor,
    predict: &mut Predict,
    noise: &mut Noise,
    after: &mut After,
) -> Result<Tensor> {
    let channels = latents.dim(3)?;
    let schedule = DiffusionSchedule::linear(steps);
    let count = schedule.steps().len();
    let mut x = latents.clone();
    for (done, step) in schedule.steps().iter().rev().enumerate() {
        let found = predict(&x, step.time as f64)?;
        let part = |index: usize| found.narrow(3, index * channels, channels)?.contiguous();
        let clean = step.clean(&x, &part(0)?)?;
        x = step.mean(&x, &clean)?;
        if done + 1 < count {
            x = (x + (step.deviation(&part(1)?)? * noise(done)?)?)?;
        }
        after(done, &x)?;
    }
    Ok(x)
}
