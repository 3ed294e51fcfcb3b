//! A stream that another worker begins anew: what was sent already is not sent again, and what follows must
//! go on from there.

use std::collections::HashMap;

use brisk_server::ApiError;
use bytes::Bytes;
use serde_json::Value;

/// What was sent of a stream.
#[derive(Debug, Default)]
pub(super) struct Replay {
    attempt: u64,
    /// Texts that the client has, by their place.
    sent: HashMap<u64, String>,
    /// The same as this try told them.
    told: HashMap<u64, String>,
    /// Events of pictures that the client has, and those that this try told.
    pictures: (usize, usize),
    begun: bool,
    /// Id and time of the first try's chunks, which those of later ones get.
    name: Option<(Value, Value)>,
}

impl Replay {
    /// An event of a try, as the client is to have it; none where it has it already.
    ///
    /// # Errors
    /// The try says something else than an earlier one.
    pub(super) fn take(&mut self, attempt: u64, event: Bytes) -> Result<Option<Bytes>, ApiError> {
        if self.attempt == 0 {
            self.attempt = attempt;
        }
        if attempt != self.attempt {
            self.attempt = attempt;
            self.told.clear();
            self.pictures.1 = 0;
            self.begun = false;
        }
        let again = self.name.is_some() || self.pictures.0 > 0;
        let Some((head, mut data)) = parts(&event) else {
            return Ok(Some(event));
        };
        if head.contains(".partial_image") || head.contains(".completed") {
            self.pictures.1 += 1;
            if self.pictures.1 <= self.pictures.0 {
                return Ok(None);
            }
            self.pictures.0 = self.pictures.1;
            return Ok(Some(event));
        }
        if !data["choices"].is_array() {
            return Ok(Some(event));
        }
        let first = !std::mem::replace(&mut self.begun, true);
        if !again {
            self.name = Some((data["id"].clone(), data["created"].clone()));
        }
        let Some((id, created)) = self.name.clone() else {
            return Ok(Some(event));
        };
        let mut changed = data["id"] != id;
        (data["id"], data["created"]) = (id, created);
        let mut news = !(first && again && changed);
        if let Some(choices) = data["choices"].as_array_mut() {
            for choice in choices {
                let index = choice["index"].as_u64().unwrap_or(0);
                let Some(text) = text_of(choice).filter(|text| !text.is_empty()) else {
                    continue;
                };
                let new = self.add(index, &text)?;
                if new.len() != text.len() {
                    changed = true;
                    news = !new.is_empty();
                    set_text(choice, new);
                }
            }
        }
        Ok(match (news, changed) {
            (false, _) => None,
            (true, false) => Some(event),
            (true, true) => Some(format!("{head}data: {data}\n\n").into()),
        })
    }

    /// Takes in a piece of a text; what of it is new to the client.
    fn add(&mut self, index: u64, text: &str) -> Result<String, ApiError> {
        let told = self.told.entry(index).or_default();
        let before = told.len();
        told.push_str(text);
        let sent = self.sent.entry(index).or_default();
        if sent.starts_with(told.as_str()) {
            return Ok(String::new());
        }
        if !told.starts_with(sent.as_str()) {
            let message = "the worker died, and another one's text begins differently";
            return Err(ApiError::internal(message));
        }
        let new = told[sent.len().max(before)..].to_owned();
        sent.clone_from(told);
        Ok(new)
    }
}

/// What stands before the data of an event, and the data, where it is JSON.
fn parts(event: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(event).ok()?;
    let (head, rest) = match text.split_once("data: ") {
        Some((head, rest)) if head.is_empty() || head.ends_with('\n') => (head, rest),
        _ => return None,
    };
    let data = serde_json::from_str(rest.trim_end()).ok()?;
    Some((head.to_owned(), data))
}

fn text_of(choice: &Value) -> Option<String> {
    let text = choice["delta"]["content"].as_str();
    text.or_else(|| choice["text"].as_str()).map(str::to_owned)
}

fn set_text(choice: &mut Value, text: String) {
    match choice["delta"].is_object() {
        true => choice["delta"]["content"] = text.into(),
        false => choice["text"] = text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chunk(id: &str, delta: Value) -> Bytes {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        let data = json!({"id": id, "created": 1, "choices": [choice]});
        format!("data: {data}\n\n").into()
    }

    fn content(event: Option<Bytes>) -> Option<String> {
        let (_, data) = parts(&event?)?;
        assert_eq!(data["id"], "a");
        text_of(&data["choices"][0])
    }

    #[test]
    fn a_text_goes_on_where_another_worker_died() {
        let mut replay = Replay::default();
        let role = || json!({"role": "assistant", "content": ""});
        let mut take = |attempt, id: &str, delta| replay.take(attempt, chunk(id, delta)).unwrap();
        assert!(take(1, "a", role()).is_some());
        assert_eq!(
            content(take(1, "a", json!({"content": "Mia "}))).unwrap(),
            "Mia "
        );
        assert_eq!(
            content(take(1, "a", json!({"content": "has 34"}))).unwrap(),
            "has 34"
        );
        // The other cuts its text elsewhere.
        assert_eq!(take(2, "b", role()), None);
        assert_eq!(take(2, "b", json!({"content": "Mia has"})), None);
        let more = take(2, "b", json!({"content": " 34 beads"}));
        assert_eq!(content(more).unwrap(), " beads");
        assert_eq!(content(take(2, "b", json!({"content": "."}))).unwrap(), ".");
        let end = take(2, "b", json!({}));
        assert!(end.is_some());
        let done = replay.take(2, "data: [DONE]\n\n".into()).unwrap();
        assert_eq!(done.as_deref(), Some(&b"data: [DONE]\n\n"[..]));
    }

    #[test]
    fn a_text_that_begins_differently_is_an_error() {
        let mut replay = Replay::default();
        replay
            .take(1, chunk("a", json!({"content": "Mia"})))
            .unwrap();
        let error = replay.take(2, chunk("b", json!({"content": "Tom"})));
        assert!(error.unwrap_err().message.contains("differently"));
    }

    #[test]
    fn pictures_are_sent_once() {
        let mut replay = Replay::default();
        let event =
            |what: &str| Bytes::from(format!("event: image_generation.{what}\ndata: {{}}\n\n"));
        assert!(replay.take(1, event("partial_image")).unwrap().is_some());
        assert!(replay.take(2, event("partial_image")).unwrap().is_none());
        assert!(replay.take(2, event("partial_image")).unwrap().is_some());
        assert!(replay.take(2, event("completed")).unwrap().is_some());
    }
}
