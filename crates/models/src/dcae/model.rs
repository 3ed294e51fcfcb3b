//! The two halves and the autoencoder they make.

use std::ops::Range;

use brisk_nn::ops::{group_mean, repeat_channels};
use brisk_nn::{Conv2d, Error, Location, Result, RmsNorm, RmsNormKind, Tensor, Trace, Weights};

use super::blocks::{Block, NORM_EPSILON, conv3x3};
use super::config::{Activation, AutoencoderConfig, BlockKind, StageConfig};
use super::pass::Pass;
use super::resample::{Down, Up};
use crate::rows::{rows_of, strips, widened};

/// Which halves to load; the other one's weights aren't touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halves {
    /// Encoder and decoder.
    Both,
    /// The encoder alone.
    EncoderOnly,
    /// The decoder alone.
    DecoderOnly,
}

/// The deep-compression autoencoder; see the [module](super) for its data flow.
pub struct Autoencoder {
    pub(super) config: AutoencoderConfig,
    encoder: Option<Encoder>,
    decoder: Option<Decoder>,
    /// Where it computes; inputs come there, and results go back.
    location: Location,
}

impl Autoencoder {
    /// Builds the model from `weights`, whose names are those of diffusers (`encoder.conv_in..`);
    /// for the authors' names see [`native::map`](super::native::map).
    ///
    /// # Errors
    /// When the config doesn't hold together, when tensors of the wanted halves are missing,
    /// misshapen or left over, or when batch norm is to be trained.
    pub fn load(config: &AutoencoderConfig, weights: &Weights, halves: Halves) -> Result<Self> {
        config.validate()?;
        let encoder = match halves {
            Halves::DecoderOnly => None,
            _ => Some(Encoder::load(config, &weights.pp("encoder"))?),
        };
        let decoder = match halves {
            Halves::EncoderOnly => None,
            _ => Some(Decoder::load(config, &weights.pp("decoder"))?),
        };
        let mut ignored = config.batch_counters();
        match halves {
            Halves::Both => {}
            Halves::EncoderOnly => ignored.push("decoder.".into()),
            Halves::DecoderOnly => ignored.push("encoder.".into()),
        }
        let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
        weights.finish(&ignored)?;
        Ok(Autoencoder {
            config: config.clone(),
            encoder,
            decoder,
            location: weights.location().clone(),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &AutoencoderConfig {
        &self.config
    }

    /// Pixels of picture per position of latent, along each axis.
    pub fn ratio(&self) -> usize {
        self.config.ratio()
    }

    /// Where it computes. Maps that lie there come and go without a copy.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What a latent is multiplied with before diffusion (and divided by before decoding).
    /// [`encode`](Self::encode) and [`decode`](Self::decode) don't apply it.
    pub fn scaling_factor(&self) -> f64 {
        self.config.scaling_factor
    }

    /// Picture `[B,H,W,3]` in -1..1 to latent `[B,H/ratio,W/ratio,C]`, unscaled. Differentiable.
    ///
    /// # Errors
    /// When H or W isn't a multiple of the ratio, when the encoder wasn't loaded, or when a block
    /// gives NaN or infinity.
    pub fn encode(&self, picture: &Tensor) -> Result<Tensor> {
        self.encode_traced(picture, &mut Trace::none())
    }

    /// As [`encode`](Self::encode); `trace` sees every block's output (NHWC) under the block's
    /// name, for example `encoder.down_blocks.0.1`; the next block may write over it unless the trace is
    /// a detailed one.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_traced(&self, picture: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let encoder = self.encoder()?;
        self.check_picture(picture)?;
        let pass = &mut Pass::new(trace);
        let x = encoder.enter(&picture.to(&self.location)?, pass)?;
        let x = encoder.run(x, 0..encoder.stages.len(), None, pass)?;
        encoder.leave(&x, pass)?.beside(picture)
    }

    /// Latent `[B,h,w,C]`, unscaled, to picture `[B,h*ratio,w*ratio,3]`, nominally in -1..1 but
    /// not clamped. Differentiable.
    ///
    /// # Errors
    /// When the channels don't fit, when the decoder wasn't loaded, or when a block gives NaN or
    /// infinity.
    pub fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        self.decode_traced(latent, &mut Trace::none())
    }

    /// As [`decode`](Self::decode), which works maps of more than 128 MiB in parts, with another limit
    /// in bytes: lower takes less memory and a little more time.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_within(&self, latent: &Tensor, largest_map: usize) -> Result<Tensor> {
        self.decode_in(latent, &mut Pass::within(&mut Trace::none(), largest_map))
    }

