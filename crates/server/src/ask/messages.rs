//! Conversations of a chat request.

use brisk_text::{ChatMessage, Tokenizer};
use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::fields::{PictureFile, from_data_url};

/// Most turns.
const MAX_TURNS: usize = 256;
/// Most bytes of all turns.
const MAX_BYTES: usize = 256 << 10;
/// Most pictures of all turns.
const MAX_PICTURES: usize = 8;

/// Turns, and the pictures that they show in order.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) turns: Vec<ChatMessage>,
    pub(super) pictures: Vec<PictureFile>,
}

/// Reads `messages`.
pub(super) fn read(messages: &Value) -> Result<Conversation> {
    let expected = |problem: &str| ApiError::invalid("messages", problem);
    let Some(list) = messages.as_array() else {
        return Err(expected("is no list of messages"));
    };
    if list.is_empty() || list.len() > MAX_TURNS {
        return Err(expected(&format!(
            "{} messages; expected 1 to {MAX_TURNS}",
            list.len()
        )));
    }
    let mut conversation = Conversation::default();
    for (index, message) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        let turn = turn(&at, message, &mut conversation.pictures)?;
        conversation.turns.push(turn);
    }
    let bytes: usize = conversation
        .turns
        .iter()
        .map(|turn| turn.content.len())
        .sum();
    if bytes > MAX_BYTES {
        return Err(expected(&format!(
            "{bytes} bytes; at most {MAX_BYTES} are taken"
        )));
    }
    Ok(conversation)
}

fn turn(at: &str, message: &Value, pictures: &mut Vec<PictureFile>) -> Result<ChatMessage> {
    let wrong =
        |problem: String| ApiError::bad("invalid_value", "messages", format!("{at}{problem}"));
    let Some(message) = message.as_object() else {
        return Err(wrong(" is no object with role and content".to_owned()));
    };
    for (name, value) in message {
        let known = [
            "role",
            "content",
            "name",
            "refusal",
            "annotations",
            "audio",
            "tool_calls",
        ];
        if !known.contains(&name.as_str()) {
            let shown = brisk_store::shown_within(name, 64);
            return Err(ApiError::bad(
                "unknown_field",
                "messages",
                format!("{at}.{shown} is no field of a message; there are role and content"),
            ));
        }
        // Clients send an assistant's reply back with its empty fields.
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !matches!(name.as_str(), "role" | "content" | "name") && !empty {
            return Err(ApiError::bad(
                "unsupported_option",
                "messages",
                format!("{at}.{name}: only texts and pictures are read here; leave it out"),
            ));
        }
    }
    let role = match message.get("role").and_then(Value::as_str) {
        // What newer clients call the system's turn.
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant")) => role,
        other => {
            let found = other.unwrap_or("nothing");
            let shown = brisk_store::shown_within(found, 32);
            return Err(wrong(format!(
                ".role: {shown}; expected system, developer, user or assistant"
            )));
        }
    };
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for (index, part) in parts.iter().enumerate() {
                let at = format!("{at}.content[{index}]");
                add_part(&at, part, &mut text, pictures)?;
            }
            text
        }
        _ => {
            return Err(wrong(
                ".content: expected a text or a list of parts".to_owned(),
            ));
        }
    };
    Ok(ChatMessage {
        role: role.to_owned(),
        content,
    })
}

fn add_part(
    at: &str,
    part: &Value,
    text: &mut String,
    pictures: &mut Vec<PictureFile>,
) -> Result<()> {
    let wrong =
        |problem: &str| ApiError::bad("invalid_value", "messages", format!("{at}{problem}"));
    match part.get("type").and_then(Value::as_str) {
        Some("text") => {
            let found = part.get("text").and_then(Value::as_str);
            text.push_str(found.ok_or_else(|| wrong(".text: expected a text"))?);
        }
        Some("image_url") => {
            let url = part.pointer("/image_url/url").and_then(Value::as_str);
            let url = url.ok_or_else(|| wrong(".image_url.url: expected a data URL"))?;
            if pictures.len() == MAX_PICTURES {
                return Err(wrong(&format!(": more than {MAX_PICTURES} pictures")));
            }
            let field = "messages";
            pictures.push(PictureFile::new(field, from_data_url(field, url)?)?);
        }
        _ => return Err(wrong(".type: expected text or image_url")),
    }
    Ok(())
}

/// Refuses a text that spells a token which marks turns: it would forge one.
pub(super) fn check_special(field: &str, text: &str, tokenizer: &Tokenizer) -> Result<()> {
    let ids = tokenizer
        .encode_plain(text)
        .map_err(|error| ApiError::invalid(field, error))?;
    match ids.iter().any(|id| tokenizer.is_special(*id)) {
        false => Ok(()),
        true => Err(ApiError::invalid(
            field,
            "spells a token that marks turns or ends; take it out (the server's operator can allow it)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn turns_are_texts_or_parts() {
        let read = read(&json!([
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": null, "tool_calls": []},
        ]))
        .unwrap();
        let turns: Vec<(&str, &str)> = read
            .turns
            .iter()
            .map(|turn| (&*turn.role, &*turn.content))
            .collect();
        assert_eq!(
            turns,
            [("system", "Be short."), ("user", "ab"), ("assistant", "c")]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (messages, word) in [
            (json!({}), "no list"),
            (json!([]), "0 messages"),
            (json!([1]), "messages[0] is no object"),
            (
                json!([{"role": "tool", "content": "x"}]),
                "messages[0].role: tool",
            ),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": "x", "tool_calls": [1]}]),
                "tool_calls",
            ),
            (
                json!([{"role": "user", "content": "x", "rol": 1}]),
                "messages[0].rol ",
            ),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
                "nothing is fetched",
            ),
            (
                json!([{"role": "user", "content": [{"type": "audio"}]}]),
                "content[0].type",
            ),
        ] {
            let error = read(&messages).unwrap_err();
            assert!(error.message.contains(word), "{}", error.message);
            assert_eq!(error.param.as_deref(), Some("messages"));
        }
    }
}
