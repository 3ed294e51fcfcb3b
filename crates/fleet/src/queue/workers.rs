//! The workers that are there, and the batches that there are, as the queue's key-values tell it.

use std::collections::{BTreeMap, HashSet};

use brisk::ResultKind;
use brisk_server::engine::ModelInfo;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::connect::Queue;
use super::layout::{BATCHES, CANCEL, WORKERS};
use crate::batch::BatchOptions;
use crate::error::{Error, Result};

/// A model of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedModel {
    /// Its id.
    pub id: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// Its slug, which names the weights.
    pub slug: String,
    /// What it gives, by name.
    pub results: Vec<String>,
    /// Seconds that a request takes, where some were carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Its name.
    pub worker: String,
    /// Version of the program.
    pub version: String,
    /// `idle`, `working`, `ending`, or why it takes nothing.
    pub state: String,
    /// Requests that it carried out.
    pub done: u64,
    /// Its models.
    pub models: Vec<AnnouncedModel>,
}

/// What is known of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The file of requests, by its whole path.
    pub file: String,
    /// SHA-256 of the file.
    pub hash: String,
    /// Where results go.
    pub out: String,
    /// What holds for all requests.
    pub options: BatchOptions,
    /// The model that is asked where a request names none.
    pub model: Option<String>,
    /// Slugs of the models, by what requests say of them.
    pub models: BTreeMap<String, String>,
    /// Requests.
    pub total: usize,
    /// Requests of a message, by slug.
    pub together: BTreeMap<String, usize>,
    /// Workers that had the model then, by slug.
    #[serde(default)]
    pub workers: BTreeMap<String, usize>,
    /// Seconds since 1970 at which it was submitted first.
    pub submitted: u64,
}

impl Queue {
    /// The workers that gave a sign of life a moment ago.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn workers(&self) -> Result<Vec<Announcement>> {
        let store = self.values(WORKERS).await?;
        let failed = |error: &dyn std::fmt::Display| {
            Error::Failed(format!("the queue's {WORKERS}: {error}"))
        };
        let keys = store.keys().await.map_err(|error| failed(&error))?;
        let keys: Vec<String> = keys.try_collect().await.map_err(|error| failed(&error))?;
        let mut found = Vec::new();
        for key in keys.into_iter().collect::<HashSet<_>>() {
            let value = store.get(&key).await.map_err(|error| failed(&error))?;
            // One of another version that says other things counts as none.
            found.extend(value.and_then(|value| serde_json::from_slice(&value).ok()));
        }
        found.sort_by(|a: &Announcement, b| a.worker.cmp(&b.worker));
        Ok(found)
    }

    /// Says that a worker is there.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn announce(&self, announcement: &Announcement) -> Result<()> {
        let store = self.values(WORKERS).await?;
        put(&store, &announcement.worker, announcement).await
    }

    /// Says that a worker is gone.
    pub async fn leave(&self, worker: &str) {
        if let Ok(store) = self.values(WORKERS).await {
            let _ = store.delete(worker).await;
        }
    }

    /// A batch.
    ///
    /// # Errors
    /// The queue is away, or has no such batch.
    pub async fn manifest(&self, batch: &str) -> Result<Option<Manifest>> {
        if !crate::batch::is_name(batch) {
            return Err(Error::Usage(format!(
                "{batch:?} is no id of a batch; brisk batch submit prints it"
            )));
        }
        let store = self.values(BATCHES).await?;
        let found = store.get(batch).await;
        let found =
            found.map_err(|error| Error::Failed(format!("the queue's {BATCHES}: {error}")))?;
        let read = found.map(|bytes| {
            serde_json::from_slice(&bytes)
                .map_err(|error| Error::Failed(format!("batch {batch} is not to be read: {error}")))
        });
        read.transpose()
    }

    /// Notes a batch, unless it is known; gives what is known of it then.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn note(&self, batch: &str, manifest: &Manifest) -> Result<Option<Manifest>> {
        if let Some(known) = self.manifest(batch).await? {
            return Ok(Some(known));
        }
        let store = self.values(BATCHES).await?;
        let bytes = serde_json::to_vec(manifest)
            .map_err(|error| Error::Failed(format!("cannot write a manifest: {error}")))?;
        match store.create(batch, bytes.into()).await {
            Ok(_) => Ok(None),
            // Another was faster.
            Err(error) => match self.manifest(batch).await? {
                Some(known) => Ok(Some(known)),
                None => Err(Error::Failed(format!("the queue's {BATCHES}: {error}"))),
            },
        }
    }

    /// Says that nobody wants a batch any more, or that somebody does again.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn want(&self, batch: &str, wanted: bool) -> Result<()> {
        let store = self.values(CANCEL).await?;
        let failed =
            |error: &dyn std::fmt::Display| Error::Failed(format!("the queue's {CANCEL}: {error}"));
        match wanted {
            false => put(&store, batch, &super::job::now()).await,
            true if self.is_cancelled(batch).await? => {
                store.delete(batch).await.map_err(|error| failed(&error))
            }
            true => Ok(()),
        }
    }

    /// Whether nobody wants a batch any more.
    ///
    /// # Errors
    /// The queue is away.
    pub async fn is_cancelled(&self, batch: &str) -> Result<bool> {
        let store = self.values(CANCEL).await?;
        let found = store.get(batch).await;
        found
            .map(|found| found.is_some())
            .map_err(|error| Error::Failed(format!("the queue's {CANCEL}: {error}")))
    }
}

