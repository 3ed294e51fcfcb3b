//! Requests that come by another way than HTTP, checked, estimated and carried out as those are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::body::Bytes;
use brisk::{HubProgress, ResultKind};
use serde_json::{Map, Value};

use crate::app::App;
use crate::ask::Ask;
use crate::error::{ApiError, Result, StartError};
use crate::fields::Endpoint;
use crate::job::{Job, StopOnDrop};
use crate::outcome::Outcome;
use crate::security::Caller;
use crate::served::Served;
use crate::settings::Settings;
use crate::{reply, stream};

/// Fields of a reply that differ from one time to the next.
const OF_THE_MOMENT: [&str; 3] = ["id", "created", "system_fingerprint"];
/// The same of its field `brisk`.
const MEASURED: [&str; 2] = ["seconds", "peak_memory_bytes"];

/// A server without its sockets.
#[derive(Debug, Clone)]
pub struct Engine {
    app: Arc<App>,
    sweeping: Arc<AtomicBool>,
}

/// A model that can be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Its id.
    pub id: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// Its id with eight digits of its weights' hash, in `[a-z0-9_-]`: the same for the same weights only.
    pub slug: String,
    /// What it gives.
    pub results: Vec<ResultKind>,
}

/// A request that was found good.
#[derive(Debug)]
pub struct Checked {
    ask: Ask,
    seconds: f64,
}

impl Checked {
    /// Number of its results.
    pub fn results(&self) -> usize {
        self.ask.count()
    }

    /// The model's id.
    pub fn model(&self) -> &str {
        &self.ask.model().id
    }

    /// Seconds that it will take alone, as far as is known.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Whether its reply is a stream.
    pub fn streams(&self) -> bool {
        self.ask.streams()
    }
}

/// A request that is carried out. Dropped, it stops.
#[derive(Debug)]
pub struct Running {
    app: Arc<App>,
    job: Arc<Job>,
    guard: StopOnDrop,
}

impl Engine {
    /// Opens the models to plan with and starts the threads that compute.
    ///
    /// # Errors
    /// Settings or models that do not work.
    pub fn start(settings: Settings, progress: &dyn HubProgress) -> Result<Self, StartError> {
        Ok(Self {
            app: App::start(settings, progress)?,
            sweeping: Arc::default(),
        })
    }

    /// Its models, in the order they were given in.
    pub fn models(&self) -> Vec<ModelInfo> {
        let models = self.app.models.all().iter();
        models.map(|model| info(model)).collect()
    }

    /// Checks a body of `/v1`.
    ///
    /// # Errors
    /// What an HTTP request would be told.
    pub async fn check(&self, endpoint: Endpoint, body: Map<String, Value>) -> Result<Checked> {
        let ask = self.app.read(endpoint, body, Vec::new()).await?;
        let seconds = ask.seconds(&self.app.speeds);
        Ok(Checked { ask, seconds })
    }

    /// Begins a request of a caller; callers take turns. To be called where a runtime of tokio runs.
    ///
    /// # Errors
    /// The queue is full, or the engine ends.
    pub fn begin(&self, caller: &str, checked: Checked) -> Result<Running> {
        if !self.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(Arc::clone(&self.app).sweep_always());
        }
        let caller = Caller {
            name: caller.into(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let job = self.app.submit(&caller, checked.ask, None)?;
        Ok(Running {
            app: Arc::clone(&self.app),
            guard: StopOnDrop(Arc::clone(&job)),
            job,
        })
    }
}

impl Running {
    /// Waits for its end.
    pub async fn ended(&self) {
        self.job.ended().await;
    }

    /// A number that grows while it moves.
    pub fn moved(&self) -> u64 {
        self.job.number()
    }

    /// Seed of its first result, where it has one.
    pub fn seed(&self) -> Option<u64> {
        self.job.ask.seed()
    }

    /// Seconds until its end, as far as is known; none while it waits for its turn.
    pub fn seconds_left(&self) -> Option<f64> {
        let snapshot = self.job.snapshot();
        match snapshot["position"].is_null() {
            true => snapshot["eta_seconds"].as_f64().or(Some(0.0)),
            false => None,
        }
    }

    /// Seconds that it ran, without those in which it waited for its turn.
    pub fn seconds(&self) -> f64 {
        let state = self.job.state();
        let end = state.finished.unwrap_or_else(Instant::now);
        state
            .started
            .map_or(0.0, |started| end.duration_since(started).as_secs_f64())
    }

    /// The reply of `/v1`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn reply(&self) -> Result<Value> {
        reply::of(&self.app, &self.job, "")
    }

