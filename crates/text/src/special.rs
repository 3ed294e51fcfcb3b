//! Special tokens in a `tokenizer.json`.

use serde_json::{Value, json};

/// The entries of `added_tokens` for tokens whose ids are their places, from 0 on.
pub(crate) fn added_tokens(contents: &[&str]) -> Vec<Value> {
    contents
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect()
}
