//! TrigFlow (arXiv 2410.11081) over a flow-matching transformer, without training and without loss (SANA-Sprint,
//! arXiv 2503.09641, section 3.1).
//!
//! A sample is x = cos t·x₀ + sin t·z with t from 0 (data) to π/2 (noise). With s = sin t/(sin t + cos t) and
//! λ = 1/(sin t + cos t), λx = (1 − s)·x₀ + s·z is the sample of flow matching at s, and
//! F = λ·((cos t − sin t)·x + v(λx, s)) = dx/dt. Samples are in units of σ_d here: of variance one.

use brisk_nn::{Tensor, Trace};

use crate::error::Result;
use crate::rng::Rng;

/// Standard deviation of the data, to which scaled latents are brought.
pub(crate) const SIGMA_DATA: f64 = 0.5;

/// An angle by the law of training: arctan(exp(N(mean, deviation))/σ_d).
pub(crate) fn draw_angle(rng: &mut Rng, (mean, deviation): (f64, f64)) -> f64 {
    ((mean + deviation * rng.normal_pair().0).exp() / SIGMA_DATA).atan()
}

/// A factor a sample, `[B,1,1,1]`.
pub(crate) fn column(values: impl Iterator<Item = f64>) -> Result<Tensor> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    let shape = (values.len(), 1, 1, 1);
    Ok(Tensor::from_vec(values, shape)?)
}

/// cos t·clean + sin t·noise of samples `[B,h,w,C]` in units of σ_d.
pub(crate) fn noised(clean: &Tensor, noise: &Tensor, angles: &[f64]) -> Result<Tensor> {
    let clean = clean.broadcast_mul(&column(angles.iter().map(|t| t.cos()))?)?;
    let noise = noise.broadcast_mul(&column(angles.iter().map(|t| t.sin()))?)?;
    Ok((clean + noise)?)
}

/// The consistency function cos t·x − sin t·F: the clean sample that a prediction stands for.
pub(crate) fn clean(x: &Tensor, predicted: &Tensor, angles: &[f64]) -> Result<Tensor> {
    let x = x.broadcast_mul(&column(angles.iter().map(|t| t.cos()))?)?;
    let rest = predicted.broadcast_mul(&column(angles.iter().map(|t| t.sin()))?)?;
    Ok((x - rest)?)
}

/// The angle of each sample, and how fast it moves where a tangent is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Angles<'a> {
    pub values: &'a [f64],
    pub rates: Option<&'a [f64]>,
}

impl<'a> Angles<'a> {
    /// Angles that stand still.
    pub fn fixed(values: &'a [f64]) -> Self {
        Self {
            values,
            rates: None,
        }
    }

    /// A function of the angle as a tensor of this shape, with its tangent by the derivative.
    fn tensor(
        &self,
        shape: &[usize],
        value: impl Fn(f64) -> f64,
        derivative: impl Fn(f64) -> f64,
    ) -> Result<Tensor> {
        let values = self.values.iter().map(|t| value(*t) as f32).collect();
        let tensor = Tensor::from_vec::<f32>(values, shape)?;
        let Some(rates) = self.rates else {
            return Ok(tensor);
        };
        let tangent = self.values.iter().zip(rates);
        let tangent = tangent.map(|(t, rate)| (derivative(*t) * rate) as f32);
        Ok(tensor.with_tangent(&Tensor::from_vec::<f32>(tangent.collect(), shape)?)?)
    }
}

/// A network that predicts the velocity of flow matching at times of 0 to 1.
pub(crate) trait FlowNetwork {
    /// What it draws by.
    type Caption;

    /// The velocity at `x` `[B,h,w,C]`, of its shape, and `time` `[B]`, with the guidance strength of each sample exactly
    /// where the network embeds it.
    fn velocity(
        &self,
        x: &Tensor,
        time: &Tensor,
        guidance: Option<&[f64]>,
        caption: &Self::Caption,
        trace: &mut Trace,
    ) -> Result<Tensor>;

    /// Captions one after the other along the batch.
    fn join(captions: &[&Self::Caption]) -> Result<Self::Caption>;

    /// The name by which a trace shows the embedding of time and guidance `[B,d]`.
    fn embedding() -> &'static str;

    /// The name by which a trace shows the tokens `[B,N,d]` after a block.
    fn block(index: usize) -> String;
}

/// A network seen as one of TrigFlow.
#[derive(Debug)]
pub(crate) struct TrigFlow<'a, M>(pub &'a M);

impl<M> Clone for TrigFlow<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for TrigFlow<'_, M> {}

impl<M: FlowNetwork> TrigFlow<'_, M> {
    /// F of `x` `[B,h,w,C]` in units of σ_d at these angles, with the guidance strength of each sample exactly where the
    /// model embeds it. With a tangent where the sample and the angles have one. `trace` sees the transformer's pass.
    pub fn predict(
        &self,
        x: &Tensor,
        angles: &Angles,
        guidance: Option<&[f64]>,
        caption: &M::Caption,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let column = [batch, 1, 1, 1];
        let sum = |t: f64| t.sin() + t.cos();
        let difference = |t: f64| t.cos() - t.sin();
        let lambda = angles.tensor(
            &column,
            |t| 1.0 / sum(t),
            |t| -difference(t) / sum(t).powi(2),
        )?;
        let factor = angles.tensor(&column, difference, |t| -sum(t))?;
        let time = angles.tensor(&[batch], |t| t.sin() / sum(t), |t| 1.0 / sum(t).powi(2))?;
        let scaled = x.broadcast_mul(&lambda)?;
        let velocity = self.0.velocity(&scaled, &time, guidance, caption, trace)?;
        let turned = (x.broadcast_mul(&factor)? + velocity)?;
        Ok(turned.broadcast_mul(&lambda)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_follow_their_law() {
        let mut rng = Rng::new(4);
        let law = (0.2, 1.6);
        let draws: Vec<f64> = (0..20_000).map(|_| draw_angle(&mut rng, law)).collect();
        let middle = (0.2f64.exp() / SIGMA_DATA).atan();
        let below = draws.iter().filter(|t| **t < middle).count() as f64 / 2e4;
        assert!((below - 0.5).abs() < 0.02);
        assert!(
            draws
                .iter()
                .all(|t| *t > 0.0 && *t < std::f64::consts::FRAC_PI_2)
        );
    }
}
