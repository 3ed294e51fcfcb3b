//! Options of class-conditional models beside those that families share.

use crate::options::{Definition, Honoured, Key, Kind, Support, keys};

/// The way from noise of a network that was trained with flow.
pub static SAMPLER: Key<String> = Key::new(
    "sampler",
    "NAME",
    Kind::Choice(&["dopri5", "heun2", "sde"]),
    "way along a flow: dopri5 (finds its steps itself), heun2, or sde (with noise on the way)",
)
.rare();

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// What both kinds of models honour.
static SHARED: &[Honoured] = &[
    honoured(keys::WIDTH.definition(), "the model's, no other"),
    honoured(keys::HEIGHT.definition(), "the model's, no other"),
    honoured(keys::IMAGES.definition(), "1"),
    honoured(keys::SEED.definition(), "0"),
    honoured(
        keys::GUIDANCE.definition(),
        "the model's, or the authors' best of its kind",
    ),
    honoured(keys::LATENTS.definition(), "drawn"),
    honoured(keys::VARIANT.definition(), ""),
    honoured(keys::VAE.definition(), "the folder's"),
    honoured(keys::EXACT.definition(), ""),
    honoured(keys::DEVICE.definition(), "cpu"),
    honoured(keys::PRECISE.definition(), ""),
    honoured(keys::QUANTIZE_TRANSFORMER.definition(), "none"),
    honoured(keys::RESIDENCY.definition(), "auto"),
];

const NO_NEGATIVE: &str =
    "a class-conditional model steers away from having no class, not from a text; leave it out";
const NO_TEXT: &str = "a class-conditional model reads no text, only classes; leave it out";

/// UViT and DiT, which predict noise.
pub(super) static NOISE: Support = Support {
    models: "a class-conditional model",
    groups: &[
        &[honoured(
            keys::STEPS.definition(),
            "the model's: 30 (UViT), 250 (DiT)",
        )],
        SHARED,
    ],
    refused: &[
        (
            SAMPLER.definition(),
            "only networks that were trained with flow (USiT, SiT) have several ways from noise; leave it out",
        ),
        (keys::NEGATIVE_PROMPT.definition(), NO_NEGATIVE),
        (keys::TEXT_ENCODER.definition(), NO_TEXT),
        (keys::QUANTIZE_TEXT_ENCODER.definition(), NO_TEXT),
    ],
};

/// USiT and SiT, which predict a velocity.
pub(super) static FLOW: Support = Support {
    models: "a class-conditional flow model",
    groups: &[
        &[
            honoured(SAMPLER.definition(), "the model's"),
            honoured(
                keys::STEPS.definition(),
                "the model's, or 250; dopri5 takes none",
            ),
        ],
        SHARED,
    ],
    refused: &[
        (keys::NEGATIVE_PROMPT.definition(), NO_NEGATIVE),
        (keys::TEXT_ENCODER.definition(), NO_TEXT),
        (keys::QUANTIZE_TEXT_ENCODER.definition(), NO_TEXT),
    ],
};
