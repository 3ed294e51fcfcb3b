//! Encoder, quantizer, decoder and depth transformer of one file.

use brisk_nn::{Conv2d, ConvOptions, Tensor, Trace, VqganDecoder, Weights, ops};

use super::super::depth::DepthTransformer;
use super::{Encoded, Encoder, Quantizer, TowerConfig};
use crate::{Error, Result};

/// What is loaded beside the codebooks; the others' weights are not touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// SigLIP's layers.
    pub encoder: bool,
    /// What makes pictures.
    pub decoder: bool,
    /// The depth transformer.
    pub depth: bool,
}

impl Parts {
    /// Everything.
    pub const ALL: Self = Self {
        encoder: true,
        decoder: true,
        depth: true,
    };
}

/// The tower.
#[derive(Debug)]
pub struct Tower {
    config: TowerConfig,
    encoder: Option<Encoder>,
    quantizer: Quantizer,
    decoder: Option<(Conv2d, VqganDecoder)>,
    depth: Option<DepthTransformer>,
}

impl Tower {
    /// Reads `rqvaesiglip` and `rqtransformer`, of which only the latter's layers are quantized where that is
    /// asked for: codes and pixels hang on the last bits of the others. SigLIP's text half, its last layer and its head, which are
    /// only for comparing pictures with texts, are left out.
    ///
    /// # Errors
    /// An encoder whose sizes are not known, or one report of every tensor that is missing, unexpected or
    /// of another shape.
    pub fn load(config: &TowerConfig, weights: &Weights, parts: Parts) -> Result<Self> {
        let stored = weights.as_stored();
        let vae = stored.pp("rqvaesiglip");
        let quantizer = Quantizer::load(config, &vae.pp("quantizer"))?;
        let mut ignored: Vec<String> = [
            "rqvaesiglip.siglip_model.text_model.",
            "rqvaesiglip.siglip_model.vision_model.post_layernorm.",
            "rqvaesiglip.siglip_model.vision_model.head.",
            "rqvaesiglip.siglip_model.logit_scale",
            "rqvaesiglip.siglip_model.logit_bias",
            "rqvaesiglip.logit_scale",
            "rqvaesiglip.logit_bias",
            ".cluster_size_ema",
            ".embed_ema",
            ".embeddings.position_ids",
        ]
        .map(str::to_owned)
        .to_vec();
        if config.shared_codebook {
            let read = Quantizer::shared(config, &vae.pp("quantizer"));
            let others = (0..config.depth).filter(|index| *index != read);
            ignored.extend(others.map(|at| format!("rqvaesiglip.quantizer.codebooks.{at}.")));
        }
        let vision = "rqvaesiglip.siglip_model.vision_model";
        let encoder = match parts.encoder {
            true => {
                let siglip = config.siglip()?;
                let last = siglip.layers();
                ignored.push(format!("{vision}.encoder.layers.{last}."));
                Some(Encoder::load(siglip, &stored.pp(vision))?)
            }
            false => {
                ignored.push(format!("{vision}."));
                None
            }
        };
        let decoder = match parts.decoder {
            true => {
                let options = ConvOptions {
                    kernel: 1,
                    padding: 0,
                    ..ConvOptions::SAME_3X3
                };
                let (from, to) = (config.embed_dim, config.decoder.z_channels);
                let conv = Conv2d::load(&vae.pp("post_quant_conv"), from, to, options)?;
                let decoder = VqganDecoder::load(&vae.pp("decoder"), &config.vqgan())?;
                Some((conv, decoder))
            }
            false => {
                ignored.extend(
                    ["rqvaesiglip.post_quant_conv.", "rqvaesiglip.decoder."].map(str::to_owned),
                );
                None
            }
        };
        let depth = match parts.depth {
            true => Some(DepthTransformer::load(
                &config.head,
                &weights.pp("rqtransformer"),
            )?),
            false => {
                ignored.push("rqtransformer.".to_owned());
                None
            }
        };
        let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
        weights.finish(&ignored)?;
        Ok(Self {
            config: config.clone(),
            encoder,
            quantizer,
            decoder,
            depth,
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &TowerConfig {
        &self.config
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    /// The depth transformer.
    ///
    /// # Errors
    /// It was not loaded.
    pub fn depth(&self) -> Result<&DepthTransformer> {
        self.depth
            .as_ref()
            .ok_or_else(|| absent("depth transformer"))
    }

    /// Pictures `[B,N,N,3]` in −1..1 to the codes and sums of `B·h·w` places; `trace` sees what
    /// [`Encoder::forward`] shows, and `quantizer`.
    ///
    /// # Errors
    /// The encoder was not loaded, a picture of another size, or a non-finite activation.
    pub fn encode(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Encoded> {
        let encoded = self.quantizer.encode(&self.vectors(pictures, trace)?)?;
        trace.see("quantizer", &encoded.sum);
        Ok(encoded)
    }

    /// Pictures `[B,N,N,3]` in −1..1 to the vectors `[B·h·w,C]` of their places, which are quantized; `trace` sees
    /// what [`Encoder::forward`] shows.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn vectors(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let encoder = self.encoder.as_ref().ok_or_else(|| absent("encoder"))?;
        let x = encoder.forward(pictures, trace)?;
        let (batch, height, width, channels) = x.dims4()?;
        x.reshape((batch * height * width, channels))
    }

    /// Sums of codewords `[B,h,w,C]` to pictures `[B,H,W,3]`, about −1..1, not cut off; `trace` sees
    /// `post_quant_conv` and every block of `decoder`.
    ///
    /// # Errors
    /// The decoder was not loaded, another number of channels, or a non-finite activation.
    pub fn decode(&self, sums: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (conv, decoder) = self.decoder.as_ref().ok_or_else(|| absent("decoder"))?;
        let x = match self.config.decoder_latent_shape {
            Some(size) => &ops::resize_bilinear(sums, size)?,
            None => sums,
        };
        let x = conv.forward(x)?;
        trace.see("post_quant_conv", &x);
        decoder.forward(&x, &mut trace.within("decoder"))
    }

    /// Sums of codewords of `B·h·w` places `[B·h·w,C]` as the decoder takes them, `[B,h,w,C]`.
    ///
    /// # Errors
    /// No whole number of pictures.
    pub fn maps(&self, sums: &Tensor) -> Result<Tensor> {
        let (places, width) = sums.dims2()?;
        let grid = self.config.grid;
        sums.reshape((places / (grid * grid), grid, grid, width))
    }
}

fn absent(part: &str) -> Error {
    Error::Config(format!("the {part} of the tower was not loaded"))
}
