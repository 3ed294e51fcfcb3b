//! Options that models share which write.

use super::{Heading, Key, Kind, Range};

const NOT_NEGATIVE: Kind = Kind::Number(Range::of(0.0, f64::INFINITY));

/// Tokens to generate.
pub static GEN_LENGTH: Key<usize> = Key::new(
    "gen-length",
    "N",
    Kind::Whole(0, 1 << 20),
    "tokens to generate (default 128)",
)
.aliases(&["max-tokens"])
.under(Heading::Decoding);

/// Temperature of proposals.
pub static TEMPERATURE: Key<f64> = Key::new(
    "temperature",
    "X",
    NOT_NEGATIVE,
    "0 (default) takes the most likely tokens",
)
.under(Heading::Decoding);

/// Nucleus of the distribution.
pub static TOP_P: Key<f64> = Key::new(
    "top-p",
    "X",
    Kind::Number(Range::above(0.0, 1.0)),
    "draw from the most likely tokens that have this much of the probability",
)
.under(Heading::Decoding);

/// Number of tokens to draw from.
pub static TOP_K: Key<usize> = Key::new(
    "top-k",
    "N",
    Kind::Whole(1, 1 << 32),
    "draw from so many of the most likely tokens",
)
.under(Heading::Decoding)
.rare();

/// Further tokens that end a text.
pub static STOP_TOKEN: Key<Vec<u32>> = Key::new(
    "stop-token",
    "ID",
    Kind::Wholes,
    "a further token that ends a text",
)
.under(Heading::Decoding)
.rare();

/// How linear layers keep their weights.
pub static QUANTIZE: Key<String> = Key::new(
    "quantize",
    "KIND",
    Kind::Choice(&["none", "8bit", "4bit"]),
    "how linear layers keep their weights: none (default), 8bit or 4bit",
)
.on_open();

/// Leave the tokenizer.
pub static WITHOUT_TOKENIZER: Key<bool> = Key::new(
    "without-tokenizer",
    "",
    Kind::Flag,
    "read no tokenizer: token ids come in and go out",
)
.on_open()
.rare();
