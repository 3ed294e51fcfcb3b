//! Options of HART beside those that families share.

use crate::options::{Definition, Heading, Honoured, Key, Kind, Support, keys};

/// Text put before every prompt.
pub static SYSTEM_PROMPT: Key<String> = Key::new(
    "system-prompt",
    "FILE|none",
    Kind::WholeTextFile,
    "text that is read before every prompt, byte for byte",
)
.rare();

/// Whether codewords are drawn alone.
pub static NO_SMOOTH: Key<bool> = Key::new(
    "no-smooth",
    "",
    Kind::Flag,
    "codewords as they are drawn, not mixed by their probabilities",
)
.rare();

/// Whether the diffusion head is left out.
pub static NO_RESIDUAL: Key<bool> = Key::new(
    "no-residual",
    "",
    Kind::Flag,
    "leave out what the diffusion head adds to the codes",
)
.rare();

/// First scale that is drawn anew.
pub static FROM_SCALE: Key<usize> = Key::new(
    "from-scale",
    "N",
    Kind::Whole(0, 64),
    "first scale that is drawn anew, from 0; those before are the file's",
)
.under(Heading::FromPicture)
.needs("codes")
.rare();

/// Whether the weights themselves are used, not their average.
pub static NO_EMA: Key<bool> = Key::new(
    "no-ema",
    "",
    Kind::Flag,
    "the weights as they were trained last, not their average",
)
.on_open()
.rare();

/// What keys and values are kept as.
pub static CACHE_TYPE: Key<String> = Key::new(
    "cache-type",
    "TYPE",
    Kind::Choice(&["auto", "f32", "f16"]),
    "keys and values: f32, f16 in half the memory, or auto (f16 where f32 takes over 1 GiB)",
)
.under(Heading::OutputAndMachine)
.rare();

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// What it honours.
pub(super) static HART: Support = Support {
    models: "HART",
    groups: &[&[
        honoured(keys::WIDTH.definition(), "the model's, no other"),
        honoured(keys::HEIGHT.definition(), "the model's, no other"),
        honoured(keys::IMAGES.definition(), "1"),
        honoured(keys::SEED.definition(), "0"),
        honoured(keys::GUIDANCE.definition(), "the model's, or 4.5"),
        honoured(
            keys::STEPS.definition(),
            "the model's, of the diffusion head",
        ),
        honoured(SYSTEM_PROMPT.definition(), "the model's"),
        honoured(keys::GREEDY.definition(), ""),
        honoured(keys::TOP_K.definition(), "600, from scale 7 on 300"),
        honoured(keys::TOP_P.definition(), "1"),
        honoured(NO_SMOOTH.definition(), ""),
        honoured(NO_RESIDUAL.definition(), ""),
        honoured(keys::CODES.definition(), ""),
        honoured(FROM_SCALE.definition(), "the first that the file lacks"),
        honoured(keys::LATENTS.definition(), "drawn"),
        honoured(keys::VARIANT.definition(), ""),
        honoured(NO_EMA.definition(), ""),
        honoured(keys::VAE.definition(), "the folder's"),
        honoured(keys::TEXT_ENCODER.definition(), "the folder's"),
        honoured(keys::EXACT.definition(), ""),
        honoured(keys::QUANTIZE_TEXT_ENCODER.definition(), "none"),
        honoured(keys::QUANTIZE_TRANSFORMER.definition(), "none"),
        honoured(keys::RESIDENCY.definition(), "auto"),
        honoured(CACHE_TYPE.definition(), "auto"),
        honoured(keys::PREVIEW_INTERVAL.definition(), ""),
        honoured(keys::PREVIEWS.definition(), ""),
    ]],
    refused: &[(
        keys::NEGATIVE_PROMPT.definition(),
        "HART steers away from having no prompt, not from another one; leave it out",
    )],
};
