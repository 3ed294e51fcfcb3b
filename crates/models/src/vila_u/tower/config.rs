//! The tower's `config.json`.

use brisk_nn::{VqganOptions, VqganProjections};
use serde::Deserialize;

use super::super::depth::DepthConfig;
use super::SiglipConfig;
use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 16;
const LARGEST_SIDE: usize = 1 << 12;
/// Channels of a picture.
const COLOURS: usize = 3;

/// Settings of a tower.
#[derive(Debug, Clone, PartialEq)]
pub struct TowerConfig {
    /// Channels of the encoder's vectors and of codewords.
    pub embed_dim: usize,
    /// Codewords of a codebook.
    pub n_embed: usize,
    /// Places along a side of a picture.
    pub grid: usize,
    /// Codes of a place.
    pub depth: usize,
    /// Whether all depths have one codebook.
    pub shared_codebook: bool,
    /// Rows and columns that the grid is resized to before it is decoded.
    pub decoder_latent_shape: Option<[usize; 2]>,
    /// The decoder.
    pub decoder: DecoderConfig,
    /// Name of the SigLIP model whose sizes the encoder has.
    pub pretrained_model: String,
    /// Those sizes, where they are known.
    pub siglip: Option<SiglipConfig>,
    /// The depth transformer.
    pub head: DepthConfig,
}

/// Settings of the decoder, as `ddconfig` names them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DecoderConfig {
    /// Channels of the first level.
    pub ch: usize,
    /// Channels of each level, full resolution first, in units of `ch`.
    pub ch_mult: Vec<usize>,
    /// Residual blocks of a level, less one.
    pub num_res_blocks: usize,
    /// Resolutions at which blocks are followed by attention, counted from `resolution`.
    pub attn_resolutions: Vec<usize>,
    /// Pixels of a side that levels are counted from, whatever is decoded.
    pub resolution: usize,
    /// Channels of the latent.
    pub z_channels: usize,
    #[serde(default = "colours")]
    out_ch: usize,
    #[serde(default)]
    double_z: bool,
    #[serde(default = "yes")]
    resamp_with_conv: bool,
    #[serde(default)]
    give_pre_end: bool,
}

