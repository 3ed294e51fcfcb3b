//! What an update minimises: how unlikely the texts of words are.

use brisk_models::crnn::{Crnn, CrnnConfig};
use brisk_nn::{Trace, Weights};

use super::alignment::{alignment_loss, place_loss};
use super::sample::Sample;
use crate::error::{Error, Result};
use crate::loss::{Loss, with_gradient};
use crate::tensors;

/// The mean loss of samples, by the network that variables make as they stand now; `placed` where columns are told
/// what is at their place instead of being left to find it.
pub(super) fn loss(
    config: &CrnnConfig,
    weights: &Weights,
    samples: &[Sample],
    placed: bool,
) -> Result<Loss> {
    let network = Crnn::load(config, weights)?;
    let share = 1.0 / samples.len().max(1) as f64;
    let mut sum: Option<Loss> = None;
    for sample in samples {
        // Words are as wide as they are: each goes alone.
        let logits = network.forward(&sample.pixels, &mut Trace::none())?;
        let found = tensors::values(&logits)?;
        let (value, gradient) = match placed {
            true => place_loss(&found, config.classes(), &sample.columns),
            false => alignment_loss(&found, config.classes(), &sample.classes)
                .unwrap_or_else(|| (0.0, vec![0.0; found.len()])),
        };
        // Long words are no more than short ones.
        let part = share / sample.classes.len().max(1) as f64;
        let gradient = gradient.iter().map(|slope| part as f32 * slope).collect();
        let loss = with_gradient(&logits, part * value, gradient)?;
        sum = Some(match sum {
            Some(before) => before.and(loss, 1.0)?,
            None => loss,
        });
    }
    sum.ok_or_else(|| Error::Data("a batch without any word".to_owned()))
}
