//! What a text asks for, in the words of scenes: captions read back.

use super::scene::{Kind, Scene};
use super::words::{Colour, OBJECTS, Place, Relation, number_word};

/// An object that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedItem {
    /// Which of [`OBJECTS`].
    pub object: usize,
    /// Its colour, where one is named.
    pub colour: Option<Colour>,
}

/// What a picture is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Kind of the text.
    pub kind: Kind,
    /// The objects; of [`Kind::Counting`] one for each of them.
    pub items: Vec<AskedItem>,
    /// Where the first is, seen from the second.
    pub relation: Option<Relation>,
}

/// The most objects of one kind that can be asked for.
const MOST: usize = 4;

impl Asked {
    /// What the plain caption of a scene asks for: not its place, nor whose drawings.
    pub fn of(scene: &Scene) -> Self {
        let items = scene.items.iter();
        Self {
            kind: scene.kind,
            items: items
                .map(|item| AskedItem {
                    object: item.object,
                    colour: item.colour,
                })
                .collect(),
            relation: scene.relation,
        }
    }

    /// Reads a caption in any of the wordings of scenes, with a place or without; none for other texts.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches('.').to_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        let mut text = text.strip_prefix("a picture of ").unwrap_or(&text);
        for place in Place::NAMED {
            let rest = text.strip_suffix(place.phrase());
            text = rest.map_or(text, str::trim_end);
        }
        let pair = |kind: Kind, first: &str, second: &str, relation| {
            let items = vec![item(first)?, item(second)?];
            Some(Self {
                kind,
                items,
                relation,
            })
        };
        // Longer phrases first: "left of" is a part of "to the left of".
        let relations = Relation::ALL.into_iter();
        let mut phrases: Vec<(Relation, &str)> = relations
            .flat_map(|relation| relation.phrases().map(|phrase| (relation, phrase)))
            .collect();
        phrases.sort_by_key(|(_, phrase)| std::cmp::Reverse(phrase.len()));
        for (relation, phrase) in phrases {
            if let Some((first, second)) = text.split_once(&format!(" {phrase} ")) {
                return pair(Kind::Position, first, second, Some(relation));
            }
        }
        for joined in [" and ", " with ", " beside "] {
            if let Some((first, second)) = text.split_once(joined) {
                let both = pair(Kind::Two, first, second, None)?;
                let coloured = both.items.iter().any(|item| item.colour.is_some());
                return Some(Self {
                    kind: if coloured { Kind::Binding } else { Kind::Two },
                    ..both
                });
            }
        }
        if let Some(asked) = counted(text) {
            return Some(asked);
        }
        let (noun, colour) = match text.split_once(" that is ") {
            Some((noun, colour)) => (noun, Some(colour_named(colour)?)),
            None => (text, None),
        };
        let found = item(noun)?;
        let colour = colour.or(found.colour);
        Some(Self {
            kind: if colour.is_some() {
                Kind::Colours
            } else {
                Kind::Single
            },
            items: vec![AskedItem { colour, ..found }],
            relation: None,
        })
    }
}

fn colour_named(word: &str) -> Option<Colour> {
    Colour::ALL.into_iter().find(|colour| colour.word() == word)
}

/// "a red cat", "one cat", "owl"
fn item(text: &str) -> Option<AskedItem> {
    let noun = ["a ", "an ", "the ", "one "]
        .iter()
        .find_map(|article| text.strip_prefix(article))
        .unwrap_or(text);
    let (colour, word) = match noun.split_once(' ') {
        Some((colour, word)) => (Some(colour_named(colour)?), word),
        None => (None, noun),
    };
    let object = OBJECTS.iter().position(|object| object.word == word)?;
    Some(AskedItem { object, colour })
}

/// "three cats", "1 sheep"
fn counted(text: &str) -> Option<Asked> {
    let (number, noun) = text.split_once(' ')?;
    let count =
        (1..=MOST).find(|count| number == number_word(*count) || number == count.to_string())?;
    let object = OBJECTS.iter().position(|object| match count {
        1 => object.word == noun,
        _ => object.plural == noun,
    })?;
    let item = AskedItem {
        object,
        colour: None,
    };
    Some(Asked {
        kind: Kind::Counting,
        items: vec![item; count],
        relation: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::caption::WORDINGS;
    use super::super::split::Split;
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn captions_are_read_back_in_every_wording() {
        let mut rng = Rng::new(3);
        for kind in Kind::ALL {
            for index in 0..60 {
                let scene = Scene::draw(9, index, Some(kind), Split::Training);
                let wanted = Asked::of(&scene);
                let captions = (0..WORDINGS).map(|wording| scene.caption(wording));
                for caption in captions.chain([scene.drawn_caption(&mut rng)]) {
                    let found = Asked::read(&caption).unwrap_or_else(|| panic!("{caption}"));
                    assert_eq!(found.items, wanted.items, "{caption}");
                    assert_eq!(found.relation, wanted.relation, "{caption}");
                    // "one cat" is a number too.
                    let one = found.kind == Kind::Counting && found.items.len() == 1;
                    assert!(
                        found.kind == wanted.kind || one,
                        "{caption}: {:?}",
                        found.kind
                    );
                }
            }
        }
    }

    #[test]
    fn other_texts_are_not_understood() {
        for text in [
            "",
            "a dragon",
            "a grey cat",
            "five cats",
            "a cat and",
            "cats",
            "two red cats",
        ] {
            assert_eq!(Asked::read(text), None, "{text}");
        }
        let read = Asked::read("A red  cat left of an owl.").unwrap();
        assert_eq!(
            (read.kind, read.items[0].colour),
            (Kind::Position, Some(Colour::Red))
        );
    }
}
