//! The continuous-time consistency loss (sCM) of SANA-Sprint, section 3.2, as its authors' code has it.

use brisk_nn::{Tensor, Trace};

use super::trigflow::{Angles, FlowNetwork, SIGMA_DATA, TrigFlow, column, noised};
use crate::error::Result;
use crate::loss::Loss;
use crate::tensors;

/// Added to the norm that a sample's tangent is divided by.
const TANGENT_FLOOR: f64 = 0.1;

/// Noised samples at which a student is held to its teacher.
pub(crate) struct ScmPoint<'a> {
    /// `[B,h,w,C]` in units of σ_d.
    pub x: Tensor,
    /// One a sample.
    pub angles: &'a [f64],
    /// Guidance strengths, one a sample.
    pub guidance: &'a [f64],
}

/// cos t·sin t: what tangents are multiplied by, so that they stay in the range of 16-bit floats at every angle.
fn tangent_scale(t: f64) -> f64 {
    t.cos() * t.sin()
}

impl<'a> ScmPoint<'a> {
    /// cos t·x₀ + sin t·z of latents and noise `[B,h,w,C]`, both in units of σ_d.
    pub fn new(
        latents: &Tensor,
        noise: &Tensor,
        angles: &'a [f64],
        guidance: &'a [f64],
    ) -> Result<Self> {
        Ok(Self {
            x: noised(latents, noise, angles)?,
            angles,
            guidance,
        })
    }

    /// dx/dt by the guided teacher, F_u + w·(F_c − F_u), in units of σ_d.
    pub fn velocity<M: FlowNetwork>(
        &self,
        teacher: TrigFlow<M>,
        caption: &M::Caption,
        empty: &M::Caption,
    ) -> Result<Tensor> {
        let batch = self.angles.len();
        let twice = [self.angles, self.angles].concat();
        let both = teacher.predict(
            &Tensor::cat(&[&self.x, &self.x], 0)?,
            &Angles::fixed(&twice),
            None,
            &M::join(&[empty, caption])?,
            &mut Trace::none(),
        )?;
        let without = both.narrow(0, 0, batch)?;
        let with = both.narrow(0, batch, batch)?;
        let strength = column(self.guidance.iter().copied())?;
        let apart = (with - &without)?.broadcast_mul(&strength)?;
        Ok((without + apart)?.detach())
    }

    /// The student's dF/dt along the teacher's path, times cos t·sin t.
    pub fn student_rate<M: FlowNetwork>(
        &self,
        student: TrigFlow<M>,
        caption: &M::Caption,
        velocity: &Tensor,
    ) -> Result<Tensor> {
        let rates: Vec<f64> = self.angles.iter().map(|t| tangent_scale(*t)).collect();
        let along = velocity.broadcast_mul(&column(rates.iter().copied())?)?;
        let angles = Angles {
            values: self.angles,
            rates: Some(&rates),
        };
        let predicted = student.predict(
            &self.x.with_tangent(&along)?,
            &angles,
            Some(self.guidance),
            caption,
            &mut Trace::none(),
        )?;
        match predicted.tangent() {
            Some(rate) => Ok(rate),
            None => Ok(Tensor::zeros(predicted.shape().clone(), predicted.dtype())?),
        }
    }

    /// g = −cos² t·(σ_d·F − d) − r·(cos t·sin t·x_t + σ_d·Ḟ), before it is normalised; `warm_up` is r.
    ///
    /// # Errors
    /// Tensors of different sizes.
    pub fn tangent(
        &self,
        predicted: &Tensor,
        velocity: &Tensor,
        rate: &Tensor,
        warm_up: f64,
    ) -> Result<Vec<f32>> {
        let each = self.x.elem_count() / self.angles.len().max(1);
        let lists = [&self.x, predicted, velocity, rate].map(tensors::values);
        let [x, f, d, rate] = lists;
        let (x, f, d, rate) = (x?, f?, d?, rate?);
        let mut tangent = Vec::with_capacity(x.len());
        for (sample, t) in self.angles.iter().enumerate() {
            let (near, far) = (t.cos().powi(2), tangent_scale(*t));
            for i in sample * each..(sample + 1) * each {
                let [x, f, d, rate] = [x[i], f[i], d[i], rate[i]].map(f64::from);
                let g = -near * (f - d) - warm_up * (far * x + rate);
                tangent.push((SIGMA_DATA * g) as f32);
            }
        }
        Ok(tangent)
    }

