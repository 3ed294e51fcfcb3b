//! Options that several families share.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_media::Picture;

use super::{Codes, Heading, Key, Kind, Latents, Range};

/// Longest side of a picture, in pixels.
pub const MAX_SIDE: u64 = 8192;
/// Most pictures of one request.
pub const MAX_IMAGES: u64 = 256;
/// Most steps of one request.
pub const MAX_STEPS: u64 = 1000;

/// What to steer away from.
pub static NEGATIVE_PROMPT: Key<String> = Key::new(
    "negative-prompt",
    "TEXT",
    Kind::Text,
    "what the picture should not show",
)
.under(Heading::Picture);

/// Width in pixels.
pub static WIDTH: Key<usize> = Key::new(
    "width",
    "PIXELS",
    Kind::Whole(1, MAX_SIDE),
    "width of the picture",
)
.under(Heading::Picture);

/// Height in pixels.
pub static HEIGHT: Key<usize> = Key::new(
    "height",
    "PIXELS",
    Kind::Whole(1, MAX_SIDE),
    "height of the picture",
)
.under(Heading::Picture);

/// Pictures of each prompt.
pub static IMAGES: Key<usize> = Key::new(
    "images",
    "N",
    Kind::Whole(1, MAX_IMAGES),
    "pictures per prompt",
)
.aliases(&["num-images"])
.under(Heading::Picture);

/// Seed of every random number of a request.
pub static SEED: Key<u64> = Key::new(
    "seed",
    "N",
    Kind::Seed,
    "seed of all random numbers (default 0); random draws one",
);

/// Steps of a sampler.
pub static STEPS: Key<usize> = Key::new(
    "steps",
    "N",
    Kind::Whole(1, MAX_STEPS),
    "denoising steps, 1 to 1000",
);

/// How closely to follow the prompt.
pub static GUIDANCE: Key<f32> = Key::new(
    "guidance",
    "W",
    Kind::Number(Range::of(0.0, 100.0)),
    "how closely to follow the prompt",
)
.aliases(&["cfg-scale"]);

/// The picture to start from, of any size; it is resized to the generation size.
pub static INIT_IMAGE: Key<Arc<Picture>> =
    Key::new("init-image", "FILE", Kind::Picture, "picture to start from")
        .aliases(&["image"])
        .under(Heading::FromPicture);

/// Share of the denoising that is done on the initial picture.
pub static STRENGTH: Key<f64> = Key::new(
    "strength",
    "X",
    Kind::Number(Range::above(0.0, 1.0)),
    "how much of the initial picture is replaced, up to 1 (default 0.6)",
)
.under(Heading::FromPicture)
.needs("init-image");

/// Initial noise, unit normal.
pub static LATENTS: Key<Arc<Latents>> = Key::new(
    "latents",
    "FILE",
    Kind::Latents("latents"),
    "initial noise, before scaling by the first sigma",
)
.under(Heading::OutputAndMachine)
.rare();

/// Steps between previews.
pub static PREVIEW_INTERVAL: Key<usize> = Key::new(
    "preview-interval",
    "N",
    Kind::Whole(1, MAX_STEPS),
    "show an intermediate picture every N steps",
)
.under(Heading::OutputAndMachine)
.rare();

/// Previews of a run.
pub static PREVIEWS: Key<usize> = Key::new(
    "previews",
    "N",
    Kind::Whole(0, MAX_STEPS),
    "show N intermediate pictures, spread evenly over the steps",
)
.under(Heading::OutputAndMachine)
.rare();

/// Variant of weight files.
pub static VARIANT: Key<String> = Key::new(
    "variant",
    "NAME",
    Kind::Text,
    "variant of the weight files: fp16 or bf16",
)
.on_open();

/// Additions to a network's weights.
pub static LORA: Key<Vec<PathBuf>> = Key::new(
    "lora",
    "FILE",
    Kind::Paths,
    "LoRA for the transformer: file, folder or FILE:SCALE; several add up",
)
.on_open();

