//! What the two halves are made of.

use brisk_nn::ops::{self, AttentionOptions, AttentionSpan};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, ClipPadding, Conv3d, Conv3dOptions,
    GroupNorm, Init, Tensor, Trace, Weights, check_finite,
};

use super::VideoAutoencoderConfig;
use crate::{Error, Result};

/// Epsilon of all norms.
pub(super) const NORM_EPS: f64 = 1e-6;

/// A causal convolution, which files keep under `conv`.
pub(super) fn causal(
    weights: &Weights,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: [usize; 2],
) -> Result<Conv3d> {
    let options = Conv3dOptions {
        kernel,
        stride,
        padding: ClipPadding::Causal,
        bias: true,
    };
    Conv3d::load(&weights.pp("conv"), inputs, outputs, options)
}

/// A norm with the configuration's groups.
pub(super) fn norm(
    config: &VideoAutoencoderConfig,
    weights: &Weights,
    channels: usize,
) -> Result<GroupNorm> {
    GroupNorm::load(weights, config.norm_num_groups, channels, NORM_EPS)
}

/// Norm, SiLU, convolution, twice, and what came in.
#[derive(Debug)]
pub(super) struct ResBlock {
    pub norms: [GroupNorm; 2],
    pub convs: [Conv3d; 2],
    pub shortcut: Option<Conv3d>,
}

impl ResBlock {
    pub fn load(
        config: &VideoAutoencoderConfig,
        weights: &Weights,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self> {
        let conv = |name: &str, inputs: usize, kernel: usize| {
            causal(&weights.pp(name), inputs, outputs, kernel, [1, 1])
        };
        Ok(Self {
            norms: [
                norm(config, &weights.pp("norm1"), inputs)?,
                norm(config, &weights.pp("norm2"), outputs)?,
            ],
            convs: [conv("conv1", inputs, 3)?, conv("conv2", outputs, 3)?],
            shortcut: match inputs == outputs {
                true => None,
                false => Some(conv("conv_shortcut", inputs, 1)?),
            },
        })
    }

    /// `[B,F,h,w,inputs]` to `[B,F,h,w,outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = ops::silu(&self.norms[0].forward(x)?)?;
        h = self.convs[0].forward(&h)?;
        h = ops::silu(&self.norms[1].forward(&h)?)?;
        h = self.convs[1].forward(&h)?;
        match &self.shortcut {
            Some(shortcut) => h + shortcut.forward(x)?,
            None => h + x,
        }
    }
}

/// Attention of all places of a frame to those of that frame and the earlier ones.
#[derive(Debug)]
struct FrameAttention {
    norm: GroupNorm,
    maps: AttentionProjections,
}

