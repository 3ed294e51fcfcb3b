//! A scene: what is in it, where, and how it was drawn by lot.

use serde::{Deserialize, Serialize};

use super::split::{Split, belongs};
use super::words::{Colour, OBJECTS, Place, Relation};
use crate::data::pictures::PictureSet;
use crate::rng::Rng;

/// What a prompt asks for, in the kinds of GenEval (arXiv 2310.11513).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One object.
    Single,
    /// Two different objects.
    Two,
    /// One to four of one object.
    Counting,
    /// One object in a colour.
    Colours,
    /// Two objects, one left or right of, above or below the other.
    Position,
    /// Two objects in two colours.
    Binding,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [
        Kind::Single,
        Kind::Two,
        Kind::Counting,
        Kind::Colours,
        Kind::Position,
        Kind::Binding,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Single => "single",
            Kind::Two => "two",
            Kind::Counting => "counting",
            Kind::Colours => "colours",
            Kind::Position => "position",
            Kind::Binding => "binding",
        }
    }
}

/// A rectangle in shares of the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Left edge, 0 to 1.
    pub left: f64,
    /// Upper edge, 0 to 1.
    pub top: f64,
    /// Width, 0 to 1.
    pub width: f64,
    /// Height, 0 to 1.
    pub height: f64,
}

impl Frame {
    /// Its centre.
    pub fn centre(&self) -> (f64, f64) {
        (self.left + self.width / 2.0, self.top + self.height / 2.0)
    }

    /// Share of the smaller of two that both cover.
    fn overlap(&self, other: &Frame) -> f64 {
        let common = |a: f64, b: f64, width: f64, other: f64| {
            ((a + width).min(b + other) - a.max(b)).max(0.0)
        };
        let area = common(self.left, other.left, self.width, other.width)
            * common(self.top, other.top, self.height, other.height);
        area / (self.width * self.height).min(other.width * other.height)
    }
}

/// An object in a scene.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Which of [`OBJECTS`].
    pub object: usize,
    /// Whose drawing.
    pub set: PictureSet,
    /// The colour it was given; its own if none.
    pub colour: Option<Colour>,
    /// The square that it is drawn in.
    pub frame: Frame,
    /// Degrees that it is turned, clockwise.
    pub rotation: f64,
}

/// What a picture shows, before it is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// What its caption asks for.
    pub kind: Kind,
    /// Its objects, in the order of the caption; later ones lie over earlier ones.
    pub items: Vec<Item>,
    /// Where the first is, seen from the second; [`Kind::Position`] alone.
    pub relation: Option<Relation>,
    /// What is behind them.
    pub place: Place,
}

/// Sides of an object's square: of the canvas's side.
const SIDES: (f64, f64) = (0.25, 0.6);
/// The same where several are to have room, for so many objects.
const LARGEST_OF: [f64; 5] = [0.6, 0.6, 0.48, 0.42, 0.4];
/// Share of the smaller square that two may both cover.
const OVERLAP: f64 = 0.1;
/// Degrees that an object is turned at most.
const ROTATION: f64 = 12.0;
/// Least distance of two centres along the axis of their relation.
const APART: f64 = 0.25;
/// Share of scenes without a place.
const PLAIN: f64 = 0.5;
/// The most objects of one kind.
const MOST: usize = 4;

impl Scene {
    /// The `index`-th scene of a seed: of a kind, or of any, in a part of the split.
    pub fn draw(seed: u64, index: u64, kind: Option<Kind>, split: Split) -> Self {
        let rng = &mut Rng::stream(seed, index);
        let kind = kind.unwrap_or_else(|| Kind::ALL[rng.below(Kind::ALL.len())]);
        loop {
            if let Some(scene) = Self::contents(kind, split, rng)
                && let Some(scene) = scene.laid_out(rng)
            {
                return scene;
            }
        }
    }

    /// What is in it, not yet where; `None` where the lot fell on what belongs to the other part.
    fn contents(kind: Kind, split: Split, rng: &mut Rng) -> Option<Self> {
        let order = rng.permutation(OBJECTS.len());
        let colours = rng.permutation(Colour::ALL.len());
        let count = match kind {
            Kind::Single | Kind::Colours => 1,
            Kind::Counting => 1 + rng.below(MOST),
            Kind::Two | Kind::Position | Kind::Binding => 2,
        };
        let coloured = matches!(kind, Kind::Colours | Kind::Binding);
        let items = (0..count).map(|index| Item {
            object: order[if kind == Kind::Counting { 0 } else { index }],
            set: PictureSet::ALL[rng.below(PictureSet::ALL.len())],
            colour: coloured.then(|| Colour::ALL[colours[index]]),
            frame: Frame {
                left: 0.0,
                top: 0.0,
                width: 1.0,
                height: 1.0,
            },
            rotation: ROTATION * (2.0 * rng.uniform() - 1.0),
        });
        let mut items: Vec<Item> = items.collect();
        if kind == Kind::Counting {
            // Several of one kind are drawn alike, as a person would.
            let set = items[0].set;
            items.iter_mut().for_each(|item| item.set = set);
        }
        let relation = (kind == Kind::Position).then(|| Relation::ALL[rng.below(4)]);
        let place = match rng.chance(PLAIN) {
            true => Place::Nowhere,
            false => Place::NAMED[rng.below(Place::NAMED.len())],
        };
        let scene = Self {
            kind,
            items,
            relation,
            place,
        };
        belongs(&scene, split).then_some(scene)
    }

