//! A server before the workers: takes requests over HTTP, gives them to the queue, and streams on what the
//! workers say. It holds no models.

mod replay;
mod reply;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use brisk_server::elsewhere::Answer;
use brisk_server::engine::ModelInfo;
use brisk_server::fields::Endpoint;
use brisk_server::{ApiError, Elsewhere, Settings, serve_elsewhere};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::queue::{Announcement, Class, Item, Job, Queue, QueueOptions, models, now, speed};

/// How long what is known of the workers counts.
const KNOWN: Duration = Duration::from_secs(2);
/// Longest wait that is not too long, in seconds.
const LONGEST_WAIT: f64 = 60.0;
/// Seconds of a request that is not measured yet.
const UNMEASURED: f64 = 1.0;
/// Seconds after which nobody waits for an answer any more.
const DEADLINE: u64 = 600;

/// Serves until told to end; requests go to the workers of a queue.
///
/// # Errors
/// Settings, an address or a queue that do not work.
pub fn serve(
    settings: Settings,
    queue: &QueueOptions,
    listening: &dyn Fn(std::net::SocketAddr),
) -> Result<()> {
    let find = || async {
        let queue = Queue::connect(queue, "brisk-serve").await?;
        Ok(Arc::new(Front {
            queue,
            known: Mutex::default(),
        }) as Arc<dyn Elsewhere>)
    };
    serve_elsewhere::<Error, _>(settings, find, listening)
}

/// What is known of the workers, and since when.
type Known = Option<(Instant, Arc<Vec<Announcement>>)>;

struct Front {
    queue: Queue,
    known: Mutex<Known>,
}

/// The queue is away.
fn away(error: &Error) -> ApiError {
    tracing::warn!(%error, "the queue");
    unavailable("the queue of the workers does not answer; ask again in a while")
}

fn unavailable(message: &str) -> ApiError {
    ApiError::unavailable("no_worker", message).retry(10.0)
}

impl Front {
    async fn workers(&self) -> Result<Arc<Vec<Announcement>>, ApiError> {
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((since, workers)) = &*known
                && since.elapsed() < KNOWN
            {
                return Ok(Arc::clone(workers));
            }
        }
        let workers = self.queue.workers().await.map_err(|error| away(&error))?;
        let workers = Arc::new(workers);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // None that are there are looked for every time.
        *known = (!workers.is_empty()).then(|| (Instant::now(), Arc::clone(&workers)));
        Ok(workers)
    }

    /// The model that a request names, or the first that gives what is wanted.
    async fn model(
        &self,
        workers: &[Announcement],
        endpoint: Endpoint,
        name: Option<&str>,
    ) -> Result<ModelInfo, ApiError> {
        let models = models(workers).map_err(|error| ApiError::internal(error.to_string()))?;
        let gives = |model: &&ModelInfo| model.results.contains(&endpoint.result());
        let found = match name {
            None => models.iter().find(gives),
            Some(name) => models
                .iter()
                .filter(gives)
                .find(|model| model.id == name || model.aliases.iter().any(|alias| alias == name)),
        };
        match (found, workers.is_empty()) {
            (Some(model), _) => Ok(model.clone()),
            (None, true) => Err(unavailable("no worker is there; ask again in a while")),
            (None, false) => {
                let known: Vec<&str> = models
                    .iter()
                    .filter(gives)
                    .map(|model| &*model.id)
                    .collect();
                let shown = brisk_store::shown_within(name.unwrap_or("model"), 64);
                let message = format!(
                    "model: no worker has a {shown}; there are {}",
                    known.join(", ")
                );
                Err(ApiError {
                    code: "model_not_found",
                    param: Some("model".to_owned()),
                    ..ApiError::not_found(message)
                })
            }
        }
    }

    /// Refuses what would wait too long.
    async fn admit(&self, workers: &[Announcement], slug: &str) -> Result<(), ApiError> {
        let (seconds, having) = speed(workers, slug);
        let pending = self.queue.pending(Class::Live, slug).await;
        let pending = pending.map_err(|error| away(&error))?;
        let wait = pending as f64 * seconds.unwrap_or(UNMEASURED) / having.max(1) as f64;
        match wait > LONGEST_WAIT {
            true => {
                let message = format!("{pending} requests wait already; ask again in a while");
                Err(ApiError::too_many("queue_full", message, wait))
            }
            false => Ok(()),
        }
    }

    async fn give(
        &self,
        endpoint: Endpoint,
        mut body: Map<String, Value>,
    ) -> Result<Answer, ApiError> {
        let mut given = endpoint.table().read(body.clone())?;
        if given.text("response_format") == Some("url") {
            let message =
                "response_format: a server before workers keeps no pictures; take b64_json";
            return Err(ApiError::bad(
                "unsupported_option",
                "response_format",
                message,
            ));
        }
        let streams = given.flag("stream").unwrap_or(false);
        let workers = self.workers().await?;
        let name = given.own.remove("model");
        let model = self
            .model(&workers, endpoint, name.as_ref().and_then(Value::as_str))
            .await?;
        self.admit(&workers, &model.slug).await?;
        // Every worker that tries it is to make the same.
        let seed = brisk_server::engine::drawn_seed();
        brisk_server::engine::give_seed(endpoint, &mut body, seed);
        body.insert("model".to_owned(), model.id.clone().into());
        let kept = self.queue.keep_pictures(&mut body).await;
        kept.map_err(|error| away(&error))?;
        let item = Item {
            name: "0".to_owned(),
            request: body,
        };
        let round = format!("{:x}{:x}", brisk_server::engine::drawn_seed(), now());
        let mut job = Job::new(
            Class::Live,
            "live",
            &model.slug,
            endpoint,
            "",
            vec![item],
            &round,
        );
        job.deadline = Some(now() + DEADLINE);
        let events = reply::Events::follow(&self.queue, &job.id).await;
        let events = events.map_err(|error| away(&error))?;
        let bytes = job.bytes();
        bytes.map_err(|error| ApiError::invalid("messages", error))?;
        self.queue
            .publish(&job)
            .await
            .map_err(|error| away(&error))?;
        match streams {
            true => Ok(Answer::Stream(events.stream())),
            false => events.whole().await.map(Answer::Whole),
        }
    }
}

impl Elsewhere for Front {
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ApiError>> {
        Box::pin(async move {
            let workers = self.workers().await?;
            models(&workers).map_err(|error| ApiError::internal(error.to_string()))
        })
    }

    fn answer(
        &self,
        endpoint: Endpoint,
        body: Map<String, Value>,
    ) -> BoxFuture<'_, Result<Answer, ApiError>> {
        Box::pin(self.give(endpoint, body))
    }
}
