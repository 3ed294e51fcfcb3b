//! The architecture of an autoencoder, checked once here so that the rest of the module can rely on
//! it. `keys.rs` reads and writes it as a `config.json`.

use brisk_nn::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 20;
const LARGEST_DEPTH: usize = 1024;

/// The kind of block a stage is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3x3 convolutions with a residual.
    ResBlock,
    /// Multi-scale linear attention, then a gated mobile convolution, each with a residual.
    EfficientVit,
}

/// The norm at the end of a residual branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square over the channels, with weight and bias.
    Rms,
    /// Batch norm with running statistics (inference only).
    Batch,
}

/// An elementwise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// How the encoder halves the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downsample {
    /// A 3x3 convolution to a quarter of the channels, then space to depth.
    PixelUnshuffle,
    /// A 3x3 convolution of stride 2.
    Conv,
}

/// How the decoder doubles the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upsample {
    /// A 3x3 convolution to four times the channels, then depth to space.
    PixelShuffle,
    /// Nearest neighbour, then a 3x3 convolution.
    Interpolate,
}

/// One stage of a half, by width index: stage 0 is full resolution, stage `s` is `2^s` smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageConfig {
    /// The kind of every block of the stage.
    pub block: BlockKind,
    /// Channels of the feature map.
    pub channels: usize,
    /// Number of blocks; 0 is allowed in stage 0 only and leaves out its resampler too.
    pub layers: usize,
    /// Kernel sizes of the extra attention scales (odd); empty for none.
    pub scales: Vec<usize>,
    /// Norm of the blocks.
    pub norm: NormKind,
    /// Activation inside a [`BlockKind::ResBlock`].
    pub activation: Activation,
}

/// Everything that defines an autoencoder apart from its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderConfig {
    /// Channels of the picture (3).
    pub in_channels: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Channels of one attention head.
    pub head_dim: usize,
    /// The encoder's stages, full resolution first.
    pub encoder: Vec<StageConfig>,
    /// The decoder's stages, full resolution first (they run in reverse).
    pub decoder: Vec<StageConfig>,
    /// Resampler of the encoder.
    pub downsample: Downsample,
    /// Resampler of the decoder.
    pub upsample: Upsample,
    /// Whether the encoder's output adds the group mean of its input.
    pub encoder_out_shortcut: bool,
    /// Whether the decoder's input adds the repeated latent.
    pub decoder_in_shortcut: bool,
    /// Activation between the decoder's last norm and its output convolution.
    pub decoder_out_activation: Activation,
    /// What a latent is multiplied with before diffusion.
    pub scaling_factor: f64,
}

impl AutoencoderConfig {
    /// Pixels of picture per position of latent, along each axis.
    pub fn ratio(&self) -> usize {
        1 << self.encoder.len().saturating_sub(1)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// With a message that names the key and both values.
    pub fn validate(&self) -> Result<()> {
        self.check()
            .map_err(|message| Error::Config(format!("autoencoder config: {message}")))
    }

    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let fail = |message: String| Err(message);
        if self.encoder.is_empty() || self.encoder.len() != self.decoder.len() {
            return fail(format!(
                "encoder_block_out_channels has {} stages and decoder_block_out_channels {}: \
                 both need the same number, at least 1",
                self.encoder.len(),
                self.decoder.len()
            ));
        }
        if self.encoder.len() > 12 {
            return fail(format!(
                "encoder_block_out_channels has {} stages; at most 12 make sense",
                self.encoder.len()
            ));
        }
        for (key, size) in [
            ("in_channels", self.in_channels),
            ("latent_channels", self.latent_channels),
            ("attention_head_dim", self.head_dim),
        ] {
            if size == 0 || size > LARGEST_WIDTH {
                return fail(format!("{key} is {size}, expected 1 to {LARGEST_WIDTH}"));
            }
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return fail(format!(
                "scaling_factor is {}, expected > 0",
                self.scaling_factor
            ));
        }
        for (half, stages) in [("encoder", &self.encoder), ("decoder", &self.decoder)] {
            for (index, stage) in stages.iter().enumerate() {
                if stage.channels == 0 || stage.channels > LARGEST_WIDTH {
                    return fail(format!(
                        "{half}_block_out_channels[{index}] is {}, expected 1 to {LARGEST_WIDTH}",
                        stage.channels
                    ));
                }
                if stage.layers > LARGEST_DEPTH {
                    return fail(format!(
                        "{half}_layers_per_block[{index}] is {}; at most {LARGEST_DEPTH} make sense",
                        stage.layers
                    ));
                }
                if stage.layers == 0 && (index > 0 || stages.len() == 1) {
                    return fail(format!(
                        "{half}_layers_per_block[{index}] is 0: only the first of several stages \
                         may be empty"
                    ));
                }
                if stage.block == BlockKind::EfficientVit {
                    if !stage.channels.is_multiple_of(self.head_dim) {
                        return fail(format!(
                            "{half}_block_out_channels[{index}] = {} isn't a multiple of \
                             attention_head_dim = {}, which EfficientViTBlock needs",
                            stage.channels, self.head_dim
                        ));
                    }
                    if let Some(scale) = stage
                        .scales
                        .iter()
                        .find(|scale| *scale % 2 == 0 || **scale > 31)
                    {
                        return fail(format!(
                            "{half}_qkv_multiscales[{index}] holds {scale}; kernel sizes are \
                             odd and at most 31"
                        ));
                    }
                }
            }
        }
        if self
            .encoder
            .iter()
            .any(|stage| stage.norm != NormKind::Rms || stage.activation != Activation::Silu)
        {
            return fail("the encoder's norm is rms_norm and its activation silu, always".into());
        }
        let first = |stages: &[StageConfig]| usize::from(stages[0].layers == 0);
        for pair in self.encoder[first(&self.encoder)..].windows(2) {
            let (wide, deep) = (pair[0].channels, pair[1].channels);
            if (4 * wide) % deep != 0 {
                return fail(format!(
                    "encoder_block_out_channels {wide} -> {deep}: four times the first must be a \
                     multiple of the second"
                ));
            }
        }
        if self.downsample == Downsample::PixelUnshuffle
            && let Some(stage) = self.encoder[1..]
                .iter()
                .find(|stage| stage.channels % 4 != 0)
        {
            return fail(format!(
                "encoder_block_out_channels holds {}; pixel_unshuffle needs multiples of 4",
                stage.channels
            ));
        }
        for pair in self.decoder[first(&self.decoder)..].windows(2) {
            let (wide, deep) = (pair[0].channels, pair[1].channels);
            if (4 * wide) % deep != 0 {
                return fail(format!(
                    "decoder_block_out_channels {wide} <- {deep}: four times the first must be a \
                     multiple of the second"
                ));
            }
        }
        for (key, shortcut, stages) in [
            (
                "encoder_out_shortcut",
                self.encoder_out_shortcut,
                &self.encoder,
            ),
            (
                "decoder_in_shortcut",
                self.decoder_in_shortcut,
                &self.decoder,
            ),
        ] {
            let deepest = stages[stages.len() - 1].channels;
            if shortcut && deepest % self.latent_channels != 0 {
                return fail(format!(
                    "{key} needs the deepest width {deepest} to be a multiple of latent_channels \
                     = {}",
                    self.latent_channels
                ));
            }
        }
        Ok(())
    }
}

impl Activation {
    /// As files spell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::Relu => "relu",
        }
    }
}
