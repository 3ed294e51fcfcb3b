//! Tokens that other files add to a model's pieces.

use serde_json::Value;

use super::model::{Kind, Model};

/// Most tokens that files add, and most bytes of one.
const MOST: usize = 1 << 12;
const LONGEST: usize = 256;

/// One of them.
pub(super) struct Added {
    pub id: u32,
    pub content: String,
    pub special: bool,
}

/// Tokens of `added_tokens_decoder` in the tokenizer's settings and of `added_tokens.json`, and the pieces
/// that stand for the beginning, the end and what is unknown, by their ids.
pub(super) fn listed(settings: &Value, added: &Value, model: &Model) -> Result<Vec<Added>, String> {
    let mut tokens: Vec<Added> = Vec::new();
    let reserved = model.pieces.iter().zip(0..);
    for (piece, id) in reserved.filter(|(piece, _)| piece.kind.is_reserved()) {
        tokens.push(Added {
            id,
            content: piece.text.clone(),
            special: true,
        });
    }
    let decoder = settings
        .get("added_tokens_decoder")
        .and_then(Value::as_object);
    for (key, entry) in decoder.into_iter().flatten() {
        let content = entry.get("content").and_then(Value::as_str);
        let (Ok(id), Some(content)) = (key.parse(), content) else {
            return Err(format!(
                "added_tokens_decoder: entry {key:?} has no id or content"
            ));
        };
        for flag in ["lstrip", "rstrip", "single_word"] {
            if entry.get(flag).and_then(Value::as_bool) == Some(true) {
                return Err(format!(
                    "added_tokens_decoder: {flag} of {content:?} is true; expected false"
                ));
            }
        }
        let special = entry.get("special").and_then(Value::as_bool) == Some(true);
        add(&mut tokens, model, id, content, special)?;
    }
    for (content, id) in added.as_object().into_iter().flatten() {
        let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
            return Err(format!(
                "added_tokens.json: the id of {content:?} is {id}; expected a whole number"
            ));
        };
        // Angle brackets or not, what this file adds to Llama's is special.
        add(&mut tokens, model, id, content, true)?;
    }
    Ok(tokens)
}

fn add(
    tokens: &mut Vec<Added>,
    model: &Model,
    id: u32,
    content: &str,
    special: bool,
) -> Result<(), String> {
    if content.is_empty() || content.len() > LONGEST || tokens.len() >= MOST {
        return Err(format!(
            "added token {id} has {} bytes; expected 1 to {LONGEST}, and at most {MOST} tokens",
            content.len()
        ));
    }
    if let Some(known) = tokens
        .iter()
        .find(|known| known.id == id || known.content == content)
    {
        return match known.id == id && known.content == content {
            true => Ok(()),
            false => Err(format!(
                "added token {content:?} has id {id}, but token {} is {:?}",
                known.id, known.content
            )),
        };
    }
    let pieces = model.pieces.len();
    match model.pieces.get(id as usize) {
        Some(piece) if piece.text != content => Err(format!(
            "added token {content:?} has id {id}, which is piece {:?} of the model; expected an id from {pieces} on",
            piece.text
        )),
        Some(piece) if matches!(piece.kind, Kind::Byte(_)) => Err(format!(
            "added token {content:?} has id {id}, which is a byte of the model"
        )),
        None if id as usize >= pieces + MOST => Err(format!(
            "added token {content:?} has id {id}; the model has {pieces} pieces, and at most {MOST} are added"
        )),
        _ => {
            tokens.push(Added {
                id,
                content: content.to_owned(),
                special,
            });
            Ok(())
        }
    }
}
