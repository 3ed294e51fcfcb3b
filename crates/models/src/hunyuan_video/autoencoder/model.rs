//! The two halves.

use brisk_nn::{
    ClipPadding, Conv3d, Conv3dOptions, GroupNorm, Tensor, Trace, Weights, check_finite, ops,
};

use super::VideoAutoencoderConfig;
use super::blocks::{Level, Middle, causal, norm};
use crate::{Error, Result};

/// Which halves are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoHalves {
    /// Both.
    Both,
    /// To encode only.
    EncoderOnly,
    /// To decode only.
    DecoderOnly,
}

/// HunyuanVideo's autoencoder.
#[derive(Debug)]
pub struct VideoAutoencoder {
    config: VideoAutoencoderConfig,
    encoder: Option<Encoder>,
    decoder: Option<Decoder>,
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv3d,
    levels: Vec<Level>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv3d,
    quant_conv: Conv3d,
}

#[derive(Debug)]
pub(super) struct Decoder {
    post_quant_conv: Conv3d,
    conv_in: Conv3d,
    middle: Middle,
    pub levels: Vec<Level>,
    pub norm_out: GroupNorm,
    pub conv_out: Conv3d,
}

const POINT: Conv3dOptions = Conv3dOptions {
    kernel: 1,
    stride: [1, 1],
    padding: ClipPadding::Zeros,
    bias: true,
};

