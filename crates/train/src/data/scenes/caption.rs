//! What is said about scenes: captions in three wordings, and questions with their answers.

use serde::Serialize;

use super::scene::{Item, Kind, Scene};
use super::words::{OBJECTS, Place, number_word, with_article};
use crate::rng::Rng;

/// Wordings of a caption; the first is the plain one, which models are scored on.
pub const WORDINGS: usize = 3;

/// A question about a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The question.
    pub question: String,
    /// Its answer: a word, a number word, yes or no.
    pub answer: String,
}

impl Question {
    /// What is asked after: `object`, `number`, `colour`, `position` or `presence`.
    pub fn kind(&self) -> &'static str {
        let begins = |with: &str| self.question.starts_with(with);
        if begins("how many ") {
            "number"
        } else if begins("what colour ") {
            "colour"
        } else if begins("is there ") {
            "presence"
        } else if begins("what is this") || begins("what are these") {
            "object"
        } else {
            "position"
        }
    }
}

/// An object's word, after its colour if it was given one.
fn noun(item: &Item) -> String {
    let word = OBJECTS[item.object].word;
    match item.colour {
        Some(colour) => format!("{} {word}", colour.word()),
        None => word.to_owned(),
    }
}

/// The same with its article.
fn thing(item: &Item) -> String {
    with_article(&noun(item))
}

impl Scene {
    /// What the scene shows, in one of [`WORDINGS`] ways; its place is left out.
    pub fn caption(&self, wording: usize) -> String {
        let wording = wording.min(WORDINGS - 1);
        let first = &self.items[0];
        let second = self.items.get(1).unwrap_or(first);
        match self.kind {
            Kind::Single => match wording {
                0 => thing(first),
                1 => format!("one {}", noun(first)),
                _ => format!("a picture of {}", thing(first)),
            },
            Kind::Counting => {
                let count = self.items.len();
                let object = &OBJECTS[first.object];
                let noun = if count == 1 {
                    object.word
                } else {
                    object.plural
                };
                match wording {
                    0 => format!("{} {noun}", number_word(count)),
                    1 => format!("{count} {noun}"),
                    _ => format!("a picture of {} {noun}", number_word(count)),
                }
            }
            Kind::Colours => {
                let colour = first.colour.map_or("", |colour| colour.word());
                let plain = OBJECTS[first.object].with_article();
                match wording {
                    0 => thing(first),
                    1 => format!("{plain} that is {colour}"),
                    _ => format!("a picture of {}", thing(first)),
                }
            }
            Kind::Two | Kind::Binding => {
                let joined = ["and", "with", "beside"][wording];
                format!("{} {joined} {}", thing(first), thing(second))
            }
            Kind::Position => {
                let relation = self.relation.unwrap_or(super::words::Relation::Left);
                let phrase = relation.phrases()[wording];
                format!("{} {phrase} {}", thing(first), thing(second))
            }
        }
    }

    /// A caption for training: any wording, and the place if there is one.
    pub fn drawn_caption(&self, rng: &mut Rng) -> String {
        let caption = self.caption(rng.below(WORDINGS));
        match self.place {
            Place::Nowhere => caption,
            place => format!("{caption} {}", place.phrase()),
        }
    }

    /// Questions that the scene answers: what and how many there are, which colours, what is where, and
    /// whether there is something that is not.
    pub fn questions(&self, rng: &mut Rng) -> Vec<Question> {
        let ask = |question: String, answer: &str| Question {
            question,
            answer: answer.to_owned(),
        };
        let first = &OBJECTS[self.items[0].object];
        let mut questions = Vec::new();
        if self.items.len() == 1 || self.kind == Kind::Counting {
            let question = match self.items.len() {
                1 => "what is this?",
                _ => "what are these?",
            };
            questions.push(ask(question.to_owned(), first.word));
        }
        let count = self
            .items
            .iter()
            .filter(|i| i.object == self.items[0].object);
        let question = format!("how many {} are there?", first.plural);
        questions.push(ask(question, number_word(count.count())));
        for item in &self.items {
            if let Some(colour) = item.colour {
                let question = format!("what colour is the {}?", OBJECTS[item.object].word);
                questions.push(ask(question, colour.word()));
            }
        }
        if let (Some(relation), [a, b]) = (self.relation, &self.items[..]) {
            let (a, b) = (OBJECTS[a.object].word, OBJECTS[b.object].word);
            let what = |relation: super::words::Relation, of: &str| {
                format!("what is {} the {of}?", relation.word())
            };
            questions.push(ask(what(relation, b), a));
            questions.push(ask(what(relation.reversed(), a), b));
        }
        let is_there = |word: String| format!("is there {word}?");
        questions.push(ask(is_there(first.with_article()), "yes"));
        let absent = rng.permutation(OBJECTS.len()).into_iter();
        let mut absent = absent.filter(|at| self.items.iter().all(|item| item.object != *at));
        if let Some(at) = absent.next() {
            questions.push(ask(is_there(OBJECTS[at].with_article()), "no"));
        }
        questions
    }
}

