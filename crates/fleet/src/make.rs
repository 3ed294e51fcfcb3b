//! Carrying out one request, and writing what it gives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use brisk_server::ApiError;
use brisk_server::engine::{Engine, Running};
use brisk_server::fields::Endpoint;
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::batch::{Record, WrittenFile, sha256};
use crate::error::Error;
use crate::outputs::Outputs;

/// How often it is looked whether a request moves.
const LOOK: Duration = Duration::from_secs(1);

/// One request to carry out.
#[derive(Debug)]
pub struct Order<'a> {
    /// Its batch.
    pub batch: &'a str,
    /// Its name in the batch.
    pub name: &'a str,
    /// Where its files go, below the folder of the batch.
    pub paths: Vec<String>,
    /// Whom it asks.
    pub endpoint: Endpoint,
    /// The body.
    pub body: Map<String, Value>,
}

/// Why there is no result.
#[derive(Debug)]
pub enum Trouble {
    /// The request was refused or failed.
    Request(ApiError),
    /// Results cannot be written or read.
    Outputs(Error),
    /// Somebody stopped it.
    Stopped,
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        Self::Request(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Outputs(error)
    }
}

/// When something last moved.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Activity {
    /// Something moved now.
    pub fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long nothing moved.
    pub fn idle(&self) -> Duration {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// Whether work goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Go,
    /// Nothing new begins, and what runs ends by then or stops.
    Ending(Instant),
    /// Everything stops.
    Halt,
}

/// Says whether work goes on.
pub type Stop = watch::Receiver<Phase>;

/// Waits until it does no more, one way or the other.
pub async fn stopped(mut stop: Stop) {
    if stop.wait_for(|phase| *phase != Phase::Go).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until what runs has to stop.
async fn halted(mut stop: Stop) {
    let phase = stop.wait_for(|phase| *phase != Phase::Go).await;
    let phase = phase.map(|phase| *phase);
    match phase {
        Ok(Phase::Ending(end)) => {
            tokio::select! {
                () = tokio::time::sleep_until(end.into()) => {}
                _ = stop.wait_for(|phase| *phase == Phase::Halt) => {}
            }
        }
        Ok(_) => {}
        Err(_) => std::future::pending::<()>().await,
    }
}

/// The record of a request whose files are all there.
pub async fn existing(outputs: &Outputs, order: &Order<'_>) -> Result<Option<Record>, Error> {
    let mut files = Vec::with_capacity(order.paths.len());
    for path in &order.paths {
        match outputs.read(&format!("{}/{path}", order.batch)).await? {
            Some(bytes) => files.push(written(path, &bytes)),
            None => return Ok(None),
        }
    }
    let mut record = Record::done(order.name, files);
    record.seed = order.body.get("seed").and_then(Value::as_u64);
    Ok(Some(record))
}

/// Takes the record of what is there, or carries the request out and writes what it gives.
pub async fn make(
    engine: &Engine,
    outputs: &Outputs,
    order: Order<'_>,
    activity: &Activity,
    stop: &Stop,
) -> Result<Record, Trouble> {
    if *stop.borrow() != Phase::Go {
        return Err(Trouble::Stopped);
    }
    if let Some(record) = existing(outputs, &order).await? {
        activity.touch();
        return Ok(record);
    }
    let checked = engine.check(order.endpoint, order.body).await?;
    let running = engine.begin(order.batch, checked)?;
    ended(&running, activity, stop).await?;
    let made = running.files()?;
    let mut files = Vec::with_capacity(made.len());
    for (path, bytes) in order.paths.iter().zip(made) {
        let place = format!("{}/{path}", order.batch);
        let fresh = outputs.put_new(&place, bytes.clone()).await?;
        // Another was faster: what is there counts.
        let kept: Option<Bytes> = match fresh {
            true => Some(bytes),
            false => outputs.read(&place).await?,
        };
        let kept = kept.ok_or_else(|| Error::Failed(format!("{place} was removed meanwhile")))?;
        files.push(written(path, &kept));
    }
    activity.touch();
    let mut record = Record::done(order.name, files);
    record.seed = running.seed();
    record.seconds = Some((running.seconds() * 1e3).round() / 1e3);
    Ok(record)
}

/// Waits for the end of a request.
async fn ended(running: &Running, activity: &Activity, stop: &Stop) -> Result<(), Trouble> {
    let mut moved = running.moved();
    let end = running.ended();
    let halted = halted(stop.clone());
    let ending = stopped(stop.clone());
    tokio::pin!(end, halted, ending);
    let mut is_ending = false;
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            () = &mut halted => return Err(Trouble::Stopped),
            () = &mut ending, if !is_ending => {
                is_ending = true;
                if let Phase::Ending(end) = *stop.borrow()
                    && !fits(running, end)
                {
                    return Err(Trouble::Stopped);
                }
            }
            () = tokio::time::sleep(LOOK) => {
                let now = running.moved();
                if now != moved {
                    activity.touch();
                    moved = now;
                }
            }
        }
    }
}

/// Whether a request runs already and is expected to end by then.
fn fits(running: &Running, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
    running
        .seconds_left()
        .is_some_and(|seconds| seconds <= left)
}

fn written(path: &str, bytes: &[u8]) -> WrittenFile {
    WrittenFile {
        path: path.to_owned(),
        sha256: sha256(bytes),
        bytes: bytes.len() as u64,
    }
}