    /// As [`decode`](Self::decode); `trace` sees every block's output (NHWC) under the block's
    /// name, for example `decoder.up_blocks.5.0`; the next block may write over it unless the trace is
    /// a detailed one.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_traced(&self, latent: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        self.decode_in(latent, &mut Pass::new(trace))
    }

    fn decode_in(&self, latent: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let decoder = self.decoder()?;
        self.check_latent(latent)?;
        let x = decoder.enter(&latent.to(&self.location)?, pass)?;
        let x = decoder.run(x, 0..decoder.stages.len(), None, pass)?;
        decoder.leave(&x, pass)?.beside(latent)
    }

    /// Whether it computes on a card.
    pub(super) fn is_on_card(&self) -> bool {
        self.location != Location::HOST
    }

    /// A tensor where it computes.
    pub(super) fn brought(&self, x: &Tensor) -> Result<Tensor> {
        x.to(&self.location)
    }

    pub(super) fn encoder(&self) -> Result<&Encoder> {
        self.encoder.as_ref().ok_or_else(|| {
            Error::Config("the autoencoder's encoder wasn't loaded; use Halves::Both".into())
        })
    }

    pub(super) fn decoder(&self) -> Result<&Decoder> {
        self.decoder.as_ref().ok_or_else(|| {
            Error::Config("the autoencoder's decoder wasn't loaded; use Halves::Both".into())
        })
    }

    /// `[B,H,W,C]` of a picture whose sides are multiples of the ratio.
    pub(super) fn check_picture(&self, picture: &Tensor) -> Result<[usize; 4]> {
        let (ratio, channels) = (self.ratio(), self.config.in_channels);
        match *picture.dims() {
            [batch, height, width, found]
                if found == channels
                    && batch * height * width > 0
                    && height % ratio == 0
                    && width % ratio == 0 =>
            {
                Ok([batch, height, width, found])
            }
            _ => Err(Error::Shape(format!(
                "the autoencoder got a picture of shape {:?}, expected [batch, height, width, \
                 {channels}] with height and width multiples of {ratio}",
                picture.dims()
            ))),
        }
    }

    /// `[B,h,w,C]` of a latent.
    pub(super) fn check_latent(&self, latent: &Tensor) -> Result<[usize; 4]> {
        let channels = self.config.latent_channels;
        match *latent.dims() {
            [batch, height, width, found] if found == channels && batch * height * width > 0 => {
                Ok([batch, height, width, found])
            }
            _ => Err(Error::Shape(format!(
                "the autoencoder got a latent of shape {:?}, expected [batch, height, width, \
                 {channels}]",
                latent.dims()
            ))),
        }
    }
}

impl AutoencoderConfig {
    /// Names of the batch norms' step counters, which inference has no use for.
    fn batch_counters(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (index, stage) in self.decoder.iter().enumerate() {
            if stage.norm != super::config::NormKind::Batch {
                continue;
            }
            let inner = match stage.block {
                BlockKind::ResBlock => "norm",
                BlockKind::EfficientVit => "attn.norm_out",
            };
            let first = usize::from(index + 1 < self.decoder.len());
            names.extend((first..first + stage.layers).map(|block| {
                format!("decoder.up_blocks.{index}.{block}.{inner}.num_batches_tracked")
            }));
        }
        names
    }
}

