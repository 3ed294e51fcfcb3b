//! What became of the requests of a batch, as workers tell it.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use futures_util::StreamExt;

use super::connect::Queue;
use super::layout::RESULTS;
use crate::batch::Record;
use crate::error::{Error, Result};

/// Records that are asked for at once.
const AT_ONCE: usize = 1000;
/// How long the queue remembers a reader that is gone.
const GONE: Duration = Duration::from_secs(120);

/// A reader of the records of a batch, in the order in which they were told. A queue that went away, or that
/// lost what it had, is read again from where it is.
pub struct Records {
    queue: Queue,
    batch: String,
    consumer: Option<PullConsumer>,
    last: u64,
}

impl Records {
    /// A reader that begins behind a record; 0 is the beginning.
    pub fn after(queue: &Queue, batch: &str, last: u64) -> Self {
        Self {
            queue: queue.clone(),
            batch: batch.to_owned(),
            consumer: None,
            last,
        }
    }

    /// Records that came since the last call, waiting up to `patience` for the first; each with its number.
    ///
    /// # Errors
    /// The queue is away; the next call tries again.
    pub async fn next(&mut self, patience: Duration) -> Result<Vec<(u64, Record)>> {
        let read = self.read(patience).await;
        if read.is_err() {
            self.consumer = None;
        }
        read
    }

    async fn read(&mut self, patience: Duration) -> Result<Vec<(u64, Record)>> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Failed(format!("the queue's {RESULTS}: {error}"))
        };
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.open().await?,
        };
        let mut batch = consumer
            .batch()
            .max_messages(AT_ONCE)
            .expires(patience)
            .messages()
            .await
            .map_err(|error| failed(&error))?;
        self.consumer = Some(consumer);
        let mut records = Vec::new();
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| failed(&error))?;
            let number = message
                .info()
                .map_err(|error| failed(&error))?
                .stream_sequence;
            self.last = self.last.max(number);
            match serde_json::from_slice(&message.payload) {
                Ok(record) => records.push((number, record)),
                Err(error) => tracing::warn!(number, %error, "a record cannot be read"),
            }
        }
        Ok(records)
    }

    async fn open(&mut self) -> Result<PullConsumer> {
        // The queue may have lost what was there before.
        if self.queue.last_record().await? < self.last {
            self.last = 0;
        }
        let config = pull::Config {
            filter_subject: subject(&self.batch),
            ack_policy: AckPolicy::None,
            deliver_policy: match self.last {
                0 => DeliverPolicy::All,
                last => DeliverPolicy::ByStartSequence {
                    start_sequence: last + 1,
                },
            },
            inactive_threshold: GONE,
            ..pull::Config::default()
        };
        let made = self
            .queue
            .jetstream
            .create_consumer_on_stream(config, RESULTS)
            .await;
        made.map_err(|error| Error::Failed(format!("the queue's {RESULTS}: {error}")))
    }
}

fn subject(batch: &str) -> String {
    format!("brisk.result.{batch}")
}

impl Queue {
    /// Tells what became of a request, and sees to it that the queue has it.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn tell(&self, batch: &str, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record)
            .map_err(|error| Error::Failed(format!("cannot write a record: {error}")))?;
        let attempt = record.attempt.unwrap_or_default();
        let message = PublishMessage::build()
            .payload(bytes.into())
            .message_id(format!(
                "{batch}/{}/{attempt}/{:?}",
                record.custom_id, record.status
            ));
        self.send(subject(batch), message).await
    }

    /// Number of the last record that the queue has, of whatever batch.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn last_record(&self) -> Result<u64> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Failed(format!("the queue's {RESULTS}: {error}"))
        };
        let stream = self.jetstream.get_stream_no_info(RESULTS).await;
        let stream = stream.map_err(|error| failed(&error))?;
        let info = stream.get_info().await.map_err(|error| failed(&error))?;
        Ok(info.state.last_sequence)
    }
}
