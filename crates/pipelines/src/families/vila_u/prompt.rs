//! Conversations as the model was taught them, with places for pictures, to tokens.

use brisk_text::{ChatMessage, Tokenizer, is_space};

use crate::error::{Error, Result};

/// What stands before every conversation (Vicuna's, version 1.1).
const SYSTEM: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives \
                      helpful, detailed, and polite answers to the user's questions.";

/// Where a picture stands in a text.
pub const PLACE: &str = "<image>";

/// The tokens that frame pictures, in the order of their ids.
pub const FRAMES: [&str; 4] = ["<im_start>", "<im_end>", "<vi_start>", "<vi_end>"];

/// How many pictures a prompt is about, and the option that gave them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub count: usize,
    pub option: &'static str,
}

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Tokens.
    Tokens(Vec<u32>),
    /// The places of a picture, by its number.
    Picture(usize),
}

/// One user's turn, up to where the assistant answers.
pub fn question(text: &str) -> String {
    let mut prompt = format!("{SYSTEM} ");
    turn(&mut prompt, "USER", text, " ");
    prompt.push_str("ASSISTANT:");
    prompt
}

/// What the assistant answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A picture.
    Picture,
    /// A clip.
    Clip,
}

/// One user's turn, up to where a picture or a clip begins.
pub fn drawing(text: &str, answer: Answer) -> String {
    let start = match answer {
        Answer::Picture => FRAMES[0],
        Answer::Clip => FRAMES[2],
    };
    format!("{} {start}", question(text))
}

/// A conversation, up to where the assistant answers.
pub(super) fn conversation(turns: &[ChatMessage]) -> Result<String> {
    let mut prompt = format!("{SYSTEM} ");
    for (index, message) in turns.iter().enumerate() {
        let expected = ["user", "assistant"][index % 2];
        if message.role != expected {
            return Err(Error::request(
                "chat",
                format!(
                    "turn {} is of {:?}; expected {expected:?}: user and assistant take turns",
                    index + 1,
                    message.role
                ),
            ));
        }
        match index % 2 {
            0 => turn(&mut prompt, "USER", &message.content, " "),
            _ => turn(&mut prompt, "ASSISTANT", &message.content, "</s>"),
        }
    }
    prompt.push_str("ASSISTANT:");
    Ok(prompt)
}

/// A role with what it says; one that says nothing stands alone.
fn turn(prompt: &mut String, role: &str, text: &str, end: &str) {
    let text = text.trim_matches(is_space);
    prompt.push_str(role);
    prompt.push(':');
    if !text.is_empty() {
        prompt.push(' ');
        prompt.push_str(text);
        prompt.push_str(end);
    }
}

/// A text with places for pictures: where it names none, they stand before it.
pub(super) fn with_places(text: &str, shown: Shown) -> Result<String> {
    let places = text.matches(PLACE).count();
    match places {
        0 => Ok(format!(
            "{}{text}",
            format!("{PLACE}\n").repeat(shown.count)
        )),
        _ => check_places(text, shown).map(|()| text.to_owned()),
    }
}

/// Every picture has a place, and every place a picture.
pub(super) fn check_places(text: &str, shown: Shown) -> Result<()> {
    let places = text.matches(PLACE).count();
    if places == shown.count {
        return Ok(());
    }
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    Err(Error::request(
        shown.option,
        format!(
            "{} for {} {PLACE} in the prompt; expected one for each",
            count(shown.count, "picture"),
            count(places, "place")
        ),
    ))
}

/// Tokens of a text. What stands between places is tokenised as if it began a sentence, as the model was taught.
///
/// # Errors
/// A text that is longer than a tokenizer takes.
pub fn pieces(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for (index, chunk) in text.split(PLACE).enumerate() {
        let ids = match index {
            0 => tokenizer.encode(chunk)?,
            _ => {
                pieces.push(Piece::Picture(index - 1));
                tokenizer.encode_plain(chunk)?
            }
        };
        if !ids.is_empty() {
            pieces.push(Piece::Tokens(ids));
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, content: &str) -> ChatMessage {
        ChatMessage {
            role: role.to_owned(),
            content: content.to_owned(),
        }
    }

    #[test]
    fn templates_are_those_of_the_reference() {
        assert_eq!(SYSTEM.len(), 154);
        assert_eq!(question(" a \n"), format!("{SYSTEM} USER: a ASSISTANT:"));
        assert_eq!(
            drawing("a red heart", Answer::Picture),
            format!("{SYSTEM} USER: a red heart ASSISTANT: <im_start>")
        );
        assert_eq!(
            drawing(" ", Answer::Picture),
            format!("{SYSTEM} USER:ASSISTANT: <im_start>")
        );
        assert_eq!(
            drawing("a red heart", Answer::Clip),
            format!("{SYSTEM} USER: a red heart ASSISTANT: <vi_start>")
        );
        let turns = [
            said("user", "hi"),
            said("assistant", "hello"),
            said("user", "bye "),
        ];
        assert_eq!(
            conversation(&turns).unwrap(),
            format!("{SYSTEM} USER: hi ASSISTANT: hello</s>USER: bye ASSISTANT:")
        );
        let error = conversation(&turns[1..]).unwrap_err().to_string();
        assert!(
            error.contains("turn 1") && error.contains("\"assistant\""),
            "{error}"
        );
    }

    #[test]
    fn pictures_and_places_are_matched() {
        let shown = |count| Shown {
            count,
            option: "picture",
        };
        assert_eq!(
            with_places("what?", shown(2)).unwrap(),
            "<image>\n<image>\nwhat?"
        );
        assert_eq!(with_places("what?", shown(0)).unwrap(), "what?");
        assert_eq!(
            with_places("is <image> red?", shown(1)).unwrap(),
            "is <image> red?"
        );
        for (text, pictures, words) in [
            ("is <image> red?", 0, ["0 pictures", "1 place"]),
            ("is <image> red?", 2, ["2 pictures", "1 place"]),
        ] {
            let error = with_places(text, shown(pictures)).unwrap_err().to_string();
            assert!(error.starts_with("picture: "), "{error}");
            for word in words {
                assert!(error.contains(word), "no {word} in {error}");
            }
        }
        let error = check_places("red?", shown(1)).unwrap_err().to_string();
        assert!(error.contains("1 picture for 0 places"), "{error}");
    }
}
