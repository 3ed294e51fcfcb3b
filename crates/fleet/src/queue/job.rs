//! Messages that carry work.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::jetstream::message::PublishMessage;
use brisk_server::fields::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::connect::Queue;
use super::layout::subject;
use crate::batch::{Failure, is_name, sha256};
use crate::error::{Error, Result};

/// Most bytes of a message.
pub const MOST_BYTES: usize = 256 << 10;
/// Most requests of a message.
pub const MOST_ITEMS: usize = 64;
/// Most tries that a message may tell of: workers give up long before.
const MOST_TRIES: u64 = 1 << 20;
/// The form of messages.
const VERSION: u8 = 1;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Somebody, now.
    Live,
    /// A file.
    Batch,
}

impl Class {
    /// As subjects name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Batch => "batch",
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its name in the batch.
    pub name: String,
    /// A body of `/v1`, with its seed.
    pub request: Map<String, Value>,
}

/// What happened to a job before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tries {
    /// Workers that died or stood still over it.
    pub crashes: u64,
    /// Runs that failed.
    pub errors: u64,
    /// Workers that gave it back.
    pub handed: u64,
    /// Times that it was submitted anew.
    pub retried: u64,
}

impl Tries {
    /// Number of this try, from 1.
    pub fn attempt(self) -> u64 {
        1 + self.crashes + self.errors + self.handed + self.retried
    }
}

/// Work for one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The form of the message.
    pub v: u8,
    /// Its name.
    pub id: String,
    /// Who waits.
    pub class: Class,
    /// The batch.
    pub batch: String,
    /// Slug of the model, which names the weights.
    pub model: String,
    /// What its requests are: `image`, `edit`, `text`, `completion`.
    pub kind: String,
    /// Where results go.
    pub out: String,
    /// Seconds since 1970 after which nobody wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// What is asked.
    pub items: Vec<Item>,
    /// What happened before.
    #[serde(default)]
    pub tries: Tries,
}

impl Job {
    /// A fresh one, named after its requests, so that two who submit the same work give it the same name;
    /// `round` tells one submission from the next.
    pub fn new(
        class: Class,
        batch: &str,
        model: &str,
        kind: Endpoint,
        out: &str,
        items: Vec<Item>,
        round: &str,
    ) -> Self {
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        let id = sha256(format!("{batch}\n{round}\n{}", names.join("\n")).as_bytes());
        Self {
            v: VERSION,
            id: id[..32].to_owned(),
            class,
            batch: batch.to_owned(),
            model: model.to_owned(),
            kind: kind.job_kind().to_owned(),
            out: out.to_owned(),
            deadline: None,
            items,
            tries: Tries::default(),
        }
    }

    /// Reads a message; it comes from outside, so everything that becomes a path or a subject is checked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<(Self, Endpoint), Failure> {
        let wrong = |problem: String| Failure::new("invalid_message", problem);
        let job: Self = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("the message is no job: {error}")))?;
        if job.v != VERSION {
            return Err(wrong(format!(
                "the message is of version {}; this worker reads {VERSION}",
                job.v
            )));
        }
        let kind = Endpoint::ALL
            .into_iter()
            .find(|endpoint| endpoint.job_kind() == job.kind)
            .ok_or_else(|| wrong("kind: is none that is known".to_owned()))?;
        if !is_name(&job.batch) || !is_name(&job.id) {
            return Err(wrong("batch, id: are no names".to_owned()));
        }
        if !is_name(&job.model) || job.model.contains('.') {
            return Err(wrong("model: is no part of a subject".to_owned()));
        }
        let Tries {
            crashes,
            errors,
            handed,
            retried,
        } = job.tries;
        if [crashes, errors, handed, retried]
            .into_iter()
            .any(|tries| tries > MOST_TRIES)
        {
            let problem = format!("tries: one is above {MOST_TRIES}");
            return Err(wrong(problem));
        }
        if job.items.is_empty() || job.items.len() > MOST_ITEMS {
            let problem = format!(
                "items: {} of them; expected 1 to {MOST_ITEMS}",
                job.items.len()
            );
            return Err(wrong(problem));
        }
        if !job.items.iter().all(|item| is_name(&item.name)) {
            return Err(wrong(
                "items: one has no name that a file can have".to_owned(),
            ));
        }
        Ok((job, kind))
    }

    /// Whether nobody wants it any more.
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| now() > deadline)
    }

    /// The same with other requests and tries.
    pub fn with(&self, items: Vec<Item>, tries: Tries) -> Self {
        Self {
            items,
            tries,
            ..self.clone()
        }
    }

    /// The message.
    ///
    /// # Errors
    /// It is too large.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::Failed(format!("cannot write a job: {error}")))?;
        match bytes.len() <= MOST_BYTES {
            true => Ok(bytes),
            false => Err(Error::Failed(format!(
                "a job of {} bytes is too large; at most {MOST_BYTES} go through the queue",
                bytes.len()
            ))),
        }
    }

    /// What the queue knows it by, so that it takes it once: a job that comes back is another one.
    pub fn message_id(&self) -> String {
        let Tries {
            crashes,
            errors,
            handed,
            retried,
        } = self.tries;
        let first = self.items.first().map_or("", |item| &item.name);
        format!("{}/{first}/{crashes}.{errors}.{handed}.{retried}", self.id)
    }
}

