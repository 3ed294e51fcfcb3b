//! Options that models share which find pixels.

use std::path::PathBuf;

use super::{Heading, Key, Kind, Range};

/// Points of what to find, x and y of each.
pub static POINT: Key<Vec<f64>> = Key::new(
    "point",
    "X,Y",
    Kind::Numbers(Range::ANY),
    "a point of what to find, in pixels of the picture; several show one thing",
)
.under(Heading::Finding);

/// Points beside what to find.
pub static NEGATIVE_POINT: Key<Vec<f64>> = Key::new(
    "negative-point",
    "X,Y",
    Kind::Numbers(Range::ANY),
    "a point that is not in it",
)
.under(Heading::Finding);

/// Boxes around what to find, left, top, right and bottom of each.
pub static BOX: Key<Vec<f64>> = Key::new(
    "box",
    "L,T,R,B",
    Kind::Numbers(Range::ANY),
    "a box around it: left, top, right, bottom; each further box is another thing",
)
.under(Heading::Finding);

/// Boxes and points of many things.
pub static BOXES: Key<String> = Key::new(
    "boxes",
    "FILE",
    Kind::TextFile,
    "many things: JSON list of [L,T,R,B] or {box, points, labels, name}",
)
.under(Heading::Finding);

/// Whether everything is looked for.
pub static EVERYTHING: Key<bool> = Key::new(
    "everything",
    "",
    Kind::Flag,
    "find everything, by points on a grid",
)
.under(Heading::Finding);

/// Which of a prompt's masks are given.
pub static MULTIMASK: Key<String> = Key::new(
    "multimask",
    "HOW",
    Kind::Choice(&["auto", "single", "best", "all"]),
    "of a prompt's masks: single, the best or all of three; auto (the best for one point alone, else single)",
)
.under(Heading::Finding);

/// Which logits are inside.
pub static MASK_THRESHOLD: Key<f32> = Key::new(
    "mask-threshold",
    "X",
    Kind::Number(Range::ANY),
    "logits above this are inside (default 0)",
)
.under(Heading::Finding)
.rare();

/// The picture's embedding.
pub static EMBEDDING: Key<PathBuf> = Key::new(
    "embedding",
    "FILE",
    Kind::Path,
    "the picture as the encoder saw it before, as --save-embedding writes it",
)
.under(Heading::OutputAndMachine)
.rare();