async fn put<T: Serialize>(
    store: &async_nats::jetstream::kv::Store,
    key: &str,
    value: &T,
) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::Failed(format!("the queue's {}: {error}", store.name))
    };
    let bytes = serde_json::to_vec(value).map_err(|error| failed(&error))?;
    let put = store.put(key, bytes.into()).await;
    put.map(drop).map_err(|error| failed(&error))
}

impl AnnouncedModel {
    /// As a worker announces it.
    pub fn of(model: &ModelInfo, seconds: Option<f64>) -> Self {
        Self {
            id: model.id.clone(),
            aliases: model.aliases.clone(),
            slug: model.slug.clone(),
            results: model
                .results
                .iter()
                .map(|kind| kind.name().to_owned())
                .collect(),
            seconds,
        }
    }

    fn info(&self) -> ModelInfo {
        let gives = |kind: &ResultKind| self.results.iter().any(|name| name == kind.name());
        ModelInfo {
            id: self.id.clone(),
            aliases: self.aliases.clone(),
            slug: self.slug.clone(),
            results: ResultKind::ALL.into_iter().filter(gives).collect(),
        }
    }
}

/// The models of some workers, each once.
///
/// # Errors
/// Two workers that call other weights by one id.
pub fn models(workers: &[Announcement]) -> Result<Vec<ModelInfo>> {
    let mut models: BTreeMap<&str, &AnnouncedModel> = BTreeMap::new();
    for model in workers.iter().flat_map(|worker| &worker.models) {
        match models.get(model.id.as_str()) {
            Some(known) if known.slug != model.slug => {
                return Err(Error::Usage(format!(
                    "model {}: some workers have {} and others {}; give all of them the same weights, or \
                     other ids by --model ID=MODEL",
                    model.id, known.slug, model.slug
                )));
            }
            _ => {
                models.insert(&model.id, model);
            }
        }
    }
    Ok(models.into_values().map(AnnouncedModel::info).collect())
}

/// Seconds that a request to a model takes, and how many workers have it.
pub fn speed(workers: &[Announcement], slug: &str) -> (Option<f64>, usize) {
    let all = workers.iter().flat_map(|worker| &worker.models);
    let having: Vec<&AnnouncedModel> = all.filter(|model| model.slug == slug).collect();
    let known: Vec<f64> = having.iter().filter_map(|model| model.seconds).collect();
    let mean = match known.is_empty() {
        true => None,
        false => Some(known.iter().sum::<f64>() / known.len() as f64),
    };
    (mean, having.len())
}
