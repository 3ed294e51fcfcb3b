//! A tokenizer read from `tokenizer.json`.

use crate::guard::guarded;
use crate::{Error, Result};
use tokenizers::TruncationDirection;

/// Text to token ids and back. Truncation and padding settings of the file are ignored: callers say what they need.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    label: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Tokenizer({}, {} tokens)",
            self.label,
            self.vocabulary_size()
        )
    }
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`; `label` names it in messages.
    pub fn from_bytes(bytes: &[u8], label: &str) -> Result<Self> {
        let bad = |reason: String| Error::Load {
            label: label.to_owned(),
            reason,
        };
        // The library takes well-formed JSON for granted.
        let json: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if let Some(problem) = json.get("normalizer").and_then(false_claim) {
            return Err(bad(problem));
        }
        let read = || tokenizers::Tokenizer::from_bytes(bytes);
        let inner = guarded(read)
            .map_err(bad)?
            .map_err(|e| bad(e.to_string()))?;
        Self::new(inner, label)
    }

    pub(crate) fn new(mut inner: tokenizers::Tokenizer, label: &str) -> Result<Self> {
        let bad = |e: tokenizers::Error| Error::Load {
            label: label.to_owned(),
            reason: e.to_string(),
        };
        inner.with_truncation(None).map_err(bad)?;
        inner.with_padding(None);
        if inner.get_vocab_size(true) == 0 {
            return Err(Error::Load {
                label: label.to_owned(),
                reason: "its vocabulary is empty".into(),
            });
        }
        Ok(Self {
            inner,
            label: label.to_owned(),
        })
    }

    /// Token ids of `text` with the special tokens that the tokenizer adds (for Gemma: `<bos>` in front).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.run(|inner| inner.encode_fast(text, true))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` as it stands; special tokens only where it spells them. For text that a chat template made.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.run(|inner| inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Like [`encode`](Self::encode), but at most `limit` ids, cut at the right end of the text so that added special
    /// tokens stay. True when something was cut.
    pub fn encode_truncated(&self, text: &str, limit: usize) -> Result<(Vec<u32>, bool)> {
        let added = self
            .inner
            .get_post_processor()
            .map_or(0, |p| tokenizers::PostProcessor::added_tokens(p, false));
        let Some(room) = limit.checked_sub(added) else {
            return Err(Error::Argument(format!(
                "{}: a limit of {limit} tokens leaves no room for its {added} special tokens",
                self.label
            )));
        };
        let mut encoding = self.run(|inner| inner.encode_fast(text, false))?;
        let cut = encoding.get_ids().len() > room;
        encoding.truncate(room, 0, TruncationDirection::Right);
        let encoding = self.run(|inner| inner.post_process(encoding, None, true))?;
        Ok((encoding.get_ids().to_vec(), cut))
    }

    /// Text of `ids`; special tokens are left out. Unknown ids are an error.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            return Err(Error::Encode {
                label: self.label.clone(),
                reason: format!("no token has the id {id}"),
            });
        }
        self.run(|inner| inner.decode(ids, true))
    }

    /// Text of `ids` without special tokens and without ids that no token has: a model's head may have more rows than
    /// its tokenizer has tokens.
    pub fn decode_known(&self, ids: &[u32]) -> Result<String> {
        let known: Vec<u32> = ids.iter().copied().filter(|id| self.knows(*id)).collect();
        self.run(|inner| inner.decode(&known, true))
    }

    /// Whether a token has this id.
    pub fn knows(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }

    /// The highest id of a token.
    pub fn highest_id(&self) -> Option<u32> {
        self.inner.get_vocab(true).into_values().max()
    }

    /// The id of a token by its exact spelling, such as `<eos>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, special ones included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Where the tokenizer came from, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What the library makes of a text; its panics are errors, too.
    fn run<T>(
        &self,
        work: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<T>,
    ) -> Result<T> {
        let failed = |reason: String| Error::Encode {
            label: self.label.clone(),
            reason,
        };
        let result = guarded(|| work(&self.inner)).map_err(failed)?;
        result.map_err(|error| failed(error.to_string()))
    }
}

