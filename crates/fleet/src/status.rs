//! Looking at a batch, stopping it, and what nobody carries out any more.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::StreamExt;
use serde::Serialize;

use crate::batch::Status as Ended;
use crate::error::{Error, Result};
use crate::queue::{Class, DEAD, Dead, Queue, Records, now, speed};
use crate::submit::unknown;

/// How long a look at the queue takes at least.
const LOOK: Duration = Duration::from_millis(300);

/// How a batch is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Its id.
    pub batch: String,
    /// Where results go.
    pub out: String,
    /// Requests.
    pub total: usize,
    /// Those with results, as workers told.
    pub done: usize,
    /// Those that will have none.
    pub failed: usize,
    /// The others.
    pub pending: usize,
    /// Whether nobody wants it any more.
    pub cancelled: bool,
    /// Workers that have its models.
    pub workers: usize,
    /// Messages of its models that wait or are with workers, of other batches too.
    pub queued: u64,
    /// Requests a second, of all those workers.
    pub rate: Option<f64>,
    /// Seconds until it is done, at this rate.
    pub seconds_left: Option<f64>,
    /// Seconds since it was submitted.
    pub age: u64,
}

/// Looks at a batch.
///
/// # Errors
/// The queue is away, or has no such batch.
pub async fn status(queue: &Queue, batch: &str) -> Result<Status> {
    let manifest = queue.manifest(batch).await?.ok_or_else(|| unknown(batch))?;
    let mut records = Records::after(queue, batch, 0);
    let mut ended: HashMap<String, Ended> = HashMap::new();
    loop {
        let found = records.next(LOOK).await?;
        if found.is_empty() {
            break;
        }
        for (_, record) in found {
            let known = ended.entry(record.custom_id).or_insert(record.status);
            if record.status == Ended::Done {
                *known = Ended::Done;
            }
        }
    }
    let done = ended
        .values()
        .filter(|ended| **ended == Ended::Done)
        .count();
    let failed = ended.len() - done;
    let pending = manifest.total.saturating_sub(ended.len());
    let there = queue.workers().await?;
    let (mut queued, mut workers, mut rate) = (0, 0, None);
    for slug in manifest.together.keys() {
        queued += queue.pending(Class::Batch, slug).await?;
        let (seconds, having) = speed(&there, slug);
        workers = workers.max(having);
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0) {
            *rate.get_or_insert(0.0) += having as f64 / seconds;
        }
    }
    Ok(Status {
        batch: batch.to_owned(),
        out: manifest.out,
        total: manifest.total,
        done,
        failed,
        pending,
        cancelled: queue.is_cancelled(batch).await?,
        workers,
        queued,
        rate,
        seconds_left: rate.map(|rate| pending as f64 / rate),
        age: now().saturating_sub(manifest.submitted),
    })
}

/// Says that nobody wants a batch any more: what waits is passed over, what runs stops. What is done stays.
///
/// # Errors
/// The queue is away, or has no such batch.
pub async fn cancel(queue: &Queue, batch: &str) -> Result<()> {
    queue.manifest(batch).await?.ok_or_else(|| unknown(batch))?;
    queue.want(batch, false).await
}

/// The jobs that nobody carries out any more, of a batch or all, with their numbers.
///
/// # Errors
/// The queue is away.
pub async fn dead(queue: &Queue, batch: Option<&str>) -> Result<Vec<(u64, Dead)>> {
    let failed =
        |error: &dyn std::fmt::Display| Error::Failed(format!("the queue's {DEAD}: {error}"));
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let consumer = queue
        .jetstream
        .create_consumer_on_stream(config, DEAD)
        .await;
    let consumer = consumer.map_err(|error| failed(&error))?;
    let mut found = Vec::new();
    loop {
        let messages = consumer
            .batch()
            .max_messages(500)
            .expires(LOOK)
            .messages()
            .await;
        let mut messages = messages.map_err(|error| failed(&error))?;
        let before = found.len();
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| failed(&error))?;
            let number = message
                .info()
                .map_err(|error| failed(&error))?
                .stream_sequence;
            match serde_json::from_slice::<Dead>(&message.payload) {
                Ok(dead) => found.push((number, dead)),
                Err(error) => tracing::warn!(number, %error, "a dead job cannot be read"),
            }
        }
        if found.len() == before {
            break;
        }
    }
    found.retain(|(_, dead)| match (batch, &dead.job) {
        (None, _) => true,
        (Some(batch), Some(job)) => job.batch == batch,
        (Some(_), None) => false,
    });
    Ok(found)
}

/// Lets dead jobs try again; gives how many. What was no job stays.
///
/// # Errors
/// The queue is away.
pub async fn revive(queue: &Queue, dead: &[(u64, Dead)]) -> Result<usize> {
    let failed =
        |error: &dyn std::fmt::Display| Error::Failed(format!("the queue's {DEAD}: {error}"));
    let stream = queue.jetstream.get_stream_no_info(DEAD).await;
    let stream = stream.map_err(|error| failed(&error))?;
    let mut revived = 0;
    for (number, dead) in dead {
        let Some(job) = &dead.job else { continue };
        let tries = crate::queue::Tries {
            retried: job.tries.attempt(),
            ..Default::default()
        };
        queue.publish(&job.with(job.items.clone(), tries)).await?;
        stream
            .delete_message(*number)
            .await
            .map_err(|error| failed(&error))?;
        revived += 1;
    }
    Ok(revived)
}
