//! What an update minimises: squared differences of both maps, where most places are background, of which those count
//! that are furthest off (the authors' third loss).

use brisk_models::craft::{Craft, CraftConfig};
use brisk_nn::{Tensor, Trace, Weights};

use super::sample::Sample;
use crate::error::Result;
use crate::loss::{Loss, with_gradient};
use crate::tensors;

/// From which value on a place is text.
const TEXT: f32 = 0.1;
/// Fewest background places that count, for each place of the map.
const FEWEST: f64 = 1000.0 / (384.0 * 384.0);

/// The mean loss of samples' maps, by the network that variables make as they stand now.
pub(super) fn loss(config: &CraftConfig, weights: &Weights, samples: &[Sample]) -> Result<Loss> {
    let network = Craft::load(config, weights)?;
    let pixels: Vec<&Tensor> = samples.iter().map(|sample| &sample.pixels).collect();
    let maps = network
        .forward(&Tensor::cat(&pixels, 0)?, &mut Trace::none())?
        .maps;
    let found = tensors::values(&maps)?;
    let mut gradient = vec![0.0; found.len()];
    let mut value = 0.0;
    let share = 1.0 / samples.len().max(1) as f64;
    let each = found.len() / samples.len().max(1);
    for (index, sample) in samples.iter().enumerate() {
        let range = index * each..(index + 1) * each;
        let (found, gradient) = (&found[range.clone()], &mut gradient[range]);
        for which in 0..2 {
            value += share * of_map(found, &sample.maps, which, share, gradient);
        }
    }
    with_gradient(&maps, value, gradient)
}

/// The loss of one of two maps that lie place by place, and its gradient times `share`.
fn of_map(found: &[f32], truth: &[f32], which: usize, share: f64, gradient: &mut [f32]) -> f64 {
    let places = || (which..truth.len()).step_by(2);
    let square = |at: usize| (found[at] - truth[at]).powi(2);
    let (text, mut background): (Vec<usize>, Vec<usize>) =
        places().partition(|at| truth[*at] >= TEXT);
    let fewest = (FEWEST * (truth.len() / 2) as f64).ceil() as usize;
    let wanted = text.len().max(fewest).min(background.len());
    if wanted < background.len() && wanted > 0 {
        background.select_nth_unstable_by(wanted - 1, |a, b| square(*b).total_cmp(&square(*a)));
        background.truncate(wanted);
    }
    let mut value = 0.0;
    for part in [text, background] {
        let each = 1.0 / part.len().max(1) as f64;
        for at in part {
            value += each * f64::from(square(at));
            gradient[at] = (2.0 * share * each * f64::from(found[at] - truth[at])) as f32;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_as_much_as_the_worst_background() {
        let (count, text) = (4096, 64);
        let truth: Vec<f32> = (0..2 * count)
            .map(|at| if at < 2 * text { 0.8 } else { 0.0 })
            .collect();
        let found: Vec<f32> = (0..2 * count)
            .map(|at| match at / 2 {
                at if at < text => 0.3,
                at if at < 2 * text => 0.4,
                _ => 0.1,
            })
            .collect();
        let mut gradient = vec![0.0; 2 * count];
        let value = of_map(&found, &truth, 0, 1.0, &mut gradient);
        assert!((value - (0.25 + 0.16)).abs() < 1e-6, "{value}");
        let moved = gradient.iter().filter(|slope| **slope != 0.0).count();
        assert_eq!(moved, 2 * text);
        assert!(gradient[0] < 0.0 && gradient[2 * text] > 0.0 && gradient[1] == 0.0);
    }
}
