//! What a toy honours.

use crate::options::{Definition, Heading, Honoured, Key, Kind, Range, Support, keys};

/// What is added to every value of a picture.
pub static BRIGHTNESS: Key<f32> = Key::new(
    "brightness",
    "X",
    Kind::Number(Range::of(-1.0, 1.0)),
    "how much brighter the picture becomes, -1 to 1 (default 0)",
)
.under(Heading::Picture)
.rare();

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// Everything else is refused.
pub(super) static TOY: Support = Support {
    models: "a toy",
    groups: &[&[
        honoured(keys::IMAGES.definition(), "1"),
        honoured(keys::SEED.definition(), "0"),
        honoured(keys::STEPS.definition(), "4"),
        honoured(keys::VARIANT.definition(), ""),
        honoured(BRIGHTNESS.definition(), "0"),
    ]],
    refused: &[
        (
            keys::WIDTH.definition(),
            "a toy's pictures are of one size; leave it out",
        ),
        (
            keys::HEIGHT.definition(),
            "a toy's pictures are of one size; leave it out",
        ),
        (
            keys::GUIDANCE.definition(),
            "a toy draws nothing but what it is asked for; leave it out",
        ),
    ],
};