impl VideoAutoencoder {
    /// Loads the halves that are asked for.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of another shape.
    pub fn load(
        config: &VideoAutoencoderConfig,
        weights: &Weights,
        halves: VideoHalves,
    ) -> Result<Self> {
        config.validate()?;
        let encoder = match halves {
            VideoHalves::DecoderOnly => None,
            _ => Some(Encoder::load(config, weights)?),
        };
        let decoder = match halves {
            VideoHalves::EncoderOnly => None,
            _ => Some(Decoder::load(config, weights)?),
        };
        weights.finish(match halves {
            VideoHalves::Both => &[],
            VideoHalves::EncoderOnly => &["decoder.", "post_quant_conv."],
            VideoHalves::DecoderOnly => &["encoder.", "quant_conv."],
        })?;
        Ok(Self {
            config: config.clone(),
            encoder,
            decoder,
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &VideoAutoencoderConfig {
        &self.config
    }

    /// The means of the latent of a clip `[B,F,H,W,colours]` in −1..1, as `[B,f,H/8,W/8,C]`; not scaled. `trace` sees
    /// `encoder.conv_in`, `encoder.down_blocks.{i}`, `encoder.mid_block`, `encoder.conv_out` and `quant_conv`.
    ///
    /// # Errors
    /// No encoder, a clip whose sides the autoencoder does not divide, or a non-finite activation.
    pub fn encode(&self, clip: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let latent = self.posterior(clip, trace)?;
        let channels = self.config.latent_channels;
        latent.narrow(4, 0, channels)?.contiguous()
    }

    /// As [`Self::encode`], with the logarithms of the variances, in −30..20, behind the means.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn posterior(&self, clip: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let encoder = self.encoder.as_ref().ok_or_else(|| no_half("encoder"))?;
        self.check(
            clip,
            self.config.in_channels,
            self.config.spatial_compression_ratio,
        )?;
        let inner = &mut trace.within("encoder");
        let mut x = encoder.conv_in.forward(clip)?;
        inner.see("conv_in", &x);
        for (index, level) in encoder.levels.iter().enumerate() {
            let name = format!("down_blocks.{index}");
            x = level.down(&x)?;
            check_finite(&x, "encoder", &name)?;
            inner.see(&name, &x);
        }
        x = encoder
            .middle
            .forward(&x, "encoder", &mut inner.within("mid_block"))?;
        inner.see("mid_block", &x);
        x = ops::silu(&encoder.norm_out.forward(&x)?)?;
        x = encoder.conv_out.forward(&x)?;
        inner.see("conv_out", &x);
        x = encoder.quant_conv.forward(&x)?;
        check_finite(&x, "encoder", "quant_conv")?;
        trace.see("quant_conv", &x);
        let channels = self.config.latent_channels;
        let spread = x.narrow(4, channels, channels)?.clamp(-30.0, 20.0)?;
        Tensor::cat(&[x.narrow(4, 0, channels)?, spread], 4)
    }

    /// A latent `[B,f,h,w,C]`, not scaled, to a clip `[B,4·f − 3,8·h,8·w,colours]`, not clamped. `trace` sees
    /// `decoder.conv_in`, `decoder.mid_block`, `decoder.up_blocks.{i}` and `decoder.conv_out`.
    ///
    /// # Errors
    /// No decoder, another number of channels, or a non-finite activation.
    pub fn decode(&self, latent: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let decoder = self.decoder()?;
        let mut x = self.enter(latent, trace)?;
        let inner = &mut trace.within("decoder");
        for (index, level) in decoder.levels.iter().enumerate() {
            let name = format!("up_blocks.{index}");
            x = level.up(&x)?;
            check_finite(&x, "decoder", &name)?;
            inner.see(&name, &x);
        }
        x = ops::silu(&decoder.norm_out.forward(&x)?)?;
        x = decoder.conv_out.forward(&x)?;
        check_finite(&x, "decoder", "conv_out")?;
        inner.see("conv_out", &x);
        Ok(x)
    }

    /// What lies before the decoder's levels.
    pub(super) fn enter(&self, latent: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let decoder = self.decoder()?;
        self.check(latent, self.config.latent_channels, 1)?;
        let inner = &mut trace.within("decoder");
        let mut x = decoder.post_quant_conv.forward(latent)?;
        x = decoder.conv_in.forward(&x)?;
        inner.see("conv_in", &x);
        x = decoder
            .middle
            .forward(&x, "decoder", &mut inner.within("mid_block"))?;
        inner.see("mid_block", &x);
        Ok(x)
    }

    pub(super) fn decoder(&self) -> Result<&Decoder> {
        self.decoder.as_ref().ok_or_else(|| no_half("decoder"))
    }

    fn check(&self, x: &Tensor, channels: usize, multiple: usize) -> Result<()> {
        let fits = matches!(x.dims(), &[batch, frames, height, width, found] if found == channels
            && batch > 0 && frames > 0 && height > 0 && width > 0
            && height.is_multiple_of(multiple) && width.is_multiple_of(multiple));
        match fits {
            true => Ok(()),
            false => Err(Error::Shape(format!(
                "a clip of shape {:?}; expected [batch, frames, height, width, {channels}], height and width multiples \
                 of {multiple}",
                x.dims()
            ))),
        }
    }
}

fn no_half(name: &str) -> Error {
    Error::Config(format!("the autoencoder was loaded without its {name}"))
}

impl Encoder {
    fn load(config: &VideoAutoencoderConfig, weights: &Weights) -> Result<Self> {
        let latent = 2 * config.latent_channels;
        let quant_conv = Conv3d::load(&weights.pp("quant_conv"), latent, latent, POINT)?;
        let weights = weights.pp("encoder");
        let widths = &config.block_out_channels;
        let (first, deepest) = (widths[0], widths[widths.len() - 1]);
        let levels = (0..widths.len())
            .map(|level| Level::load_down(config, &weights.pp("down_blocks").pp(level), level));
        Ok(Self {
            conv_in: causal(&weights.pp("conv_in"), config.in_channels, first, 3, [1, 1])?,
            levels: levels.collect::<Result<_>>()?,
            middle: Middle::load(config, &weights.pp("mid_block"))?,
            norm_out: norm(config, &weights.pp("conv_norm_out"), deepest)?,
            conv_out: causal(&weights.pp("conv_out"), deepest, latent, 3, [1, 1])?,
            quant_conv,
        })
    }
}

impl Decoder {
    fn load(config: &VideoAutoencoderConfig, weights: &Weights) -> Result<Self> {
        let latent = config.latent_channels;
        let post_quant_conv = Conv3d::load(&weights.pp("post_quant_conv"), latent, latent, POINT)?;
        let weights = weights.pp("decoder");
        let widths = &config.block_out_channels;
        let (first, deepest) = (widths[0], widths[widths.len() - 1]);
        let levels = (0..widths.len())
            .map(|level| Level::load_up(config, &weights.pp("up_blocks").pp(level), level));
        Ok(Self {
            post_quant_conv,
            conv_in: causal(&weights.pp("conv_in"), latent, deepest, 3, [1, 1])?,
            middle: Middle::load(config, &weights.pp("mid_block"))?,
            levels: levels.collect::<Result<_>>()?,
            norm_out: norm(config, &weights.pp("conv_norm_out"), first)?,
            conv_out: causal(
                &weights.pp("conv_out"),
                first,
                config.out_channels,
                3,
                [1, 1],
            )?,
        })
    }
}
