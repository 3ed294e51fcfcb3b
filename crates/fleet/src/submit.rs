//! Giving a file of requests to the workers of a queue.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use brisk_server::engine::ModelInfo;
use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::batch::{self, BatchOptions, Entry, Input};
use crate::error::{Error, Result};
use crate::make::{Phase, Stop};
use crate::models::Answering;
use crate::outputs::Outputs;
use crate::queue::{
    Class, Item, Job, MOST_BYTES, MOST_ITEMS, Manifest, Queue, QueueOptions, models, now, speed,
};

/// Seconds of work that a message carries.
const MESSAGE_SECONDS: f64 = 20.0;
/// Requests of a message to a model that is not measured yet.
const UNMEASURED: usize = 16;
/// Messages that each worker is to get at least, so that all of them end together.
const MESSAGES_A_WORKER: usize = 4;
/// Messages that each worker could get of what is left: messages become shorter towards the end, so that no worker
/// has a long one when the others have nothing more to do.
const MESSAGES_OF_THE_REST: usize = 2;
/// Bytes of a message that are left for what is not the requests.
const ENVELOPE: usize = 8 << 10;
/// Messages that the queue may not have confirmed yet.
const UNCONFIRMED: usize = 256;
/// Wait before a queue that is full, or away, is asked once more.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a queue may be away before submitting gives up.
const AWAY: Duration = Duration::from_secs(60);

/// Options of `brisk batch submit`.
#[derive(Debug, Args)]
pub struct SubmitOptions {
    /// Requests in OpenAI's batch format, or a prompt a line
    pub file: PathBuf,

    /// Where workers write results: a folder that all of them see, s3://, gs:// or az://
    #[arg(long, value_name = "PLACE")]
    pub out: String,

    /// The model of requests that name none
    #[arg(long, value_name = "ID")]
    pub model: Option<String>,

    /// What holds for all requests.
    #[command(flatten)]
    pub batch: BatchOptions,

    /// The queue.
    #[command(flatten)]
    pub queue: QueueOptions,

    /// Seconds to wait for a worker that says which models there are
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
}

/// A batch that was submitted.
pub struct Submitted {
    /// The queue.
    pub queue: Queue,
    /// The batch's id.
    pub id: String,
    /// What the queue knows of it.
    pub manifest: Manifest,
    /// Its requests.
    pub input: Input,
    /// Where results go.
    pub outputs: Outputs,
    /// Requests that were given to the queue now.
    pub given: usize,
    /// Records up to this number are of earlier submissions.
    pub since: u64,
}

/// Gives the queue what has no results yet. What an earlier submission left in the queue is not given twice.
///
/// # Errors
/// A file, a queue or a place that do not work; no worker for a model.
pub async fn submit(options: &SubmitOptions, stop: &Stop) -> Result<Submitted> {
    let mut batch_options = options.batch.clone();
    if let Some(model) = &options.model {
        let set = &mut batch_options.set;
        if set.iter().any(|(name, _)| name == "model") {
            return Err(Error::Usage(
                "--model: is given as --set model=… too; give one of them".to_owned(),
            ));
        }
        set.push(("model".to_owned(), model.as_str().into()));
    }
    let input = Input::read(&options.file, &batch_options)?;
    let outputs = Outputs::open(&options.out)?;
    outputs.prepare().await?;
    let queue = Queue::connect(&options.queue, "brisk-batch").await?;
    let (answering, workers) = answering(&queue, &input, options.patience, stop).await?;
    let id = batch::id(&input, &batch_options, &answering.slugs());
    let file = std::path::absolute(&options.file).unwrap_or_else(|_| options.file.clone());
    let manifest = Manifest {
        file: file.display().to_string(),
        hash: input.hash.clone(),
        out: outputs.name(),
        options: batch_options,
        model: options.model.clone(),
        models: answering.slugs(),
        total: input.entries.len(),
        together: answering
            .models()
            .map(|model| (model.slug.clone(), together(&input, &workers, &model.slug)))
            .collect(),
        workers: answering
            .models()
            .map(|model| (model.slug.clone(), speed(&workers, &model.slug).1))
            .collect(),
        submitted: now(),
    };
    let known = queue.note(&id, &manifest).await?;
    let again = known.is_some();
    let manifest = known.unwrap_or(manifest);
    if manifest.out != outputs.name() {
        return Err(Error::Usage(format!(
            "--out {}: batch {id} was submitted with --out {}; give that, or cancel it first: brisk batch \
             cancel {id}",
            options.out, manifest.out
        )));
    }
    queue.want(&id, true).await?;
    let mut submitted = Submitted {
        since: queue.last_record().await?,
        queue,
        id,
        manifest,
        input,
        outputs,
        given: 0,
    };
    if again && submitted.in_queue().await? > 0 {
        submitted.since = 0;
        return Ok(submitted);
    }
    let missing = submitted.missing().await?;
    let round = match again {
        false => "0".to_owned(),
        true => format!("again {}", now()),
    };
    submitted.given = submitted
        .give(&missing, &round, u64::from(again), stop)
        .await?;
    Ok(submitted)
}

