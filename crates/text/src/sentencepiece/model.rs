//! The pieces of a model and what is said of them.

use std::collections::HashMap;

use super::MARK;
use super::trie::Trie;
use super::wire::{Fields, Value};

/// Bytes of a piece.
const LONGEST: usize = 1024;

/// One piece.
#[derive(Debug)]
pub(super) struct Piece {
    pub text: String,
    /// The highest is merged first.
    pub score: f32,
    pub kind: Kind,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Made by merging.
    Normal,
    /// Stands for what nothing spells.
    Unknown,
    /// Begins or ends a text, and is never found in one.
    Control,
    /// Found before anything is merged.
    UserDefined,
    /// One byte of what nothing spells.
    Byte(u8),
}

impl Kind {
    /// Whether it is no part of a text.
    pub(super) fn is_reserved(self) -> bool {
        matches!(self, Self::Unknown | Self::Control)
    }
}

/// A model.
#[derive(Debug)]
pub(super) struct Model {
    pub pieces: Vec<Piece>,
    /// Ids of pieces that texts are made of.
    pub ids: HashMap<String, u32>,
    /// Those that are found before anything is merged.
    pub user_defined: Trie,
    /// Ids of bytes, where they stand for what nothing spells.
    pub bytes: Option<Box<[u32; 256]>>,
    /// Bytes of the longest piece.
    pub longest: usize,
    pub unknown: u32,
    pub beginning: Option<u32>,
}

impl Model {
    /// Reads a `ModelProto`. Of its settings those are refused that this reader does not follow.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let (mut trainer, mut normalizer) = (Trainer::default(), Normalizer::default());
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(message)) => pieces.push(piece(message, pieces.len())?),
                (2, Value::Bytes(message)) => trainer.read(message)?,
                (3, Value::Bytes(message)) => normalizer.read(message)?,
                _ => {}
            }
        }
        normalizer.check()?;
        if trainer.model_type != BPE {
            return Err(format!(
                "trainer_spec.model_type is {}; expected {BPE} (byte-pair merges), as Llama's",
                trainer.model_type
            ));
        }
        let mut ids = HashMap::with_capacity(pieces.len());
        let mut user_defined = Trie::default();
        let mut bytes = [None; 256];
        let mut unknown = None;
        for (piece, id) in pieces.iter().zip(0..) {
            match piece.kind {
                Kind::Normal => {}
                Kind::UserDefined => user_defined.insert(&piece.text, id),
                Kind::Unknown => {
                    if let Some(first) = unknown.replace(id) {
                        return Err(format!("pieces {first} and {id} are both the unknown one"));
                    }
                    continue;
                }
                Kind::Control => continue,
                Kind::Byte(byte) => {
                    bytes[usize::from(byte)] = Some(id);
                    continue;
                }
            }
            if let Some(first) = ids.insert(piece.text.clone(), id) {
                return Err(format!("pieces {first} and {id} are both {:?}", piece.text));
            }
        }
        let Some(unknown) = unknown else {
            return Err("none of its pieces is the unknown one".into());
        };
        let bytes = match trainer.byte_fallback {
            false => None,
            true => {
                let missing = bytes.iter().position(Option::is_none);
                if let Some(byte) = missing {
                    return Err(format!(
                        "trainer_spec.byte_fallback is set, but there is no piece for byte {byte}"
                    ));
                }
                Some(Box::new(bytes.map(Option::unwrap_or_default)))
            }
        };
        let beginning = pieces
            .get(trainer.beginning)
            .filter(|piece| piece.kind == Kind::Control);
        Ok(Self {
            beginning: beginning.map(|_| trainer.beginning as u32),
            longest: pieces
                .iter()
                .map(|piece| piece.text.len())
                .max()
                .unwrap_or(0),
            pieces,
            ids,
            user_defined,
            bytes,
            unknown,
        })
    }

    /// The id of the mark alone.
    pub(super) fn mark(&self) -> Option<u32> {
        let mut bytes = [0; 4];
        self.ids.get(&*MARK.encode_utf8(&mut bytes)).copied()
    }

    /// The id of any piece by its spelling.
    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        let found = self.ids.get(text).copied();
        found.or_else(|| {
            let mut all = self.pieces.iter().zip(0..);
            all.find(|(piece, _)| piece.text == text).map(|(_, id)| id)
        })
    }
}

