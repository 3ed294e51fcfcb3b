//! Byte-level BPE from `vocab.json` and `merges.txt`, as Dream's tokenizer is published.

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::{Error, Result, Tokenizer};

/// Where Qwen2's tokenizer, and Dream's after it, cuts text before merging: digits stand alone.
const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Tokenizer {
    /// Byte-level BPE of Qwen2's kind from the contents of `vocab.json` and `merges.txt`. `settings`
    /// is `tokenizer_config.json`, whose `added_tokens_decoder` names the tokens beyond the
    /// vocabulary; `label` names the files in messages.
    ///
    /// # Errors
    /// Files of another form, merges of unknown tokens, or added tokens whose ids would not be
    /// those the file gives.
    pub fn from_vocabulary(
        vocabulary: &[u8],
        merges: &[u8],
        settings: &Value,
        label: &str,
    ) -> Result<Self> {
        let bad = |reason: String| Error::Load {
            label: label.to_owned(),
            reason,
        };
        let vocabulary: std::collections::HashMap<String, u32> =
            serde_json::from_slice(vocabulary).map_err(|e| bad(e.to_string()))?;
        let merges = std::str::from_utf8(merges).map_err(|e| bad(format!("merges.txt: {e}")))?;
        let mut pairs = Vec::new();
        for (number, line) in merges.lines().enumerate() {
            if line.is_empty() || (number == 0 && line.starts_with("#version")) {
                continue;
            }
            let Some((left, right)) = line.split_once(' ') else {
                return Err(bad(format!(
                    "merges.txt, line {}: expected two tokens",
                    number + 1
                )));
            };
            pairs.push((left.to_owned(), right.to_owned()));
        }
        let model = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<Vocab>(), pairs)
            .build()
            .map_err(|e| bad(e.to_string()))?;
        let mut inner = tokenizers::Tokenizer::new(model);
        let words = Split::new(
            SplitPattern::Regex(WORDS.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(|e| bad(e.to_string()))?;
        let bytes = ByteLevel::new(false, false, false);
        inner
            .with_normalizer(Some(NFC))
            .map_err(|e| bad(e.to_string()))?;
        inner.with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(words),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])));
        inner.with_decoder(Some(bytes));
        add_tokens(&mut inner, settings).map_err(bad)?;
        Self::new(inner, label)
    }
}

/// Adds the tokens of `added_tokens_decoder` in the order of their ids.
fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    settings: &Value,
) -> std::result::Result<(), String> {
    let Some(listed) = settings
        .get("added_tokens_decoder")
        .and_then(Value::as_object)
    else {
        return Ok(());
    };
    let mut tokens: Vec<(u32, &str, bool)> = Vec::new();
    for (id, entry) in listed {
        let (Ok(id), Some(content)) = (id.parse(), entry.get("content").and_then(Value::as_str))
        else {
            return Err(format!(
                "added_tokens_decoder: entry {id:?} has no id or content"
            ));
        };
        let special = entry.get("special").and_then(Value::as_bool) == Some(true);
        tokens.push((id, content, special));
    }
    tokens.sort_unstable();
    for (id, content, special) in tokens {
        let token = AddedToken::from(content, special).normalized(false);
        if special {
            inner
                .add_special_tokens([token])
                .map_err(|e| e.to_string())?;
        } else {
            inner.add_tokens([token]).map_err(|e| e.to_string())?;
        }
        let found = inner.token_to_id(content);
        if found != Some(id) {
            return Err(format!(
                "added token {content:?} should have id {id}, but gets {found:?}; is vocab.json complete?"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn digits_stand_alone_and_added_tokens_keep_their_ids() {
        let vocabulary =
            json!({"1": 0, "2": 1, "a": 2, "b": 3, "ab": 4, "Ġ": 5, "Ġab": 6, "12": 7});
        let merges = b"#version: 0.2\na b\n\xc4\xa0 ab\n1 2\n";
        let settings = json!({"added_tokens_decoder": {
            "9": {"content": "<|mask|>", "special": true}, "8": {"content": "<|end|>", "special": true}}});
        let vocabulary = vocabulary.to_string();
        let build = |settings: &Value| {
            Tokenizer::from_vocabulary(vocabulary.as_bytes(), merges, settings, "vocab.json")
        };
        let tokenizer = build(&settings).unwrap();
        let ids = tokenizer.encode("ab ab12<|mask|>").unwrap();
        assert_eq!(ids, [4, 6, 0, 1, 9]);
        assert_eq!(
            tokenizer.decode_known(&[4, 6, 0, 1, 9, 77]).unwrap(),
            "ab ab12"
        );
        let gap = json!({"added_tokens_decoder": {"12": {"content": "<|x|>", "special": true}}});
        assert!(build(&gap).unwrap_err().to_string().contains("id 12"));
    }

    #[test]
    fn bad_files_are_errors() {
        let read = |vocabulary: &[u8], merges: &[u8]| {
            Tokenizer::from_vocabulary(vocabulary, merges, &Value::Null, "some.json")
                .unwrap_err()
                .to_string()
        };
        assert!(read(b"[1]", b"").starts_with("some.json:"));
        assert!(read(br#"{"a": 0}"#, b"ab").contains("line 1"));
        assert!(read(br#"{"a": 0}"#, b"a b").starts_with("some.json:"));
    }
}
