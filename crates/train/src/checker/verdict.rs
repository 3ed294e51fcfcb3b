//! Whether a picture shows what was asked for.

use serde::Serialize;

use crate::data::scenes::{Asked, AskedItem, Colour, Kind, OBJECTS, Scene};

/// Shares of the picture that two centres must be apart along the axis of a relation: less than scenes are drawn
/// with, since a centre is seen to within a cell's half.
const APART: f64 = 0.15;

/// An object that was seen in a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sighting {
    /// Which of [`OBJECTS`].
    pub object: usize,
    /// The nearest of the eight colours.
    pub colour: Colour,
    /// Its centre in shares of the picture, from the left and from the top.
    pub centre: (f64, f64),
    /// How likely it is there, 0 to 1.
    pub likelihood: f32,
}

impl Sighting {
    /// As a report says it, for example "red cat at 0.3, 0.5".
    pub fn describe(&self) -> String {
        let (x, y) = self.centre;
        let word = OBJECTS.get(self.object).map_or("?", |object| object.word);
        format!("{} {word} at {x:.2}, {y:.2}", self.colour.word())
    }
}

/// A judgement on one picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether everything that was asked for is there.
    pub right: bool,
    /// What is not as it should be, in words; empty where all is.
    pub fault: String,
}

/// Judges what was seen by what a scene asks for, as its plain caption says it: the objects, how many, in which
/// colours, in which relation. Its place and sets are not asked for.
pub fn judge(scene: &Scene, seen: &[Sighting]) -> Verdict {
    judge_asked(&Asked::of(scene), seen)
}

/// The same by what a text asks for.
pub fn judge_asked(asked: &Asked, seen: &[Sighting]) -> Verdict {
    let fault = match asked.kind {
        Kind::Counting => count(asked, seen),
        Kind::Position => relation(asked, seen),
        _ => presence(asked, seen),
    };
    Verdict {
        right: fault.is_none(),
        fault: fault.unwrap_or_default(),
    }
}

/// How surely a picture shows, of 0 to 1, what is asked for: where it does, the least likelihood of what was seen of it;
/// where it does not, the share that is missing.
pub fn certainty(asked: &Asked, seen: &[Sighting], right: bool) -> f64 {
    let mut left: Vec<&Sighting> = seen.iter().collect();
    let (mut least, mut missing) = (1f32, 0f64);
    for item in &asked.items {
        let likelihood = |at: &usize| left[*at].likelihood;
        let alike = |coloured: bool| {
            let places = (0..left.len()).filter(|at| {
                let matches = |colour| left[*at].colour == colour;
                left[*at].object == item.object && (!coloured || item.colour.is_none_or(matches))
            });
            places.max_by(|a, b| likelihood(a).total_cmp(&likelihood(b)))
        };
        let (found, lacks) = match (alike(true), alike(false)) {
            (Some(at), _) => (at, 0.0),
            (None, Some(at)) => (at, 0.5),
            (None, None) => {
                missing += 1.0;
                continue;
            }
        };
        missing += lacks;
        least = least.min(left.swap_remove(found).likelihood);
    }
    if right {
        return least.into();
    }
    // Too many, or all of them in the wrong places, is a fault as well.
    let extra = match asked.kind {
        Kind::Counting => left
            .iter()
            .filter(|s| s.object == asked.items[0].object)
            .count(),
        _ => 0,
    };
    let items = asked.items.len().max(1) as f64;
    ((missing + extra as f64) / items).clamp(0.25, 1.0)
}

/// Every item is there in its colour, each as a sighting of its own.
fn presence(asked: &Asked, seen: &[Sighting]) -> Option<String> {
    for AskedItem { object, colour } in asked.items.iter().copied() {
        let word = OBJECTS[object].word;
        let mut alike = seen.iter().filter(|s| s.object == object).peekable();
        if alike.peek().is_none() {
            return Some(format!("no {word}"));
        }
        if let Some(colour) = colour
            && !alike.clone().any(|sighting| sighting.colour == colour)
        {
            let found = alike.next().map_or("", |sighting| sighting.colour.word());
            return Some(format!("the {word} is {found}, not {}", colour.word()));
        }
    }
    None
}

fn count(asked: &Asked, seen: &[Sighting]) -> Option<String> {
    let object = asked.items[0].object;
    let found = seen.iter().filter(|s| s.object == object).count();
    let wanted = asked.items.len();
    (found != wanted).then(|| format!("{found} of {}, not {wanted}", OBJECTS[object].plural))
}

fn relation(asked: &Asked, seen: &[Sighting]) -> Option<String> {
    if let Some(fault) = presence(asked, seen) {
        return Some(fault);
    }
    let wanted = asked.relation?;
    let of = |item: usize| {
        let object = asked.items[item].object;
        seen.iter().filter(move |s| s.object == object)
    };
    let holds = of(0).any(|a| of(1).any(|b| wanted.holds(a.centre, b.centre, APART)));
    let (first, second) = (
        &OBJECTS[asked.items[0].object],
        &OBJECTS[asked.items[1].object],
    );
    (!holds).then(|| {
        format!(
            "the {} is not {} the {}",
            first.word,
            wanted.word(),
            second.word
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::Split;

    fn seen_of(scene: &Scene) -> Vec<Sighting> {
        let items = scene.items.iter();
        items
            .map(|item| Sighting {
                object: item.object,
                colour: item.colour.unwrap_or(Colour::Red),
                centre: item.frame.centre(),
                likelihood: 1.0,
            })
            .collect()
    }

    #[test]
    fn what_is_there_is_right_and_what_is_missing_is_named() {
        for kind in Kind::ALL {
            for index in 0..40 {
                let scene = Scene::draw(2, index, Some(kind), Split::HeldOut);
                let seen = seen_of(&scene);
                assert!(judge(&scene, &seen).right, "{scene:?}");
                let verdict = judge(&scene, &seen[1..]);
                assert!(!verdict.right && !verdict.fault.is_empty());
            }
        }
    }

    #[test]
    fn colours_counts_and_relations_are_looked_at() {
        let scene = Scene::draw(2, 0, Some(Kind::Binding), Split::Training);
        let mut seen = seen_of(&scene);
        let first = seen[0].colour;
        seen[0].colour = seen[1].colour;
        seen[1].colour = first;
        assert!(judge(&scene, &seen).fault.contains("not"));
        let scene = Scene::draw(2, 0, Some(Kind::Position), Split::Training);
        let mut seen = seen_of(&scene);
        let centre = seen[0].centre;
        seen[0].centre = seen[1].centre;
        seen[1].centre = centre;
        assert!(judge(&scene, &seen).fault.contains("is not"));
        let scene = Scene::draw(2, 0, Some(Kind::Counting), Split::Training);
        let mut seen = seen_of(&scene);
        seen.push(seen[0]);
        assert!(!judge(&scene, &seen).right);
    }
}