#[cfg(test)]
mod tests {
    use super::super::split::Split;
    use super::super::words::{Colour, Relation};
    use super::*;

    fn scene(kind: Kind, objects: &[(usize, Option<Colour>)]) -> Scene {
        let mut scene = Scene::draw(1, 0, Some(kind), Split::Training);
        let item = scene.items[0].clone();
        scene.items = objects
            .iter()
            .map(|(object, colour)| Item {
                object: *object,
                colour: *colour,
                ..item.clone()
            })
            .collect();
        scene.relation = (kind == Kind::Position).then_some(Relation::Above);
        scene.place = Place::Nowhere;
        scene
    }

    #[test]
    fn captions_say_what_is_there() {
        let plain = |kind, objects: &[(usize, Option<Colour>)]| scene(kind, objects).caption(0);
        assert_eq!(plain(Kind::Single, &[(6, None)]), "an owl");
        assert_eq!(
            plain(Kind::Two, &[(0, None), (16, None)]),
            "a cat and an apple"
        );
        let sheep = [(15, None), (15, None)];
        assert_eq!(plain(Kind::Counting, &sheep), "two sheep");
        assert_eq!(scene(Kind::Counting, &sheep[..1]).caption(1), "1 sheep");
        let orange = (6, Some(Colour::Orange));
        assert_eq!(plain(Kind::Colours, &[orange]), "an orange owl");
        assert_eq!(
            scene(Kind::Colours, &[orange]).caption(1),
            "an owl that is orange"
        );
        let over = scene(Kind::Position, &[(0, None), (1, None)]);
        assert_eq!(over.caption(0), "a cat above a dog");
        assert_eq!(over.caption(1), "a cat over a dog");
        let both = [(0, Some(Colour::Red)), (1, Some(Colour::Blue))];
        assert_eq!(plain(Kind::Binding, &both), "a red cat and a blue dog");
        let mut night = scene(Kind::Single, &[(0, None)]);
        night.place = Place::Night;
        assert!(
            night
                .drawn_caption(&mut Rng::new(1))
                .ends_with("cat at night")
        );
    }

    #[test]
    fn questions_have_true_answers() {
        let rng = &mut Rng::new(4);
        let asked = scene(Kind::Position, &[(0, None), (1, None)]).questions(rng);
        let answer = |question: &str| {
            let found = asked.iter().find(|q| q.question == question);
            found.map(|q| q.answer.as_str())
        };
        assert_eq!(answer("what is above the dog?"), Some("cat"));
        assert_eq!(answer("what is below the cat?"), Some("dog"));
        assert_eq!(answer("how many cats are there?"), Some("one"));
        assert_eq!(answer("is there a cat?"), Some("yes"));
        assert_eq!(asked.iter().filter(|q| q.answer == "no").count(), 1);
        let kinds = asked.iter().map(Question::kind);
        assert!(kinds.eq(["number", "position", "position", "presence", "presence"]));
        let both = [(0, Some(Colour::Red)), (1, Some(Colour::Blue))];
        let asked = scene(Kind::Binding, &both).questions(rng);
        assert!(
            asked
                .iter()
                .any(|q| q.question == "what colour is the dog?" && q.answer == "blue")
        );
    }
}
