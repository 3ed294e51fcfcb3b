//! Live jobs: somebody waits, and hears of what is made while it is made.

use async_nats::HeaderMap;
use async_nats::jetstream::Message;
use brisk_server::ApiError;
use brisk_server::engine::ModelInfo;
use brisk_server::fields::Endpoint;
use bytes::Bytes;
use futures_util::StreamExt;

use super::Worker;
use super::fate;
use super::take::{Taker, keep};
use crate::error::{Error, Result};
use crate::make::{Activity, Phase, stopped};
use crate::queue::{Class, Item, Job, LIVE, Tries};

/// Header: what a piece is.
pub(crate) const KIND: &str = "Brisk-Kind";
/// Header: which try a piece is of.
pub(crate) const ATTEMPT: &str = "Brisk-Attempt";
/// Header: number of a piece in its try, from 0.
pub(crate) const NUMBER: &str = "Brisk-Number";
/// Header: name of the object that is the piece.
pub(crate) const OBJECT: &str = "Brisk-Object";
/// Most bytes of a piece that goes as a message.
const MOST: usize = 256 << 10;

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of a stream.
    Stream,
    /// The end of a stream.
    End,
    /// A whole reply.
    Reply,
    /// Why there is none.
    Error,
}

impl Piece {
    /// By its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Stream, Self::End, Self::Reply, Self::Error];
        all.into_iter().find(|piece| piece.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::End => "end",
            Self::Reply => "reply",
            Self::Error => "error",
        }
    }
}

/// Sends the pieces of one try.
struct Sender<'w> {
    worker: &'w Worker,
    job: &'w str,
    attempt: u64,
    number: u64,
}

impl Sender<'_> {
    /// A large piece goes into the bucket, and its name as the message.
    async fn send(&mut self, piece: Piece, bytes: Bytes) -> Result<()> {
        let failed =
            |error: &dyn std::fmt::Display| Error::Failed(format!("cannot send a reply: {error}"));
        let queue = &self.worker.queue;
        let mut headers = HeaderMap::new();
        headers.insert(KIND, piece.name());
        headers.insert(ATTEMPT, self.attempt.to_string());
        headers.insert(NUMBER, self.number.to_string());
        let payload = match bytes.len() <= MOST {
            true => bytes,
            false => {
                let name = format!("{}.{}.{}", self.job, self.attempt, self.number);
                let objects = queue.objects(LIVE).await?;
                let put = objects.put(name.as_str(), &mut bytes.as_ref()).await;
                put.map_err(|error| failed(&error))?;
                headers.insert(OBJECT, name.as_str());
                Bytes::new()
            }
        };
        self.number += 1;
        let subject = format!("brisk.event.{}", self.job);
        let sent = queue.client.publish_with_headers(subject, headers, payload);
        sent.await.map_err(|error| failed(&error))
    }
}

impl Worker {
    /// Takes live jobs until the worker ends. They share the machine with those of batches, and callers
    /// take turns there.
    pub(super) async fn take_live(&self, models: &[ModelInfo]) {
        let mut taker = Taker::new(self, Class::Live, models);
        while let Some(message) = taker.next().await {
            self.state().working += 1;
            if let Err(error) = self.answer(&message).await {
                tracing::warn!(%error, "a live job was given up");
            }
            self.state().working -= 1;
        }
    }

    async fn answer(&self, message: &Message) -> Result<()> {
        let Ok((job, endpoint)) = self.read(message) else {
            // Nobody waits for what is no job.
            return self.done_with(message).await;
        };
        let died = message.info().map_or(0, |info| info.delivered - 1).max(0) as u64;
        let tries = Tries {
            crashes: job.tries.crashes + died,
            ..job.tries
        };
        let mut sender = Sender {
            worker: self,
            job: &job.id,
            attempt: tries.attempt(),
            number: 0,
        };
        if job.is_late() || self.is_cancelled(&job.id) {
            return self.done_with(message).await;
        }
        if tries.crashes >= fate::MOST_CRASHES {
            let error = ApiError::internal("several workers died over this request");
            sender.send(Piece::Error, failure(&error)).await?;
            return self.done_with(message).await;
        }
        let Some(item) = job.items.first() else {
            return self.done_with(message).await;
        };
        let cancel = format!("brisk.cancel.{}", job.id);
        let unwanted = self.queue.client.subscribe(cancel).await;
        let mut unwanted = unwanted.map_err(|error| {
            Error::Failed(format!("cannot hear whether a job is wanted: {error}"))
        })?;
        let activity = Activity::default();
        let answered = self.answer_item(&job, endpoint, item, &mut sender, &activity);
        tokio::select! {
            answered = answered => match answered {
                Ok(()) => {}
                Err(error) => {
                    tracing::info!(job = job.id, code = error.code, "a live job failed");
                    sender.send(Piece::Error, failure(&error)).await?;
                }
            },
            _ = unwanted.next() => tracing::info!(job = job.id, "a live job is not wanted any more"),
            () = keep(message, &activity, self.ack_wait) => {
                tracing::error!(job = job.id, "nothing moves; another worker gets the job");
                return Ok(());
            }
            () = self.ended() => {
                let back = job.with(job.items.clone(), Tries { handed: tries.handed + 1, ..tries });
                self.queue.publish(&back).await?;
            }
        }
        self.done_with(message).await
    }

    /// Waits until running jobs have to stop.
    async fn ended(&self) {
        stopped(self.stop.clone()).await;
        let phase = *self.stop.borrow();
        if let Phase::Ending(end) = phase {
            tokio::time::sleep_until(end.into()).await;
        }
    }

    async fn answer_item(
        &self,
        job: &Job,
        endpoint: Endpoint,
        item: &Item,
        sender: &mut Sender<'_>,
        activity: &Activity,
    ) -> Result<(), ApiError> {
        let lost = |error: Error| ApiError::internal(error.to_string());
        let mut body = item.request.clone();
        self.queue.fetch_pictures(&mut body).await.map_err(lost)?;
        let began = std::time::Instant::now();
        let checked = self.engine.check(endpoint, body).await?;
        let streams = checked.streams();
        let running = self.engine.begin("live", checked)?;
        match streams {
            true => {
                let sender = tokio::sync::Mutex::new(&mut *sender);
                let take = async |piece: Bytes| {
                    activity.touch();
                    sender.lock().await.send(Piece::Stream, piece).await.is_ok()
                };
                running.streamed(take).await;
                let mut sender = sender.lock().await;
                sender.send(Piece::End, Bytes::new()).await.map_err(lost)?;
            }
            false => {
                let mut moved = running.moved();
                let end = running.ended();
                tokio::pin!(end);
                loop {
                    tokio::select! {
                        () = &mut end => break,
                        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {
                            let now = running.moved();
                            if now != moved {
                                activity.touch();
                                moved = now;
                            }
                        }
                    }
                }
                let reply = running.reply()?;
                let bytes = Bytes::from(reply.to_string());
                sender.send(Piece::Reply, bytes).await.map_err(lost)?;
            }
        }
        self.measured(&job.model, began.elapsed().as_secs_f64());
        self.queue
            .client
            .flush()
            .await
            .map_err(|error| ApiError::internal(error.to_string()))
    }
}

/// An error as a reply says it, with its status.
fn failure(error: &ApiError) -> Bytes {
    let mut body = error.body();
    body["status"] = error.status.as_u16().into();
    body["retry_after"] = error.retry_after.into();
    body.to_string().into()
}
