//! Options of the SANA family beside those that families share.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_media::Picture;

use crate::options::{Definition, Heading, Honoured, Key, Kind, Range, Support, keys};

/// Sampler.
pub static SCHEDULER: Key<String> = Key::new(
    "scheduler",
    "NAME",
    Kind::Choice(&["dpm", "dpm-native", "euler"]),
    "dpm, dpm-native or euler",
);

/// Shift of the time grid.
pub static SHIFT: Key<f64> = Key::new(
    "shift",
    "X",
    Kind::Number(Range::above(0.0, 100.0)),
    "shift of the time grid towards noise",
)
.rare();

/// Angles of a SANA-Sprint run.
pub static SCM_TIMESTEPS: Key<Vec<f32>> = Key::new(
    "scm-timesteps",
    "LIST",
    Kind::Numbers(Range::ANY),
    "falling angles in radians, replaces --steps",
)
.rare();

/// Weight of perturbed-attention guidance.
pub static PAG_SCALE: Key<f32> = Key::new(
    "pag-scale",
    "P",
    Kind::Number(Range::of(0.0, 100.0)),
    "weight of perturbed-attention guidance (2 to 3 is usual)",
)
.rare();

/// Blocks that are perturbed.
pub static PAG_LAYERS: Key<Vec<usize>> = Key::new(
    "pag-layers",
    "LIST",
    Kind::Wholes,
    "blocks that are perturbed (default 8, or the middle)",
)
.needs("pag-scale")
.rare();

/// Fall of the perturbed-attention weight with time.
pub static PAG_ADAPTIVE: Key<f32> = Key::new(
    "pag-adaptive",
    "X",
    Kind::Number(Range::of(0.0, f64::INFINITY)),
    "how fast the perturbed-attention weight falls with time",
)
.needs("pag-scale")
.rare();

/// Text put before every prompt ("complex human instruction"); empty for none.
pub static INSTRUCTION: Key<String> = Key::new(
    "instruction",
    "FILE|none",
    Kind::TextFile,
    "text put before every prompt",
);

/// Whether to generate at the exact size.
pub static NO_BINNING: Key<bool> = Key::new(
    "no-binning",
    "",
    Kind::Flag,
    "generate at the exact size, not at the nearest trained one",
)
.rare();

/// Prompt tokens that are kept.
pub static MAX_SEQUENCE_LENGTH: Key<usize> = Key::new(
    "max-sequence-length",
    "N",
    Kind::Whole(2, 8192),
    "prompt tokens that are kept (default 300)",
)
.rare();

/// Whole steps for an initial picture.
pub static STRENGTH_ON_GRID: Key<bool> = Key::new(
    "strength-on-grid",
    "",
    Kind::Flag,
    "round the strength up to whole steps, as diffusers does",
)
.under(Heading::FromPicture)
.needs("init-image")
.rare();

/// The picture for the ControlNet, of any size; it is resized to the generation size.
pub static CONTROL_IMAGE: Key<Arc<Picture>> = Key::new(
    "control-image",
    "FILE",
    Kind::Picture,
    "picture whose edges steer the result",
)
.under(Heading::FromPicture);

/// Weight of the ControlNet's residuals.
pub static CONTROL_SCALE: Key<f32> = Key::new(
    "control-scale",
    "X",
    Kind::Number(Range::ANY),
    "weight of the control image (default 1)",
)
.under(Heading::FromPicture)
.needs("control-image")
.rare();

/// How latents become pictures.
pub static DECODE: Key<String> = Key::new(
    "decode",
    "MODE",
    Kind::Choice(&["auto", "whole", "strips", "tiled"]),
    "auto, whole, strips (exact, little memory) or tiled (as diffusers)",
)
.under(Heading::OutputAndMachine);

/// ControlNet.
pub static CONTROLNET: Key<String> = Key::new(
    "controlnet",
    "MODEL",
    Kind::Model,
    "ControlNet: a folder or hub id",
)
.on_open()
.under(Heading::FromPicture);

/// How the ControlNet is wired.
pub static CONTROL_WIRING: Key<String> = Key::new(
    "control-wiring",
    "HOW",
    Kind::Choice(&["diffusers", "native"]),
    "where the ControlNet's residuals go in: diffusers or native",
)
.on_open()
.rare();

/// Transformer in place of the folder's.
pub static TRANSFORMER: Key<PathBuf> = Key::new(
    "transformer",
    "FILE",
    Kind::Path,
    "transformer's file (the authors' .pth too) or its folder",
)
.on_open();

/// Compute as the authors' repository.
pub static NATIVE: Key<bool> = Key::new(
    "native",
    "",
    Kind::Flag,
    "compute as the authors' code where diffusers differs",
)
.on_open()
.rare();

/// Head counts of an unpublished width.
pub static HEADS: Key<Vec<usize>> = Key::new(
    "heads",
    "SELF,CROSS",
    Kind::Wholes,
    "attention heads of a .pth transformer of an unpublished width",
)
.on_open()
.rare();

