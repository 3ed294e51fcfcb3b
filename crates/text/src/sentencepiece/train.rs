//! Training of a model of Llama's kind: pieces by byte-pair merges of words, written as SentencePiece stores them.

use std::collections::BTreeMap;

use super::MARK;
use crate::bpe::words;
use crate::{Error, Result};

/// Pieces that stand before all others, with their types: what is unknown, and what begins and ends a text.
const RESERVED: [(&str, u64); 3] = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
/// Types of the other pieces.
const NORMAL: u64 = 1;
const BYTE: u64 = 6;
/// Fewest pieces: the reserved ones, the 256 bytes, and a few characters.
pub const MIN_PIECES: usize = 280;
/// Pairs that occur less often are not merged.
const LEAST: u64 = 2;

/// Trains on `lines` and returns the bytes of a `tokenizer.model` of at most `pieces` pieces, for
/// [`Tokenizer::from_sentencepiece`](crate::Tokenizer::from_sentencepiece).
///
/// Ids: `<unk>` 0, `<s>` 1, `</s>` 2, then the bytes `<0x00>` to `<0xFF>`, merges in their order, and characters.
/// Spaces become `▁`, which begins a piece and never stands inside one; what no piece spells is written in bytes.
/// The result depends on `lines` and `pieces` only.
///
/// # Errors
/// Too few pieces, or no text to learn from.
pub fn train_sentencepiece(lines: &[String], pieces: usize) -> Result<Vec<u8>> {
    if pieces < MIN_PIECES {
        return Err(Error::Train(format!(
            "a vocabulary of {pieces} pieces; the smallest is {MIN_PIECES}"
        )));
    }
    if lines.iter().all(|line| line.trim().is_empty()) {
        return Err(Error::Train("there is no text to learn from".into()));
    }
    let room = pieces - RESERVED.len() - 256;
    // Rare characters must not crowd out the merges.
    let mut learned = Learned::of(lines, room.div_ceil(2));
    let characters = learned.symbols.len();
    while learned.symbols.len() < room && learned.merge() {}
    let mut model = Vec::new();
    let mut piece = |text: &str, score: f32, kind: u64| {
        let mut message = Vec::new();
        bytes(&mut message, 1, text.as_bytes());
        whole(&mut message, 2 << 3 | 5);
        message.extend(score.to_le_bytes());
        number(&mut message, 3, kind);
        bytes(&mut model, 1, &message);
    };
    for (text, kind) in RESERVED {
        piece(text, 0.0, kind);
    }
    for byte in 0..=255u8 {
        piece(&format!("<0x{byte:02X}>"), 0.0, BYTE);
    }
    let (characters, merges) = learned.symbols.split_at(characters);
    for (rank, text) in merges.iter().chain(characters).enumerate() {
        piece(text, -(rank as f32), NORMAL);
    }
    // Byte-pair merges with bytes for the rest; ids of the reserved pieces, none for padding.
    let mut trainer = Vec::new();
    for (field, value) in [(3, 2), (35, 1), (40, 0), (41, 1), (42, 2), (43, u64::MAX)] {
        number(&mut trainer, field, value);
    }
    bytes(&mut model, 2, &trainer);
    let mut normalizer = Vec::new();
    bytes(&mut normalizer, 1, b"identity");
    for (field, value) in [(3, 1), (4, 0), (5, 1)] {
        number(&mut normalizer, field, value);
    }
    bytes(&mut model, 3, &normalizer);
    Ok(model)
}

/// Words as they are merged so far.
struct Learned {
    /// Spellings: the characters, then what was merged.
    symbols: Vec<String>,
    /// Different words, in symbols, with how often they occur.
    words: Vec<(Vec<usize>, u64)>,
}

