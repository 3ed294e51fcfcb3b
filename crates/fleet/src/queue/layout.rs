//! Streams, key-values and buckets. Debian 12's NATS 2.9.10 sets the floor: one filter a consumer, no expiry
//! of single messages.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{kv, object_store};

use super::connect::Queue;
use super::job::Class;
use crate::error::{Error, Result};

/// Jobs: each goes to one worker.
pub const JOBS: &str = "BRISK_JOBS";
/// What became of requests.
pub const RESULTS: &str = "BRISK_RESULTS";
/// What nobody carries out any more.
pub const DEAD: &str = "BRISK_DEAD";
/// Batches by id.
pub const BATCHES: &str = "brisk_batches";
/// Ids of batches that are not wanted any more.
pub const CANCEL: &str = "brisk_cancel";
/// Workers that are there.
pub const WORKERS: &str = "brisk_workers";
/// Pieces of live replies that are too large for a message.
pub const LIVE: &str = "brisk_live";
/// Pictures that requests start from, by their hash.
pub const INPUTS: &str = "brisk_inputs";

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Most bytes of jobs that wait; whoever submits more waits, too.
const MOST_JOBS: i64 = 1 << 30;
/// Jobs that are with workers at the same time.
const MOST_OUT: i64 = 50_000;
/// Deliveries after which a job stays where it is. Workers give up long before.
const MOST_DELIVERIES: i64 = 20;
/// Milliseconds after which a stream that could not be made is tried again.
const PAUSES: [u64; 3] = [50, 150, 400];
/// How long a worker counts as there without a sign of life.
pub const WORKER_GONE: Duration = Duration::from_secs(30);

/// Where jobs of a class and a model wait.
pub fn subject(class: Class, model: &str) -> String {
    format!("brisk.job.{}.{model}", class.name())
}

impl Queue {
    /// Makes what is missing.
    ///
    /// # Errors
    /// A server without JetStream, without room, or that does not let us.
    pub async fn ensure(&self) -> Result<()> {
        let stream = |name: &str, subject: &str, max_age: Duration| Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            storage: StorageType::File,
            max_age,
            ..Config::default()
        };
        let streams = [
            Config {
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                max_bytes: MOST_JOBS,
                ..stream(JOBS, "brisk.job.*.*", Duration::ZERO)
            },
            stream(RESULTS, "brisk.result.*", 7 * DAY),
            stream(DEAD, "brisk.dead.*.*", 30 * DAY),
        ];
        for config in streams {
            self.make(&config).await?;
        }
        let values = [
            (BATCHES, 30 * DAY),
            (CANCEL, 30 * DAY),
            (WORKERS, WORKER_GONE),
        ];
        for (bucket, max_age) in values {
            if self.jetstream.get_key_value(bucket).await.is_ok() {
                continue;
            }
            // As every client of NATS lays out a bucket. async-nats 0.51 asks for the account first, and does not
            // understand what NATS 2.9 answers.
            let config = Config {
                discard: DiscardPolicy::New,
                max_messages_per_subject: 1,
                duplicate_window: max_age.min(2 * MINUTE),
                allow_rollup: true,
                allow_direct: true,
                deny_delete: true,
                ..stream(&format!("KV_{bucket}"), &format!("$KV.{bucket}.>"), max_age)
            };
            self.make(&config).await?;
        }
        for (bucket, max_age) in [(LIVE, 10 * MINUTE), (INPUTS, 7 * DAY)] {
            if self.jetstream.get_object_store(bucket).await.is_ok() {
                continue;
            }
            let config = object_store::Config {
                bucket: bucket.to_owned(),
                max_age,
                ..object_store::Config::default()
            };
            again(bucket, || {
                let (jetstream, config) = (self.jetstream.clone(), config.clone());
                async move { jetstream.create_object_store(config).await.map(drop) }
            })
            .await?;
        }
        Ok(())
    }

    async fn make(&self, config: &Config) -> Result<()> {
        again(&config.name, || {
            let (jetstream, config) = (self.jetstream.clone(), config.clone());
            async move { jetstream.get_or_create_stream(config).await.map(drop) }
        })
        .await
    }

    /// Who hands out jobs of a class and a model; `ack_wait` is how long one of them may go without a sign
    /// of life.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn jobs(
        &self,
        class: Class,
        model: &str,
        ack_wait: Duration,
    ) -> Result<PullConsumer> {
        let name = format!("{}-{model}", class.name());
        let config = pull::Config {
            durable_name: Some(name),
            filter_subject: subject(class, model),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            max_ack_pending: MOST_OUT,
            max_deliver: MOST_DELIVERIES,
            ..pull::Config::default()
        };
        let made = self.jetstream.create_consumer_on_stream(config, JOBS).await;
        made.map_err(|error| unmade(JOBS, &error))
    }

    /// Jobs of a class and a model that wait or are with workers.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn pending(&self, class: Class, model: &str) -> Result<u64> {
        let name = format!("{}-{model}", class.name());
        let stream = self
            .jetstream
            .get_stream_no_info(JOBS)
            .await
            .map_err(|error| unmade(JOBS, &error))?;
        match stream.consumer_info(&name).await {
            Ok(info) => Ok(info.num_pending + info.num_ack_pending as u64),
            // Nobody has ever taken one: all that wait are there.
            Err(_) => {
                use futures_util::TryStreamExt;
                let subjects = stream.info_with_subjects(subject(class, model)).await;
                let subjects = subjects.map_err(|error| unmade(JOBS, &error))?;
                let counts: Vec<(String, usize)> = subjects
                    .try_collect()
                    .await
                    .map_err(|error| unmade(JOBS, &error))?;
                Ok(counts.iter().map(|(_, count)| *count as u64).sum())
            }
        }
    }

    /// A bucket of values.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn values(&self, bucket: &str) -> Result<kv::Store> {
        let store = self.jetstream.get_key_value(bucket).await;
        store.map_err(|error| unmade(bucket, &error))
    }

    /// A bucket of objects.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn objects(&self, bucket: &str) -> Result<object_store::ObjectStore> {
        let store = self.jetstream.get_object_store(bucket).await;
        store.map_err(|error| unmade(bucket, &error))
    }
}

/// Where two processes make the same stream at the same moment, the server tells one of them that it overlaps with
/// itself; it is there when that one asks again.
async fn again<E, Made>(what: &str, make: impl Fn() -> Made) -> Result<()>
where
    E: std::error::Error + 'static,
    Made: Future<Output = std::result::Result<(), E>>,
{
    for pause in PAUSES {
        match make().await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(what, %error, "not made yet"),
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    make().await.map_err(|error| unmade(what, &error))
}

fn unmade(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let message = brisk_store::with_causes(error);
    let advice = match message.contains("no responders") || message.contains("not enabled") {
        true => "; the server has no JetStream: start it as nats-server -js -sd ./queue",
        false => "",
    };
    Error::Failed(format!("the queue's {what}: {message}{advice}"))
}
