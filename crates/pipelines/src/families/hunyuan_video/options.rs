//! What HunyuanVideo honours.

use crate::options::{Definition, Honoured, Support, keys, video_keys};

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// What it honours.
pub(super) static HUNYUAN_VIDEO: Support = Support {
    models: "HunyuanVideo",
    groups: &[&[
        honoured(video_keys::IMAGE.definition(), ""),
        honoured(video_keys::PROMPT_IMAGE.definition(), "the first frame"),
        honoured(
            video_keys::FRAMES.definition(),
            "the model's, or 129; one more than a multiple of 4",
        ),
        honoured(
            video_keys::WIDTH.definition(),
            "the model's, by the picture's shape, or 960",
        ),
        honoured(
            video_keys::HEIGHT.definition(),
            "the model's, by the picture's shape, or 544",
        ),
        honoured(video_keys::FRAME_RATE.definition(), "the model's, or 24"),
        honoured(keys::SEED.definition(), "0"),
        honoured(keys::STEPS.definition(), "the model's, or 50"),
        honoured(
            keys::GUIDANCE.definition(),
            "the model's, or 6 where it is embedded, else 1",
        ),
        honoured(video_keys::NEGATIVE_PROMPT.definition(), "empty"),
        honoured(video_keys::SHIFT.definition(), "the scheduler's, or 7"),
        honoured(video_keys::LATENTS.definition(), "drawn"),
        honoured(keys::VARIANT.definition(), ""),
        honoured(keys::VAE.definition(), "the folder's"),
        honoured(keys::TEXT_ENCODER.definition(), "the folder's"),
        honoured(video_keys::TEXT_ENCODER_2.definition(), "the folder's"),
        honoured(keys::QUANTIZE_TEXT_ENCODER.definition(), "none"),
        honoured(keys::QUANTIZE_TRANSFORMER.definition(), "none"),
        honoured(keys::ACTIVATIONS.definition(), "8"),
        honoured(keys::RESIDENCY.definition(), "auto"),
    ]],
    refused: &[],
};