impl Learned {
    /// With at most `most` characters; a character beyond them ends what can be merged.
    fn of(lines: &[String], most: usize) -> Self {
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for line in lines {
            // A text is read as if it began a sentence; characters that break lines are bytes.
            for part in format!(" {line}").split(char::is_control) {
                for word in words(part) {
                    *counted.entry(word).or_default() += 1;
                }
            }
        }
        let mut often: BTreeMap<char, u64> = BTreeMap::from([(MARK, u64::MAX / 2)]);
        for (word, count) in &counted {
            for character in word.chars() {
                let times = often.entry(character).or_default();
                *times = times.saturating_add(*count);
            }
        }
        let mut often: Vec<(char, u64)> = often.into_iter().collect();
        often.sort_by_key(|(character, count)| (std::cmp::Reverse(*count), *character));
        often.truncate(most);
        let ids: BTreeMap<char, usize> = often.iter().map(|(c, _)| *c).zip(0..).collect();
        let mut words = Vec::new();
        for (word, count) in &counted {
            let known: Vec<Option<usize>> = word.chars().map(|c| ids.get(&c).copied()).collect();
            for run in known.split(Option::is_none) {
                if run.len() > 1 {
                    words.push((run.iter().flatten().copied().collect(), *count));
                }
            }
        }
        Self {
            symbols: often.iter().map(|(c, _)| c.to_string()).collect(),
            words,
        }
    }

    /// Merges the pair that occurs most often; false where none occurs often enough.
    fn merge(&mut self) -> bool {
        let mut pairs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for (word, count) in &self.words {
            for pair in word.windows(2) {
                *pairs.entry((pair[0], pair[1])).or_default() += count;
            }
        }
        let best = pairs
            .into_iter()
            .max_by_key(|(pair, count)| (*count, std::cmp::Reverse(*pair)));
        let Some(((first, second), _)) = best.filter(|(_, count)| *count >= LEAST) else {
            return false;
        };
        let text = format!("{}{}", self.symbols[first], self.symbols[second]);
        // Two ways of merging may lead to one piece.
        let known = self.symbols.iter().position(|symbol| *symbol == text);
        let merged = known.unwrap_or_else(|| {
            self.symbols.push(text);
            self.symbols.len() - 1
        });
        for (word, _) in &mut self.words {
            let mut at = 0;
            while at + 1 < word.len() {
                if word[at] == first && word[at + 1] == second {
                    word[at] = merged;
                    word.remove(at + 1);
                }
                at += 1;
            }
        }
        true
    }
}

fn whole(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn number(to: &mut Vec<u8>, field: u64, value: u64) {
    whole(to, field << 3);
    whole(to, value);
}

fn bytes(to: &mut Vec<u8>, field: u64, value: &[u8]) {
    whole(to, field << 3 | 2);
    whole(to, value.len() as u64);
    to.extend(value);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Tokenizer;

    fn lines() -> Vec<String> {
        [
            "a red heart",
            "a red apple",
            "how many hearts are there? two",
            "a heart with an arrow",
        ]
        .map(String::from)
        .to_vec()
    }

    fn tokenizer(pieces: usize, added: &Value) -> Tokenizer {
        let model = train_sentencepiece(&lines(), pieces).unwrap();
        Tokenizer::from_sentencepiece(&model, &Value::Null, added, "trained").unwrap()
    }

    #[test]
    fn it_is_read_as_llamas() {
        let added = json!({"<im_start>": 320});
        let model = tokenizer(320, &added);
        assert!(model.vocabulary_size() <= 321);
        assert_eq!(model.token_id("</s>"), Some(2));
        assert_eq!(model.token_id("<0x0A>"), Some(13));
        let heart = model.token_id("\u{2581}heart");
        assert!(heart.is_some(), "a frequent word becomes one piece");
        let ids = model.encode("a red heart <im_start>").unwrap();
        assert_eq!((ids[0], ids.last()), (1, Some(&320)));
        assert!(heart.is_some_and(|heart| ids.contains(&heart)));
        assert!(ids.len() <= 7, "{ids:?}");
        // What stands before a word leaves its ids as they are.
        let whole = model.encode("red heart").unwrap();
        assert_eq!(model.encode("red").unwrap(), whole[..whole.len() - 1]);
    }

    #[test]
    fn any_text_survives() {
        let model = tokenizer(290, &Value::Null);
        for text in [
            "a red heart",
            "two  spaces",
            "日本 🚀 x",
            "\nwhat?\ttab",
            "Zebra",
        ] {
            let ids = model.encode(text).unwrap();
            assert!(!ids.contains(&0), "{text:?} gives <unk>: {ids:?}");
            assert_eq!(model.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn it_is_reproducible_and_refuses_what_cannot_work() {
        let train = |pieces| train_sentencepiece(&lines(), pieces);
        assert_eq!(train(330).unwrap(), train(330).unwrap());
        assert!(train(279).is_err());
        assert!(train_sentencepiece(&[" ".into()], 300).is_err());
    }
}
