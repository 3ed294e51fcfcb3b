//! SentencePiece models of the kind that Llama has: byte-pair merges by score, with bytes for what no piece
//! spells.

mod added;
mod decode;
mod merge;
mod model;
mod train;
mod trie;
mod wire;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::limits::TEXT;
use crate::{Error, Result};

pub use train::{MIN_PIECES, train_sentencepiece};

use model::{Kind, Model};
use trie::Trie;

/// What a space is in pieces.
const MARK: char = '\u{2581}';

/// A `tokenizer.model` with the tokens that other files add, read as the slow tokenizer of transformers reads
/// Llama's (`legacy` off): a text is taken as if it began a sentence, and tokens that other files add cut it
/// before it is merged.
pub(crate) struct SentencePiece {
    model: Model,
    /// Tokens that cut a text, with their ids.
    added: Trie,
    /// Spellings of those beyond the model's pieces.
    beyond: BTreeMap<u32, String>,
    /// Ids that are left out of decoded texts.
    special: Vec<u32>,
    /// The token that is put before a text.
    beginning: Option<u32>,
    /// Whether a mark is put before a text.
    prefix: bool,
    label: String,
}

impl SentencePiece {
    /// From the contents of `tokenizer.model`; `settings` is `tokenizer_config.json` and `added` is
    /// `added_tokens.json`, null where there is none.
    pub(crate) fn read(bytes: &[u8], settings: &Value, added: &Value, label: &str) -> Result<Self> {
        let bad = |reason: String| Error::Load {
            label: label.to_owned(),
            reason,
        };
        let model = Model::read(bytes).map_err(bad)?;
        let listed = added::listed(settings, added, &model).map_err(bad)?;
        let flag = |key: &str| settings.get(key).and_then(Value::as_bool);
        if flag("add_eos_token") == Some(true) {
            let reason =
                "add_eos_token of tokenizer_config.json is true; expected false".to_owned();
            return Err(bad(reason));
        }
        let mut found = Self {
            added: Trie::default(),
            beyond: BTreeMap::new(),
            special: Vec::new(),
            beginning: match flag("add_bos_token") {
                Some(false) => None,
                _ => model.beginning,
            },
            prefix: flag("add_prefix_space") != Some(false),
            label: label.to_owned(),
            model,
        };
        for token in listed {
            found.added.insert(&token.content, token.id);
            if token.special {
                found.special.push(token.id);
            }
            if token.id as usize >= found.model.pieces.len() {
                found.beyond.insert(token.id, token.content);
            }
        }
        let reserved = found.model.pieces.iter().zip(0..);
        let reserved = reserved.filter(|(piece, _)| piece.kind.is_reserved());
        found.special.extend(reserved.map(|(_, id)| id));
        found.special.sort_unstable();
        found.special.dedup();
        Ok(found)
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Ids of a text, without a beginning.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if text.len() > TEXT {
            return Err(Error::Encode {
                label: self.label.clone(),
                reason: format!(
                    "the text has {} bytes; at most {TEXT} are tokenised at once",
                    text.len()
                ),
            });
        }
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let mut whole = String::with_capacity(text.len() + MARK.len_utf8());
        if self.prefix {
            whole.push(MARK);
        }
        whole.extend(text.chars().map(|c| if c == MARK { ' ' } else { c }));
        let mut ids = Vec::new();
        let (mut from, mut at) = (0, 0);
        while at < whole.len() {
            match self.added.longest(&whole.as_bytes()[at..]) {
                Some((length, id)) => {
                    self.encode_piece(&whole[from..at], &mut ids);
                    ids.push(id);
                    at += length;
                    from = at;
                }
                None => at += whole[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        self.encode_piece(&whole[from..], &mut ids);
        // The mark that was put before a text falls away where a special token follows at once.
        let mark = self.model.mark();
        if ids.len() > 1 && mark == Some(ids[0]) && self.is_special(ids[1]) {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// Ids of what stands between added tokens. What begins with a space is merged behind the spelling of the
    /// unknown token, whose own ids are dropped, as the slow tokenizer does to keep the space.
    fn encode_piece(&self, piece: &str, ids: &mut Vec<u32>) {
        if piece.is_empty() {
            return;
        }
        if !piece.starts_with([MARK, ' ']) {
            ids.extend(self.model.encode(piece));
            return;
        }
        let unknown = &self.model.pieces[self.model.unknown as usize].text;
        let before = self.model.encode(unknown).len();
        let both = self.model.encode(&format!("{unknown}{piece}"));
        ids.extend(both.get(before..).unwrap_or(&both));
    }

    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    /// The token that begins a text.
    pub(crate) fn beginning(&self) -> Option<u32> {
        self.beginning
    }

    /// Text of ids that are known; special tokens are left out.
    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        let kept = ids.iter().filter(|id| !self.is_special(**id));
        let pieces = kept.filter_map(|id| match self.beyond.get(id) {
            Some(added) => Some(decode::Part::Text(added)),
            None => {
                let piece = self.model.pieces.get(*id as usize)?;
                Some(match piece.kind {
                    Kind::Byte(byte) => decode::Part::Byte(byte),
                    _ => decode::Part::Piece(&piece.text),
                })
            }
        });
        decode::joined(pieces, self.prefix)
    }

    pub(crate) fn knows(&self, id: u32) -> bool {
        (id as usize) < self.model.pieces.len() || self.beyond.contains_key(&id)
    }

    pub(crate) fn highest_id(&self) -> Option<u32> {
        let pieces = (self.model.pieces.len() as u32).checked_sub(1);
        pieces.max(self.beyond.keys().next_back().copied())
    }

    pub(crate) fn vocabulary_size(&self) -> usize {
        self.model.pieces.len() + self.beyond.len()
    }

    /// The id of an added token or a piece by its exact spelling.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        let beyond = self.beyond.iter().find(|(_, known)| *known == token);
        beyond
            .map(|(id, _)| *id)
            .or_else(|| self.model.id_of(token))
    }
}