    /// Divides every sample's tangent by its norm and a little more, and gives the mean norm.
    pub fn normalise(&self, tangent: &mut [f32]) -> f64 {
        let each = tangent.len() / self.angles.len().max(1);
        let mut sum = 0.0;
        for sample in tangent.chunks_exact_mut(each.max(1)) {
            let square: f64 = sample.iter().map(|g| f64::from(*g).powi(2)).sum();
            let factor = 1.0 / (square.sqrt() + TANGENT_FLOOR);
            for g in sample {
                *g = (f64::from(*g) * factor) as f32;
            }
            sum += square.sqrt();
        }
        sum / self.angles.len().max(1) as f64
    }
}

/// mean[e^(−logvar)/(σ_d·tan t)·(F − F⁻ − g)² + logvar], where F⁻ is F held still, so that the difference is −g.
/// `log_variance` is `[B,1]`.
pub(crate) fn scm_loss(
    predicted: &Tensor,
    log_variance: &Tensor,
    tangent: &[f32],
    angles: &[f64],
) -> Result<Loss> {
    let count = tangent.len();
    let each = count / angles.len().max(1);
    let variances = tensors::values(log_variance)?;
    let mut of_prediction = Vec::with_capacity(count);
    let mut of_variance = Vec::with_capacity(angles.len());
    let mut sum = 0.0;
    for ((sample, t), variance) in tangent.chunks_exact(each.max(1)).zip(angles).zip(variances) {
        let variance = f64::from(variance);
        let weight = (-variance).exp() / (SIGMA_DATA * t.tan());
        let square: f64 = sample.iter().map(|g| f64::from(*g).powi(2)).sum();
        sum += weight * square + each as f64 * variance;
        let scale = -2.0 * weight / count as f64;
        of_prediction.extend(sample.iter().map(|g| (scale * f64::from(*g)) as f32));
        of_variance.push(((each as f64 - weight * square) / count as f64) as f32);
    }
    let of_variance = Tensor::from_vec(of_variance, log_variance.dims())?;
    let of_prediction = Tensor::from_vec(of_prediction, predicted.dims())?;
    let surrogate =
        ((predicted * of_prediction)?.sum_all()? + (log_variance * of_variance)?.sum_all()?)?;
    Ok(Loss {
        value: sum / count as f64,
        surrogate: surrogate.host()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Of data N(0, σ_d²) the teacher's velocity is 0 and the consistency function F = −x·tan(t/2): there is nothing to
    /// learn from it.
    #[test]
    fn the_exact_solution_has_no_tangent() {
        let angles = [0.05, 0.4, 0.9, 1.3, 1.5];
        let shape = (angles.len(), 2, 3, 4);
        let x = Rng::new(3).normals(angles.len() * 24);
        let point = ScmPoint {
            x: Tensor::from_vec(x.clone(), shape).unwrap(),
            angles: &angles,
            guidance: &[0.0; 5],
        };
        let each = |f: &dyn Fn(f64) -> f64| {
            let values = x.iter().enumerate();
            let values = values.map(|(i, x)| (f64::from(*x) * f(angles[i / 24])) as f32);
            Tensor::from_vec(values.collect::<Vec<f32>>(), shape).unwrap()
        };
        let predicted = each(&|t| -(t / 2.0).tan());
        // x stands still along the path, so only the angle moves.
        let rate = each(&|t| -0.5 / (t / 2.0).cos().powi(2) * t.sin() * t.cos());
        let still = each(&|_| 0.0);
        let g = point.tangent(&predicted, &still, &rate, 1.0).unwrap();
        assert!(g.iter().all(|g| g.abs() < 1e-6), "{g:?}");
        let g = point.tangent(&predicted, &still, &rate, 0.5).unwrap();
        assert!(g.iter().any(|g| g.abs() > 1e-2), "the warm-up is seen");
    }

    #[test]
    fn tangents_are_normalised_sample_by_sample() {
        let point = ScmPoint {
            x: Tensor::from_vec(vec![0f32; 4], (2, 1, 1, 2)).unwrap(),
            angles: &[0.5, 1.0],
            guidance: &[0.0; 2],
        };
        let mut g = [3.0, 4.0, 0.0, 0.4];
        assert!((point.normalise(&mut g) - 2.7).abs() < 1e-6);
        for (found, want) in g.iter().zip([3.0 / 5.1, 4.0 / 5.1, 0.0, 0.8]) {
            assert!((found - want).abs() < 1e-6);
        }
    }
}
