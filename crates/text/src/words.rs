//! A tokenizer of given words, with characters for every other word.

use crate::special::added_tokens;
use crate::{Error, Result};
use serde_json::{Map, json};

/// Continues a word that was cut into characters.
const INSIDE: &str = "##";
/// Longest word that is cut into characters; cutting takes time with its square.
const MAX_WORD: usize = 200;
/// Spaces that text between tokens does not have: at line ends, before punctuation, around the signs
/// of a calculation, and inside a number.
const NO_SPACE: &str = r"(?<=\n) | (?=[\n.,:;?!+*/=-])|(?<=[+*/=-]) |(?<=\d) (?=\d)";

/// The bytes of a `tokenizer.json` whose tokens are `specials`, line feed, printable ASCII
/// characters, pairs of digits and `words`, in this order. Numbers are cut into pairs of digits from
/// their start; punctuation and line feeds are tokens of their own; spaces are none, the decoder puts
/// them back where English has them. A word that is not listed becomes its characters; a character
/// outside ASCII, or a word of more than 200 letters, becomes `unknown`, one of the specials.
///
/// # Errors
/// `unknown` is no special token, or a word is not made of ASCII letters.
pub fn word_tokenizer(specials: &[&str], unknown: &str, words: &[String]) -> Result<Vec<u8>> {
    if !specials.contains(&unknown) {
        return Err(Error::Train(format!(
            "{unknown:?} should be one of the special tokens {specials:?}"
        )));
    }
    let odd = |word: &&String| word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphabetic());
    if let Some(word) = words.iter().find(odd) {
        return Err(Error::Train(format!(
            "the word {word:?}: expected ASCII letters only"
        )));
    }
    let mut vocabulary = Map::new();
    let mut add = |token: String| {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert_with(|| id.into());
    };
    specials.iter().for_each(|token| add((*token).to_owned()));
    add("\n".to_owned());
    let characters = (b'!'..=b'~').map(char::from);
    characters.clone().for_each(|c| add(c.to_string()));
    characters
        .filter(char::is_ascii_alphabetic)
        .for_each(|c| add(format!("{INSIDE}{c}")));
    (0..100).for_each(|pair| add(format!("{pair:02}")));
    words.iter().for_each(|word| add(word.clone()));
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(specials),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"[ \t\r]+"}, "behavior": "Removed", "invert": false},
            {"type": "Split", "pattern": {"Regex": r"[0-9]{2}|[^A-Za-z]"}, "behavior": "Isolated", "invert": false}
        ]},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "WordPiece", "prefix": INSIDE, "cleanup": false},
            {"type": "Fuse"},
            {"type": "Replace", "pattern": {"Regex": NO_SPACE}, "content": ""}
        ]},
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": INSIDE,
            "max_input_chars_per_word": MAX_WORD, "vocab": vocabulary
        },
    });
    serde_json::to_vec_pretty(&file).map_err(|e| Error::Train(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;

    fn tokenizer() -> Tokenizer {
        let words = ["Anna", "has", "apples", "Start", "now"].map(String::from);
        let bytes = word_tokenizer(&["<end>", "<unknown>"], "<unknown>", &words).unwrap();
        Tokenizer::from_bytes(&bytes, "test").unwrap()
    }

    #[test]
    fn known_words_and_pairs_of_digits_are_single_tokens() {
        let tokenizer = tokenizer();
        let ids = tokenizer
            .encode_plain("Anna has 12 apples, 7+345.<end>")
            .unwrap();
        let names = [
            "Anna", "has", "12", "apples", ",", "7", "+", "34", "5", ".", "<end>",
        ];
        let wanted: Vec<u32> = names
            .iter()
            .map(|name| tokenizer.token_id(name).unwrap())
            .collect();
        assert_eq!(ids, wanted);
    }

    #[test]
    fn text_survives_the_round_trip() {
        let tokenizer = tokenizer();
        for text in [
            "Start: 12\nAnna: has 7, 12+7=19\nnow: 19/2=9-4",
            "How many apples has Zebedee now? Anna has 3.",
            "Start: 100*12345=1234500",
            "a\n\nb",
            "",
        ] {
            let ids = tokenizer.encode_plain(text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
        let long = "x".repeat(200);
        let ids = tokenizer.encode_plain(&long).unwrap();
        assert_eq!((ids.len(), tokenizer.decode(&ids).unwrap()), (200, long));
        let endless = "x".repeat(100_000);
        assert_eq!(tokenizer.encode_plain(&endless).unwrap(), [1]);
        assert_eq!(tokenizer.encode_plain("é").unwrap(), [1]);
    }

    #[test]
    fn bad_words_are_refused() {
        let words = |word: &str| word_tokenizer(&["<u>"], "<u>", &[word.to_owned()]);
        assert!(words("a b").unwrap_err().to_string().contains("a b"));
        assert!(words("").is_err());
        assert!(word_tokenizer(&["<u>"], "<x>", &[]).is_err());
    }
}
