//! Jobs of batches.

use std::time::{Duration, Instant};

use async_nats::jetstream::Message;
use brisk_server::engine::{ModelInfo, shape};
use brisk_server::fields::Endpoint;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::Worker;
use super::fate::{self, Fate};
use super::take::{Taker, keep};
use crate::batch::{Entry, Failure, Record};
use crate::error::Result;
use crate::make::{Activity, Order, Phase, Stop, Trouble, existing, make};
use crate::queue::{Class, Dead, Item, Job, Tries, now};

/// Requests of a job that are on their way together: texts share passes, and pictures are written while the
/// next is drawn.
const AT_ONCE: usize = 16;
/// Wait before the queue is told once more.
const AGAIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Takes jobs of batches until the worker ends.
    pub(super) async fn take_batches(&self, models: &[ModelInfo]) {
        let mut taker = Taker::new(self, Class::Batch, models);
        while let Some(message) = taker.next().await {
            self.state().working += 1;
            if let Err(error) = self.carry_out(&message).await {
                // It comes again when its time is over.
                tracing::warn!(%error, "a job was given up");
            }
            self.state().working -= 1;
        }
    }

    async fn carry_out(&self, message: &Message) -> Result<()> {
        let (mut job, endpoint) = match self.read(message) {
            Ok(read) => read,
            Err(failure) => return self.bury_unread(message, failure).await,
        };
        let died = message.info().map_or(0, |info| info.delivered - 1).max(0) as u64;
        job.tries.crashes += died;
        if job.is_late() || self.is_cancelled(&job.batch) {
            return self.done_with(message).await;
        }
        if job.tries.crashes >= fate::MOST_CRASHES {
            return self.give_up(message, &job, endpoint).await;
        }
        if died > 0 && job.items.len() > 1 {
            // One of them may be what kills workers; the others are not to die with it.
            for item in &job.items {
                let alone = job.with(vec![item.clone()], job.tries);
                self.persist(|| self.queue.publish(&alone)).await?;
            }
            return self.done_with(message).await;
        }
        let activity = Activity::default();
        let (stop, wants) = self.stop_of(&job.batch);
        let carried = self.carry_items(&job, endpoint, &activity, &stop);
        tokio::select! {
            carried = carried => carried?,
            () = keep(message, &activity, self.ack_wait) => {
                tracing::error!(job = job.id, "nothing moves; another worker gets the job");
                return Ok(());
            }
        }
        drop(wants);
        self.done_with(message).await
    }

    /// Carries out the requests of a job and tells what became of each; gives back what is left.
    async fn carry_items(
        &self,
        job: &Job,
        endpoint: Endpoint,
        activity: &Activity,
        stop: &Stop,
    ) -> Result<()> {
        let made = futures_util::stream::iter(&job.items).map(|item| async move {
            (
                item,
                self.carry_item(job, endpoint, item, activity, stop).await,
            )
        });
        let mut made = std::pin::pin!(made.buffer_unordered(AT_ONCE));
        let mut back = Vec::new();
        let mut rest = None;
        while let Some((item, made)) = made.next().await {
            match made {
                Ok(mut record) => {
                    if let Some(seconds) = record.seconds {
                        self.measured(&job.model, seconds);
                    }
                    self.sign(&mut record, job.tries);
                    self.persist(|| self.queue.tell(&job.batch, &record))
                        .await?;
                }
                Err(trouble) => match fate::of(&trouble, job.tries) {
                    Fate::Dead(failure) => self.bury(job, item, failure).await?,
                    Fate::Again(tries) => {
                        let again = job.with(vec![item.clone()], tries);
                        self.persist(|| self.queue.publish(&again)).await?;
                    }
                    Fate::HandBack(why) => {
                        rest = rest.or(why);
                        back.push(item.clone());
                    }
                },
            }
            activity.touch();
        }
        if back.is_empty() || self.is_cancelled(&job.batch) {
            return Ok(());
        }
        if let Some((why, how_long)) = rest {
            self.rest(why, how_long);
        }
        // Only deliveries count against a job; this is a new one.
        let tries = Tries {
            handed: job.tries.handed + 1,
            ..job.tries
        };
        let back = job.with(back, tries);
        self.persist(|| self.queue.publish(&back)).await
    }

    async fn carry_item(
        &self,
        job: &Job,
        endpoint: Endpoint,
        item: &Item,
        activity: &Activity,
        stop: &Stop,
    ) -> Result<Record, Trouble> {
        let outputs = self.place(&job.out)?;
        let mut body = item.request.clone();
        self.queue.fetch_pictures(&mut body).await?;
        if let Some(model) = self.model(&job.model) {
            body.insert("model".to_owned(), model.id.clone().into());
        }
        let order = Order {
            batch: &job.batch,
            name: &item.name,
            paths: paths(endpoint, item)?,
            endpoint,
            body,
        };
        make(&self.engine, &outputs, order, activity, stop).await
    }

    /// Says who made it and when.
    fn sign(&self, record: &mut Record, tries: Tries) {
        record.worker = Some(self.name.clone());
        record.attempt = Some(tries.attempt());
    }

    /// Gives a request up.
    async fn bury(&self, job: &Job, item: &Item, failure: Failure) -> Result<()> {
        tracing::warn!(
            batch = job.batch,
            request = item.name,
            code = failure.code,
            "dead"
        );
        let mut record = Record::failed(&item.name, failure.clone());
        self.sign(&mut record, job.tries);
        let dead = Dead {
            reason: failure,
            worker: self.name.clone(),
            at: now(),
            job: Some(job.with(vec![item.clone()], job.tries)),
            message: None,
        };
        self.persist(|| self.queue.bury(job.class, &job.model, &dead))
            .await?;
        self.persist(|| self.queue.tell(&job.batch, &record)).await
    }

    /// Gives up a job that killed too many workers. What it left done counts.
    pub(super) async fn give_up(
        &self,
        message: &Message,
        job: &Job,
        endpoint: Endpoint,
    ) -> Result<()> {
        self.give_up_items(job, endpoint).await?;
        self.done_with(message).await
    }

    pub(super) async fn give_up_items(&self, job: &Job, endpoint: Endpoint) -> Result<()> {
        for item in &job.items {
            let found = match (self.place(&job.out), paths(endpoint, item)) {
                (Ok(outputs), Ok(paths)) => {
                    let order = Order {
                        batch: &job.batch,
                        name: &item.name,
                        paths,
                        endpoint,
                        body: item.request.clone(),
                    };
                    existing(&outputs, &order).await.unwrap_or_default()
                }
                _ => None,
            };
            match found {
                Some(mut record) => {
                    self.sign(&mut record, job.tries);
                    self.persist(|| self.queue.tell(&job.batch, &record))
                        .await?;
                }
                None => {
                    let problem =
                        format!("{} workers died or stood still over it", job.tries.crashes);
                    self.bury(job, item, Failure::new("killed_workers", problem))
                        .await?;
                }
            }
        }
        Ok(())
    }

    async fn bury_unread(&self, message: &Message, failure: Failure) -> Result<()> {
        tracing::warn!(
            code = failure.code,
            error = failure.message,
            "a message is no job"
        );
        let subject = message.subject.as_str();
        let model = subject.rsplit('.').next().unwrap_or("unknown").to_owned();
        let dead = Dead {
            reason: failure,
            worker: self.name.clone(),
            at: now(),
            job: None,
            message: Some(String::from_utf8_lossy(&message.payload).into_owned()),
        };
        self.persist(|| self.queue.bury(Class::Batch, &model, &dead))
            .await?;
        self.done_with(message).await
    }

    /// Tells the queue that a job is done with, and sees to it that it knows.
    pub(super) async fn done_with(&self, message: &Message) -> Result<()> {
        let began = Instant::now();
        loop {
            match message.double_ack().await {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() > self.ack_wait => {
                    return Err(crate::error::Error::Failed(format!(
                        "the queue does not hear that a job is done: {error}"
                    )));
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Does something with the queue again and again until it works, or until the job is another's.
    async fn persist<F: Future<Output = Result<()>>>(&self, work: impl Fn() -> F) -> Result<()> {
        let began = Instant::now();
        loop {
            match work().await {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() > 2 * self.ack_wait => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "once more");
                    tokio::time::sleep(AGAIN).await;
                    let _ = self.queue.ensure().await;
                }
            }
        }
    }

    /// When to stop with a job: with the worker, or when nobody wants its batch; and what has to live as long.
    fn stop_of(&self, batch: &str) -> (Stop, tokio::task::JoinSet<()>) {
        let (sender, receiver) = watch::channel(*self.stop.borrow());
        let (mut phase, mut cancelled) = (self.stop.clone(), self.cancelled.subscribe());
        let batch = batch.to_owned();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            loop {
                if cancelled.borrow_and_update().contains(&batch) {
                    sender.send_replace(Phase::Halt);
                } else {
                    sender.send_replace(*phase.borrow_and_update());
                }
                let ended = tokio::select! {
                    changed = phase.changed() => changed.is_err(),
                    changed = cancelled.changed() => changed.is_err(),
                };
                if ended {
                    std::future::pending::<()>().await;
                }
            }
        });
        (receiver, tasks)
    }
}

/// Where the files of a request go.
fn paths(endpoint: Endpoint, item: &Item) -> Result<Vec<String>, Trouble> {
    let shape = shape(endpoint, item.request.clone())?;
    Ok(Entry::paths_of(&item.name, shape.files, shape.ending))
}
