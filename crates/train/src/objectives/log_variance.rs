//! How uncertain a student's loss is at an angle, learned beside it.

use brisk_nn::{Init, Tensor, Trace, Weights, ops};

use super::trigflow::{Angles, FlowNetwork, TrigFlow};
use crate::error::{Error, Result};

/// A linear layer on the sum of the student's embeddings of time and guidance.
pub(crate) struct LogVariance {
    weight: Tensor,
    bias: Tensor,
}

impl LogVariance {
    /// Reads `weight` `[1,width]` and `bias` `[1]`.
    pub fn load(weights: &Weights, width: usize) -> Result<Self> {
        Ok(Self {
            weight: weights.get("weight", &[1, width], Init::XavierUniform)?,
            bias: weights.get("bias", &[1], Init::Zeros)?,
        })
    }

    /// The student's F with the logarithm of its variance `[B,1]`, both with gradients.
    pub fn predict<M: FlowNetwork>(
        &self,
        student: TrigFlow<M>,
        x: &Tensor,
        angles: &[f64],
        guidance: &[f64],
        caption: &M::Caption,
    ) -> Result<(Tensor, Tensor)> {
        let mut embedded = None;
        let mut see = |name: &str, x: &Tensor| {
            if name == M::embedding() {
                embedded = Some(x.clone());
            }
        };
        let trace = &mut Trace::parts(&mut see);
        let angles = Angles::fixed(angles);
        let predicted = student.predict(x, &angles, Some(guidance), caption, trace)?;
        let missing = || Error::Data(format!("the student shows no {}", M::embedding()));
        let embedded = embedded.ok_or_else(missing)?;
        let log_variance = ops::linear(&embedded, &self.weight, Some(&self.bias))?;
        Ok((predicted, log_variance))
    }
}
