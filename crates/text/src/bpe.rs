//! Training of a byte-pair tokenizer with Gemma's conventions.

use crate::special::added_tokens;
use crate::{Error, Result};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::{AddedToken, Trainer};

/// Special tokens, in the order of their ids.
const SPECIAL: [&str; 4] = ["<pad>", "<eos>", "<bos>", "<unk>"];
/// Stands for a space inside tokens.
const SPACE: char = '\u{2581}';
/// Smallest vocabulary that can be trained: special tokens, the 256 bytes, and a few characters.
pub const MIN_VOCABULARY: usize = 280;

/// Trains on `lines` and returns the bytes of a `tokenizer.json` with at most `vocabulary` tokens.
///
/// Ids: `<pad>` 0, `<eos>` 1, `<bos>` 2, `<unk>` 3, then the bytes `<0x00>` to `<0xFF>`, characters, merges. Spaces
/// become `▁`, which starts a token and never stands inside one; characters outside the vocabulary fall back to
/// bytes; `<bos>` is added in front. The result depends on `lines` and `vocabulary` only.
pub fn train_bpe(lines: &[String], vocabulary: usize) -> Result<Vec<u8>> {
    if vocabulary < MIN_VOCABULARY {
        return Err(Error::Train(format!(
            "a vocabulary of {vocabulary} tokens; the smallest is {MIN_VOCABULARY}"
        )));
    }
    if lines.iter().all(|line| line.trim().is_empty()) {
        return Err(Error::Train("there is no text to learn from".into()));
    }
    let failed = |e: tokenizers::Error| Error::Train(e.to_string());
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let reserved: Vec<AddedToken> = SPECIAL
        .iter()
        .map(|s| (*s).to_owned())
        .chain(bytes)
        .map(|token| AddedToken::from(token, true))
        .collect();
    // Rare characters must not crowd out the merges; those left out are written in bytes.
    let characters = (vocabulary - reserved.len()).div_ceil(2);
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocabulary)
        .min_frequency(2)
        .limit_alphabet(characters)
        .special_tokens(reserved)
        .show_progress(false)
        .build();
    trainer
        .feed(lines.iter(), |line: &str| Ok(words(line)))
        .map_err(failed)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;
    let mut model = serde_json::to_value(&model).map_err(|e| Error::Train(e.to_string()))?;
    model["unk_token"] = json!("<unk>");
    model["fuse_unk"] = json!(true);
    model["byte_fallback"] = json!(true);
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&SPECIAL),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"}
        ]},
        "model": model,
    });
    serde_json::to_vec_pretty(&file).map_err(|e| Error::Train(e.to_string()))
}

/// A trained tokenizer that also knows each of `pieces` as one token, whatever is in it, and, where `ends` says so, puts
/// `<eos>` behind every text.
///
/// # Errors
/// A file that [`train_bpe`] has not written.
pub fn with_pieces(tokenizer: &[u8], pieces: &[&str], ends: bool) -> Result<Vec<u8>> {
    let bad = |reason: &str| Error::Train(format!("a tokenizer to add tokens to: {reason}"));
    let mut file: Value =
        serde_json::from_slice(tokenizer).map_err(|error| bad(&error.to_string()))?;
    let known = file["model"]["vocab"].as_object();
    let known = known.ok_or_else(|| bad("it has no vocabulary"))?.len();
    let added = file["added_tokens"].as_array_mut();
    let added = added.ok_or_else(|| bad("it has no special tokens"))?;
    added.extend(
        added_tokens(pieces)
            .into_iter()
            .enumerate()
            .map(|(index, mut token)| {
                token["id"] = (known + index).into();
                token
            }),
    );
    if ends {
        let end = SPECIAL[1];
        let post = &mut file["post_processor"];
        let sequence = post["single"].as_array_mut();
        let sequence = sequence.ok_or_else(|| bad("it puts nothing around texts"))?;
        sequence.push(json!({"SpecialToken": {"id": end, "type_id": 0}}));
        post["special_tokens"][end] = json!({"id": end, "ids": [1], "tokens": [end]});
    }
    serde_json::to_vec_pretty(&file).map_err(|error| bad(&error.to_string()))
}

