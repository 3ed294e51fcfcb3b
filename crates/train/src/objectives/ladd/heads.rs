//! The heads of the discriminator, one a block of the teacher.

use brisk_nn::{Init, Tensor, Weights, ops};
use candle_core::Var;

use super::super::adversarial::{leaky_relu, parameter, variable};
use super::batch_norm::batch_norm_local;
use super::spectral_norm::{SpectralNorm, Vectors};
use crate::error::{Error, Result};

/// Tokens along which the second convolution of a head looks.
const KERNEL: usize = 9;

/// A convolution along the tokens, which close to a circle, with its weight normalised.
struct Convolution {
    norm: SpectralNorm,
    bias: Var,
    kernel: usize,
}

/// A convolution, a batch norm and an activation.
struct Layer {
    convolution: Convolution,
    weight: Var,
    bias: Var,
}

/// `main.0`, `main.1` around a shortcut, `cls`.
struct Head {
    first: Layer,
    second: Layer,
    class: Convolution,
}

/// All heads.
pub(crate) struct Discriminator {
    heads: Vec<Head>,
}

/// Singular vectors of all weights, by which a pass normalises them.
pub(crate) struct Normalised(Vec<[Vectors; 3]>);

/// Makes the variables of a convolution `[outputs, width, kernel]`.
fn make_convolution(weights: &Weights, outputs: usize, width: usize, kernel: usize) -> Result<()> {
    weights.get(
        "weight_orig",
        &[outputs, width, kernel],
        Init::KaimingUniform,
    )?;
    weights.get("weight_u", &[outputs], Init::Normal(1.0))?;
    weights.get("bias", &[outputs], Init::Zeros)?;
    Ok(())
}

fn make_layer(weights: &Weights, width: usize, kernel: usize) -> Result<()> {
    make_convolution(&weights.pp("0"), width, width, kernel)?;
    let norm = weights.pp("1");
    norm.get("weight", &[width], Init::Ones)?;
    norm.get("bias", &[width], Init::Zeros)?;
    Ok(())
}

impl Discriminator {
    /// `count` heads on tokens of this width, below `heads` of trainable `weights`.
    pub fn load(weights: &Weights, count: usize, width: usize) -> Result<Self> {
        let heads = weights.pp("heads");
        for index in 0..count {
            let head = heads.pp(index);
            make_layer(&head.pp("main.0"), width, 1)?;
            make_layer(&head.pp("main.1.fn"), width, KERNEL)?;
            make_convolution(&head.pp("cls"), 1, width, 1)?;
        }
        let variables = weights.variables();
        let variable = |name: String| variable(&variables, &name);
        let convolution = |name: String, kernel: usize| -> Result<Convolution> {
            Ok(Convolution {
                norm: SpectralNorm {
                    weight: variable(format!("{name}.weight_orig"))?,
                    left: variable(format!("{name}.weight_u"))?,
                },
                bias: variable(format!("{name}.bias"))?,
                kernel,
            })
        };
        let layer = |name: String, kernel: usize| -> Result<Layer> {
            Ok(Layer {
                convolution: convolution(format!("{name}.0"), kernel)?,
                weight: variable(format!("{name}.1.weight"))?,
                bias: variable(format!("{name}.1.bias"))?,
            })
        };
        let heads = (0..count).map(|index| {
            Ok(Head {
                first: layer(format!("heads.{index}.main.0"), 1)?,
                second: layer(format!("heads.{index}.main.1.fn"), KERNEL)?,
                class: convolution(format!("heads.{index}.cls"), 1)?,
            })
        });
        Ok(Self {
            heads: heads.collect::<Result<_>>()?,
        })
    }

    /// A step of power iteration for every weight: what a pass in training begins with.
    pub fn normalise(&self) -> Result<Normalised> {
        let heads = self.heads.iter().map(|head| {
            Ok([
                head.first.convolution.norm.iterate()?,
                head.second.convolution.norm.iterate()?,
                head.class.norm.iterate()?,
            ])
        });
        Ok(Normalised(heads.collect::<Result<_>>()?))
    }

    /// Logits `[B, heads·N]` of the tokens `[B,N,d]` that each head sees. The heads are constants unless one `learns`.
    pub fn logits(
        &self,
        tokens: &[Tensor],
        normalised: &Normalised,
        learns: bool,
    ) -> Result<Tensor> {
        let each = self.heads.iter().zip(&normalised.0).zip(tokens);
        let logits = each.map(|((head, [first, second, class]), tokens)| {
            let x = head.first.forward(tokens, first, learns)?;
            let y = head.second.forward(&x, second, learns)?;
            let x = ((y + x)? * std::f64::consts::FRAC_1_SQRT_2)?;
            Ok(head.class.forward(&x, class, learns)?.squeeze(2)?)
        });
        let logits: Vec<Tensor> = logits.collect::<Result<_>>()?;
        Ok(Tensor::cat(&logits, 1)?)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, vectors: &Vectors, learns: bool) -> Result<Tensor> {
        let x = self.convolution.forward(x, vectors, learns)?;
        let weight = parameter(&self.weight, learns);
        let bias = parameter(&self.bias, learns);
        let x = batch_norm_local(&x, &weight, &bias)?;
        leaky_relu(&x)
    }
}

impl Convolution {
    /// `[B,N,width]` to `[B,N,outputs]`.
    fn forward(&self, x: &Tensor, vectors: &Vectors, learns: bool) -> Result<Tensor> {
        let weight = self.norm.normalised(vectors, learns)?;
        let bias = parameter(&self.bias, learns);
        if self.kernel == 1 {
            return Ok(ops::linear(x, &weight, Some(&bias))?);
        }
        let (_, tokens, width) = x.dims3()?;
        let reach = self.kernel / 2;
        if tokens < reach {
            return Err(Error::Data(format!(
                "a picture of {tokens} tokens is too small for the discriminator, which looks {reach} to either side"
            )));
        }
        let (before, behind) = (x.narrow(1, tokens - reach, reach)?, x.narrow(1, 0, reach)?);
        let circle = Tensor::cat(&[&before, x, &behind], 1)?;
        let taps = (0..self.kernel).map(|tap| circle.narrow(1, tap, tokens));
        let taps: Vec<Tensor> = taps.collect::<brisk_nn::Result<_>>()?;
        let outputs = weight.dim(0)?;
        // The file's order is channel by channel, the taps lie side by side.
        let weight = weight
            .reshape((outputs, width, self.kernel))?
            .transpose(1, 2)?
            .contiguous()?
            .reshape((outputs, self.kernel * width))?;
        Ok(ops::linear(&Tensor::cat(&taps, 2)?, &weight, Some(&bias))?)
    }
}
