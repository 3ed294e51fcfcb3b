//! Options of VILA-U beside those that families share.

use std::sync::Arc;

use brisk_media::{Clip, Picture};

use crate::options::{
    Definition, Heading, Honoured, Key, Kind, Range, Support, keys, text_keys, video_keys,
};

/// Pictures that a text is about.
pub static PICTURE: Key<Vec<Arc<Picture>>> = Key::new(
    "picture",
    "FILE",
    Kind::Pictures,
    "a picture that the prompt is about; several in the order of their places",
)
.under(Heading::Text);

/// A clip that a text is about.
pub static VIDEO: Key<Arc<Clip>> = Key::new(
    "video",
    "FILE",
    Kind::Clip,
    "a clip that the prompt is about: GIF, animated PNG or WebP, or a folder of frames",
)
.under(Heading::Text);

/// A picture to encode and decode.
pub static RECONSTRUCT: Key<Arc<Picture>> = Key::new(
    "reconstruct",
    "FILE",
    Kind::Picture,
    "encode this picture and decode its codes, without a prompt",
)
.under(Heading::FromPicture)
.instead_of_prompt()
.rare();

/// Temperature of codes.
pub static TEMPERATURE: Key<f64> = Key::new(
    "temperature",
    "X",
    Kind::Number(Range::above(0.0, 100.0)),
    "temperature of the codes that are drawn (default 1)",
)
.rare();

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// How places are drawn, of a picture or of a clip.
const DRAWN: &[Honoured] = &[
    honoured(keys::SEED.definition(), "0"),
    honoured(keys::GUIDANCE.definition(), "3"),
    honoured(keys::GREEDY.definition(), ""),
    honoured(keys::TOP_K.definition(), "900"),
    honoured(keys::TOP_P.definition(), "0.96"),
    honoured(TEMPERATURE.definition(), "1"),
];

/// How the model that draws them is opened.
const OPENED: &[Honoured] = &[
    honoured(keys::VARIANT.definition(), ""),
    honoured(keys::QUANTIZE_TRANSFORMER.definition(), "none"),
];

/// Why nothing can be steered away from.
const NO_OTHER_PROMPT: &str =
    "VILA-U steers away from having no prompt, not from another one; leave it out";

/// What it honours when it draws.
pub(super) static DRAWS: Support = Support {
    models: "VILA-U",
    groups: &[
        &[
            honoured(keys::WIDTH.definition(), "the model's, no other"),
            honoured(keys::HEIGHT.definition(), "the model's, no other"),
            honoured(keys::IMAGES.definition(), "1"),
        ],
        DRAWN,
        &[
            honoured(keys::CODES.definition(), ""),
            honoured(RECONSTRUCT.definition(), ""),
        ],
        OPENED,
    ],
    refused: &[
        (keys::NEGATIVE_PROMPT.definition(), NO_OTHER_PROMPT),
        (
            keys::STEPS.definition(),
            "VILA-U draws place by place, in as many steps as a picture has places; leave it out",
        ),
        (
            keys::LATENTS.definition(),
            "VILA-U starts from no noise; `codes` gives it places that are drawn already",
        ),
    ],
};

/// What it honours when it makes a clip.
pub(super) static FILMS: Support = Support {
    models: "VILA-U",
    groups: &[
        &[
            honoured(video_keys::WIDTH.definition(), "the model's, no other"),
            honoured(video_keys::HEIGHT.definition(), "the model's, no other"),
            honoured(video_keys::FRAMES.definition(), "the model's, usually 8"),
            honoured(video_keys::FRAME_RATE.definition(), "4"),
        ],
        DRAWN,
        OPENED,
    ],
    refused: &[
        (
            video_keys::IMAGE.definition(),
            "VILA-U makes clips of a text alone; leave it out",
        ),
        (video_keys::NEGATIVE_PROMPT.definition(), NO_OTHER_PROMPT),
        (
            keys::STEPS.definition(),
            "VILA-U draws place by place, in as many steps as its frames have places; leave it out",
        ),
        (
            video_keys::LATENTS.definition(),
            "VILA-U starts from no noise; leave it out",
        ),
    ],
};

/// What it honours when it writes.
pub(super) static WRITES: Support = Support {
    models: "VILA-U",
    groups: &[&[
        honoured(PICTURE.definition(), ""),
        honoured(VIDEO.definition(), ""),
        honoured(text_keys::GEN_LENGTH.definition(), "128"),
        honoured(text_keys::TEMPERATURE.definition(), "the model's, or 0"),
        honoured(text_keys::TOP_P.definition(), "the model's"),
        honoured(text_keys::TOP_K.definition(), "the model's"),
        honoured(keys::SEED.definition(), "0"),
        honoured(text_keys::STOP_TOKEN.definition(), ""),
        honoured(keys::VARIANT.definition(), ""),
        honoured(text_keys::QUANTIZE.definition(), "none"),
        honoured(text_keys::WITHOUT_TOKENIZER.definition(), ""),
    ]],
    refused: &[],
};
