//! The architecture of an autoencoder as its `config.json` describes it (the keys of diffusers'
//! `AutoencoderDC`), checked once here so that the rest of the module can rely on it.

use brisk_nn::{Error, Result};
use brisk_store::read::without_mark;
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "Keys")]
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
    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// When a key has the wrong type, is unknown, or the values don't fit together; the message
    /// names the key, what was found and what was expected.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_slice(without_mark(bytes))
            .map_err(|error| Error::Config(format!("{label}: not JSON: {error}")))?;
        Self::from_value(value).map_err(|error| Error::Config(format!("{label}: {error}")))
    }

    fn from_value(value: serde_json::Value) -> std::result::Result<Self, String> {
        let class = value.get("_class_name").and_then(|name| name.as_str());
        if class == Some("DCAE") || value.get("encoder_width_list").is_some() {
            return Err(
                "the pre-release class \"DCAE\" (keys such as encoder_width_list) isn't \
                        supported: use the released repository of the same model, whose config has \
                        _class_name \"AutoencoderDC\""
                    .into(),
            );
        }
        if let Some(class) = class
            && class != "AutoencoderDC"
        {
            return Err(format!(
                "_class_name is \"{class}\", expected \"AutoencoderDC\""
            ));
        }
        let object = value.as_object().ok_or("expected a JSON object")?;
        if let Some(unknown) = object
            .keys()
            .find(|key| !key.starts_with('_') && !KNOWN_KEYS.contains(&key.as_str()))
        {
            return Err(format!(
                "the key \"{unknown}\" isn't known; known keys: {}",
                KNOWN_KEYS.join(", ")
            ));
        }
        let keys: Keys =
            serde_path_to_error::deserialize(value).map_err(|error| error.to_string())?;
        Self::from_keys(keys)
    }

    /// The same architecture with another scaling factor.
    pub fn with_scaling_factor(mut self, factor: f64) -> Self {
        self.scaling_factor = factor;
        self
    }

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

    fn check(&self) -> std::result::Result<(), String> {
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
                "{} stages; at most 12 make sense",
                self.encoder.len()
            ));
        }
        let widths = self
            .encoder
            .iter()
            .chain(&self.decoder)
            .map(|stage| stage.channels);
        let sizes = [self.in_channels, self.latent_channels, self.head_dim];
        if let Some(size) = widths.chain(sizes).find(|size| *size > LARGEST_WIDTH) {
            return fail(format!(
                "{size} channels; at most {LARGEST_WIDTH} make sense"
            ));
        }
        if self.in_channels == 0 || self.latent_channels == 0 || self.head_dim == 0 {
            return fail(
                "in_channels, latent_channels and attention_head_dim must be at least 1".into(),
            );
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return fail(format!(
                "scaling_factor is {}, expected > 0",
                self.scaling_factor
            ));
        }
        for (half, stages) in [("encoder", &self.encoder), ("decoder", &self.decoder)] {
            for (index, stage) in stages.iter().enumerate() {
                if stage.channels == 0 {
                    return fail(format!("{half}_block_out_channels[{index}] is 0"));
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

    fn from_keys(keys: Keys) -> std::result::Result<Self, String> {
        let encoder = stages(
            "encoder",
            &keys.encoder_block_types,
            &keys.encoder_block_out_channels,
            &keys.encoder_layers_per_block,
            keys.encoder_qkv_multiscales.as_deref(),
            &OneOrMany::One("rms_norm".into()),
            &OneOrMany::One("silu".into()),
        )?;
        let decoder = stages(
            "decoder",
            &keys.decoder_block_types,
            &keys.decoder_block_out_channels,
            &keys.decoder_layers_per_block,
            keys.decoder_qkv_multiscales.as_deref(),
            &keys.decoder_norm_types,
            &keys.decoder_act_fns,
        )?;
        let config = AutoencoderConfig {
            in_channels: keys.in_channels,
            latent_channels: keys.latent_channels,
            head_dim: keys.attention_head_dim,
            encoder,
            decoder,
            // Any other string, in any case, means the other variant: published files hold
            // both "Conv" and "conv".
            downsample: if keys.downsample_block_type == "pixel_unshuffle" {
                Downsample::PixelUnshuffle
            } else {
                Downsample::Conv
            },
            upsample: if keys.upsample_block_type == "interpolate" {
                Upsample::Interpolate
            } else {
                Upsample::PixelShuffle
            },
            encoder_out_shortcut: keys.encoder_out_shortcut,
            decoder_in_shortcut: keys.decoder_in_shortcut,
            decoder_out_activation: activation("decoder_conv_act_fn", &keys.decoder_conv_act_fn)?,
            scaling_factor: keys.scaling_factor,
        };
        config.check()?;
        Ok(config)
    }
}

impl TryFrom<serde_json::Value> for AutoencoderConfig {
    type Error = String;

    fn try_from(value: serde_json::Value) -> std::result::Result<Self, String> {
        Self::from_value(value)
    }
}

impl From<AutoencoderConfig> for Keys {
    fn from(config: AutoencoderConfig) -> Self {
        fn each<T>(stages: &[StageConfig], value: impl Fn(&StageConfig) -> T) -> Vec<T> {
            stages.iter().map(value).collect()
        }
        let block = |stage: &StageConfig| {
            match stage.block {
                BlockKind::ResBlock => "ResBlock",
                BlockKind::EfficientVit => "EfficientViTBlock",
            }
            .to_string()
        };
        let norm = |stage: &StageConfig| {
            match stage.norm {
                NormKind::Rms => "rms_norm",
                NormKind::Batch => "batch_norm",
            }
            .to_string()
        };
        let (encoder, decoder) = (&config.encoder, &config.decoder);
        Keys {
            class_name: Some("AutoencoderDC".into()),
            in_channels: config.in_channels,
            latent_channels: config.latent_channels,
            attention_head_dim: config.head_dim,
            encoder_block_types: OneOrMany::Many(each(encoder, block)),
            decoder_block_types: OneOrMany::Many(each(decoder, block)),
            encoder_block_out_channels: each(encoder, |stage| stage.channels),
            decoder_block_out_channels: each(decoder, |stage| stage.channels),
            encoder_layers_per_block: each(encoder, |stage| stage.layers),
            decoder_layers_per_block: each(decoder, |stage| stage.layers),
            encoder_qkv_multiscales: Some(each(encoder, |stage| stage.scales.clone())),
            decoder_qkv_multiscales: Some(each(decoder, |stage| stage.scales.clone())),
            downsample_block_type: match config.downsample {
                Downsample::PixelUnshuffle => "pixel_unshuffle",
                Downsample::Conv => "Conv",
            }
            .into(),
            upsample_block_type: match config.upsample {
                Upsample::PixelShuffle => "pixel_shuffle",
                Upsample::Interpolate => "interpolate",
            }
            .into(),
            decoder_norm_types: OneOrMany::Many(each(decoder, norm)),
            decoder_act_fns: OneOrMany::Many(each(decoder, |stage| stage.activation.name().into())),
            encoder_out_shortcut: config.encoder_out_shortcut,
            decoder_in_shortcut: config.decoder_in_shortcut,
            decoder_conv_act_fn: config.decoder_out_activation.name().into(),
            scaling_factor: config.scaling_factor,
        }
    }
}

impl Activation {
    fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::Relu => "relu",
        }
    }
}