/// A job that nobody carries out any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dead {
    /// Why.
    pub reason: Failure,
    /// Who said so.
    pub worker: String,
    /// Seconds since 1970.
    pub at: u64,
    /// It; a message that could not be read is kept as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// What was no job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Queue {
    /// Lets a job wait for a worker, and sees to it that the queue has it.
    ///
    /// # Errors
    /// The queue is away or full.
    pub async fn publish(&self, job: &Job) -> Result<()> {
        let message = PublishMessage::build()
            .payload(job.bytes()?.into())
            .message_id(job.message_id());
        self.send(subject(job.class, &job.model), message).await
    }

    /// Keeps a job that nobody carries out any more.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn bury(&self, class: Class, model: &str, dead: &Dead) -> Result<()> {
        let bytes = serde_json::to_vec(dead)
            .map_err(|error| Error::Failed(format!("cannot write a dead job: {error}")))?;
        let subject = format!("brisk.dead.{}.{model}", class.name());
        self.send(subject, PublishMessage::build().payload(bytes.into()))
            .await
    }

    /// Publishes a message and waits until the queue has it.
    ///
    /// # Errors
    /// The queue is away or full.
    pub async fn send(&self, subject: String, message: PublishMessage) -> Result<()> {
        let failed = |error: async_nats::jetstream::context::PublishError| {
            Error::Failed(format!("the queue did not take a message: {error}"))
        };
        let sent = self.jetstream.send_publish(subject, message).await;
        sent.map_err(failed)?.await.map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(names: &[&str]) -> Job {
        let items = names.iter().map(|name| Item {
            name: (*name).to_owned(),
            request: Map::new(),
        });
        Job::new(
            Class::Batch,
            "0123",
            "m-01234567",
            Endpoint::Chat,
            "/out",
            items.collect(),
            "0",
        )
    }

    #[test]
    fn messages_go_round_and_what_is_none_is_refused() {
        let sent = job(&["a", "b"]);
        let (read, kind) = Job::read(&sent.bytes().unwrap()).unwrap();
        assert_eq!((read, kind), (sent.clone(), Endpoint::Chat));
        let with = |field: &str, value: Value| {
            let mut message = serde_json::to_value(&sent).unwrap();
            message[field] = value;
            Job::read(message.to_string().as_bytes())
                .unwrap_err()
                .message
        };
        assert!(with("v", json!(2)).contains("version 2"));
        assert!(with("kind", json!("x")).contains("kind"));
        assert!(with("batch", json!("../x")).contains("batch"));
        assert!(with("model", json!("a.b")).contains("model"));
        assert!(with("tries", json!({"errors": u64::MAX})).contains("tries"));
        assert!(with("items", json!([])).contains("0 of them"));
        assert!(with("items", json!([{"name": "/x", "request": {}}])).contains("no name"));
        assert!(Job::read(b"\xff").is_err());
    }

    #[test]
    fn seeds_of_the_fuzzer_are_jobs_or_refused() {
        brisk_testkit::check_seeds("queue_message", false, |_, bytes| {
            Job::read(bytes).map_err(|failure| failure.message)
        });
    }

    #[test]
    fn the_same_work_has_the_same_name() {
        assert_eq!(job(&["a", "b"]).message_id(), job(&["a", "b"]).message_id());
        assert_ne!(job(&["a"]).message_id(), job(&["b"]).message_id());
        let mut again = job(&["a"]);
        again.tries.handed = 1;
        assert_ne!(job(&["a"]).message_id(), again.message_id());
        assert_eq!(again.tries.attempt(), 2);
    }
}
