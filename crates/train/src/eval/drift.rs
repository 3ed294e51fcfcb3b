//! How far a long clip drifts from its first frame: in colour, in contrast and in what a fixed network sees.

use brisk_media::Picture;
use serde::Serialize;

use super::pair_distances;
use crate::error::{Error, Result};
use crate::objectives::perceptual::FeatureNetwork;

/// What a later frame has of the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drift {
    /// Number of the frame, from 0.
    pub frame: usize,
    /// Root of the mean over channels of the squared differences of their means, 0 to 255.
    pub colour: f64,
    /// The same of their standard deviations.
    pub contrast: f64,
    /// Distance of the features at every place of both (LPIPS of the given network), 0 for the same frame.
    pub features: f64,
}

/// Compares every `every`-th frame with the first, and the last one.
///
/// # Errors
/// `every` of 0, frames of several sizes, or fewer than two.
pub fn clip_drift(
    network: &FeatureNetwork,
    frames: &[Picture],
    every: usize,
) -> Result<Vec<Drift>> {
    let [first, _, ..] = frames else {
        return Err(Error::Data(format!(
            "a clip of {} frames cannot drift; expected two or more",
            frames.len()
        )));
    };
    if every == 0 {
        return Err(Error::Data(
            "every 0th frame: expected 1 or more".to_owned(),
        ));
    }
    let size = |frame: &Picture| (frame.width, frame.height);
    if let Some(odd) = frames.iter().find(|frame| size(frame) != size(first)) {
        return Err(Error::Data(format!(
            "a frame of {}x{} pixels among others of {}x{}",
            odd.width, odd.height, first.width, first.height
        )));
    }
    let mut numbers: Vec<usize> = (every..frames.len()).step_by(every).collect();
    if numbers.last() != Some(&(frames.len() - 1)) {
        numbers.push(frames.len() - 1);
    }
    let later: Vec<Picture> = numbers.iter().map(|at| frames[*at].clone()).collect();
    let features = pair_distances(network, &vec![first.clone(); later.len()], &later)?;
    let before = first.colours();
    let drifts = numbers.into_iter().zip(&later).zip(features);
    Ok(drifts
        .map(|((frame, picture), features)| {
            let now = picture.colours();
            Drift {
                frame,
                colour: apart(before, now, |(mean, _)| mean),
                contrast: apart(before, now, |(_, spread)| spread),
                features,
            }
        })
        .collect())
}

/// Root of the mean over colours of the squared difference of what `of` takes of them.
fn apart(first: [(f64, f64); 3], second: [(f64, f64); 3], of: fn((f64, f64)) -> f64) -> f64 {
    let pairs = first.into_iter().zip(second);
    let squares = pairs.map(|(a, b)| (of(a) - of(b)).powi(2));
    (squares.sum::<f64>() / 3.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_apart() {
        let network = FeatureNetwork::in_the_box().unwrap();
        let striped = |low: u8, high: u8| {
            let pixel = |at: usize| if at / 3 % 8 < 4 { low } else { high };
            Picture::new(32, 32, (0..32 * 32 * 3).map(pixel).collect()).unwrap()
        };
        // The same, ten brighter, with less contrast.
        let frames = [
            striped(100, 140),
            striped(100, 140),
            striped(110, 150),
            striped(110, 130),
        ];
        let drift = clip_drift(&network, &frames, 1).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        let rows: Vec<(usize, f64, f64)> = drift
            .iter()
            .map(|one| (one.frame, one.colour, one.contrast))
            .collect();
        for ((frame, colour, contrast), wanted) in
            rows.iter()
                .zip([(1, 0.0, 0.0), (2, 10.0, 0.0), (3, 0.0, 10.0)])
        {
            assert_eq!(*frame, wanted.0);
            assert!(
                close(*colour, wanted.1) && close(*contrast, wanted.2),
                "{rows:?}"
            );
        }
        assert!(
            drift[0].features.abs() < 1e-6 && drift[2].features > 1e-4,
            "{drift:?}"
        );
        // The last frame is always one of them.
        let some = clip_drift(&network, &frames, 2).unwrap();
        assert_eq!(some.iter().map(|one| one.frame).collect::<Vec<_>>(), [2, 3]);
        let refused = |frames: &[Picture], every: usize, word: &str| {
            let message = clip_drift(&network, frames, every).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(&frames[..1], 1, "1 frames");
        refused(&frames, 0, "every 0th");
        refused(
            &[frames[0].clone(), Picture::filled(8, 8, [0; 3])],
            1,
            "8x8",
        );
    }
}