    /// The files of its results, the same for the same request: pictures as they are, a clip as GIF, and of
    /// texts and masks the reply without what changes from one time to the next.
    ///
    /// # Errors
    /// Why there are none.
    pub fn files(&self) -> Result<Vec<Bytes>> {
        let outcome = reply::outcome(&self.job)?;
        let files = match &*outcome {
            // Its first form is the one that a shape promises.
            Outcome::Clip(clip) => clip.files.get(..1).unwrap_or_default(),
            outcome => outcome.files(),
        };
        if !files.is_empty() {
            return Ok(files.iter().map(|file| file.bytes.clone()).collect());
        }
        let mut reply = self.reply()?;
        if let Some(fields) = reply.as_object_mut() {
            for name in OF_THE_MOMENT {
                fields.shift_remove(name);
            }
        }
        if let Some(own) = reply.get_mut("brisk").and_then(Value::as_object_mut) {
            for name in MEASURED {
                own.shift_remove(name);
            }
        }
        Ok(vec![format!("{reply}\n").into()])
    }

    /// The body of a stream's reply, piece by piece as it is made; `take` says whether somebody still listens.
    pub async fn streamed<F: Future<Output = bool>>(self, mut take: impl FnMut(Bytes) -> F) {
        use futures_util::StreamExt;
        let reply = stream::reply(&self.app, self.job, self.guard, String::new());
        let mut pieces = reply.into_body().into_data_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            if !take(piece).await {
                return;
            }
        }
    }
}

/// A seed for a request that names none, with room for one a result.
pub fn drawn_seed() -> u64 {
    crate::ask::seed(None)
}

/// Gives a body a seed, where it takes one and has none.
pub fn give_seed(endpoint: Endpoint, body: &mut Map<String, Value>, seed: u64) {
    let takes = endpoint.table().field("seed").is_some();
    if takes && body.get("seed").is_none_or(Value::is_null) {
        body.insert("seed".to_owned(), seed.into());
    }
}

/// What becomes of the fields of a body before a model is asked, where it is known which endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Files that its results make.
    pub files: usize,
    /// Ending of their names.
    pub ending: &'static str,
}

/// Reads a body as far as that needs no model, and says what files it makes. Streams and links, which
/// have no place in a file, are refused.
///
/// # Errors
/// What an HTTP request would be told.
pub fn shape(endpoint: Endpoint, body: Map<String, Value>) -> Result<Shape> {
    let given = endpoint.table().read(body)?;
    let refused = |field: &str, problem: &str| {
        let message = format!("{field}: {problem}; leave it out");
        Err(ApiError::bad("unsupported_option", field, message))
    };
    if given.flag("stream") == Some(true) {
        return refused("stream", "results go to files, not to a stream");
    }
    if given.text("response_format") == Some("url") {
        return refused("response_format", "results go to files, not to links");
    }
    let (files, ending) = match endpoint.result() {
        ResultKind::Text | ResultKind::Masks => (1, "json"),
        ResultKind::Clips => (1, "gif"),
        ResultKind::Pictures => {
            let ending = match given.text("output_format") {
                Some("jpeg") => "jpeg",
                Some("webp") => "webp",
                _ => "png",
            };
            (given.whole("n").unwrap_or(1), ending)
        }
    };
    Ok(Shape { files, ending })
}

fn info(model: &Served) -> ModelInfo {
    ModelInfo {
        id: model.id.clone(),
        aliases: model.aliases.clone(),
        slug: slug(&model.id, model.fingerprint()),
        results: model.results(),
    }
}

/// `[a-z0-9_-]`: the id, a dash, and the hash's first eight digits.
fn slug(id: &str, hash: &str) -> String {
    let kept = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '_') => letter,
        _ => '-',
    };
    let id: String = id.chars().map(kept).collect();
    format!("{id}-{}", hash.get(..8).unwrap_or(hash))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn slugs_are_parts_of_subjects() {
        assert_eq!(
            slug("Sana_600M.v1", "0123456789abcdef"),
            "sana_600m-v1-01234567"
        );
    }

    #[test]
    fn shapes_come_from_fields_alone() {
        let read = |endpoint, body: Value| shape(endpoint, body.as_object().unwrap().clone());
        let shape = read(
            Endpoint::Generations,
            json!({"prompt": "x", "images": 3, "output_format": "webp"}),
        );
        let expected = Shape {
            files: 3,
            ending: "webp",
        };
        assert_eq!(shape, Ok(expected));
        let shape = read(Endpoint::Completions, json!({"prompt": "x", "n": 2}));
        assert_eq!(shape.unwrap().files, 1);
        for (field, value) in [
            ("stpes", json!(1)),
            ("n", json!(0)),
            ("stream", json!(true)),
            ("response_format", json!("url")),
        ] {
            let error = read(Endpoint::Generations, json!({"prompt": "x", field: value}));
            assert_eq!(error.unwrap_err().param.as_deref(), Some(field));
        }
    }
}