const KNOWN_KEYS: [&str; 19] = [
    "in_channels",
    "latent_channels",
    "attention_head_dim",
    "encoder_block_types",
    "decoder_block_types",
    "encoder_block_out_channels",
    "decoder_block_out_channels",
    "encoder_layers_per_block",
    "decoder_layers_per_block",
    "encoder_qkv_multiscales",
    "decoder_qkv_multiscales",
    "downsample_block_type",
    "upsample_block_type",
    "decoder_norm_types",
    "decoder_act_fns",
    "encoder_out_shortcut",
    "decoder_in_shortcut",
    "decoder_conv_act_fn",
    "scaling_factor",
];

/// A value for all stages, or one for each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The file's own layout, with the defaults of absent keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    class_name: Option<String>,
    in_channels: usize,
    latent_channels: usize,
    attention_head_dim: usize,
    encoder_block_types: OneOrMany,
    decoder_block_types: OneOrMany,
    encoder_block_out_channels: Vec<usize>,
    decoder_block_out_channels: Vec<usize>,
    encoder_layers_per_block: Vec<usize>,
    decoder_layers_per_block: Vec<usize>,
    encoder_qkv_multiscales: Option<Vec<Vec<usize>>>,
    decoder_qkv_multiscales: Option<Vec<Vec<usize>>>,
    downsample_block_type: String,
    upsample_block_type: String,
    decoder_norm_types: OneOrMany,
    decoder_act_fns: OneOrMany,
    encoder_out_shortcut: bool,
    decoder_in_shortcut: bool,
    decoder_conv_act_fn: String,
    scaling_factor: f64,
}