/// A `precompiled_charsmap` that claims more bytes than it has, which the library would allocate.
fn false_claim(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Array(list) => list.iter().find_map(false_claim),
        serde_json::Value::Object(table) => {
            let map = table
                .get("precompiled_charsmap")
                .and_then(|map| map.as_str());
            let found = map.and_then(|map| {
                // Base64; the first four bytes are the length of what follows.
                let claimed = first_word(map)? as usize;
                let there = (map.len() / 4 * 3).saturating_sub(4);
                (claimed > there).then(|| {
                    format!("`precompiled_charsmap` claims {claimed} bytes and has at most {there}")
                })
            });
            found.or_else(|| table.values().find_map(false_claim))
        }
        _ => None,
    }
}

/// The first four bytes of a text in base64, little endian; none where they are no such text.
fn first_word(text: &str) -> Option<u32> {
    let mut bits = 0u64;
    for digit in text.bytes().take(6) {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u64::from(value);
    }
    (text.len() >= 6).then(|| ((bits >> 4) as u32).swap_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train_bpe;

    fn tokenizer() -> Tokenizer {
        let lines: Vec<String> = ["red heart", "red apple", "green heart"]
            .map(String::from)
            .to_vec();
        Tokenizer::from_bytes(&train_bpe(&lines, 400).unwrap(), "test").unwrap()
    }

    #[test]
    fn truncation_keeps_bos_and_the_left_end() {
        let tokenizer = tokenizer();
        let all = tokenizer.encode("red heart green apple").unwrap();
        let (cut, truncated) = tokenizer
            .encode_truncated("red heart green apple", 3)
            .unwrap();
        assert_eq!((&cut[..], truncated), (&all[..3], true));
        assert_eq!(
            tokenizer.encode_truncated("red", 300).unwrap(),
            (tokenizer.encode("red").unwrap(), false)
        );
        assert!(tokenizer.encode_truncated("red", 0).is_err());
    }

    #[test]
    fn settings_in_the_file_do_not_truncate_or_pad() {
        let lines = vec!["red heart red heart".to_owned()];
        let mut json: serde_json::Value =
            serde_json::from_slice(&train_bpe(&lines, 300).unwrap()).unwrap();
        json["truncation"] = serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = serde_json::json!({"strategy": {"Fixed": 50}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"});
        let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), "test").unwrap();
        let ids = tokenizer.encode("red heart red heart").unwrap();
        assert!(ids.len() > 2 && ids.len() < 50, "{ids:?}");
    }

    #[test]
    fn bad_files_are_errors() {
        for bytes in [
            &b""[..],
            b"{}",
            b"[1, 2",
            b"\xff\xfe",
            br#"{"version": "1.0", "model": {"type": "BPE"}}"#,
        ] {
            let error = Tokenizer::from_bytes(bytes, "some.json")
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("some.json:"), "{error}");
        }
    }

    #[test]
    fn a_charsmap_is_read_as_long_as_it_is() {
        assert_eq!(first_word("AQAAAAAA"), Some(1));
        assert_eq!(first_word("/////w=="), Some(u32::MAX));
        assert_eq!(first_word("AAA"), None);
        let claim = serde_json::json!([{"x": {"precompiled_charsmap": "/////wAA"}}]);
        assert!(false_claim(&claim).unwrap().contains("4294967295"));
        let fits = serde_json::json!({"precompiled_charsmap": "AQAAAAAA"});
        assert_eq!(false_claim(&fits), None);
    }

    #[test]
    fn unknown_ids_are_errors() {
        assert!(
            tokenizer()
                .decode(&[2, 99_999])
                .unwrap_err()
                .to_string()
                .contains("99999")
        );
    }
}
