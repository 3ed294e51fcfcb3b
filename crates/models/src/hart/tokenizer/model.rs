//! Encoder, quantizer and decoder.

use brisk_nn::{Conv2d, ConvOptions, Tensor, Trace, VqganDecoder, VqganEncoder, Weights};

use super::{Quantizer, TokenizerConfig};
use crate::{Error, Result};

/// What is loaded beside the quantizer; the others' weights are not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Encoder and decoder.
    All,
    /// The encoder.
    Encoder,
    /// The decoder.
    Decoder,
    /// Neither.
    Quantizer,
}

impl Parts {
    fn encodes(self) -> bool {
        matches!(self, Self::All | Self::Encoder)
    }

    fn decodes(self) -> bool {
        matches!(self, Self::All | Self::Decoder)
    }
}

/// The tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Option<(VqganEncoder, Conv2d)>,
    quantizer: Quantizer,
    decoder: Option<(Conv2d, VqganDecoder)>,
}

impl Tokenizer {
    /// Reads `encoder`, `quant_conv`, `quantize`, `post_quant_conv` and `decoder` ([`super::plain_names`]).
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of another
    /// shape.
    pub fn load(config: &TokenizerConfig, weights: &Weights, parts: Parts) -> Result<Self> {
        config.validate()?;
        let vqgan = config.vqgan();
        let same = ConvOptions {
            kernel: config.quant_conv_ks,
            padding: config.quant_conv_ks / 2,
            ..ConvOptions::SAME_3X3
        };
        let conv = |name: &str| {
            Conv2d::load(
                &weights.pp(name),
                config.z_channels,
                config.z_channels,
                same,
            )
        };
        let quantizer = Quantizer::load(config, &weights.pp("quantize"))?;
        // Counts of training, of one row a scale.
        let mut ignored = vec!["quantize.ema_vocab_hit_SV"];
        let encoder = match parts.encodes() {
            true => {
                let encoder = VqganEncoder::load(&weights.pp("encoder"), &vqgan)?;
                Some((encoder, conv("quant_conv")?))
            }
            false => {
                ignored.extend(["encoder.", "quant_conv."]);
                None
            }
        };
        let decoder = match parts.decodes() {
            true => {
                let decoder = VqganDecoder::load(&weights.pp("decoder"), &vqgan)?;
                Some((conv("post_quant_conv")?, decoder))
            }
            false => {
                ignored.extend(["decoder.", "post_quant_conv."]);
                None
            }
        };
        if config.double_decoder {
            ignored.extend(["decoder2.", "post_quant_conv2."]);
        }
        weights.finish(&ignored)?;
        Ok(Self {
            encoder,
            quantizer,
            decoder,
        })
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    /// Picture `[B,H,W,3]` in −1..1 to latent `[B,H/r,W/r,C]`, not quantized; `trace` sees every block of
    /// `encoder`.
    ///
    /// # Errors
    /// The encoder was not loaded, or a non-finite activation.
    pub fn latent(&self, picture: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (encoder, conv) = self.encoder.as_ref().ok_or_else(|| absent("encoder"))?;
        let x = encoder.forward(picture, &mut trace.within("encoder"))?;
        let latent = conv.forward(&x)?;
        trace.see("quant_conv", &latent);
        Ok(latent)
    }

    /// Latent `[B,h,w,C]`, quantized or not, to picture `[B,r·h,r·w,3]`, cut off at ±1; `trace` sees every
    /// block of `decoder`.
    ///
    /// # Errors
    /// The decoder was not loaded, or a non-finite activation.
    pub fn picture(&self, latent: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        self.unbounded_picture(latent, trace)?.clamp(-1.0, 1.0)
    }

    /// As [`Tokenizer::picture`], not cut off: what is learned from, as beyond the bounds there would be no
    /// gradient.
    ///
    /// # Errors
    /// As [`Tokenizer::picture`].
    pub fn unbounded_picture(&self, latent: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (conv, decoder) = self.decoder.as_ref().ok_or_else(|| absent("decoder"))?;
        let x = conv.forward(latent)?;
        trace.see("post_quant_conv", &x);
        decoder.forward(&x, &mut trace.within("decoder"))
    }
}

fn absent(part: &str) -> Error {
    Error::Config(format!("the {part} of the tokenizer was not loaded"))
}
