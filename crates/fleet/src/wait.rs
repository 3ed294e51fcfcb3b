//! Waiting for a batch: what is missing is given to the queue again, and what became of all is written down.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;

use crate::batch::{Entry, Failure, Record, Status};
use crate::error::{Error, Result};
use crate::make::{Order, Phase, Stop, existing};
use crate::queue::Records;
use crate::run::{Tally, add};
use crate::submit::Submitted;
use crate::verbs::Told;

/// Rounds that bring nothing before it is given up.
const ROUNDS: usize = 3;
/// How long a look for records takes, at most.
const LOOK: Duration = Duration::from_secs(1);
/// How long nothing may come before the queue is asked what it has.
const QUIET: Duration = Duration::from_secs(3);
/// Results that are read at the same time.
const AT_ONCE: usize = 16;

/// Waits until every request has its results or will have none; what is missing is submitted again, up to
/// three times in a row without anything coming of it. Then writes `results.jsonl`, in the order of the file.
///
/// # Errors
/// The place cannot be written, the batch was cancelled, or [`Error::Stopped`]. A queue that is away is
/// waited for.
pub async fn wait(submitted: &Submitted, stop: &Stop, told: Told<'_>) -> Result<Tally> {
    let mut following = Following::new(submitted);
    let mut rounds = 0;
    let mut before = usize::MAX;
    loop {
        following.follow(stop, told).await?;
        let missing = submitted.missing().await?;
        let left: Vec<&Entry> = missing
            .iter()
            .copied()
            .filter(|entry| !following.failed.contains_key(&entry.name))
            .collect();
        if left.is_empty() {
            return following.report(&missing, told).await;
        }
        rounds = match left.len() < before {
            true => 1,
            false => rounds + 1,
        };
        before = left.len();
        if rounds > ROUNDS {
            return following.report(&missing, told).await;
        }
        tracing::info!(requests = left.len(), "submitted again");
        // What is said to be done and is not there is to be heard of once more.
        for entry in &left {
            following.done.remove(&entry.name);
        }
        let round = format!("wait {}", crate::queue::now());
        submitted.give(&left, &round, rounds as u64, stop).await?;
    }
}

struct Following<'s> {
    submitted: &'s Submitted,
    records: Records,
    names: HashSet<&'s str>,
    done: HashMap<String, Record>,
    failed: HashMap<String, Record>,
    /// Those that have their results or will have none.
    ended: HashSet<String>,
}

impl<'s> Following<'s> {
    fn new(submitted: &'s Submitted) -> Self {
        let entries = submitted.input.entries.iter();
        Self {
            records: Records::after(&submitted.queue, &submitted.id, 0),
            names: entries.map(|entry| entry.name.as_str()).collect(),
            done: HashMap::new(),
            failed: HashMap::new(),
            ended: HashSet::new(),
            submitted,
        }
    }

    /// Takes in records until there is one of every request, or the queue has nothing more to do.
    async fn follow(&mut self, stop: &Stop, told: &mut dyn FnMut(&Tally)) -> Result<()> {
        // What was there before this submission has no record that still comes.
        let missing = self.submitted.missing().await?;
        let missing: HashSet<&str> = missing.iter().map(|entry| &*entry.name).collect();
        let there = self.names.iter().filter(|name| !missing.contains(*name));
        self.ended = there.map(|name| (*name).to_owned()).collect();
        self.ended.extend(self.done.keys().cloned());
        self.ended.extend(self.failed.keys().cloned());
        let mut quiet = Instant::now();
        loop {
            if *stop.borrow() != Phase::Go {
                return Err(Error::Stopped);
            }
            match self.records.next(LOOK).await {
                Ok(records) => {
                    if !records.is_empty() {
                        quiet = Instant::now();
                    }
                    for (number, record) in records {
                        self.take(number, record);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "waiting for the queue");
                    quiet = Instant::now();
                    tokio::time::sleep(LOOK).await;
                    let _ = self.submitted.queue.ensure().await;
                }
            }
            let mut tally = self.tally();
            tally.done = self.ended.len() - self.failed.len();
            told(&tally);
            if self.ended.len() == self.names.len() {
                return Ok(());
            }
            if quiet.elapsed() > QUIET {
                if let Ok(true) = self.submitted.queue.is_cancelled(&self.submitted.id).await {
                    return Err(Error::Failed(format!(
                        "batch {} was cancelled; submitting it again goes on",
                        self.submitted.id
                    )));
                }
                if let Ok(0) = self.submitted.in_queue().await {
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, number: u64, record: Record) {
        let Some(name) = self.names.get(record.custom_id.as_str()) else {
            return;
        };
        let name = (*name).to_owned();
        match record.status {
            Status::Done => {
                self.failed.remove(&name);
                self.ended.insert(name.clone());
                // The first says what making it took.
                if self
                    .done
                    .get(&name)
                    .is_none_or(|known| known.seconds.is_none())
                {
                    self.done.insert(name, record);
                }
            }
            // Failures of earlier submissions do not count.
            _ if number <= self.submitted.since || self.done.contains_key(&name) => {}
            _ => {
                self.ended.insert(name.clone());
                self.failed.insert(name, record);
            }
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            batch: self.submitted.id.clone(),
            total: self.names.len(),
            done: self.done.len(),
            found: 0,
            failed: self.failed.len(),
        }
    }

    /// Writes down what became of every request.
    async fn report(self, missing: &[&Entry], told: Told<'_>) -> Result<Tally> {
        let missing: HashSet<&str> = missing.iter().map(|entry| &*entry.name).collect();
        let submitted = self.submitted;
        let this = &self;
        let records = futures_util::stream::iter(&submitted.input.entries).map(|entry| {
            let is_missing = missing.contains(entry.name.as_str());
            async move { this.record(entry, is_missing).await }
        });
        let mut records = std::pin::pin!(records.buffered(AT_ONCE));
        let mut report = Vec::new();
        let mut tally = Tally {
            done: 0,
            failed: 0,
            ..self.tally()
        };
        while let Some(record) = records.next().await {
            let record = record?;
            tally.count(&record);
            add(&mut report, &record)?;
        }
        let path = format!("{}/results.jsonl", submitted.id);
        submitted.outputs.put(&path, Bytes::from(report)).await?;
        told(&tally);
        Ok(tally)
    }

    async fn record(&self, entry: &Entry, is_missing: bool) -> Result<Record> {
        if is_missing {
            let failed = self.failed.get(&entry.name).cloned();
            return Ok(failed.unwrap_or_else(|| {
                let problem = format!("{ROUNDS} rounds brought no result");
                Record {
                    error: Some(Failure::new("missing", problem)),
                    ..Record::missing(&entry.name)
                }
            }));
        }
        if let Some(record) = self.done.get(&entry.name) {
            return Ok(record.clone());
        }
        // The queue lost what was told, or another told it long ago.
        let submitted = self.submitted;
        let order = Order {
            batch: &submitted.id,
            name: &entry.name,
            paths: entry.paths(),
            endpoint: entry.endpoint,
            body: submitted.input.body(entry, &submitted.id)?,
        };
        let found = existing(&submitted.outputs, &order).await?;
        Ok(found.unwrap_or_else(|| Record::missing(&entry.name)))
    }
}