/// Rows of a strip below which a strip's neighbours cost too much.
const LEAST_ROWS: usize = 16;

/// Rows of a map's strips, if it has more than what was asked for; none where it stays whole.
fn strip_rows(asked: Option<usize>, x: &Tensor) -> Option<usize> {
    let rows = asked?.max(LEAST_ROWS);
    (rows < x.dims()[1]).then_some(rows)
}

/// A block on the whole map, or in strips of about `rows` rows if the map has more; these are written
/// over the map, and so is a large one by a block that sees only few rows.
fn run_block(
    block: &Block,
    x: Tensor,
    name: &str,
    rows: Option<usize>,
    pass: &mut Pass,
) -> Result<Tensor> {
    let rows = match rows {
        None if block.halo().is_some() => pass.part_rows(&x)?,
        given => given,
    };
    match strip_rows(rows, &x) {
        Some(rows) => block.forward_strips(x, rows),
        None => block.forward(&x, name, pass),
    }
}

/// A map doubled, whole or in strips of about `rows` rows of the result, as [`run_block`]: whole, what
/// the convolution gives, what is made of that and the result would all be held at once.
fn run_up(up: &Up, x: &Tensor, rows: Option<usize>, pass: &Pass) -> Result<Tensor> {
    let rows = match rows {
        None => pass.part_rows(x)?,
        given => given.map(|rows| rows.div_ceil(2)),
    };
    match strip_rows(rows, x) {
        Some(rows) => up.forward_strips(x, rows),
        None => up.forward(x),
    }
}

/// The index of the first stage that has blocks.
fn first_stage(stages: &[StageConfig]) -> usize {
    usize::from(stages[0].layers == 0)
}

struct EncoderStage {
    blocks: Vec<Block>,
    down: Option<Down>,
}

/// Either a plain convolution at full resolution or one that halves the picture as well.
enum EncoderEntry {
    Conv(Conv2d),
    Down(Down),
}

pub(super) struct Encoder {
    entry: EncoderEntry,
    /// By width index: stage 0 is full resolution.
    stages: Vec<EncoderStage>,
    exit: Conv2d,
    /// Latent channels of the output shortcut.
    shortcut: Option<usize>,
}

impl Encoder {
    fn load(config: &AutoencoderConfig, weights: &Weights) -> Result<Self> {
        let widths: Vec<usize> = config.encoder.iter().map(|stage| stage.channels).collect();
        let first = first_stage(&config.encoder);
        let entry = weights.pp("conv_in");
        let entry = if first == 0 {
            EncoderEntry::Conv(Conv2d::load(
                &entry,
                config.in_channels,
                widths[0],
                conv3x3(1, true),
            )?)
        } else {
            let (from, to) = (config.in_channels, widths[1]);
            EncoderEntry::Down(Down::load(config.downsample, &entry, from, to, false)?)
        };
        let mut stages = Vec::with_capacity(widths.len());
        for (index, stage) in config.encoder.iter().enumerate() {
            let weights = weights.pp("down_blocks").pp(index);
            let mut blocks = Vec::with_capacity(stage.layers);
            for block in 0..stage.layers {
                let name = format!("encoder.down_blocks.{index}.{block}");
                blocks.push(Block::load(
                    stage,
                    config.head_dim,
                    &weights.pp(block),
                    &name,
                )?);
            }
            let down = match widths.get(index + 1) {
                Some(next) if stage.layers > 0 => Some(Down::load(
                    config.downsample,
                    &weights.pp(stage.layers),
                    stage.channels,
                    *next,
                    true,
                )?),
                _ => None,
            };
            stages.push(EncoderStage { blocks, down });
        }
        let deepest = widths[widths.len() - 1];
        let latent = config.latent_channels;
        Ok(Encoder {
            entry,
            stages,
            exit: Conv2d::load(&weights.pp("conv_out"), deepest, latent, conv3x3(1, true))?,
            shortcut: config.encoder_out_shortcut.then_some(latent),
        })
    }