    /// Gives every object its square; `None` where they found no room.
    fn laid_out(mut self, rng: &mut Rng) -> Option<Self> {
        let count = self.items.len();
        let largest = LARGEST_OF[count.min(LARGEST_OF.len() - 1)].min(SIDES.1);
        for index in 0..count {
            let placed = (0..40).find_map(|_| {
                let side = SIDES.0 + (largest - SIDES.0) * rng.uniform();
                let (left, top) = (rng.uniform() * (1.0 - side), rng.uniform() * (1.0 - side));
                let frame = Frame {
                    left,
                    top,
                    width: side,
                    height: side,
                };
                let free = |item: &Item| item.frame.overlap(&frame) <= OVERLAP;
                self.items[..index].iter().all(free).then_some(frame)
            });
            self.items[index].frame = placed?;
        }
        let holds = self.relation.is_none_or(|relation| {
            let centre = |item: usize| self.items[item].frame.centre();
            relation.holds(centre(0), centre(1), APART)
        });
        holds.then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn scenes_are_what_their_kind_says() {
        for kind in Kind::ALL {
            for index in 0..60 {
                let scene = Scene::draw(1, index, Some(kind), Split::Training);
                assert_eq!(scene, Scene::draw(1, index, Some(kind), Split::Training));
                let objects: HashSet<_> = scene.items.iter().map(|item| item.object).collect();
                let colours: HashSet<_> = scene
                    .items
                    .iter()
                    .map(|i| i.colour.map(Colour::word))
                    .collect();
                let expected = match kind {
                    Kind::Single | Kind::Colours => (1..=1, 1),
                    Kind::Counting => (1..=4, 1),
                    _ => (2..=2, 2),
                };
                assert!(expected.0.contains(&scene.items.len()));
                assert_eq!(objects.len(), expected.1);
                assert_eq!(
                    colours.contains(&None),
                    !matches!(kind, Kind::Colours | Kind::Binding)
                );
                if kind == Kind::Binding {
                    assert_eq!(colours.len(), 2);
                }
                for (at, item) in scene.items.iter().enumerate() {
                    let frame = item.frame;
                    assert!(frame.left >= 0.0 && frame.left + frame.width <= 1.0 + 1e-9);
                    assert!(frame.width >= 0.25 && frame.width <= 0.6);
                    assert!(
                        scene.items[..at]
                            .iter()
                            .all(|i| i.frame.overlap(&frame) <= 0.1)
                    );
                }
            }
        }
    }

    #[test]
    fn held_out_combinations_never_occur_in_training() {
        for kind in [
            Kind::Two,
            Kind::Counting,
            Kind::Colours,
            Kind::Position,
            Kind::Binding,
        ] {
            for index in 0..200 {
                let held_out = Scene::draw(7, index, Some(kind), Split::HeldOut);
                assert!(!belongs(&held_out, Split::Training), "{held_out:?}");
                let training = Scene::draw(7, index, Some(kind), Split::Training);
                assert!(!belongs(&training, Split::HeldOut), "{training:?}");
            }
        }
        // What is left of what is the same whichever is named first.
        let mut scene = Scene::draw(3, 0, Some(Kind::Position), Split::HeldOut);
        scene.items.reverse();
        scene.relation = scene.relation.map(Relation::reversed);
        assert!(belongs(&scene, Split::HeldOut));
    }

    #[test]
    fn training_has_every_word_in_most_colours() {
        let scenes = (0..4000).map(|i| Scene::draw(5, i, Some(Kind::Colours), Split::Training));
        let seen: HashSet<_> = scenes
            .map(|scene| {
                (
                    scene.items[0].object,
                    scene.items[0].colour.map(Colour::word),
                )
            })
            .collect();
        let objects: HashSet<_> = seen.iter().map(|(object, _)| object).collect();
        assert_eq!(objects.len(), OBJECTS.len());
        let all = OBJECTS.len() * Colour::ALL.len();
        assert!(
            seen.len() > all * 8 / 10 && seen.len() < all * 97 / 100,
            "{}",
            seen.len()
        );
    }

    #[test]
    fn relations_ask_for_a_clear_distance() {
        let at = |left: f64, top: f64| Frame {
            left,
            top,
            width: 0.3,
            height: 0.3,
        };
        let stands = |relation: Relation, first: &Frame, second: &Frame| {
            relation.holds(first.centre(), second.centre(), APART)
        };
        assert!(stands(Relation::Left, &at(0.1, 0.4), &at(0.6, 0.5)));
        assert!(!stands(Relation::Right, &at(0.1, 0.4), &at(0.6, 0.5)));
        assert!(!stands(Relation::Left, &at(0.3, 0.4), &at(0.5, 0.4)));
        assert!(!stands(Relation::Left, &at(0.1, 0.0), &at(0.5, 0.6)));
        assert!(stands(Relation::Above, &at(0.1, 0.0), &at(0.5, 0.6)));
    }
}