fn colours() -> usize {
    COLOURS
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct File {
    hidden_size: Option<usize>,
    rqvaesiglip: AutoencoderFile,
    rqtransformer: TransformerFile,
}

#[derive(Deserialize)]
struct AutoencoderFile {
    embed_dim: usize,
    n_embed: usize,
    latent_shape: [usize; 3],
    code_shape: [usize; 3],
    #[serde(default)]
    shared_codebook: bool,
    ddconfig: DecoderConfig,
    #[serde(default)]
    decoder_latent_shape: Option<[usize; 2]>,
    #[serde(default = "siglip_large")]
    pretrained_model: String,
}

fn siglip_large() -> String {
    "google/siglip-large-patch16-256".to_owned()
}

#[derive(Deserialize)]
struct TransformerFile {
    block_size: [usize; 3],
    input_embed_dim_1: usize,
    input_embed_dim_2: usize,
    embed_dim: usize,
    vocab_size: usize,
    head: HeadFile,
}

#[derive(Deserialize)]
struct HeadFile {
    block: BlockFile,
    n_layer: usize,
}

#[derive(Deserialize)]
struct BlockFile {
    n_head: usize,
}

impl TowerConfig {
    /// Values of `model_type` and `architectures`.
    pub(in super::super) const CLASSES: [&str; 2] =
        ["rqvaesigliptransformer_model", "RQVAESIGLIPTransformer"];

    /// Keys that are read.
    pub(in super::super) const KEYS: [&str; 3] = ["hidden_size", "rqtransformer", "rqvaesiglip"];

    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// Values of a wrong type, outside their range, of what is not implemented, or that do not fit
    /// together, by their keys.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: File = parse(bytes, label)?;
        expect_kind(bytes, label, "model_type", Self::CLASSES[0])?;
        checked(file.check(), label)?;
        let (vae, head) = (file.rqvaesiglip, file.rqtransformer);
        let mut config = Self {
            embed_dim: vae.embed_dim,
            n_embed: vae.n_embed,
            grid: vae.code_shape[0],
            depth: vae.code_shape[2],
            shared_codebook: vae.shared_codebook,
            decoder_latent_shape: vae.decoder_latent_shape,
            decoder: vae.ddconfig,
            siglip: None,
            head: DepthConfig {
                depth: vae.code_shape[2],
                codeword_width: head.input_embed_dim_1,
                hidden_width: head.input_embed_dim_2,
                embed_dim: head.embed_dim,
                n_head: head.head.block.n_head,
                n_layer: head.head.n_layer,
                vocab_size: head.vocab_size,
            },
            pretrained_model: vae.pretrained_model,
        };
        checked(config.validate(), label)?;
        if let Some(siglip) = SiglipConfig::published(&config.pretrained_model) {
            config.set_siglip(siglip, label, "its SigLIP")?;
        }
        Ok(config)
    }

    /// Takes the sizes of SigLIP from a configuration called `from`; `label` names the tower's own.
    ///
    /// # Errors
    /// Sizes that do not go with the tower's; both are named.
    pub fn set_siglip(&mut self, siglip: SiglipConfig, label: &str, from: &str) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        if siglip.hidden_size != self.embed_dim {
            return fail(format!(
                "{label}: `rqvaesiglip.embed_dim` is {}, but {from} ({}) has `hidden_size` {}; they do not \
                 belong together",
                self.embed_dim, self.pretrained_model, siglip.hidden_size
            ));
        }
        if siglip.grid() != self.grid {
            let (grid, found) = (self.grid, siglip.grid());
            return fail(format!(
                "{label}: `rqvaesiglip.code_shape` gives {grid}×{grid} places, but {from} ({}) cuts pictures of \
                 {} pixels into {found}×{found} patches; they do not belong together",
                self.pretrained_model, siglip.image_size
            ));
        }
        self.siglip = Some(siglip);
        Ok(())
    }

    /// The sizes of SigLIP.
    ///
    /// # Errors
    /// They are not known; the message says where they are looked for.
    pub fn siglip(&self) -> Result<&SiglipConfig> {
        self.siglip.as_ref().ok_or_else(|| {
            Error::Config(format!(
                "`rqvaesiglip.pretrained_model` is {:?}: expected google/siglip-large-patch16-256, \
                 google/siglip-so400m-patch14-384, or a folder of that name with SigLIP's config.json inside the \
                 tower's",
                self.pretrained_model
            ))
        })
    }

    /// Folders inside the tower's own that may hold SigLIP's configuration.
    pub fn siglip_folders(&self) -> Vec<String> {
        let plain = |part: &str| {
            let ordinary = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(ordinary)
        };
        let name = self.pretrained_model.trim_end_matches('/');
        let name = name.strip_prefix("./").unwrap_or(name);
        let last = name.rsplit('/').next().unwrap_or(name);
        let mut found: Vec<String> = Vec::new();
        for candidate in [name, last] {
            if candidate.split('/').all(plain) && !found.iter().any(|known| known == candidate) {
                found.push(candidate.to_owned());
            }
        }
        found
    }

    /// Pixels of a decoded picture, rows and columns.
    pub fn decoded_size(&self) -> [usize; 2] {
        let grid = self.decoder_latent_shape.unwrap_or([self.grid; 2]);
        grid.map(|side| side * self.vqgan().ratio())
    }

    /// Places of a picture.
    pub fn places(&self) -> usize {
        self.grid * self.grid
    }

    /// What the decoder is made of.
    pub fn vqgan(&self) -> VqganOptions {
        let decoder = &self.decoder;
        let deepest = decoder.ch_mult.len().saturating_sub(1);
        let start = decoder.resolution >> deepest;
        let attends = |level: usize| {
            decoder
                .attn_resolutions
                .contains(&(start << (deepest - level)))
        };
        VqganOptions {
            colours: COLOURS,
            latent: decoder.z_channels,
            base: decoder.ch,
            widths: decoder
                .ch_mult
                .iter()
                .map(|times| times * decoder.ch)
                .collect(),
            blocks: decoder.num_res_blocks,
            attention: (0..=deepest).map(attends).collect(),
            projections: VqganProjections::Split,
        }
    }

    fn validate(&self) -> Result<()> {
        for (key, value, limit) in [
            ("rqvaesiglip.embed_dim", self.embed_dim, LARGEST_WIDTH),
            ("rqvaesiglip.n_embed", self.n_embed, 1 << 24),
            ("rqvaesiglip.code_shape", self.grid, LARGEST_SIDE),
            (
                "rqvaesiglip.code_shape` (codes of a place)",
                self.depth,
                1 << 10,
            ),
        ] {
            check_count(key, value, limit)?;
        }
        for side in self.decoder_latent_shape.iter().flatten() {
            check_count("rqvaesiglip.decoder_latent_shape", *side, LARGEST_SIDE)?;
        }
        self.decoder.validate()?;
        self.head.validate()
    }
}

