//! Options of models that make clips.

use std::sync::Arc;

use brisk_media::{MAX_FRAMES, Picture};

use super::{ClipLatents, Heading, Key, Kind, Range, keys};

/// The picture that a clip begins with.
pub static IMAGE: Key<Arc<Picture>> = Key::new(
    "image",
    "FILE",
    Kind::Picture,
    "first frame; parts that another shape has no room for are cut off",
)
.under(Heading::Clip);

/// What the text is read with.
pub static PROMPT_IMAGE: Key<Arc<Picture>> = Key::new(
    "prompt-image",
    "FILE",
    Kind::Picture,
    "picture that the text encoder sees, where it is not the first frame",
)
.under(Heading::Clip)
.needs("image")
.rare();

/// Frames that are generated.
pub static FRAMES: Key<usize> = Key::new(
    "frames",
    "N",
    Kind::Whole(1, MAX_FRAMES as u64),
    "frames of the clip",
)
.aliases(&["num-frames"])
.under(Heading::Clip);

/// Width in pixels.
pub static WIDTH: Key<usize> = Key::new(
    "width",
    "PIXELS",
    Kind::Whole(1, keys::MAX_SIDE),
    "width of the clip",
)
.under(Heading::Clip);

/// Height in pixels.
pub static HEIGHT: Key<usize> = Key::new(
    "height",
    "PIXELS",
    Kind::Whole(1, keys::MAX_SIDE),
    "height of the clip",
)
.under(Heading::Clip);

/// What to steer away from.
pub static NEGATIVE_PROMPT: Key<String> = Key::new(
    "negative-prompt",
    "TEXT",
    Kind::Text,
    "what the clip should not show",
)
.under(Heading::Clip);

/// Frames a second.
pub static FRAME_RATE: Key<f64> = Key::new(
    "fps",
    "N",
    Kind::Number(Range::of(0.1, 240.0)),
    "frames a second",
)
.under(Heading::Clip);

/// How far the sampler's noise levels are moved towards noise.
pub static SHIFT: Key<f64> = Key::new(
    "shift",
    "S",
    Kind::Number(Range::above(0.0, 100.0)),
    "how far noise levels are moved towards noise",
);

/// Initial noise, unit normal.
pub static LATENTS: Key<Arc<ClipLatents>> = Key::new(
    "latents",
    "FILE",
    Kind::ClipLatents("latents"),
    "initial noise [1,C,F,h,w], F = (frames - 1)/4 + 1",
)
.under(Heading::OutputAndMachine)
.rare();

/// The second text encoder.
pub static TEXT_ENCODER_2: Key<String> = Key::new(
    "text-encoder-2",
    "MODEL",
    Kind::Model,
    "folder or hub id of the CLIP text encoder, with its tokenizer",
)
.on_open()
.rare();