    pub(super) fn enter(&self, picture: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let x = match &self.entry {
            EncoderEntry::Conv(conv) => conv.forward(picture)?,
            EncoderEntry::Down(down) => down.forward(picture)?,
        };
        pass.block("encoder.conv_in", &x)?;
        Ok(x)
    }

    /// Runs the stages of a range of width indices, each with its resampler; blocks in strips of so
    /// many picture rows, where that is asked, which overwrites `x`.
    pub(super) fn run(
        &self,
        mut x: Tensor,
        stages: Range<usize>,
        strips: Option<usize>,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        for index in stages {
            let stage = &self.stages[index];
            for (number, block) in stage.blocks.iter().enumerate() {
                let name = format!("encoder.down_blocks.{index}.{number}");
                x = run_block(block, x, &name, strips.map(|rows| rows >> index), pass)?;
                pass.block(&name, &x)?;
            }
            if let Some(down) = &stage.down {
                x = down.forward(&x)?;
                let number = stage.blocks.len();
                pass.block(&format!("encoder.down_blocks.{index}.{number}"), &x)?;
            }
        }
        Ok(x)
    }

    pub(super) fn leave(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let main = self.exit.forward(x)?;
        pass.block("encoder.conv_out", &main)?;
        match self.shortcut {
            None => Ok(main),
            Some(channels) => Ok((main + group_mean(x, channels)?)?),
        }
    }

    /// Picture rows above and below its own `2^split` that a row of stage `split`'s input needs.
    pub(super) fn halo(&self, split: usize) -> Option<usize> {
        let mut rows = 0;
        for stage in self.stages[..split].iter().rev() {
            if let Some(down) = &stage.down {
                rows = down.halo(rows);
            }
            for block in &stage.blocks {
                rows += block.halo()?;
            }
        }
        Some(match &self.entry {
            EncoderEntry::Conv(_) => rows + 1,
            EncoderEntry::Down(down) => down.halo(rows),
        })
    }
}

struct DecoderStage {
    up: Option<Up>,
    blocks: Vec<Block>,
}

/// Either a plain convolution at full resolution or one that doubles the picture as well.
enum DecoderExit {
    Conv(Conv2d),
    Up(Up),
}

pub(super) struct Decoder {
    entry: Conv2d,
    /// Deepest channels of the input shortcut.
    shortcut: Option<usize>,
    /// By width index; they run from the last to the first.
    stages: Vec<DecoderStage>,
    norm: RmsNorm,
    activation: Activation,
    exit: DecoderExit,
}

impl Decoder {
    fn load(config: &AutoencoderConfig, weights: &Weights) -> Result<Self> {
        let widths: Vec<usize> = config.decoder.iter().map(|stage| stage.channels).collect();
        let deepest = widths[widths.len() - 1];
        let mut stages = Vec::with_capacity(widths.len());
        for (index, stage) in config.decoder.iter().enumerate() {
            let weights = weights.pp("up_blocks").pp(index);
            let up = match widths.get(index + 1) {
                Some(from) if stage.layers > 0 => Some(Up::load(
                    config.upsample,
                    &weights.pp(0),
                    *from,
                    stage.channels,
                    true,
                )?),
                _ => None,
            };
            let first = usize::from(up.is_some());
            let mut blocks = Vec::with_capacity(stage.layers);
            for block in first..first + stage.layers {
                let name = format!("decoder.up_blocks.{index}.{block}");
                blocks.push(Block::load(
                    stage,
                    config.head_dim,
                    &weights.pp(block),
                    &name,
                )?);
            }
            stages.push(DecoderStage { up, blocks });
        }
        let first = first_stage(&config.decoder);
        let channels = widths[first];
        let exit = weights.pp("conv_out");
        let exit = if first == 0 {
            DecoderExit::Conv(Conv2d::load(
                &exit,
                channels,
                config.in_channels,
                conv3x3(1, true),
            )?)
        } else {
            DecoderExit::Up(Up::load(
                config.upsample,
                &exit,
                channels,
                config.in_channels,
                false,
            )?)
        };
        Ok(Decoder {
            entry: Conv2d::load(
                &weights.pp("conv_in"),
                config.latent_channels,
                deepest,
                conv3x3(1, true),
            )?,
            shortcut: config.decoder_in_shortcut.then_some(deepest),
            stages,
            norm: RmsNorm::load(
                &weights.pp("norm_out"),
                channels,
                NORM_EPSILON,
                RmsNormKind::WeightBias,
            )?,
            activation: config.decoder_out_activation,
            exit,
        })
    }