impl DecoderConfig {
    fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        for (key, value, limit) in [
            ("ddconfig.ch", self.ch, LARGEST_WIDTH),
            ("ddconfig.ch_mult` (its length)", self.ch_mult.len(), 12),
            ("ddconfig.num_res_blocks", self.num_res_blocks, 1 << 8),
            ("ddconfig.resolution", self.resolution, 1 << 16),
            ("ddconfig.z_channels", self.z_channels, LARGEST_WIDTH),
        ] {
            check_count(key, value, limit)?;
        }
        for multiplier in &self.ch_mult {
            check_count("ddconfig.ch_mult", *multiplier, LARGEST_WIDTH / self.ch)?;
        }
        if !self.ch.is_multiple_of(32) {
            return fail(format!(
                "`ddconfig.ch` is {}; expected a multiple of 32, the groups of the norms",
                self.ch
            ));
        }
        for (key, found, expected) in [
            ("out_ch", self.out_ch.to_string(), COLOURS.to_string()),
            ("double_z", self.double_z.to_string(), "false".to_owned()),
            (
                "resamp_with_conv",
                self.resamp_with_conv.to_string(),
                "true".to_owned(),
            ),
            (
                "give_pre_end",
                self.give_pre_end.to_string(),
                "false".to_owned(),
            ),
        ] {
            if found != expected {
                return fail(format!("`ddconfig.{key}` is {found}; expected {expected}"));
            }
        }
        Ok(())
    }
}

impl File {
    /// What several keys say is one number.
    fn check(&self) -> Result<()> {
        let (vae, head) = (&self.rqvaesiglip, &self.rqtransformer);
        let [height, width, depth] = vae.code_shape;
        for (first, a, second, b) in [
            (
                "rqvaesiglip.code_shape` (rows)",
                height,
                "rqvaesiglip.code_shape` (columns)",
                width,
            ),
            (
                "rqvaesiglip.latent_shape` (rows)",
                vae.latent_shape[0],
                "rqvaesiglip.code_shape` (rows)",
                height,
            ),
            (
                "rqvaesiglip.latent_shape` (columns)",
                vae.latent_shape[1],
                "rqvaesiglip.code_shape` (columns)",
                width,
            ),
            (
                "rqvaesiglip.latent_shape` (channels)",
                vae.latent_shape[2],
                "rqvaesiglip.embed_dim",
                vae.embed_dim,
            ),
            (
                "hidden_size",
                self.hidden_size.unwrap_or(vae.embed_dim),
                "rqvaesiglip.embed_dim",
                vae.embed_dim,
            ),
            (
                "rqtransformer.input_embed_dim_1",
                head.input_embed_dim_1,
                "rqvaesiglip.embed_dim",
                vae.embed_dim,
            ),
            (
                "rqtransformer.vocab_size",
                head.vocab_size,
                "rqvaesiglip.n_embed",
                vae.n_embed,
            ),
            (
                "rqtransformer.block_size` (depth)",
                head.block_size[2],
                "rqvaesiglip.code_shape` (codes of a place)",
                depth,
            ),
        ] {
            if a != b {
                let [first, second] = [first, second].map(|key| match key.contains('`') {
                    true => format!("`{key}"),
                    false => format!("`{key}`"),
                });
                return Err(Error::Config(format!(
                    "{first} is {a}, {second} {b}; expected one number"
                )));
            }
        }
        Ok(())
    }
}