/// The models of the workers that are there; waits for some.
async fn answering(
    queue: &Queue,
    input: &Input,
    patience: u64,
    stop: &Stop,
) -> Result<(Answering, Vec<crate::queue::Announcement>)> {
    let began = Instant::now();
    loop {
        let workers = queue.workers().await?;
        let models: Vec<ModelInfo> = models(&workers)?;
        let found = Answering::find(input, &models);
        let error = match (found, workers.is_empty()) {
            (Ok(answering), _) => return Ok((answering, workers)),
            (Err(_), true) => Error::Failed(
                "no worker is there; start one: brisk work --queue nats://… (or give it more time by \
                 --patience)"
                    .to_owned(),
            ),
            (Err(error), false) => error,
        };
        if began.elapsed() >= Duration::from_secs(patience) {
            return Err(error);
        }
        if *stop.borrow() != Phase::Go {
            return Err(Error::Stopped);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Requests of a message to a model.
fn together(input: &Input, workers: &[crate::queue::Announcement], slug: &str) -> usize {
    let (seconds, workers) = speed(workers, slug);
    let by_time = match seconds {
        Some(seconds) => (MESSAGE_SECONDS / seconds.max(1e-3)) as usize,
        None => UNMEASURED,
    };
    let share = input
        .entries
        .len()
        .div_ceil(workers.max(1) * MESSAGES_A_WORKER);
    by_time.min(share).clamp(1, MOST_ITEMS)
}

/// Requests of the next message: at most `most`, and fewer where few are left.
fn next_message(most: usize, left: usize, workers: usize) -> usize {
    let share = left.div_ceil(workers.max(1) * MESSAGES_OF_THE_REST);
    most.min(share).max(1)
}

impl Submitted {
    /// A batch that the queue knows.
    ///
    /// # Errors
    /// There is none of the id, or its file is not what it was.
    pub async fn find(queue: Queue, id: &str, file: Option<&PathBuf>) -> Result<Self> {
        let manifest = queue.manifest(id).await?.ok_or_else(|| unknown(id))?;
        let file = file
            .cloned()
            .unwrap_or_else(|| manifest.file.clone().into());
        let input = Input::read(&file, &manifest.options)?;
        if input.hash != manifest.hash {
            return Err(Error::Usage(format!(
                "{} is not the file that batch {id} was made of; give that by --file",
                file.display()
            )));
        }
        Ok(Self {
            outputs: Outputs::open(&manifest.out)?,
            queue,
            id: id.to_owned(),
            manifest,
            input,
            given: 0,
            since: 0,
        })
    }

    /// Requests without results.
    ///
    /// # Errors
    /// The place cannot be read.
    pub async fn missing(&self) -> Result<Vec<&Entry>> {
        let there = self.outputs.list(&self.id).await?;
        let entries = self.input.entries.iter();
        let missing =
            entries.filter(|entry| !entry.paths().iter().all(|path| there.contains(path)));
        Ok(missing.collect())
    }

    /// Jobs to the models of the batch that wait or are with workers; of other batches too.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn in_queue(&self) -> Result<u64> {
        let mut count = 0;
        for slug in self.manifest.together.keys() {
            count += self.queue.pending(Class::Batch, slug).await?;
        }
        Ok(count)
    }

    /// Gives requests to the queue, several a message. A full queue is waited for.
    ///
    /// # Errors
    /// The queue is away, a request is too large, or [`Error::Stopped`].
    pub async fn give(
        &self,
        entries: &[&Entry],
        round: &str,
        retried: u64,
        stop: &Stop,
    ) -> Result<usize> {
        // By model and kind: what is left, the most of the message, and what it has so far.
        let mut left: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for entry in entries {
            *left.entry(self.kind_of(entry)?).or_default() += 1;
        }
        let mut open: BTreeMap<(String, &str), (usize, Vec<Item>, usize)> = BTreeMap::new();
        let mut sent = FuturesUnordered::new();
        for entry in entries {
            if *stop.borrow() != Phase::Go {
                return Err(Error::Stopped);
            }
            let item = self.item(entry).await?;
            let bytes = serde_json::to_vec(&item).map_or(usize::MAX, |bytes| bytes.len() + 1);
            if bytes > MOST_BYTES - ENVELOPE {
                return Err(Error::Usage(format!(
                    "{}, line {}: the request has {bytes} bytes; at most {} go through the queue",
                    self.input.path.display(),
                    entry.line,
                    MOST_BYTES - ENVELOPE
                )));
            }
            let key = self.kind_of(entry)?;
            let left = left.entry(key.clone()).or_default();
            let (most, items, size) = open.entry(key.clone()).or_default();
            if items.len() >= *most || *size + bytes > MOST_BYTES - ENVELOPE {
                let full = std::mem::take(items);
                let together = self.manifest.together.get(&key.0).copied().unwrap_or(1);
                let workers = self.manifest.workers.get(&key.0).copied().unwrap_or(1);
                (*most, *size) = (next_message(together, *left, workers), 0);
                if !full.is_empty() {
                    sent.push(self.send(entry, key.0, full, round, retried));
                }
            }
            items.push(item);
            *size += bytes;
            *left = left.saturating_sub(1);
            while sent.len() >= UNCONFIRMED {
                sent.next().await.transpose()?;
            }
        }
        for ((slug, kind), (_, items, _)) in open {
            let of_kind = entries
                .iter()
                .find(|entry| entry.endpoint.job_kind() == kind);
            if let (Some(entry), false) = (of_kind, items.is_empty()) {
                sent.push(self.send(entry, slug, items, round, retried));
            }
        }
        while let Some(sent) = sent.next().await {
            sent?;
        }
        Ok(entries.len())
    }

    async fn item(&self, entry: &Entry) -> Result<Item> {
        let mut request = self.input.body(entry, &self.id)?;
        self.queue.keep_pictures(&mut request).await?;
        Ok(Item {
            name: entry.name.clone(),
            request,
        })
    }

    /// Requests of one model and kind share messages.
    fn kind_of(&self, entry: &Entry) -> Result<(String, &'static str)> {
        Ok((self.slug(entry)?, entry.endpoint.job_kind()))
    }

    /// Slug of the model of a request.
    fn slug(&self, entry: &Entry) -> Result<String> {
        let slug = self.manifest.models.get(&Answering::key(entry)).cloned();
        slug.ok_or_else(|| {
            Error::Failed(format!(
                "{}, line {}: the batch was submitted without a model for this request",
                self.input.path.display(),
                entry.line
            ))
        })
    }

    async fn send(
        &self,
        entry: &Entry,
        slug: String,
        items: Vec<Item>,
        round: &str,
        retried: u64,
    ) -> Result<()> {
        let mut job = Job::new(
            Class::Batch,
            &self.id,
            &slug,
            entry.endpoint,
            &self.manifest.out,
            items,
            round,
        );
        job.tries.retried = retried;
        let mut away: Option<Instant> = None;
        loop {
            let error = match self.queue.publish(&job).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A queue that is full says so, and empties while workers work.
            let is_full = error.to_string().contains("maximum");
            let since = away.get_or_insert_with(Instant::now);
            if !is_full && since.elapsed() > AWAY {
                return Err(error);
            }
            tracing::warn!(%error, "waiting for the queue");
            tokio::time::sleep(AGAIN).await;
            let _ = self.queue.ensure().await;
        }
    }
}

/// That there is no such batch.
pub(crate) fn unknown(id: &str) -> Error {
    Error::Usage(format!(
        "the queue knows no batch {id}; brisk batch submit prints the id, and submitting the file again goes \
         on from where it was"
    ))
}

#[cfg(test)]
mod tests {
    use super::next_message;

    #[test]
    fn messages_become_shorter_towards_the_end() {
        let mut left = 600;
        let mut messages = Vec::new();
        while left > 0 {
            let next = next_message(64, left, 2);
            messages.push(next);
            left -= next;
        }
        assert_eq!(messages.iter().sum::<usize>(), 600);
        assert!(messages.is_sorted_by(|a, b| a >= b), "{messages:?}");
        assert_eq!((messages[0], messages[messages.len() - 1]), (64, 1));
        // Not many more than without: 600 / 64 are 10.
        assert!(messages.len() < 30, "{messages:?}");
        assert_eq!(next_message(64, 1, 8), 1);
        assert_eq!(next_message(1, 600, 0), 1);
    }
}
