//! Texts: each delta is what was decided since the last one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde_json::{Value, json};

use super::{Source, event, sign_of_life};
use crate::answer::{Piece, Shown};
use crate::app::App;
use crate::ask::{Ask, TextAsk};
use crate::error::ApiError;
use crate::fields::Endpoint;
use crate::job::Job;
use crate::outcome::{Outcome, Written};
use crate::reply;

/// Shortest time between two canvases.
const CANVAS: Duration = Duration::from_millis(50);

pub(super) struct Texts {
    app: Arc<App>,
    job: Arc<Job>,
    /// What was sent of each text, in the order they are made in.
    sent: Vec<String>,
    begun: bool,
    canvas: Option<Instant>,
}

impl Texts {
    pub(super) fn new(app: Arc<App>, job: Arc<Job>) -> Self {
        let count = job.ask.count();
        Self {
            app,
            job,
            sent: vec![String::new(); count],
            begun: false,
            canvas: None,
        }
    }

    fn chunk(&self, ask: &TextAsk, choices: Value) -> Value {
        let object = match ask.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            _ => "text_completion",
        };
        let mut chunk = json!({
            "id": reply::id(&self.job), "object": object, "created": self.job.created_at,
            "model": ask.model.id, "choices": choices,
            "system_fingerprint": reply::fingerprint(ask),
        });
        if ask.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// A chunk that adds `text`, or ends one.
    fn delta(&self, ask: &TextAsk, made: usize, text: &str, ended: Option<bool>) -> Value {
        let (index, reason) = (ask.place(made), ended.map(reply::finish_reason));
        let choice = match ask.endpoint {
            Endpoint::Chat => {
                let delta = match ended {
                    Some(_) => json!({}),
                    None => json!({"content": text}),
                };
                json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": reason})
            }
            _ => json!({"index": index, "text": text, "logprobs": null, "finish_reason": reason}),
        };
        self.chunk(ask, json!([choice]))
    }

    /// Sends what was decided of a text since the last time. A tokenizer that took back what it said before
    /// leaves it as it is until it agrees again.
    fn advance(&mut self, ask: &TextAsk, made: usize, text: &str, ready: &mut Vec<Bytes>) {
        let Some(new) = text.strip_prefix(self.sent[made].as_str()) else {
            return;
        };
        if new.is_empty() {
            return;
        }
        if self.sent.iter().all(String::is_empty) {
            self.app.metrics.first_block(self.job.seconds());
        }
        ready.push(event(None, &self.delta(ask, made, new, None)));
        self.sent[made] = text.to_owned();
    }

    /// What the canvases show now.
    fn look(&mut self, ask: &TextAsk, ready: &mut Vec<Bytes>) {
        let canvases = self.job.state().canvases.clone();
        let Some(tokenizer) = ask.model.writer().and_then(|writer| writer.tokenizer()) else {
            return;
        };
        let mut pieces = Vec::new();
        let due = self.canvas.is_none_or(|last| last.elapsed() >= CANVAS);
        for (made, canvas) in canvases.iter().enumerate() {
            if canvas.passes == 0 {
                continue;
            }
            let answer = ask.answer(made);
            let Shown { text, .. } = answer.shown(&canvas.tokens, canvas.mask, false, tokenizer);
            self.advance(ask, made, &text, ready);
            if ask.canvas && due {
                let found = answer.pieces(&canvas.tokens, canvas.mask, tokenizer);
                pieces.push((made, found));
            }
        }
        for (made, found) in pieces {
            self.canvas = Some(Instant::now());
            let found: Vec<Value> = found
                .into_iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.into(),
                    Piece::Undecided(count) => count.into(),
                })
                .collect();
            let mut chunk = self.delta(ask, made, "", None);
            chunk["brisk"] = json!({"canvas": found});
            ready.push(event(None, &chunk));
        }
    }

    fn end(&mut self, ask: &TextAsk, texts: &[Written], ready: &mut Vec<Bytes>) {
        for (made, text) in texts.iter().enumerate() {
            self.advance(ask, made, &text.text, ready);
            let mut last = self.delta(ask, made, "", Some(text.ended));
            if made + 1 == texts.len() {
                last["brisk"] = reply::of_texts(&self.job, ask, texts);
            }
            ready.push(event(None, &last));
        }
        if ask.include_usage {
            let mut usage = self.chunk(ask, json!([]));
            usage["usage"] = reply::usage(ask, texts);
            ready.push(event(None, &usage));
        }
        ready.push(Bytes::from_static(b"data: [DONE]\n\n"));
    }
}

impl Source for Texts {
    fn next(&mut self, ready: &mut Vec<Bytes>) -> bool {
        let job = Arc::clone(&self.job);
        let Ask::Texts(ask) = &job.ask else {
            return true;
        };
        if !self.begun && ask.endpoint == Endpoint::Chat {
            for made in 0..ask.count() {
                let choice = json!([{
                    "index": ask.place(made), "delta": {"role": "assistant", "content": ""},
                    "logprobs": null, "finish_reason": null,
                }]);
                ready.push(event(None, &self.chunk(ask, choice)));
            }
        }
        self.begun = true;
        if !job.state().status().is_final() {
            self.look(ask, ready);
            return false;
        }
        match reply::outcome(&job).as_deref() {
            Ok(Outcome::Texts(texts)) => self.end(ask, texts, ready),
            Ok(_) => {}
            Err(error) => ready.push(event(Some("error"), &ApiError::body(error))),
        }
        true
    }

    fn silence(&self) -> Bytes {
        match &self.job.ask {
            Ask::Texts(ask) if ask.endpoint == Endpoint::Chat => {
                event(None, &self.delta(ask, 0, "", None))
            }
            _ => sign_of_life(),
        }
    }
}
