//! What workers say of a live job, as it comes.

use std::time::Duration;

use async_nats::Subscriber;
use brisk_server::ApiError;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::replay::Replay;
use crate::error::{Error, Result};
use crate::queue::{LIVE, Queue};
use crate::worker::{ATTEMPT, KIND, NUMBER, OBJECT, Piece};

/// Longest silence of a stream.
const SILENCE: Duration = Duration::from_secs(10);
/// How long workers may say nothing of a job at all before nobody is there: longer than an answer may take to
/// begin, and than a worker's death takes to be noticed.
const LOST: Duration = Duration::from_secs(600);

/// What workers say of a job. Dropped, the job is not wanted any more.
pub(super) struct Events {
    queue: Queue,
    job: String,
    told: Subscriber,
    attempt: u64,
    number: u64,
    wanted: Wanted,
}

/// Says that nobody waits any more, unless it ended.
struct Wanted {
    queue: Queue,
    job: String,
    ended: bool,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (queue, job) = (self.queue.clone(), std::mem::take(&mut self.job));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let subject = format!("brisk.cancel.{job}");
                let _ = queue.client.publish(subject, Bytes::new()).await;
                // It may wait still.
                let _ = queue.want(&job, false).await;
            });
        }
    }
}

/// One thing that a worker said.
struct Said {
    piece: Piece,
    attempt: u64,
    bytes: Bytes,
}

impl Events {
    /// Listens to a job, before it is given to the queue.
    pub(super) async fn follow(queue: &Queue, job: &str) -> Result<Self> {
        let told = queue.client.subscribe(format!("brisk.event.{job}")).await;
        let told = told.map_err(|error| Error::Failed(format!("cannot hear workers: {error}")))?;
        Ok(Self {
            wanted: Wanted {
                queue: queue.clone(),
                job: job.to_owned(),
                ended: false,
            },
            queue: queue.clone(),
            job: job.to_owned(),
            told,
            attempt: 0,
            number: 0,
        })
    }

    /// The next thing; pieces of a try that is over, and those that are not in their order, are left out.
    async fn next(&mut self) -> Result<Said, ApiError> {
        loop {
            let message = tokio::time::timeout(LOST, self.told.next()).await;
            let Ok(Some(message)) = message else {
                return Err(super::unavailable(
                    "no worker answers; ask again in a while",
                ));
            };
            let headers = message.headers.unwrap_or_default();
            let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
            let number = |name: &str| text(name)?.parse::<u64>().ok();
            let (Some(piece), Some(attempt), Some(number)) = (
                text(KIND).as_deref().and_then(Piece::named),
                number(ATTEMPT),
                number(NUMBER),
            ) else {
                continue;
            };
            if attempt > self.attempt && number == 0 {
                (self.attempt, self.number) = (attempt, 0);
            }
            if attempt != self.attempt || number < self.number {
                continue;
            }
            if number > self.number {
                return Err(ApiError::internal(
                    "a part of the answer was lost on its way",
                ));
            }
            self.number += 1;
            let bytes = match text(OBJECT) {
                None => message.payload,
                Some(name) => self
                    .object(&name)
                    .await
                    .map_err(|error| super::away(&error))?,
            };
            return Ok(Said {
                piece,
                attempt,
                bytes,
            });
        }
    }

    /// There is nothing more to come, and nothing to stop.
    fn end(&mut self) {
        self.wanted.ended = true;
    }

    async fn object(&self, name: &str) -> Result<Bytes> {
        let failed =
            |error: &dyn std::fmt::Display| Error::Failed(format!("the queue's {LIVE}: {error}"));
        if !name.starts_with(&self.job) {
            return Err(failed(&"an object of another job"));
        }
        let objects = self.queue.objects(LIVE).await?;
        let mut object = objects.get(name).await.map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        let read = object.read_to_end(&mut bytes).await;
        read.map_err(|error| failed(&error))?;
        let _ = objects.delete(name).await;
        Ok(bytes.into())
    }

    /// The whole reply.
    pub(super) async fn whole(mut self) -> Result<Value, ApiError> {
        loop {
            let said = self.next().await?;
            match said.piece {
                Piece::Reply => {
                    self.end();
                    return serde_json::from_slice(&said.bytes)
                        .map_err(|_| ApiError::internal("a worker's answer is no JSON"));
                }
                Piece::Error => {
                    self.end();
                    return Err(failure(&said.bytes));
                }
                Piece::Stream | Piece::End => {}
            }
        }
    }

    /// The events of a stream, as they come; signs of life while nothing does.
    pub(super) fn stream(self) -> BoxStream<'static, Bytes> {
        let running = (self, Replay::default(), false);
        let events =
            futures_util::stream::unfold(running, |(mut events, mut replay, over)| async move {
                if over {
                    return None;
                }
                loop {
                    let said = match tokio::time::timeout(SILENCE, events.next()).await {
                        // A sign of life that no client takes for an event.
                        Err(_) => {
                            return Some((Bytes::from_static(b":\n"), (events, replay, false)));
                        }
                        Ok(Err(error)) => return Some((told(&error), (events, replay, true))),
                        Ok(Ok(said)) => said,
                    };
                    match said.piece {
                        Piece::Stream => match replay.take(said.attempt, said.bytes) {
                            Ok(Some(bytes)) => return Some((bytes, (events, replay, false))),
                            Ok(None) => {}
                            Err(error) => return Some((told(&error), (events, replay, true))),
                        },
                        Piece::End => {
                            events.end();
                            return None;
                        }
                        Piece::Error => {
                            events.end();
                            return Some((told(&failure(&said.bytes)), (events, replay, true)));
                        }
                        Piece::Reply => {}
                    }
                }
            });
        events.boxed()
    }
}

/// A failure as an event.
fn told(error: &ApiError) -> Bytes {
    format!("event: error\ndata: {}\n\n", error.body()).into()
}

/// What a worker said of a failure.
fn failure(bytes: &[u8]) -> ApiError {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let status = body["status"]
        .as_u64()
        .and_then(|status| status.try_into().ok());
    ApiError::of_body(&body, status.unwrap_or(500), body["retry_after"].as_u64())
}
