//! The network with classes, led away from no class at all.

use brisk_nn::{Tensor, Trace};

use super::super::ClassConditionalTransformer;
use crate::{Error, Result};

/// A network that draws rows of given classes, with the strength of guidance.
#[derive(Debug)]
pub struct Guided<'a> {
    model: &'a ClassConditionalTransformer,
    /// One a row, and behind them the class that stands for none as often, where guidance needs it.
    classes: Vec<u32>,
    rows: usize,
    guidance: f32,
}

impl<'a> Guided<'a> {
    /// With `guidance` w the prediction is u + w·(c − u), of the class c and of none u; at 1 the class alone is computed.
    ///
    /// # Errors
    /// A strength that is not finite, or guidance of a network that was trained with all classes there.
    pub fn new(
        model: &'a ClassConditionalTransformer,
        classes: &[u32],
        guidance: f32,
    ) -> Result<Self> {
        if !guidance.is_finite() {
            return Err(Error::Config(format!(
                "the strength of guidance is {guidance}; expected a finite number"
            )));
        }
        let mut all = classes.to_vec();
        if guidance != 1.0 {
            let Some(none) = model.config().null_class() else {
                return Err(Error::Config(format!(
                    "guidance {guidance} of a network without a class that stands for none (`class_dropout_prob` is 0); \
                     expected 1"
                )));
            };
            all.extend(classes.iter().map(|_| none));
        }
        Ok(Self {
            model,
            classes: all,
            rows: classes.len(),
            guidance,
        })
    }

    /// How often each row is computed.
    pub fn branches(&self) -> usize {
        self.classes.len() / self.rows.max(1)
    }

    /// What the network predicts from states `[B,n,n,C]` at a time, guided; both branches in one batch. Variances are
    /// those of the class.
    ///
    /// # Errors
    /// As [`ClassConditionalTransformer::forward`].
    pub fn predict(&self, x: &Tensor, time: f32, trace: &mut Trace) -> Result<Tensor> {
        let times = Tensor::from_vec(vec![time; self.classes.len()], self.classes.len())?;
        if self.branches() == 1 {
            return self.model.forward_traced(x, &times, &self.classes, trace);
        }
        let both = Tensor::cat(&[x, x], 0)?;
        let found = self
            .model
            .forward_traced(&both, &times, &self.classes, trace)?;
        let own = found.narrow(0, 0, self.rows)?;
        let none = found.narrow(0, self.rows, self.rows)?;
        let config = self.model.config();
        let moved = config.cfg_channels.unwrap_or(config.in_channels);
        let all = own.dim(3)?;
        let part = |x: &Tensor| x.narrow(3, 0, moved)?.contiguous();
        let (mine, other) = (part(&own)?, part(&none)?);
        let difference = (mine - &other)?.affine(f64::from(self.guidance), 0.0)?;
        let guided = (other + difference)?;
        match all - moved {
            0 => Ok(guided),
            rest => Tensor::cat(&[guided, own.narrow(3, moved, rest)?.contiguous()?], 3),
        }
    }
}
