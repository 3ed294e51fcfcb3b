//! PatchGAN (pix2pix, arXiv 1611.07004): a discriminator of overlapping patches of a picture.

use brisk_nn::{Init, Tensor, Weights, ops};
use candle_core::Var;
use serde::{Deserialize, Serialize};

use super::adversarial::{leaky_relu, parameter, variable};
use super::ladd::batch_norm_local;
use crate::error::Result;
use crate::recipe::{require, require_count};

/// Side of the convolutions, which halve the map but for the last two.
const KERNEL: usize = 4;
/// Most times the first width that a layer has.
const WIDEST: usize = 8;
const MOST_CHANNELS: usize = 1024;
const MOST_LAYERS: usize = 5;

/// The discriminator of a recipe, and what it is worth in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialOptions {
    /// Weight of the adversarial loss.
    pub weight: f64,
    /// Channels of the first layer; later ones have twice as many each, at most eight times.
    pub channels: usize,
    /// Layers that halve the picture.
    pub layers: usize,
}

impl AdversarialOptions {
    /// Refuses values that cannot be trained with.
    pub(crate) fn validate(&self) -> Result<()> {
        let sane = self.weight > 0.0 && self.weight <= 1e6;
        require(
            sane,
            "adversarial.weight",
            self.weight,
            "above 0 and up to 1000000",
        )?;
        require_count("adversarial.channels", self.channels, MOST_CHANNELS)?;
        require_count("adversarial.layers", self.layers, MOST_LAYERS)
    }
}

/// A convolution, with a norm over some samples behind it where it has one.
struct Layer {
    weight: Var,
    bias: Option<Var>,
    norm: Option<[Var; 2]>,
    stride: usize,
}

/// The discriminator.
pub(crate) struct PatchDiscriminator(Vec<Layer>);

/// What a layer is like.
struct Shape {
    from: usize,
    to: usize,
    stride: usize,
    norm: bool,
    bias: bool,
}

impl PatchDiscriminator {
    /// Of pictures of three channels, below trainable `weights`.
    pub fn load(weights: &Weights, options: &AdversarialOptions) -> Result<Self> {
        let width = |at: usize| options.channels * (1 << at).min(WIDEST);
        let mut shapes = vec![Shape {
            from: 3,
            to: width(0),
            stride: 2,
            norm: false,
            bias: true,
        }];
        for at in 1..=options.layers {
            shapes.push(Shape {
                from: width(at - 1),
                to: width(at),
                stride: if at < options.layers { 2 } else { 1 },
                norm: true,
                bias: false,
            });
        }
        shapes.push(Shape {
            from: width(options.layers),
            to: 1,
            stride: 1,
            norm: false,
            bias: true,
        });
        for (at, shape) in shapes.iter().enumerate() {
            let weights = weights.pp(at);
            let sides = [shape.to, KERNEL, KERNEL, shape.from];
            weights.get("weight", &sides, Init::Normal(0.02))?;
            if shape.bias {
                weights.get("bias", &[shape.to], Init::Zeros)?;
            }
            if shape.norm {
                weights.get("norm.weight", &[shape.to], Init::Ones)?;
                weights.get("norm.bias", &[shape.to], Init::Zeros)?;
            }
        }
        let variables = weights.variables();
        let variable = |name: String| variable(&variables, &name);
        let layers = shapes.iter().enumerate().map(|(at, shape)| {
            let of = |name: &str| variable(format!(".{at}.{name}"));
            Ok(Layer {
                weight: of("weight")?,
                bias: shape.bias.then(|| of("bias")).transpose()?,
                norm: match shape.norm {
                    true => Some([of("norm.weight")?, of("norm.bias")?]),
                    false => None,
                },
                stride: shape.stride,
            })
        });
        Ok(Self(layers.collect::<Result<_>>()?))
    }

    /// Logits `[B, h, w, 1]` of pictures `[B, H, W, 3]` in −1..1. The discriminator is a constant unless it `learns`.
    ///
    /// # Errors
    /// Pictures that are too small, or a batch that the norms cannot take together.
    pub fn logits(&self, pictures: &Tensor, learns: bool) -> Result<Tensor> {
        let mut x = pictures.clone();
        for (at, layer) in self.0.iter().enumerate() {
            let weight = parameter(&layer.weight, learns);
            let bias = layer.bias.as_ref().map(|bias| parameter(bias, learns));
            x = ops::conv2d(&x, &weight, bias.as_ref(), layer.stride, 1)?;
            if let Some([weight, bias]) = &layer.norm {
                let (batch, height, width, channels) = x.dims4()?;
                let rows = x.reshape((batch, height * width, channels))?;
                let [weight, bias] = [weight, bias].map(|variable| parameter(variable, learns));
                x = batch_norm_local(&rows, &weight, &bias)?
                    .reshape((batch, height, width, channels))?;
            }
            if at + 1 < self.0.len() {
                x = leaky_relu(&x)?;
            }
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::adversarial::hinge_loss;

    const OPTIONS: AdversarialOptions = AdversarialOptions {
        weight: 0.1,
        channels: 4,
        layers: 2,
    };

    fn pictures(seed: f32) -> Tensor {
        let values: Vec<f32> = (0..2 * 32 * 32 * 3)
            .map(|i| (i as f32 * 0.11 + seed).sin())
            .collect();
        Tensor::from_vec(values, (2, 32, 32, 3)).unwrap()
    }

    #[test]
    fn it_learns_when_it_is_to_and_else_is_a_constant() {
        let weights = Weights::trainable(None, 3);
        let network = PatchDiscriminator::load(&weights.pp("discriminator"), &OPTIONS).unwrap();
        let (real, fake) = (pictures(0.0), pictures(2.0));
        let logits = network.logits(&real, true).unwrap();
        // Halved twice, then two convolutions of four without as much around.
        assert_eq!(logits.dims(), [2, 6, 6, 1]);
        let constant = network.logits(&real, false).unwrap();
        assert!(logits.track_op() && !constant.track_op());
        let loss = |network: &PatchDiscriminator| {
            let [real, fake] = [&real, &fake].map(|x| network.logits(x, true).unwrap());
            hinge_loss(&real, &fake).unwrap()
        };
        let before = loss(&network).to_scalar::<f32>().unwrap();
        for _ in 0..20 {
            let gradients = loss(&network).host().unwrap().backward().unwrap();
            for (name, variable) in weights.variables() {
                let gradient = gradients.get(&variable).unwrap_or_else(|| panic!("{name}"));
                let moved = (variable.as_tensor() - (gradient * 0.05).unwrap()).unwrap();
                variable.set(&moved).unwrap();
            }
        }
        let after = loss(&network).to_scalar::<f32>().unwrap();
        assert!(after < 0.9 * before, "{before} to {after}");
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let refused = |options: AdversarialOptions| options.validate().unwrap_err().to_string();
        assert!(OPTIONS.validate().is_ok());
        let none = AdversarialOptions {
            weight: 0.0,
            ..OPTIONS
        };
        assert!(refused(none).contains("adversarial.weight"));
        let deep = AdversarialOptions {
            layers: 9,
            ..OPTIONS
        };
        assert!(refused(deep).contains("adversarial.layers"));
    }
}
