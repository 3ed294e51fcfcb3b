//! Conversations with one picture, as they are learned.

use std::ops::Range;

use brisk_pipelines::families::vila_u::prompt::{
    Answer, FRAMES, PLACE, Piece, drawing, pieces, question,
};
use brisk_text::Tokenizer;

use crate::error::{Error, Result};

/// What ends an answer.
const END: &str = "</s>";

/// One conversation: tokens, the places of a picture, tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conversation {
    /// Tokens before the picture.
    pub before: Vec<u32>,
    /// Tokens behind it.
    pub behind: Vec<u32>,
    /// Positions, places counted, whose next token is learned, and that token.
    pub targets: Vec<(usize, u32)>,
    /// Whether the codes of the picture are learned.
    pub draws: bool,
}

impl Conversation {
    /// Positions, with a picture of `places`.
    pub fn length(&self, places: usize) -> usize {
        self.before.len() + places + self.behind.len()
    }

    /// Positions of the picture.
    pub fn picture(&self, places: usize) -> Range<usize> {
        self.before.len()..self.before.len() + places
    }
}

/// Makes conversations.
pub(super) struct Speaker<'a> {
    tokenizer: &'a Tokenizer,
    places: usize,
    end_of_picture: u32,
    end: u32,
}

impl<'a> Speaker<'a> {
    /// With pictures of `places`.
    pub fn new(tokenizer: &'a Tokenizer, places: usize) -> Result<Self> {
        let token = |token: &str| {
            let missing = || Error::Data(format!("the model's tokenizer has no {token}"));
            tokenizer.token_id(token).ok_or_else(missing)
        };
        Ok(Self {
            places,
            end_of_picture: token(FRAMES[1])?,
            end: token(END)?,
            tokenizer,
        })
    }

    /// A picture that answers a caption, or nothing. The tokens that frame it are learned, but not what would follow
    /// from within it.
    pub fn drawing(&self, caption: &str) -> Result<Conversation> {
        let before = self.tokenizer.encode(&drawing(caption, Answer::Picture))?;
        let (Some(start), Some(asked)) = (before.last(), before.len().checked_sub(2)) else {
            return Err(Error::Data("a prompt without tokens".to_owned()));
        };
        let last_place = before.len() + self.places - 1;
        Ok(Conversation {
            targets: vec![
                (asked, *start),
                (last_place, self.end_of_picture),
                (last_place + 1, self.end),
            ],
            behind: vec![self.end_of_picture],
            draws: true,
            before,
        })
    }

    /// A text that answers a question about a picture, which is `framed` by its tokens or not.
    pub fn answering(&self, asked: &str, answer: &str, framed: bool) -> Result<Conversation> {
        let shown = match framed {
            true => format!("{}{PLACE}{}", FRAMES[0], FRAMES[1]),
            false => PLACE.to_owned(),
        };
        let prompt = question(&format!("{shown}\n{asked}"));
        let [before, begun] = self.around(&prompt)?;
        let [_, mut behind] = self.around(&format!("{prompt} {answer}{END}"))?;
        if behind.len() <= begun.len() || behind[..begun.len()] != begun {
            return Err(Error::Data(format!(
                "the answer {answer:?} changes the tokens of its question"
            )));
        }
        let first = before.len() + self.places + begun.len() - 1;
        let targets = (first..).zip(behind[begun.len()..].iter().copied());
        let targets = targets.collect();
        behind.pop();
        Ok(Conversation {
            before,
            behind,
            targets,
            draws: false,
        })
    }

    /// Tokens around the one picture of a text.
    fn around(&self, text: &str) -> Result<[Vec<u32>; 2]> {
        match <[Piece; 3]>::try_from(pieces(self.tokenizer, text)?) {
            Ok(
                [
                    Piece::Tokens(before),
                    Piece::Picture(_),
                    Piece::Tokens(behind),
                ],
            ) => Ok([before, behind]),
            _ => Err(Error::Data(format!(
                "a text that holds {PLACE} itself: {:?}",
                brisk_store::shown(text)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::Vocabulary;
    use super::*;

    fn tokenizer() -> Tokenizer {
        let lines = [
            question(" "),
            question(" "),
            "\nwhat is this? a cat".to_owned(),
        ];
        let model = brisk_text::train_sentencepiece(&lines, 400).unwrap();
        Vocabulary::of(model).unwrap().tokenizer().unwrap()
    }

    #[test]
    fn what_is_learned_is_the_answer() {
        let tokenizer = tokenizer();
        let speaker = Speaker::new(&tokenizer, 4).unwrap();
        let [start, end_of_picture] =
            [0, 1].map(|frame| tokenizer.token_id(FRAMES[frame]).unwrap());
        let drawn = speaker.drawing("a cat").unwrap();
        let count = drawn.before.len();
        assert!(drawn.draws && drawn.before.ends_with(&[start]));
        assert_eq!(drawn.picture(4), count..count + 4);
        assert_eq!(drawn.length(4), count + 5);
        assert_eq!(
            drawn.targets,
            [
                (count - 2, start),
                (count + 3, end_of_picture),
                (count + 4, 2)
            ]
        );
        assert_ne!(speaker.drawing(" ").unwrap().before, drawn.before);
        for framed in [false, true] {
            let asked = speaker.answering("what is this?", "a cat", framed).unwrap();
            assert_eq!(asked.before.ends_with(&[start]), framed);
            assert_eq!(asked.behind[0] == end_of_picture, framed);
            assert!(!asked.draws);
            let answer: Vec<u32> = asked.targets.iter().map(|(_, token)| *token).collect();
            assert_eq!(answer.last(), Some(&2));
            assert_eq!(tokenizer.decode(&answer).unwrap(), "a cat");
            // The end is learned, and nothing stands behind it.
            assert_eq!(
                asked.targets.last().map(|(at, _)| at + 1),
                Some(asked.length(4))
            );
            assert!(asked.behind.ends_with(&answer[..answer.len() - 1]));
        }
        let message = speaker
            .answering("<image>", "a", false)
            .unwrap_err()
            .to_string();
        assert!(message.contains("<image>"), "{message}");
    }
}
