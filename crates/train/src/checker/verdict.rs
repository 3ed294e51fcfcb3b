//! Whether a picture shows what was asked for.

use serde::Serialize;

use crate::data::scenes::{Colour, Kind, OBJECTS, Scene};

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
    let fault = match scene.kind {
        Kind::Counting => count(scene, seen),
        Kind::Position => relation(scene, seen),
        _ => presence(scene, seen),
    };
    Verdict {
        right: fault.is_none(),
        fault: fault.unwrap_or_default(),
    }
}

/// Every item is there in its colour, each as a sighting of its own.
fn presence(scene: &Scene, seen: &[Sighting]) -> Option<String> {
    for item in &scene.items {
        let word = OBJECTS[item.object].word;
        let mut alike = seen.iter().filter(|s| s.object == item.object).peekable();
        if alike.peek().is_none() {
            return Some(format!("no {word}"));
        }
        if let Some(colour) = item.colour
            && !alike.clone().any(|sighting| sighting.colour == colour)
        {
            let found = alike.next().map_or("", |sighting| sighting.colour.word());
            return Some(format!("the {word} is {found}, not {}", colour.word()));
        }
    }
    None
}

fn count(scene: &Scene, seen: &[Sighting]) -> Option<String> {
    let object = scene.items[0].object;
    let found = seen.iter().filter(|s| s.object == object).count();
    let wanted = scene.items.len();
    (found != wanted).then(|| format!("{found} of {}, not {wanted}", OBJECTS[object].plural))
}

fn relation(scene: &Scene, seen: &[Sighting]) -> Option<String> {
    if let Some(fault) = presence(scene, seen) {
        return Some(fault);
    }
    let wanted = scene.relation?;
    let of = |item: usize| {
        let object = scene.items[item].object;
        seen.iter().filter(move |s| s.object == object)
    };
    let holds = of(0).any(|a| of(1).any(|b| wanted.holds(a.centre, b.centre, APART)));
    let (first, second) = (
        &OBJECTS[scene.items[0].object],
        &OBJECTS[scene.items[1].object],
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
