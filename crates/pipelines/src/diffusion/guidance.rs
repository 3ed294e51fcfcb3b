//! Guidance arithmetic on velocities of the same shape.
//!
//! Classifier-free guidance: v = v_u + w (v_c − v_u). Perturbed-attention guidance (arXiv 2403.17377)
//! adds p (v_c − v_p), where v_p comes from a pass whose self-attention is the identity in some layers;
//! the model keeps its query and key norms in every other layer and needs none in those.

use brisk_nn::Tensor;

use crate::error::Result;

/// Perturbed-attention guidance settings.
#[derive(Debug, Clone, PartialEq)]
pub struct PerturbedAttention {
    /// Weight p; 3 is the reference's default, 2 what its authors advise.
    pub scale: f32,
    /// How fast the weight falls: p − adaptive · (1000 − t), not below 0.
    pub adaptive: f32,
    /// Blocks whose self-attention is replaced by the identity.
    pub layers: Vec<usize>,
}

impl PerturbedAttention {
    /// The weight at model time `time` (0..1000).
    pub fn scale_at(&self, time: f32) -> f32 {
        if self.adaptive > 0.0 {
            (self.scale - self.adaptive * (1000.0 - time)).max(0.0)
        } else {
            self.scale
        }
    }
}

/// Velocities of one step, by branch.
pub struct Branches {
    /// With the prompt.
    pub conditional: Tensor,
    /// With the negative prompt, where the guidance weight is above 1.
    pub unconditional: Option<Tensor>,
    /// With the prompt and identity attention.
    pub perturbed: Option<Tensor>,
}

impl Branches {
    /// Combines the branches: `weight` is w, `perturbed_weight` is p at this time.
    pub fn combine(&self, weight: f32, perturbed_weight: f32) -> Result<Tensor> {
        let mut velocity = match &self.unconditional {
            Some(unconditional) => {
                let difference = (&self.conditional - unconditional)?;
                (unconditional + difference.affine(f64::from(weight), 0.0)?)?
            }
            None => self.conditional.clone(),
        };
        if let Some(perturbed) = &self.perturbed {
            let difference = (&self.conditional - perturbed)?;
            velocity = (velocity + difference.affine(f64::from(perturbed_weight), 0.0)?)?;
        }
        Ok(velocity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: [f32; 2]) -> Tensor {
        Tensor::new(&values).unwrap()
    }

    #[test]
    fn combinations() {
        let mut branches = Branches {
            conditional: tensor([1.0, 2.0]),
            unconditional: None,
            perturbed: None,
        };
        assert_eq!(
            branches
                .combine(4.5, 0.0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap(),
            [1.0, 2.0]
        );
        branches.perturbed = Some(tensor([0.5, 3.0]));
        assert_eq!(
            branches
                .combine(4.5, 2.0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap(),
            [2.0, 0.0]
        );
        branches.unconditional = Some(tensor([0.0, 1.0]));
        assert_eq!(
            branches
                .combine(4.0, 2.0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap(),
            [5.0, 3.0]
        );
    }

    #[test]
    fn adaptive_weight_falls_to_zero() {
        let pag = PerturbedAttention {
            scale: 3.0,
            adaptive: 0.01,
            layers: vec![0],
        };
        assert_eq!(pag.scale_at(1000.0), 3.0);
        assert!((pag.scale_at(800.0) - 1.0).abs() < 1e-6);
        assert_eq!(pag.scale_at(100.0), 0.0);
        assert_eq!(
            PerturbedAttention {
                adaptive: 0.0,
                ..pag
            }
            .scale_at(0.0),
            3.0
        );
    }
}