impl FrameAttention {
    fn load(config: &VideoAutoencoderConfig, weights: &Weights, channels: usize) -> Result<Self> {
        let widths = AttentionWidths {
            width: channels,
            context: channels,
            queries: channels,
            keys: channels,
            bias: true,
            output_bias: true,
            init: Init::KaimingUniform,
        };
        Ok(Self {
            norm: norm(config, &weights.pp("group_norm"), channels)?,
            maps: AttentionProjections::load(weights, AttentionNames::DIFFUSERS, &widths)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let &[batch, frames, height, width, channels] = x.dims() else {
            return Err(Error::Shape(format!("a clip of shape {:?}", x.dims())));
        };
        let places = height * width;
        let tokens = (batch, frames * places, channels);
        let h = self.norm.forward(x)?.reshape(tokens)?;
        let (q, k, v) = (
            self.maps.query.forward(&h)?,
            self.maps.key.forward(&h)?,
            self.maps.value.forward(&h)?,
        );
        let options = AttentionOptions::new(1, channels);
        let clips = (0..batch).map(|clip| {
            let own = |x: &Tensor| x.narrow(0, clip, 1)?.contiguous();
            let spans = (0..frames).map(|frame| AttentionSpan {
                queries: frame * places..(frame + 1) * places,
                keys: 0..(frame + 1) * places,
                causal: None,
            });
            ops::span_attention(&own(&q)?, &own(&k)?, &own(&v)?, spans.collect(), &options)
        });
        let attended = Tensor::cat(&clips.collect::<Result<Vec<_>>>()?, 0)?;
        let y = self.maps.output.forward(&attended)?;
        y.reshape(x.dims().to_vec())? + x
    }
}

/// What stands between the levels and the latent.
#[derive(Debug)]
pub(super) struct Middle {
    first: ResBlock,
    attention: Option<FrameAttention>,
    second: ResBlock,
}

impl Middle {
    pub fn load(config: &VideoAutoencoderConfig, weights: &Weights) -> Result<Self> {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let block = |index: usize| {
            let weights = weights.pp("resnets").pp(index);
            ResBlock::load(config, &weights, channels, channels)
        };
        Ok(Self {
            first: block(0)?,
            attention: match config.mid_block_add_attention {
                true => Some(FrameAttention::load(
                    config,
                    &weights.pp("attentions.0"),
                    channels,
                )?),
                false => None,
            },
            second: block(1)?,
        })
    }

    /// `trace` sees `resnets.0` and `attentions.0`.
    pub fn forward(&self, x: &Tensor, stage: &str, trace: &mut Trace) -> Result<Tensor> {
        let mut x = self.first.forward(x)?;
        trace.detail("resnets.0", &x);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
            trace.detail("attentions.0", &x);
        }
        x = self.second.forward(&x)?;
        check_finite(&x, stage, "mid_block")?;
        Ok(x)
    }
}

/// Residual blocks and what changes the map's size behind them.
#[derive(Debug)]
pub(super) struct Level {
    pub blocks: Vec<ResBlock>,
    /// The convolution with the factors of time and space, where one is not 1.
    pub resampling: Option<(Conv3d, [usize; 2])>,
}

impl Level {
    /// Of the encoder: `resnets.{i}` and `downsamplers.0`.
    pub fn load_down(
        config: &VideoAutoencoderConfig,
        weights: &Weights,
        level: usize,
    ) -> Result<Self> {
        let outputs = config.block_out_channels[level];
        let inputs = config.block_out_channels[level.saturating_sub(1)];
        let steps = config.steps(level);
        let down = weights.pp("downsamplers.0.conv");
        Ok(Self {
            blocks: Self::blocks(config, weights, config.layers_per_block, inputs, outputs)?,
            resampling: match steps {
                [1, 1] => None,
                _ => Some((causal(&down, outputs, outputs, 3, steps)?, steps)),
            },
        })
    }

    /// Of the decoder, whose levels run from the deepest on: `resnets.{i}` and `upsamplers.0`.
    pub fn load_up(
        config: &VideoAutoencoderConfig,
        weights: &Weights,
        level: usize,
    ) -> Result<Self> {
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (inputs, outputs) = (widths[level.saturating_sub(1)], widths[level]);
        let steps = config.steps(level);
        let up = weights.pp("upsamplers.0.conv");
        Ok(Self {
            blocks: Self::blocks(
                config,
                weights,
                config.layers_per_block + 1,
                inputs,
                outputs,
            )?,
            resampling: match steps {
                [1, 1] => None,
                _ => Some((causal(&up, outputs, outputs, 3, [1, 1])?, steps)),
            },
        })
    }

    fn blocks(
        config: &VideoAutoencoderConfig,
        weights: &Weights,
        count: usize,
        inputs: usize,
        outputs: usize,
    ) -> Result<Vec<ResBlock>> {
        let block = |index: usize| {
            let inputs = if index == 0 { inputs } else { outputs };
            ResBlock::load(config, &weights.pp("resnets").pp(index), inputs, outputs)
        };
        (0..count).map(block).collect()
    }

    /// Encoding: the map gets coarser.
    pub fn down(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.run(x)?;
        match &self.resampling {
            Some((conv, _)) => conv.forward(&x),
            None => Ok(x),
        }
    }

    /// Decoding: the map gets finer.
    pub fn up(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.run(x)?;
        match &self.resampling {
            Some((conv, steps)) => conv.forward(&finer(&x, *steps)?),
            None => Ok(x),
        }
    }

    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }
}

/// A latent frame of `time` frames, but for the first, which stands for one.
pub(super) fn source_frame(frame: usize, time: usize) -> usize {
    frame.div_ceil(time)
}

/// Each pixel a square, and each frame but the first several.
fn finer(x: &Tensor, [time, space]: [usize; 2]) -> Result<Tensor> {
    let &[batch, frames, height, width, channels] = x.dims() else {
        return Err(Error::Shape(format!("a clip of shape {:?}", x.dims())));
    };
    let mut x = x.clone();
    if space == 2 {
        let maps = x.reshape((batch * frames, height, width, channels))?;
        x = ops::upsample_nearest2(&maps)?.reshape(vec![
            batch,
            frames,
            2 * height,
            2 * width,
            channels,
        ])?;
    }
    if time == 1 {
        return Ok(x);
    }
    let count = (frames - 1) * time + 1;
    let places = (0..count).map(|frame| source_frame(frame, time) as u32);
    x.index_select(&Tensor::from_vec(places.collect(), count)?, 1)
}