    pub(super) fn enter(&self, latent: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let main = self.entry.forward(latent)?;
        pass.block("decoder.conv_in", &main)?;
        match self.shortcut {
            None => Ok(main),
            Some(channels) => Ok((main + repeat_channels(latent, channels)?)?),
        }
    }

    /// Runs the stages of a range of width indices from the last to the first; blocks in strips of so
    /// many picture rows, where that is asked, which overwrites `x`.
    pub(super) fn run(
        &self,
        mut x: Tensor,
        stages: Range<usize>,
        strips: Option<usize>,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        for index in stages.rev() {
            let stage = &self.stages[index];
            let mut number = 0;
            if let Some(up) = &stage.up {
                x = run_up(up, &x, strips.map(|rows| rows >> index), pass)?;
                pass.block(&format!("decoder.up_blocks.{index}.0"), &x)?;
                number = 1;
            }
            for block in &stage.blocks {
                let name = format!("decoder.up_blocks.{index}.{number}");
                x = run_block(block, x, &name, strips.map(|rows| rows >> index), pass)?;
                pass.block(&name, &x)?;
                number += 1;
            }
        }
        Ok(x)
    }

    pub(super) fn leave(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let picture = match (&self.exit, pass.part_rows(x)?) {
            (DecoderExit::Conv(conv), Some(rows)) => {
                let height = x.dim(1)?;
                let mut parts = Vec::new();
                for strip in strips(height, rows.max(LEAST_ROWS)) {
                    let seen = widened(&strip, 1, height);
                    let part = self.norm.forward(&rows_of(x, &seen)?)?;
                    let part = conv.forward(&self.activation.forward(&part)?)?;
                    let own = strip.start - seen.start..strip.end - seen.start;
                    parts.push(rows_of(&part, &own)?);
                }
                Tensor::cat(&parts, 1)?
            }
            (exit, _) => {
                let x = self.norm.forward(x)?;
                pass.block("decoder.norm_out", &x)?;
                let x = self.activation.forward(&x)?;
                match exit {
                    DecoderExit::Conv(conv) => conv.forward(&x)?,
                    DecoderExit::Up(up) => up.forward(&x)?,
                }
            }
        };
        pass.block("decoder.conv_out", &picture)?;
        Ok(picture)
    }

    /// Whether a stage doubles the map.
    pub(super) fn doubles(&self, stage: usize) -> bool {
        self.stages[stage].up.is_some()
    }

    /// Rows above and below its own that stage `split`'s output must have for an exact row of
    /// picture.
    pub(super) fn halo(&self, split: usize) -> Option<usize> {
        let mut rows = match &self.exit {
            DecoderExit::Conv(_) => 1,
            DecoderExit::Up(up) => up.halo(0),
        };
        for stage in &self.stages[..split] {
            for block in &stage.blocks {
                rows += block.halo()?;
            }
            if let Some(up) = &stage.up {
                rows = up.halo(rows);
            }
        }
        Some(rows)
    }
}
