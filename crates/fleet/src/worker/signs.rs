//! Signs of life, and what a worker listens to.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::Operation;
use futures_util::StreamExt;
use serde::Deserialize;

use super::Worker;
use crate::error::{Error, Result};
use crate::queue::{AnnouncedModel, Announcement, CANCEL, JOBS, Job};

/// Time between two signs of life: a third of what counts as gone.
const APART: Duration = Duration::from_secs(10);
/// Wait after the queue failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What the queue says of a job that was delivered too often.
#[derive(Deserialize)]
struct Undeliverable {
    stream_seq: u64,
}

impl Worker {
    /// Says again and again that it is there.
    pub(super) async fn announce_always(self: Arc<Self>) {
        loop {
            let announcement = self.announcement();
            let wait = match self.queue.announce(&announcement).await {
                Ok(()) => APART,
                Err(error) => {
                    tracing::warn!(%error, "cannot announce this worker");
                    let _ = self.queue.ensure().await;
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn announcement(&self) -> Announcement {
        let ends = !self.goes_on();
        let state = self.state();
        let now = match (&state.resting, state.working) {
            _ if ends => "ending".to_owned(),
            (Some((why, _)), _) => why.clone(),
            (None, 0) => "idle".to_owned(),
            (None, _) => "working".to_owned(),
        };
        let models = self
            .models
            .iter()
            .map(|model| AnnouncedModel::of(model, state.seconds.get(&model.slug).copied()));
        Announcement {
            worker: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: now,
            done: state.done,
            models: models.collect(),
        }
    }

    /// Whether nobody wants a batch, or a job, any more.
    pub(super) fn is_cancelled(&self, id: &str) -> bool {
        self.cancelled.borrow().contains(id)
    }

    /// Follows what is not wanted any more.
    pub(super) async fn hear_cancelled(self: Arc<Self>) {
        loop {
            if let Err(error) = self.follow_cancelled().await {
                tracing::warn!(%error, "cannot follow what is cancelled");
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    async fn follow_cancelled(&self) -> Result<()> {
        let failed =
            |error: &dyn std::fmt::Display| Error::Failed(format!("the queue's {CANCEL}: {error}"));
        let store = self.queue.values(CANCEL).await?;
        let mut entries = store
            .watch_with_history(">")
            .await
            .map_err(|error| failed(&error))?;
        self.cancelled.send_modify(HashSet::clear);
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|error| failed(&error))?;
            self.cancelled.send_modify(|cancelled| {
                match entry.operation {
                    Operation::Put => cancelled.insert(entry.key),
                    Operation::Delete | Operation::Purge => cancelled.remove(&entry.key),
                };
            });
        }
        Ok(())
    }

    /// Buries jobs that the queue delivers no more: they would stay in its stream for ever.
    pub(super) async fn hear_undeliverable(self: Arc<Self>) {
        let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{JOBS}.>");
        loop {
            let told = self
                .queue
                .client
                .queue_subscribe(subject.clone(), "brisk-workers".into());
            let Ok(mut told) = told.await else {
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            };
            while let Some(message) = told.next().await {
                let Ok(Undeliverable { stream_seq }) = serde_json::from_slice(&message.payload)
                else {
                    continue;
                };
                if let Err(error) = self.bury_undeliverable(stream_seq).await {
                    tracing::warn!(%error, stream_seq, "cannot bury a job that is delivered no more");
                }
            }
        }
    }

    async fn bury_undeliverable(&self, number: u64) -> Result<()> {
        let failed =
            |error: &dyn std::fmt::Display| Error::Failed(format!("the queue's {JOBS}: {error}"));
        let stream = self.queue.jetstream.get_stream_no_info(JOBS).await;
        let stream = stream.map_err(|error| failed(&error))?;
        let message = stream.get_raw_message(number).await;
        let message = message.map_err(|error| failed(&error))?;
        if let Ok((job, endpoint)) = Job::read(&message.payload) {
            self.give_up_items(&job, endpoint).await?;
        }
        let deleted = stream.delete_message(number).await;
        deleted.map(drop).map_err(|error| failed(&error))
    }
}
