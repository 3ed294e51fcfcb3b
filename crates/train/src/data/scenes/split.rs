//! Which combinations are held out.
//!
//! The split is by content: a hash of what is combined puts one combination in ten aside, whatever the
//! seed. Every word and colour occurs in training; these combinations of them never do.

use super::scene::{Item, Kind, Scene};
use super::words::OBJECTS;
use crate::data::is_set_aside;

/// One combination in this many is held out.
const EVERY: u64 = 10;

/// A part of the scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Scenes without any held-out combination.
    Training,
    /// Scenes whose own combination is held out.
    HeldOut,
}

/// What a scene combines: its own combination first, then what that contains.
fn combinations(scene: &Scene) -> Vec<String> {
    let word = |item: &Item| OBJECTS[item.object].word;
    let coloured = |item: &Item| {
        let colour = item.colour.map_or("", |colour| colour.word());
        format!("{colour} {}", word(item))
    };
    let pair = |first: String, second: String| match first <= second {
        true => format!("{first} and {second}"),
        false => format!("{second} and {first}"),
    };
    let both = |of: &dyn Fn(&Item) -> String| pair(of(&scene.items[0]), of(&scene.items[1]));
    let words = |item: &Item| word(item).to_owned();
    match scene.kind {
        Kind::Single => Vec::new(),
        Kind::Two => vec![both(&words)],
        Kind::Counting => vec![format!("{} {}", scene.items.len(), word(&scene.items[0]))],
        Kind::Colours => vec![coloured(&scene.items[0])],
        Kind::Position => {
            let relation = scene.relation.unwrap_or(super::words::Relation::Left);
            // "a left of b" and "b right of a" are one combination.
            let (first, second) = (words(&scene.items[0]), words(&scene.items[1]));
            let own = match first <= second {
                true => format!("{first} {} {second}", relation.word()),
                false => format!("{second} {} {first}", relation.reversed().word()),
            };
            vec![own, both(&words)]
        }
        Kind::Binding => vec![
            both(&coloured),
            both(&words),
            coloured(&scene.items[0]),
            coloured(&scene.items[1]),
        ],
    }
}

/// Whether a scene belongs to a part. A single object belongs to both: words are not held out.
pub(super) fn belongs(scene: &Scene, split: Split) -> bool {
    let combinations = combinations(scene);
    let aside = |combination: &String| is_set_aside(combination, EVERY);
    match split {
        Split::Training => !combinations.iter().any(aside),
        Split::HeldOut => combinations.first().is_none_or(aside),
    }
}
