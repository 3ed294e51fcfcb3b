//! Replies that come as they are made: server-sent events.
//!
//! An event is `event:` and `data:` lines, nothing else: clients of OpenAI's take an event without data for
//! one whose data is broken, so a sign of life is a comment of one line, which no blank line ends.

mod images;
mod snapshots;
mod texts;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;
use tokio::sync::watch;

use crate::app::App;
use crate::ask::Ask;
use crate::job::{Job, StopOnDrop};

pub use snapshots::reply as snapshots;

/// Longest silence.
const SILENCE: Duration = Duration::from_secs(10);

/// An event as bytes; without a name it has none.
pub fn event(name: Option<&str>, data: &Value) -> Bytes {
    // JSON has no line ends outside of its texts, and escapes them there.
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
    .into()
}

/// A sign of life that no client takes for an event.
pub fn sign_of_life() -> Bytes {
    Bytes::from_static(b":\n")
}

/// Makes the events of a stream from the state of what it tells of.
pub trait Source: Send + 'static {
    /// Events for what changed since the last call; true when they are the last.
    fn next(&mut self, ready: &mut Vec<Bytes>) -> bool;

    /// What is sent when nothing changes for a while.
    fn silence(&self) -> Bytes {
        sign_of_life()
    }
}

struct Running<S> {
    /// None while it is away on a thread that may take time.
    source: Option<S>,
    changes: watch::Receiver<u64>,
    ready: VecDeque<Bytes>,
    begun: bool,
    ended: bool,
    /// What ends with the stream.
    _kept: Box<dyn Send>,
}

/// A response whose body is made by `source`, asked again at every change; `kept` is dropped with it.
pub fn response(
    source: impl Source,
    changes: watch::Receiver<u64>,
    kept: impl Send + 'static,
) -> Response {
    let running = Running {
        source: Some(source),
        changes,
        ready: VecDeque::new(),
        begun: false,
        ended: false,
        _kept: Box::new(kept),
    };
    let body = futures_util::stream::unfold(running, |mut running| async move {
        loop {
            if let Some(bytes) = running.ready.pop_front() {
                return Some((Ok::<Bytes, Infallible>(bytes), running));
            }
            if running.ended {
                return None;
            }
            if running.begun {
                match tokio::time::timeout(SILENCE, running.changes.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => running.ended = true,
                    Err(_) => {
                        let silence = running.source.as_ref().map(Source::silence);
                        running.ready.extend(silence);
                        continue;
                    }
                }
            }
            running.begun = true;
            let mut source = running.source.take()?;
            let made = tokio::task::spawn_blocking(move || {
                let mut ready = Vec::new();
                let ended = source.next(&mut ready);
                (source, ready, ended)
            });
            let (source, ready, ended) = made.await.ok()?;
            running.source = Some(source);
            running.ready.extend(ready);
            running.ended |= ended;
        }
    });
    of_events(Body::from_stream(body))
}

/// A response whose body is events.
pub fn of_events(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The stream of a job, which stops when nobody reads it any more.
pub fn reply(app: &Arc<App>, job: Arc<Job>, guard: StopOnDrop, base: String) -> Response {
    let changes = job.changes();
    let kept = (guard, app.metrics.stream());
    match &job.ask {
        // Masks and clips are not streamed: their jobs are told of by their reply alone.
        Ask::Images(_) | Ask::Masks(_) | Ask::Clips(_) => {
            let source = images::Images::new(Arc::clone(app), job, base);
            response(source, changes, kept)
        }
        Ask::Texts(_) => {
            let source = texts::Texts::new(Arc::clone(app), job);
            response(source, changes, kept)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::json;

    use super::*;

    struct Counting(usize);

    impl Source for Counting {
        fn next(&mut self, ready: &mut Vec<Bytes>) -> bool {
            self.0 += 1;
            ready.push(event(Some("count"), &json!({"n": self.0, "text": "a\nb"})));
            self.0 == 3
        }
    }

    #[test]
    fn events_have_nothing_but_names_and_data() {
        let bytes = event(None, &json!({"a": "x\ny\r\nz"}));
        assert_eq!(&bytes[..], b"data: {\"a\":\"x\\ny\\r\\nz\"}\n\n");
        let bytes = event(Some("e"), &json!(1));
        assert_eq!(&bytes[..], b"event: e\ndata: 1\n\n");
        assert_eq!(&sign_of_life()[..], b":\n");
    }

    #[tokio::test]
    async fn a_stream_follows_changes_and_ends() {
        let sender = watch::Sender::new(0u64);
        let (kept, gone) = std::sync::mpsc::channel::<()>();
        let response = response(Counting(0), sender.subscribe(), kept);
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let reading = tokio::spawn(to_bytes(response.into_body(), 4096));
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            sender.send_modify(|number| *number += 1);
        }
        let read = reading.await.unwrap().unwrap();
        let read = String::from_utf8(read.to_vec()).unwrap();
        assert_eq!(read.matches("event: count\n").count(), 3);
        assert!(read.ends_with("\n\n") && read.contains("\"n\":3"));
        assert!(
            gone.recv().is_err(),
            "what ends with the stream is still there"
        );
    }
}
