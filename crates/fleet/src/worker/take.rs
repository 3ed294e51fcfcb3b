//! Taking jobs, and the signs of life that keep them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use brisk_server::engine::ModelInfo;
use futures_util::StreamExt;

use super::{MOST_IDLE, Worker};
use crate::error::{Error, Result};
use crate::make::Activity;
use crate::queue::Class;

/// Shortest wait between two looks at an empty queue.
const LEAST_IDLE: Duration = Duration::from_millis(10);
/// How often an idle worker sees to it that the queue still knows it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Wait after the queue failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Longest wait for an answer: one that was lost with a connection never comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// A job of which nothing moved for so long is given up.
pub(super) const STANDSTILL: Duration = Duration::from_secs(120);

/// Takes jobs of a class, of some models in turn.
pub(super) struct Taker<'w> {
    worker: &'w Worker,
    class: Class,
    models: &'w [ModelInfo],
    consumers: HashMap<String, PullConsumer>,
    /// The model whose turn it is.
    turn: usize,
    /// When the queue was last seen to have the consumers.
    seen: Instant,
}

impl<'w> Taker<'w> {
    pub(super) fn new(worker: &'w Worker, class: Class, models: &'w [ModelInfo]) -> Self {
        Self {
            worker,
            class,
            models,
            consumers: HashMap::new(),
            turn: 0,
            seen: Instant::now(),
        }
    }

    /// The next job; none when the worker ends or there are no models. A queue that is away, or lost what it had, is waited for.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let mut idle = LEAST_IDLE;
        loop {
            if !self.worker.goes_on() || self.models.is_empty() {
                return None;
            }
            if let Some(left) = self.worker.resting() {
                self.worker.pause(left).await;
                continue;
            }
            match self.look().await {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {
                    // A queue that lost what it had says the same as one that has nothing to do.
                    if self.seen.elapsed() > LOOK_AGAIN {
                        self.consumers.clear();
                        self.seen = Instant::now();
                    }
                    self.worker.pause(idle).await;
                    idle = (2 * idle).min(MOST_IDLE);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take jobs");
                    self.consumers.clear();
                    self.worker.pause(AFTER_FAILURE).await;
                    // It may have come back empty.
                    let _ = self.worker.queue.ensure().await;
                }
            }
        }
    }

    /// Asks once for each model.
    async fn look(&mut self) -> Result<Option<Message>> {
        let models = self.models;
        for _ in 0..models.len() {
            let model = &models[self.turn % models.len()];
            self.turn += 1;
            let consumer = match self.consumers.get(&model.slug) {
                Some(consumer) => consumer,
                None => {
                    let queue = &self.worker.queue;
                    let made = queue.jobs(self.class, &model.slug, self.worker.ack_wait);
                    let made = made.await?;
                    self.consumers.entry(model.slug.clone()).or_insert(made)
                }
            };
            let failed =
                |error: &dyn std::fmt::Display| Error::Failed(format!("the queue's jobs: {error}"));
            let mut found = consumer
                .fetch()
                .max_messages(1)
                .messages()
                .await
                .map_err(|error| failed(&error))?;
            let found = tokio::time::timeout(PATIENCE, found.next())
                .await
                .map_err(|_| failed(&"no answer"))?;
            match found {
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(error)) => return Err(failed(&error)),
                None => {}
            }
        }
        Ok(None)
    }
}

/// Tells the queue again and again that a job is being worked on, as long as something moves; returns
/// when nothing does any more.
pub(super) async fn keep(message: &Message, activity: &Activity, ack_wait: Duration) {
    let mut ticks = tokio::time::interval(ack_wait / 3);
    ticks.tick().await;
    while activity.idle() < STANDSTILL {
        ticks.tick().await;
        if let Err(error) = message.ack_with(AckKind::Progress).await {
            tracing::warn!(%error, "cannot tell the queue that a job goes on");
        }
    }
}
