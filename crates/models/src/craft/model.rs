//! The network.

use brisk_nn::ops::{self, Activation, Epilogue};
use brisk_nn::{Conv2d, ConvOptions, FoldedBatchNorm, Init, Tensor, Trace, Weights, check_finite};

use super::CraftConfig;
use crate::{Error, Result};

const NORM_EPS: f64 = 1e-5;
const RELU: Activation = Activation::Relu;
/// A picture's sides are multiples of this.
pub(super) const MULTIPLE: usize = 16;

/// The network.
#[derive(Debug)]
pub struct Craft {
    /// Convolutions of VGG16 by the map that they end at, each with a pooling before it where one is.
    stages: [Vec<Stage>; 4],
    deep: [Conv2d; 2],
    joins: Vec<[Conv2d; 2]>,
    head: Vec<Conv2d>,
}

/// What a pass gives.
#[derive(Debug, Clone)]
pub struct Scores {
    /// How likely a character's middle is, and the middle between two of a word: `[B, H/2, W/2, 2]`.
    pub maps: Tensor,
    /// What they are made of, `[B, H/2, W/2, C]`.
    pub features: Tensor,
}

/// A convolution with its norm.
#[derive(Debug)]
struct Stage {
    /// Whether the map is halved before.
    pooled: bool,
    conv: Conv2d,
}

/// Places of convolutions in torchvision's list of layers, by the map that they end at; the first of each pair tells
/// whether a pooling comes before.
const LAYERS: [&[(bool, usize)]; 4] = [
    &[(false, 0), (false, 3), (true, 7), (false, 10)],
    &[(true, 14), (false, 17)],
    &[(false, 20), (true, 24), (false, 27)],
    &[(false, 30), (true, 34), (false, 37)],
];

impl Craft {
    /// Reads `basenet`, `upconv1` to `upconv4` and `conv_cls`.
    ///
    /// # Errors
    /// Weights that are trained; one report of every tensor that does not fit.
    pub fn load(config: &CraftConfig, weights: &Weights) -> Result<Self> {
        let network = Self::read(config, weights)?;
        weights.finish(&[])?;
        Ok(network)
    }

    fn read(config: &CraftConfig, weights: &Weights) -> Result<Self> {
        let base = weights.pp("basenet");
        let widths = config.layer_channels();
        let mut from = 3;
        let mut stages: [Vec<Stage>; 4] = Default::default();
        let mut next = widths.into_iter();
        for (slice, (layers, stages)) in LAYERS.iter().zip(&mut stages).enumerate() {
            let weights = base.pp(format!("slice{}", slice + 1));
            for (pooled, layer) in *layers {
                let to = next.next().unwrap_or(from);
                let conv = normed(&weights, *layer, [from, to], ConvOptions::SAME_3X3)?;
                stages.push(Stage {
                    pooled: *pooled,
                    conv,
                });
                from = to;
            }
        }
        let deep = base.pp("slice5");
        let dilated = ConvOptions {
            dilation: 6,
            padding: 6,
            ..ConvOptions::SAME_3X3
        };
        let inner = config.deep_channels;
        let deep = [
            Conv2d::load(&deep.pp(1), from, inner, dilated)?,
            Conv2d::load(&deep.pp(2), inner, inner, POINTWISE)?,
        ];
        let mut above = inner;
        let mut joins = Vec::with_capacity(4);
        for (index, (skip, to)) in config
            .skip_channels()
            .into_iter()
            .zip(config.join_channels)
            .enumerate()
        {
            let weights = weights.pp(format!("upconv{}", index + 1)).pp("conv");
            joins.push([
                normed(&weights, 0, [above + skip, 2 * to], POINTWISE)?,
                normed(&weights, 3, [2 * to, to], ConvOptions::SAME_3X3)?,
            ]);
            above = to;
        }
        let head = config.head_layers().into_iter().zip([0usize, 2, 4, 6, 8]);
        let head = head.map(|(([from, to], kernel), layer)| {
            let options = if kernel == 1 {
                POINTWISE
            } else {
                ConvOptions::SAME_3X3
            };
            Conv2d::load(&weights.pp("conv_cls").pp(layer), from, to, options)
        });
        Ok(Self {
            stages,
            deep,
            joins,
            head: head.collect::<Result<_>>()?,
        })
    }