fn piece(message: &[u8], at: usize) -> Result<Piece, String> {
    let (mut text, mut score, mut kind) = (None, 0.0, 1);
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(bytes)) => text = Some(bytes),
            (2, Value::Float(value)) => score = value,
            (3, Value::Whole(value)) => kind = value,
            _ => {}
        }
    }
    let text = std::str::from_utf8(text.unwrap_or_default())
        .map_err(|_| format!("piece {at} is no text"))?;
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!(
            "piece {at} has {} bytes; expected 1 to {LONGEST}",
            text.len()
        ));
    }
    if !score.is_finite() {
        return Err(format!(
            "the score of piece {at} ({text:?}) is {score}; expected a number"
        ));
    }
    let kind = match kind {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        6 => Kind::Byte(
            byte(text)
                .ok_or_else(|| format!("piece {at} is {text:?}; expected a byte such as <0x0A>"))?,
        ),
        kind => {
            return Err(format!(
                "piece {at} ({text:?}) is of type {kind}; expected 1 (normal), 2 (unknown), 3 (control), \
                 4 (user-defined) or 6 (byte)"
            ));
        }
    };
    Ok(Piece {
        text: text.to_owned(),
        score,
        kind,
    })
}

/// `<0x0A>` is 10.
fn byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// `model_type` of byte-pair merges.
const BPE: u64 = 2;

struct Trainer {
    model_type: u64,
    byte_fallback: bool,
    beginning: usize,
}

impl Default for Trainer {
    fn default() -> Self {
        Self {
            model_type: 1,
            byte_fallback: false,
            beginning: 1,
        }
    }
}

impl Trainer {
    fn read(&mut self, message: &[u8]) -> Result<(), String> {
        for field in Fields::of(message) {
            match field? {
                (3, Value::Whole(value)) => self.model_type = value,
                (35, Value::Whole(value)) => self.byte_fallback = value != 0,
                // A negative number stands for none.
                (41, Value::Whole(value)) => {
                    self.beginning = usize::try_from(value).unwrap_or(usize::MAX);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

struct Normalizer {
    name: String,
    charsmap: usize,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl Default for Normalizer {
    fn default() -> Self {
        Self {
            name: String::new(),
            charsmap: 0,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

impl Normalizer {
    fn read(&mut self, message: &[u8]) -> Result<(), String> {
        for field in Fields::of(message) {
            match field? {
                (1, Value::Bytes(name)) => self.name = String::from_utf8_lossy(name).into_owned(),
                (2, Value::Bytes(map)) => self.charsmap = map.len(),
                (4, Value::Whole(value)) => self.remove_extra_whitespaces = value != 0,
                (5, Value::Whole(value)) => self.escape_whitespaces = value != 0,
                _ => {}
            }
        }
        Ok(())
    }

    /// Llama's keeps every character.
    fn check(&self) -> Result<(), String> {
        if self.charsmap > 0 {
            return Err(format!(
                "normalizer_spec.name is {:?}, which changes characters; expected \"identity\", as Llama's",
                self.name
            ));
        }
        for (key, found, expected) in [
            (
                "remove_extra_whitespaces",
                self.remove_extra_whitespaces,
                false,
            ),
            ("escape_whitespaces", self.escape_whitespaces, true),
        ] {
            if found != expected {
                return Err(format!(
                    "normalizer_spec.{key} is {found}; expected {expected}, as Llama's"
                ));
            }
        }
        Ok(())
    }
}
