//! The thread that makes what replies show of what was made, so that the one that computes can go on.

mod clips;
mod masks;
mod pictures;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use serde_json::{Value, json};

use crate::compute::{MEMORY_KEPT, Made};
use crate::error::{ApiError, Result};
use crate::job::{Job, State, Status};
use crate::metrics::Metrics;
use crate::outcome::Outcome;

/// Pixels of masks and clips that are worth handing freed memory back for.
const LARGE: usize = 4 << 20;

/// Works until nobody computes any more; `save` is where pictures' files are kept besides. Where nothing comes for a
/// while, `release_memory` hands this thread's back.
pub fn run(
    made: &Receiver<Made>,
    save: Option<&Path>,
    metrics: &Arc<Metrics>,
    release_memory: fn(),
) {
    let next = || match made.recv_timeout(MEMORY_KEPT) {
        Err(RecvTimeoutError::Timeout) => {
            release_memory();
            made.recv().ok()
        }
        received => received.ok(),
    };
    for made in std::iter::from_fn(next) {
        let job = Arc::clone(match &made {
            Made::Pictures(drawn) => &drawn.job,
            Made::Masks(found) => &found.job,
            Made::Clip(filmed) => &filmed.job,
        });
        let large = match &made {
            Made::Pictures(_) => false,
            Made::Masks(found) => found.size[0] * found.size[1] >= LARGE,
            Made::Clip(filmed) => filmed.pixels() >= LARGE,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| outcome(made, save)));
        if large {
            release_memory();
        }
        match outcome {
            Ok(Ok(outcome)) => {
                match &outcome {
                    Outcome::Images(images) => metrics.drew(images.files.len()),
                    Outcome::Clip(_) => metrics.filmed(),
                    Outcome::Texts(_) | Outcome::Masks(_) => {}
                }
                job.finish(outcome);
            }
            Ok(Err(error)) => job.fail(Status::Failed, Some(error)),
            Err(_) => {
                let error = ApiError::internal("brisk failed to write what it made");
                job.fail(Status::Failed, Some(error));
            }
        }
    }
}

fn outcome(made: Made, save: Option<&Path>) -> Result<Outcome> {
    match made {
        Made::Pictures(drawn) => pictures::outcome(drawn, save).map(Outcome::Images),
        Made::Masks(found) => masks::outcome(&found).map(Outcome::Masks),
        Made::Clip(filmed) => clips::outcome(&filmed, save).map(Outcome::Clip),
    }
}

/// Keeps a result's file in a folder; a disk that is full fails nothing but this.
fn keep(folder: &Path, job: &Job, index: usize, ending: &str, bytes: &[u8]) -> bool {
    let path = folder.join(format!("{}-{index}.{ending}", job.id));
    match brisk_store::write_atomic(&path, bytes) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(job = job.id, %error, "cannot keep a result");
            false
        }
    }
}

/// What replies tell of a job's time.
fn seconds(job: &Job, state: &State) -> Value {
    let queue = state.started.map_or(0.0, |started| {
        started.duration_since(job.created).as_secs_f64()
    });
    json!({"queue": queue, "stages": state.stages})
}