    /// Pictures `[B, H, W, 3]`, normalised by the means and deviations of ImageNet, whose sides are multiples of 16.
    /// `trace` sees `skips.{i}`, `deep`, `joins.{i}` and `head`.
    ///
    /// # Errors
    /// Pictures of another size, or a non-finite activation.
    pub fn forward(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Scores> {
        let (_, height, width, _) = pictures.dims4()?;
        let fits = |side: usize| side > 0 && side.is_multiple_of(MULTIPLE);
        if !fits(height) || !fits(width) {
            return Err(Error::Shape(format!(
                "pictures of {height}x{width} pixels; expected sides that are multiples of {MULTIPLE}"
            )));
        }
        let relu = Epilogue::activation(RELU);
        let mut skips: Vec<Tensor> = Vec::with_capacity(4);
        let mut x = pictures.clone();
        for (index, stages) in self.stages.iter().enumerate() {
            for (place, stage) in stages.iter().enumerate() {
                if stage.pooled {
                    x = ops::max_pool2d(&x, [2, 2], [2, 2], [0, 0])?;
                }
                // The deepest map alone is seen, and gone on from, before its activation.
                let last = index + 1 == self.stages.len() && place + 1 == stages.len();
                x = match last {
                    true => stage.conv.forward(&x)?,
                    false => stage.conv.forward_with(&x, &relu)?,
                };
            }
            trace.see(&format!("skips.{index}"), &x);
            skips.push(x.clone());
        }
        x = ops::max_pool2d(&x, [3, 3], [1, 1], [1, 1])?;
        for conv in &self.deep {
            x = conv.forward(&x)?;
        }
        check_finite(&x, "detector", "deep")?;
        trace.see("deep", &x);
        for (index, (join, skip)) in self.joins.iter().zip(skips.iter().rev()).enumerate() {
            let (_, height, width, _) = skip.dims4()?;
            if x.dims()[1..3] != [height, width] {
                x = ops::resize_bilinear(&x, [height, width])?;
            }
            x = Tensor::cat(&[&x, skip], 3)?;
            for conv in join {
                x = conv.forward_with(&x, &relu)?;
            }
            trace.see(&format!("joins.{index}"), &x);
        }
        let features = x.clone();
        for (index, conv) in self.head.iter().enumerate() {
            x = match index + 1 == self.head.len() {
                true => conv.forward(&x)?,
                false => conv.forward_with(&x, &relu)?,
            };
        }
        check_finite(&x, "detector", "head")?;
        trace.see("head", &x);
        Ok(Scores { maps: x, features })
    }
}

pub(super) const POINTWISE: ConvOptions = ConvOptions {
    kernel: 1,
    padding: 0,
    ..ConvOptions::SAME_3X3
};

/// The convolution at `layer` with the batch norm behind it.
pub(super) fn normed(
    weights: &Weights,
    layer: usize,
    [from, to]: [usize; 2],
    options: ConvOptions,
) -> Result<Conv2d> {
    let own = weights.pp(layer);
    let shape = [to, from, options.kernel, options.kernel];
    let weight = own.get("weight", &shape, Init::KaimingUniform)?;
    let bias = own.get("bias", &[to], Init::Zeros)?;
    let norm = FoldedBatchNorm::load(&weights.pp(layer + 1), to, NORM_EPS)?;
    let (weight, bias) = norm.fold(&weight, Some(&bias))?;
    let exact = options.exact || weights.is_exact();
    Conv2d::new(weight, Some(bias), ConvOptions { exact, ..options })
}

impl CraftConfig {
    /// Channels behind each convolution of VGG16 up to the deepest map.
    pub(super) fn layer_channels(&self) -> [usize; 12] {
        let [first, second, third, fourth, fifth] = self.stage_channels;
        [
            first, first, second, second, third, third, third, fourth, fourth, fourth, fifth, fifth,
        ]
    }

    /// Channels of the maps that are joined, the deepest first.
    pub(super) fn skip_channels(&self) -> [usize; 4] {
        let [_, second, third, fourth, fifth] = self.stage_channels;
        [fifth, fourth, third, second]
    }

    /// Channels from and to, and kernel, of the last convolutions.
    pub(super) fn head_layers(&self) -> [([usize; 2], usize); 5] {
        let ([wide, narrow], last) = (self.head_channels, self.join_channels[3]);
        [
            ([last, wide], 3),
            ([wide, wide], 3),
            ([wide, narrow], 3),
            ([narrow, narrow], 1),
            ([narrow, 2], 1),
        ]
    }

    /// Poolings, channels from and to of VGG16's convolutions, by the map that they end at.
    pub(super) fn stages(&self) -> Vec<Vec<(bool, [usize; 2])>> {
        let mut from = 3;
        let mut widths = self.layer_channels().into_iter();
        let mut stage = |layers: &&[(bool, usize)]| {
            let layers = layers.iter().map(|(pooled, _)| {
                let to = widths.next().unwrap_or(from);
                let layer = (*pooled, [from, to]);
                from = to;
                layer
            });
            layers.collect()
        };
        LAYERS.iter().map(&mut stage).collect()
    }
}