/// Weight of the LoRAs, times what each has of its own.
pub static LORA_SCALE: Key<f32> = Key::new(
    "lora-scale",
    "X",
    Kind::Number(Range::ANY),
    "weight of the LoRAs (default 1)",
)
.on_open()
.needs("lora");

/// Which weights stay in memory after the stage that needs them.
pub static RESIDENCY: Key<String> = Key::new(
    "residency",
    "HOW",
    Kind::Choice(&["auto", "all", "one"]),
    "what stays in memory: auto (all of it where it fills at most half of what is free), all, or one part at a time",
)
.on_open()
.rare();

/// Autoencoder in place of the folder's.
pub static VAE: Key<String> = Key::new(
    "vae",
    "MODEL",
    Kind::Model,
    "autoencoder in place of the model's: folder or hub id",
)
.on_open();

/// Text encoder in place of the folder's.
pub static TEXT_ENCODER: Key<String> = Key::new(
    "text-encoder",
    "MODEL",
    Kind::Model,
    "text encoder and tokenizer in place of the model's",
)
.on_open();

/// Convolve tap by tap.
pub static EXACT: Key<bool> = Key::new(
    "exact",
    "",
    Kind::Flag,
    "convolve tap by tap: slower, closer in the last bits",
)
.on_open()
.rare();

/// Where to compute.
pub static DEVICE: Key<String> = Key::new(
    "device",
    "PLACE",
    Kind::Text,
    "where to compute: cpu (default), cuda, cuda:N (card N) or auto",
)
.on_open();

/// Everything in f32 on a card.
pub static PRECISE: Key<bool> = Key::new(
    "precise",
    "",
    Kind::Flag,
    "compute in f32 on a card, several times slower, for comparisons",
)
.on_open()
.needs("device")
.rare();

/// Rounding of the text encoder's weights while they are loaded.
pub static QUANTIZE_TEXT_ENCODER: Key<String> = Key::new(
    "quantize-text-encoder",
    "KIND",
    Kind::Choice(&["none", "8bit", "4bit"]),
    "linear layers of the text encoder, rounded while they are loaded: none, 8bit or 4bit",
)
.on_open()
.rare();

/// Rounding of the transformer's weights while they are loaded.
pub static QUANTIZE_TRANSFORMER: Key<String> = Key::new(
    "quantize-transformer",
    "KIND",
    Kind::Choice(&["none", "8bit", "4bit"]),
    "linear layers of the transformer, rounded while they are loaded: none, 8bit or 4bit",
)
.on_open()
.rare();

/// Rounding of what goes into 4-bit layers.
pub static ACTIVATIONS: Key<String> = Key::new(
    "activations",
    "BITS",
    Kind::Choice(&["8", "4", "full"]),
    "how inputs of 4-bit layers are rounded: 8 (default), 4, or full",
)
.on_open()
.rare();

/// Draw nothing at random: the likeliest code everywhere.
pub static GREEDY: Key<bool> = Key::new(
    "greedy",
    "",
    Kind::Flag,
    "the likeliest code everywhere, no random draws",
)
.rare();

/// Most codes that come into question at a place.
pub static TOP_K: Key<usize> = Key::new(
    "top-k",
    "N",
    Kind::Whole(0, 1 << 24),
    "most codes that come into question at a place; 0: all",
)
.rare();

/// Share of the probability that the codes which come into question have together.
pub static TOP_P: Key<f64> = Key::new(
    "top-p",
    "P",
    Kind::Number(Range::above(0.0, 1.0)),
    "share of probability of the codes that come into question, up to 1 (default)",
)
.rare();

/// Codes to draw from.
pub static CODES: Key<Arc<Codes>> = Key::new(
    "codes",
    "FILE",
    Kind::Codes,
    "codes that are taken as they are, as --save-codes writes them",
)
.under(Heading::FromPicture)
.rare();
