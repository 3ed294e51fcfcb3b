//! The link refiner: a second network over the first one's maps and features, which joins the characters of long and bent
//! words better.

use brisk_nn::ops::{Activation, Epilogue};
use brisk_nn::{Conv2d, ConvOptions, Tensor, Weights, check_finite};
use brisk_store::TensorSource;

use super::model::{POINTWISE, Scores, normed};
use super::names::OF_REFINER;
use crate::config::check_count;
use crate::{Error, Result};

/// Distances of taps in the four branches.
const DILATIONS: [usize; 4] = [6, 12, 18, 24];
const LARGEST_WIDTH: usize = 1 << 14;

/// Widths of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkRefinerConfig {
    /// Channels of what it looks at: two maps and the detector's features.
    pub inputs: usize,
    /// Channels before the branches, and in them.
    pub channels: [usize; 2],
}

impl LinkRefinerConfig {
    /// The widths of a file under [plain names](super::plain_names).
    ///
    /// # Errors
    /// A file of another network.
    pub fn of_tensors(source: &dyn TensorSource) -> Result<Self> {
        let shape = |name: &str| {
            let found = source.info(name).map(|(_, shape)| shape);
            found.filter(|shape| shape.len() == 4).ok_or_else(|| {
                Error::Config(format!(
                    "the file holds no link refiner of CRAFT: there is no convolution {name:?}"
                ))
            })
        };
        let (first, branch) = (shape("last_conv.0.weight")?, shape(OF_REFINER)?);
        for (key, width) in [
            ("last_conv.0.weight (channels)", first[1]),
            ("last_conv.0.weight (outputs)", first[0]),
            ("aspp1.0.weight (outputs)", branch[0]),
        ] {
            check_count(key, width, LARGEST_WIDTH)?;
        }
        Ok(Self {
            inputs: first[1],
            channels: [first[0], branch[0]],
        })
    }
}

/// The network.
#[derive(Debug)]
pub struct LinkRefiner {
    trunk: Vec<Conv2d>,
    branches: Vec<Branch>,
    inputs: usize,
}

/// A dilated convolution, another one, and what makes a value of each place.
#[derive(Debug)]
struct Branch {
    normed: [Conv2d; 2],
    last: Conv2d,
}

impl LinkRefiner {
    /// Reads `last_conv` and `aspp1` to `aspp4`.
    ///
    /// # Errors
    /// One report of every tensor that does not fit.
    pub fn load(config: &LinkRefinerConfig, weights: &Weights) -> Result<Self> {
        let [inner, wide] = config.channels;
        let trunk = weights.pp("last_conv");
        let widths = [[config.inputs, inner], [inner, inner], [inner, inner]];
        let trunk = widths
            .into_iter()
            .zip([0, 3, 6])
            .map(|(widths, layer)| normed(&trunk, layer, widths, ConvOptions::SAME_3X3));
        let trunk = trunk.collect::<Result<_>>()?;
        let branches = DILATIONS.into_iter().enumerate().map(|(index, step)| {
            let own = weights.pp(format!("aspp{}", index + 1));
            let dilated = ConvOptions {
                dilation: step,
                padding: step,
                ..ConvOptions::SAME_3X3
            };
            Ok(Branch {
                normed: [
                    normed(&own, 0, [inner, wide], dilated)?,
                    normed(&own, 3, [wide, wide], POINTWISE)?,
                ],
                last: Conv2d::load(&own.pp(6), wide, 1, POINTWISE)?,
            })
        });
        let branches = branches.collect::<Result<_>>()?;
        weights.finish(&[])?;
        Ok(Self {
            trunk,
            branches,
            inputs: config.inputs,
        })
    }

    /// The affinity `[B, h, w, 1]` that stands in for the detector's own.
    ///
    /// # Errors
    /// Features of another detector; a non-finite activation.
    pub fn forward(&self, scores: &Scores) -> Result<Tensor> {
        let mut x = Tensor::cat(&[&scores.maps, &scores.features], 3)?;
        let (_, _, _, found) = x.dims4()?;
        if found != self.inputs {
            return Err(Error::Shape(format!(
                "a link refiner for {} channels beside a detector of {found}",
                self.inputs
            )));
        }
        let relu = Epilogue::activation(Activation::Relu);
        for conv in &self.trunk {
            x = conv.forward_with(&x, &relu)?;
        }
        let mut sum: Option<Tensor> = None;
        for branch in &self.branches {
            let mut own = x.clone();
            for conv in &branch.normed {
                own = conv.forward_with(&own, &relu)?;
            }
            let own = branch.last.forward(&own)?;
            sum = Some(match sum {
                Some(before) => (before + own)?,
                None => own,
            });
        }
        let refined = sum.ok_or_else(|| Error::Shape("a link refiner without branches".into()))?;
        check_finite(&refined, "detector", "link refiner")?;
        Ok(refined)
    }
}
