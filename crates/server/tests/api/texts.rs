//! `/v1/chat/completions` and `/v1/completions`: the texts are the command line's.

use brisk::options::Value as OptionValue;
use brisk::{Control, GeneratedText, ResultKind, TextPrompt, TextRequest, registry};
use brisk_text::ChatMessage;
use serde_json::{Value, json};

use crate::harness::{QUESTION, Server};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// What `brisk text --gen-length` writes.
fn written(prompt: TextPrompt, length: u64) -> GeneratedText {
    let model = brisk::open_text("llada-arithmetic").unwrap();
    let mut request = TextRequest::of(vec![prompt]);
    let option = registry::option(ResultKind::Text, "gen-length").unwrap();
    request
        .options
        .give(option, OptionValue::Whole(length))
        .unwrap();
    model.write(&request, &Control::silent()).unwrap().remove(0)
}

fn question() -> Value {
    json!([{"role": "user", "content": QUESTION}])
}

#[tokio::test]
async fn an_answer_is_the_command_lines() {
    let server = Server::new();
    let expected = written(TextPrompt::Question(QUESTION.to_owned()), 128);
    let body = json!({"messages": question(), "max_tokens": 128, "seed": 0});
    let reply = server.ok(CHAT, body).await;
    assert_eq!(reply["object"], "chat.completion");
    let choice = &reply["choices"][0];
    assert_eq!(choice["message"]["content"], expected.text);
    assert!(expected.text.contains("73"), "{}", expected.text);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(reply["usage"]["prompt_tokens"], expected.prompt_tokens);
    assert_eq!(reply["usage"]["completion_tokens"], expected.answer_tokens);
    assert_eq!(reply["brisk"]["forward_passes"], expected.forward_passes);
    let again = json!({"messages": question(), "max_completion_tokens": 128, "seed": 0});
    let again = server.ok(CHAT, again).await;
    assert_eq!(again["system_fingerprint"], reply["system_fingerprint"]);
    assert_eq!(again["choices"], reply["choices"]);
}

#[tokio::test]
async fn joined_deltas_are_the_text() {
    let server = Server::new();
    let body = json!({"messages": question(), "max_tokens": 128, "seed": 0});
    let whole = server.ok(CHAT, body.clone()).await;
    let mut streamed = body;
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    streamed["canvas"] = true.into();
    let reply = server.post(CHAT, streamed).await;
    assert_eq!(
        reply.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let events = reply.events();
    assert!(events.iter().all(|(name, _)| name.is_empty()));
    assert_eq!(events.last().unwrap().1, "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let joined: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(joined, whole["choices"][0]["message"]["content"]);
    let reasons: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["finish_reason"])
        .filter(|reason| !reason.is_null())
        .collect();
    assert_eq!(reasons, ["stop"]);
    let last = chunks.last().unwrap();
    assert_eq!(last["usage"], whole["usage"]);
    assert_eq!(last["choices"], json!([]));
    let canvas = chunks
        .iter()
        .find_map(|chunk| chunk["brisk"].get("canvas"))
        .unwrap();
    let open = canvas.as_array().unwrap().iter().any(Value::is_u64);
    assert!(open, "{canvas}");
}

#[tokio::test]
async fn a_stop_ends_the_answer_before_it() {
    let server = Server::new();
    let body = json!({"messages": question(), "max_tokens": 128, "seed": 0});
    let whole = server.ok(CHAT, body.clone()).await;
    let text = whole["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let stop: String = text
        .chars()
        .skip(text.chars().count() / 3)
        .take(2)
        .collect();
    let expected = &text[..text.find(&stop).unwrap()];
    for stream in [false, true] {
        let mut body = body.clone();
        body["stop"] = json!([stop]);
        body["stream"] = stream.into();
        let reply = server.post(CHAT, body).await;
        let found = if stream {
            let events = reply.events();
            let chunks = events
                .iter()
                .filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
            chunks
                .filter_map(|chunk| {
                    Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
                })
                .collect()
        } else {
            let reply = reply.json();
            assert_eq!(reply["choices"][0]["finish_reason"], "stop");
            reply["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(found, expected, "stream: {stream}");
    }
}

#[tokio::test]
async fn several_prompts_and_texts_have_their_places() {
    let server = Server::new();
    let prompts = ["Mia has 3 beads.", "Tom has 12 pens. Monday:"];
    let body = json!({
        "prompt": prompts, "max_tokens": 32, "n": 2, "temperature": 0.7, "seed": 5,
    });
    let reply = server.ok(COMPLETIONS, body).await;
    let choices = reply["choices"].as_array().unwrap();
    let places: Vec<u64> = choices
        .iter()
        .map(|c| c["index"].as_u64().unwrap())
        .collect();
    assert_eq!(places, [0, 1, 2, 3]);
    let alone = |prompt: &str, seed: u64| json!({"prompt": prompt, "max_tokens": 32, "temperature": 0.7, "seed": seed});
    for (place, (prompt, seed)) in [(0, 5), (0, 6), (1, 5), (1, 6)].iter().enumerate() {
        let one = server.ok(COMPLETIONS, alone(prompts[*prompt], *seed)).await;
        assert_eq!(one["choices"][0]["text"], choices[place]["text"], "{place}");
    }
}

#[tokio::test]
async fn a_completion_goes_on_as_the_command_line_does() {
    let server = Server::new();
    let prompt = "Mia has 34 beads. Monday: finds 7 more.";
    let expected = written(TextPrompt::Continue(prompt.to_owned()), 32);
    let body = json!({"prompt": prompt, "max_tokens": 32, "seed": 0});
    let reply = server.ok(COMPLETIONS, body.clone()).await;
    assert_eq!(reply["object"], "text_completion");
    assert_eq!(reply["choices"][0]["text"], expected.text);
    let mut streamed = body;
    streamed["stream"] = true.into();
    let events = server.post(COMPLETIONS, streamed).await.events();
    let joined: String = events
        .iter()
        .filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| Some(chunk["choices"][0]["text"].as_str()?.to_owned()))
        .collect();
    assert_eq!(joined, expected.text);
}

#[tokio::test]
async fn a_suffix_is_filled_up_to() {
    let server = Server::new();
    let body = json!({
        "prompt": "Mia has 34 beads. Monday: finds 7 more. 34 + 7 = ", "suffix": "\n#### 41",
        "max_tokens": 4, "seed": 0,
    });
    let reply = server.ok(COMPLETIONS, body).await;
    let text = reply["choices"][0]["text"].as_str().unwrap();
    assert!(
        !text.contains("####") && !text.contains("beads"),
        "{text:?}"
    );
    assert!(reply["usage"]["completion_tokens"].as_u64().unwrap() <= 4);
}

#[tokio::test]
async fn a_whole_conversation_is_read() {
    let server = Server::new();
    let turns = [
        ("user", "Mia has 3 beads."),
        ("assistant", "#### 3"),
        ("user", QUESTION),
    ];
    let messages: Vec<Value> = turns
        .iter()
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect();
    let conversation = turns.map(|(role, content)| ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    });
    let expected = written(TextPrompt::Conversation(conversation.to_vec()), 128);
    let reply = server
        .ok(
            CHAT,
            json!({"messages": messages, "max_tokens": 128, "seed": 0}),
        )
        .await;
    assert_eq!(reply["choices"][0]["message"]["content"], expected.text);
}