/// Splits in front of every space, so that merges never cross one.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in line.chars() {
        let c = if c == ' ' { SPACE } else { c };
        match words.last_mut() {
            Some(word) if c != SPACE => word.push(c),
            _ => words.push(c.into()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;

    fn lines() -> Vec<String> {
        [
            "red heart",
            "red apple",
            "green heart",
            "a heart with arrow",
            "café",
        ]
        .map(String::from)
        .to_vec()
    }

    #[test]
    fn follows_the_conventions() {
        let tokenizer = Tokenizer::from_bytes(&train_bpe(&lines(), 400).unwrap(), "test").unwrap();
        for (id, token) in SPECIAL.iter().enumerate() {
            assert_eq!(tokenizer.token_id(token), Some(id as u32));
        }
        assert_eq!(tokenizer.token_id("<0x00>"), Some(4));
        assert_eq!(tokenizer.token_id("<0xFF>"), Some(259));
        assert!(
            tokenizer.token_id("\u{2581}heart").is_some(),
            "a frequent word becomes one token"
        );
        let heart = tokenizer.encode("red heart").unwrap();
        assert_eq!(heart[0], 2);
        assert_eq!(heart.last(), tokenizer.token_id("\u{2581}heart").as_ref());
        assert!(tokenizer.vocabulary_size() <= 400);
    }

    #[test]
    fn any_text_survives_the_round_trip() {
        let tokenizer = Tokenizer::from_bytes(&train_bpe(&lines(), 300).unwrap(), "test").unwrap();
        for text in [
            "red heart",
            "  two  spaces ",
            "日本 🚀 x",
            "line\nbreak\ttab",
            "",
            "<0x41>",
            "\u{0}",
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert!(!ids.contains(&3), "{text:?} gives <unk>: {ids:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn pieces_are_one_token_each() {
        let plain = train_bpe(&lines(), 300).unwrap();
        let long = "\nDescribe a red heart, in detail:";
        let file = with_pieces(&plain, &[long, "<image>"], true).unwrap();
        let tokenizer = Tokenizer::from_bytes(&file, "test").unwrap();
        let count = Tokenizer::from_bytes(&plain, "test")
            .unwrap()
            .vocabulary_size();
        assert_eq!(tokenizer.vocabulary_size(), count + 2);
        let ids = tokenizer
            .encode(&format!("<image>{long}red heart"))
            .unwrap();
        assert_eq!(ids[..3], [2, count as u32 + 1, count as u32]);
        assert_eq!(ids.last(), Some(&1));
        assert!(with_pieces(b"{}", &[], false).is_err());
    }

    #[test]
    fn is_reproducible() {
        assert_eq!(
            train_bpe(&lines(), 330).unwrap(),
            train_bpe(&lines(), 330).unwrap()
        );
    }

    #[test]
    fn tokens_never_hold_a_space_inside() {
        let many: Vec<String> = std::iter::repeat_n("of the of the".to_owned(), 20).collect();
        let json: serde_json::Value =
            serde_json::from_slice(&train_bpe(&many, 400).unwrap()).unwrap();
        let tokens = json["model"]["vocab"].as_object().unwrap();
        assert!(tokens.contains_key("\u{2581}the"));
        assert!(tokens.keys().all(|t| t.chars().skip(1).all(|c| c != SPACE)));
    }

    #[test]
    fn refuses_what_cannot_work() {
        assert!(train_bpe(&lines(), 279).is_err());
        assert!(train_bpe(&[], 400).is_err());
        assert!(train_bpe(&[" ".into()], 400).is_err());
    }
}
