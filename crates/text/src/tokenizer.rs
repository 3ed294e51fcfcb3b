//! Text to token ids and back, whichever kind of tokenizer a model has.

use serde_json::Value;

use crate::library::Library;
use crate::sentencepiece::SentencePiece;
use crate::{Error, Result};

/// Text to token ids and back. Truncation and padding settings of files are ignored: callers say what they need.
///
/// What a file asks for is bounded: a tokenizer that would make a text far longer, or that takes far longer than such a
/// text should, is an error that names the file.
pub struct Tokenizer {
    kind: Kind,
}

enum Kind {
    Library(Library),
    SentencePiece(Box<SentencePiece>),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Tokenizer({}, {} tokens)",
            self.label(),
            self.vocabulary_size()
        )
    }
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`; `label` names it in messages.
    pub fn from_bytes(bytes: &[u8], label: &str) -> Result<Self> {
        Ok(Self {
            kind: Kind::Library(Library::from_bytes(bytes, label)?),
        })
    }

    /// Reads the content of a `tokenizer.model` of SentencePiece as the slow tokenizer of Llama does. `settings` is
    /// `tokenizer_config.json` and `added` is `added_tokens.json`, which name tokens beyond the model's pieces; null
    /// where there is none. `label` names the model in messages.
    ///
    /// A text is taken as if it began a sentence: a mark is put before it, which falls away before a special token.
    ///
    /// # Errors
    /// A file of another kind, a model that is no list of byte-pair merges or that changes characters, or added tokens
    /// whose ids are those of other pieces.
    pub fn from_sentencepiece(
        bytes: &[u8],
        settings: &Value,
        added: &Value,
        label: &str,
    ) -> Result<Self> {
        let model = SentencePiece::read(bytes, settings, added, label)?;
        Ok(Self {
            kind: Kind::SentencePiece(Box::new(model)),
        })
    }

    pub(crate) fn new(inner: tokenizers::Tokenizer, label: &str) -> Result<Self> {
        Ok(Self {
            kind: Kind::Library(Library::new(inner, label)?),
        })
    }

    /// Token ids of `text` with the special tokens that the tokenizer adds (for Gemma and Llama: the beginning in
    /// front).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Library(library) => library.encode(text),
            Kind::SentencePiece(model) => {
                let mut ids = Vec::from_iter(model.beginning());
                ids.extend(model.encode(text)?);
                Ok(ids)
            }
        }
    }

    /// Token ids of `text` as it stands; special tokens only where it spells them. For text that a chat template made.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Library(library) => library.encode_plain(text),
            Kind::SentencePiece(model) => model.encode(text),
        }
    }

    /// Like [`encode`](Self::encode), but at most `limit` ids, cut at the right end of the text so that added special
    /// tokens stay. True when something was cut.
    pub fn encode_truncated(&self, text: &str, limit: usize) -> Result<(Vec<u32>, bool)> {
        match &self.kind {
            Kind::Library(library) => library.encode_truncated(text, limit),
            Kind::SentencePiece(_) => {
                let mut ids = self.encode(text)?;
                if limit == 0 {
                    let label = self.label();
                    return Err(Error::Argument(format!(
                        "{label}: a limit of 0 tokens leaves no room for its special tokens"
                    )));
                }
                let cut = ids.len() > limit;
                ids.truncate(limit);
                Ok((ids, cut))
            }
        }
    }

    /// Text of `ids`; special tokens are left out. Unknown ids are an error.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::Library(library) => library.decode(ids),
            Kind::SentencePiece(model) => match ids.iter().find(|id| !model.knows(**id)) {
                Some(id) => Err(Error::Encode {
                    label: self.label().to_owned(),
                    reason: format!("no token has the id {id}"),
                }),
                None => Ok(model.decode(ids)),
            },
        }
    }

    /// Text of `ids` without special tokens and without ids that no token has: a model's head may have more rows than
    /// its tokenizer has tokens.
    pub fn decode_known(&self, ids: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::Library(library) => library.decode_known(ids),
            Kind::SentencePiece(model) => Ok(model.decode(ids)),
        }
    }

    /// Whether a token has this id.
    pub fn knows(&self, id: u32) -> bool {
        match &self.kind {
            Kind::Library(library) => library.knows(id),
            Kind::SentencePiece(model) => model.knows(id),
        }
    }

    /// Whether a token is one of those that mark turns, ends and the like, which decoding leaves out.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.kind {
            Kind::Library(library) => library.is_special(id),
            Kind::SentencePiece(model) => model.is_special(id),
        }
    }

    /// The highest id of a token.
    pub fn highest_id(&self) -> Option<u32> {
        match &self.kind {
            Kind::Library(library) => library.highest_id(),
            Kind::SentencePiece(model) => model.highest_id(),
        }
    }

    /// The id of a token by its exact spelling, such as `<eos>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        match &self.kind {
            Kind::Library(library) => library.token_id(token),
            Kind::SentencePiece(model) => model.token_id(token),
        }
    }

    /// Number of tokens, special ones included.
    pub fn vocabulary_size(&self) -> usize {
        match &self.kind {
            Kind::Library(library) => library.vocabulary_size(),
            Kind::SentencePiece(model) => model.vocabulary_size(),
        }
    }

    /// Where the tokenizer came from, for messages.
    pub fn label(&self) -> &str {
        match &self.kind {
            Kind::Library(library) => library.label(),
            Kind::SentencePiece(model) => model.label(),
        }
    }
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
