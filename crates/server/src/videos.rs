//! Clips as OpenAI's clients see them: a job is an object `video`.

use serde_json::{Value, json};

use crate::ask::{Ask, ClipAsk};
use crate::job::{Job, State, Status};
use crate::outcome::Outcome;
use crate::settings::KEPT;

/// Progress when the last step is done and the frames are still to be decoded, in percent.
const WALKED: usize = 95;
/// Stages whose steps are a clip's, by family.
const WALKS: [&str; 2] = ["denoise", "generate"];

/// Where a clip is; none of a job for something else.
pub fn of(job: &Job) -> Option<Value> {
    match &job.ask {
        Ask::Clips(ask) => Some(told(job, ask)),
        Ask::Images(_) | Ask::Texts(_) | Ask::Masks(_) => None,
    }
}

/// Where the clip of a job is.
pub fn told(job: &Job, ask: &ClipAsk) -> Value {
    let state = job.state();
    let completed = state
        .finished
        .map(|finished| job.created_at + finished.duration_since(job.created).as_secs());
    let error = match (state.status(), &state.error) {
        (Status::Cancelled, None) => {
            Some(json!({"code": "cancelled", "message": "the job was cancelled"}))
        }
        (_, error) => error
            .as_ref()
            .map(|error| json!({"code": error.code, "message": error.message})),
    };
    let mut own = json!({
        "frames": ask.frames, "fps": ask.rate, "seed": ask.seed, "steps": ask.steps,
        "position": state.position, "stage": state.stage, "step": state.step, "total": state.total,
        "warnings": state.warnings,
    });
    if let Some(Outcome::Clip(clip)) = state.outcome.as_deref()
        && let (Value::Object(own), Value::Object(told)) = (&mut own, &clip.told)
    {
        own.extend(told.clone());
    }
    json!({
        "id": job.id, "object": "video", "model": ask.model.id, "status": status(&state),
        "progress": progress(&state), "created_at": job.created_at,
        "completed_at": completed, "expires_at": completed.map(|at| at + KEPT.as_secs()),
        "prompt": ask.prompt(), "size": format!("{}x{}", ask.size[0], ask.size[1]),
        // OpenAI's clients read a text.
        "seconds": ((ask.seconds() * 1000.0).round() / 1000.0).to_string(),
        "error": error, "remixed_from_video_id": null, "brisk": own,
    })
}

/// OpenAI's word for where it is.
fn status(state: &State) -> &'static str {
    match state.status() {
        Status::Queued => "queued",
        Status::Loading | Status::Running => "in_progress",
        Status::Done => "completed",
        Status::Failed | Status::Cancelled => "failed",
    }
}

/// How much is done, in percent: the steps, which take most of the time.
fn progress(state: &State) -> usize {
    match state.status() {
        Status::Done => 100,
        _ if WALKS.iter().any(|walk| state.stages.contains_key(walk)) => WALKED,
        _ if state.stage.is_some_and(|stage| WALKS.contains(&stage)) => {
            state.step.min(state.total) * WALKED / state.total.max(1)
        }
        _ => 0,
    }
}