impl Default for Keys {
    fn default() -> Self {
        let widths = vec![128, 256, 512, 512, 1024, 1024];
        Keys {
            class_name: None,
            in_channels: 3,
            latent_channels: 32,
            attention_head_dim: 32,
            encoder_block_types: OneOrMany::One("ResBlock".into()),
            decoder_block_types: OneOrMany::One("ResBlock".into()),
            encoder_block_out_channels: widths.clone(),
            decoder_block_out_channels: widths,
            encoder_layers_per_block: vec![2, 2, 2, 3, 3, 3],
            decoder_layers_per_block: vec![3; 6],
            encoder_qkv_multiscales: None,
            decoder_qkv_multiscales: None,
            downsample_block_type: "pixel_unshuffle".into(),
            upsample_block_type: "pixel_shuffle".into(),
            decoder_norm_types: OneOrMany::One("rms_norm".into()),
            decoder_act_fns: OneOrMany::One("silu".into()),
            encoder_out_shortcut: true,
            decoder_in_shortcut: true,
            decoder_conv_act_fn: "relu".into(),
            scaling_factor: 1.0,
        }
    }
}

/// Spreads the lists of one half over its stages.
fn stages(
    half: &str,
    blocks: &OneOrMany,
    channels: &[usize],
    layers: &[usize],
    scales: Option<&[Vec<usize>]>,
    norms: &OneOrMany,
    activations: &OneOrMany,
) -> std::result::Result<Vec<StageConfig>, String> {
    let count = channels.len();
    let same_length = |key: &str, found: usize| {
        if found == count {
            return Ok(());
        }
        Err(format!(
            "{key} has {found} entries, {half}_block_out_channels {count}: \
             expected as many"
        ))
    };
    let spread = |key: &str, value: &OneOrMany| -> std::result::Result<Vec<String>, String> {
        match value {
            OneOrMany::One(one) => Ok(vec![one.clone(); count]),
            OneOrMany::Many(many) => {
                same_length(key, many.len())?;
                Ok(many.clone())
            }
        }
    };
    same_length(&format!("{half}_layers_per_block"), layers.len())?;
    let blocks_key = format!("{half}_block_types");
    let blocks = spread(&blocks_key, blocks)?;
    let norms = spread("decoder_norm_types", norms)?;
    let activations = spread("decoder_act_fns", activations)?;
    if let Some(scales) = scales {
        same_length(&format!("{half}_qkv_multiscales"), scales.len())?;
    }
    (0..count)
        .map(|index| {
            let block = match blocks[index].as_str() {
                "ResBlock" => BlockKind::ResBlock,
                "EfficientViTBlock" => BlockKind::EfficientVit,
                other => {
                    return Err(format!(
                        "{blocks_key}[{index}] is \"{other}\", expected \
                         \"ResBlock\" or \"EfficientViTBlock\""
                    ));
                }
            };
            let norm = match norms[index].as_str() {
                "rms_norm" => NormKind::Rms,
                "batch_norm" => NormKind::Batch,
                other => {
                    return Err(format!(
                        "decoder_norm_types[{index}] is \"{other}\", expected \
                         \"rms_norm\" or \"batch_norm\""
                    ));
                }
            };
            let scales = match (block, scales) {
                (BlockKind::ResBlock, _) => Vec::new(),
                (BlockKind::EfficientVit, Some(scales)) => scales[index].clone(),
                // Absent key: the default list of the class, [[], [], [], [5], [5], [5]].
                (BlockKind::EfficientVit, None) if index < 3 => Vec::new(),
                (BlockKind::EfficientVit, None) => vec![5],
            };
            Ok(StageConfig {
                block,
                channels: channels[index],
                layers: layers[index],
                scales,
                norm,
                activation: activation("decoder_act_fns", &activations[index])?,
            })
        })
        .collect()
}

fn activation(key: &str, name: &str) -> std::result::Result<Activation, String> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        other => Err(format!(
            "{key} is \"{other}\", expected \"silu\" or \"relu\""
        )),
    }
}