/// Shows latents on the way.
pub static PREVIEW_DECODER: Key<PathBuf> = Key::new(
    "preview-decoder",
    "FILE",
    Kind::Path,
    "file that makes small previews of latents, as brisk train preview writes it",
)
.on_open()
.rare();

/// Draw the noise of all pictures as one tensor.
pub static ONE_GENERATOR: Key<bool> = Key::new(
    "one-generator",
    "",
    Kind::Flag,
    "one stream of noise for all pictures, as of one torch generator; none is then drawn alike alone",
)
.under(Heading::Picture)
.rare();

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// What both kinds of models honour.
static SHARED: &[Honoured] = &[
    honoured(keys::WIDTH.definition(), "the model's"),
    honoured(keys::HEIGHT.definition(), "the model's"),
    honoured(keys::IMAGES.definition(), "1"),
    honoured(keys::SEED.definition(), "0"),
    honoured(ONE_GENERATOR.definition(), ""),
    honoured(keys::GUIDANCE.definition(), "4.5, or the model's own"),
    honoured(INSTRUCTION.definition(), "the model's"),
    honoured(NO_BINNING.definition(), ""),
    honoured(MAX_SEQUENCE_LENGTH.definition(), "300"),
    honoured(keys::INIT_IMAGE.definition(), ""),
    honoured(keys::STRENGTH.definition(), "0.6"),
    honoured(keys::VARIANT.definition(), ""),
    honoured(keys::LORA.definition(), ""),
    honoured(keys::LORA_SCALE.definition(), "1"),
    honoured(CONTROLNET.definition(), "the folder's, if it has one"),
    honoured(CONTROL_IMAGE.definition(), ""),
    honoured(CONTROL_SCALE.definition(), "1"),
    honoured(CONTROL_WIRING.definition(), "as the files' layout"),
    honoured(TRANSFORMER.definition(), "the folder's"),
    honoured(keys::VAE.definition(), "the folder's"),
    honoured(keys::TEXT_ENCODER.definition(), "the folder's"),
    honoured(NATIVE.definition(), ""),
    honoured(keys::EXACT.definition(), ""),
    honoured(HEADS.definition(), "by width"),
    honoured(keys::ACTIVATIONS.definition(), "8"),
    honoured(keys::DEVICE.definition(), "cpu"),
    honoured(keys::PRECISE.definition(), ""),
    honoured(keys::QUANTIZE_TEXT_ENCODER.definition(), "none"),
    honoured(keys::QUANTIZE_TRANSFORMER.definition(), "none"),
    honoured(keys::RESIDENCY.definition(), "auto"),
    honoured(keys::LATENTS.definition(), "drawn"),
    honoured(DECODE.definition(), "auto"),
    honoured(keys::PREVIEW_INTERVAL.definition(), ""),
    honoured(keys::PREVIEWS.definition(), ""),
    honoured(PREVIEW_DECODER.definition(), "the folder's, if it has one"),
];

/// SANA and SANA-1.5: velocity models with guidance from a second evaluation.
pub(super) static SANA: Support = Support {
    models: "SANA",
    groups: &[
        &[
            honoured(keys::NEGATIVE_PROMPT.definition(), ""),
            honoured(keys::STEPS.definition(), "20"),
            honoured(SCHEDULER.definition(), "the model's"),
            honoured(SHIFT.definition(), "the model's"),
            honoured(PAG_SCALE.definition(), ""),
            honoured(PAG_LAYERS.definition(), "8, or the middle"),
            honoured(PAG_ADAPTIVE.definition(), "0"),
        ],
        SHARED,
    ],
    refused: &[
        (
            STRENGTH_ON_GRID.definition(),
            "SANA always uses whole steps; leave it out",
        ),
        (
            SCM_TIMESTEPS.definition(),
            "only SANA-Sprint has angles; use `steps` and `shift`",
        ),
    ],
};

/// SANA-Sprint: few-step models with guidance as an input.
pub(super) static SPRINT: Support = Support {
    models: "SANA-Sprint",
    groups: &[
        &[
            honoured(keys::STEPS.definition(), "2"),
            honoured(SCM_TIMESTEPS.definition(), "by the number of steps"),
            honoured(STRENGTH_ON_GRID.definition(), ""),
        ],
        SHARED,
    ],
    refused: &[
        (
            keys::NEGATIVE_PROMPT.definition(),
            "SANA-Sprint has no second evaluation to steer away from; leave it out",
        ),
        (
            SCHEDULER.definition(),
            "SANA-Sprint always uses scm; leave it out",
        ),
        (
            SHIFT.definition(),
            "SANA-Sprint has angles instead; use `scm-timesteps`",
        ),
        (
            PAG_SCALE.definition(),
            "SANA-Sprint has no second evaluation; leave it out",
        ),
        (
            PAG_LAYERS.definition(),
            "SANA-Sprint has no second evaluation; leave it out",
        ),
        (
            PAG_ADAPTIVE.definition(),
            "SANA-Sprint has no second evaluation; leave it out",
        ),
    ],
};
