//! What outlives a connection for a while: jobs with their results, links to pictures, and the keys under
//! which a client repeats itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;

use crate::error::{ApiError, Result};
use crate::job::Job;
use crate::settings::{KEPT, KEPT_BYTES};

/// Ids of which it is still known that they were there.
const REMEMBERED: usize = 4096;
/// Longest key under which a client repeats itself.
const LONGEST_KEY: usize = 255;

#[derive(Debug, Default)]
struct Inner {
    jobs: HashMap<String, Arc<Job>>,
    links: HashMap<String, (Arc<Job>, usize)>,
    repeats: HashMap<(Arc<str>, String), (Instant, String)>,
    gone: VecDeque<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Kept {
    inner: Mutex<Inner>,
}

impl Kept {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a job, under the key of the client's choice where it gives one.
    pub fn add(&self, job: &Arc<Job>, key: Option<&str>) {
        let mut inner = self.inner();
        inner.jobs.insert(job.id.clone(), Arc::clone(job));
        if let Some(key) = key {
            let name = (Arc::clone(&job.caller), key.to_owned());
            inner.repeats.insert(name, (Instant::now(), job.id.clone()));
        }
    }

    /// The job that a client asked for under this key before.
    ///
    /// # Errors
    /// A key that is too long.
    pub fn repeated(&self, caller: &Arc<str>, key: &str) -> Result<Option<Arc<Job>>> {
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(ApiError::invalid(
                "Idempotency-Key",
                format!("{} bytes; expected 1 to {LONGEST_KEY}", key.len()),
            ));
        }
        let inner = self.inner();
        let known = inner.repeats.get(&(Arc::clone(caller), key.to_owned()));
        Ok(known.and_then(|(_, id)| inner.jobs.get(id).cloned()))
    }

    /// A job of this caller.
    ///
    /// # Errors
    /// No such job, another caller's, or one that was dropped.
    pub fn job(&self, caller: &Arc<str>, id: &str) -> Result<Arc<Job>> {
        let inner = self.inner();
        match inner.jobs.get(id) {
            Some(job) if job.caller == *caller => Ok(Arc::clone(job)),
            Some(_) => Err(no_job(id)),
            None if inner.gone.iter().any(|gone| gone == id) => Err(expired()),
            None => Err(no_job(id)),
        }
    }

    /// Jobs of this caller, the oldest first.
    pub fn jobs(&self, caller: &Arc<str>) -> Vec<Arc<Job>> {
        let inner = self.inner();
        let own = inner.jobs.values().filter(|job| job.caller == *caller);
        let mut jobs: Vec<Arc<Job>> = own.cloned().collect();
        jobs.sort_by_key(|job| job.created);
        jobs
    }

    /// Keeps a job of this caller no longer, as if it had never been there.
    ///
    /// # Errors
    /// As [`job`](Self::job).
    pub fn forget(&self, caller: &Arc<str>, id: &str) -> Result<Arc<Job>> {
        let job = self.job(caller, id)?;
        let mut inner = self.inner();
        inner.jobs.remove(id);
        inner.links.retain(|_, (linked, _)| linked.id != id);
        inner.repeats.retain(|_, (_, repeated)| repeated != id);
        Ok(job)
    }

    /// A link to picture `index` of a job: 122 random bits.
    pub fn link(&self, job: &Arc<Job>, index: usize) -> String {
        let token = uuid::Uuid::new_v4().simple().to_string();
        let entry = (Arc::clone(job), index);
        self.inner().links.insert(token.clone(), entry);
        token
    }

    /// What a link leads to.
    ///
    /// # Errors
    /// No such link, or one that was dropped.
    pub fn linked(&self, token: &str) -> Result<(Arc<Job>, usize)> {
        let inner = self.inner();
        match inner.links.get(token) {
            Some((job, index)) => Ok((Arc::clone(job), *index)),
            None if inner.gone.iter().any(|gone| gone == token) => Err(expired()),
            None => Err(ApiError::not_found("there is no such picture")),
        }
    }

    /// Drops what is too old, and the oldest results where all together are too large.
    pub fn sweep(&self) {
        let mut inner = self.inner();
        let mut ended: Vec<(Instant, Arc<Job>)> = inner
            .jobs
            .values()
            .chain(inner.links.values().map(|(job, _)| job))
            .filter_map(|job| Some((job.state().finished?, Arc::clone(job))))
            .collect();
        // The newest first; a job may have several links.
        ended.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
        ended.dedup_by(|a, b| a.1.id == b.1.id);
        let mut bytes = 0;
        let goes: Vec<String> = ended
            .into_iter()
            .filter(|(finished, job)| {
                let outcome = job.state().outcome.clone();
                bytes += outcome.map_or(0, |outcome| outcome.bytes());
                finished.elapsed() > KEPT || bytes > KEPT_BYTES
            })
            .map(|(_, job)| job.id.clone())
            .collect();
        if !goes.is_empty() {
            let mut gone: Vec<String> = Vec::new();
            inner.jobs.retain(|id, _| !goes.contains(id));
            inner.links.retain(|token, (job, _)| {
                let stays = !goes.contains(&job.id);
                if !stays {
                    gone.push(token.clone());
                }
                stays
            });
            inner.gone.extend(gone.into_iter().chain(goes));
            let surplus = inner.gone.len().saturating_sub(REMEMBERED);
            inner.gone.drain(..surplus);
        }
        inner.repeats.retain(|_, (since, _)| since.elapsed() < KEPT);
    }
}

fn no_job(id: &str) -> ApiError {
    let shown = brisk_store::shown_within(id, 64);
    ApiError::not_found(format!("there is no job {shown}"))
}

fn expired() -> ApiError {
    let message = "it was kept for ten minutes, or until newer results needed its place";
    ApiError::new(StatusCode::GONE, "expired", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Ask;
    use crate::ask::tests::image_ask;
    use crate::job::Status;
    use crate::outcome::{File, Images, Outcome};

    fn job(caller: &str) -> Arc<Job> {
        let ask = Ask::Images(image_ask("m"));
        Arc::new(Job::new(caller.into(), ask, None, 1.0))
    }

    fn picture(bytes: usize) -> Outcome {
        Outcome::Images(Images {
            files: vec![File {
                bytes: vec![0; bytes].into(),
                media_type: "image/png",
                seed: 0,
                saved: None,
            }],
            told: serde_json::Value::Null,
            prompt_tokens: 0,
            cells: 0,
        })
    }

    #[test]
    fn others_see_nothing() {
        let kept = Kept::default();
        let job = job("a");
        kept.add(&job, Some("key"));
        assert!(kept.job(&"a".into(), &job.id).is_ok());
        assert_eq!(
            kept.job(&"b".into(), &job.id).unwrap_err().code,
            "not_found"
        );
        assert!(kept.repeated(&"a".into(), "key").unwrap().is_some());
        assert!(kept.repeated(&"b".into(), "key").unwrap().is_none());
        assert!(kept.repeated(&"a".into(), &"x".repeat(256)).is_err());
    }

    #[test]
    fn the_oldest_results_make_room() {
        let kept = Kept::default();
        let jobs = [job("a"), job("a"), job("a")];
        for job in &jobs {
            kept.add(job, None);
            job.finish(picture(KEPT_BYTES / 2));
        }
        let link = kept.link(&jobs[0], 0);
        kept.sweep();
        assert_eq!(
            kept.job(&"a".into(), &jobs[0].id).unwrap_err().code,
            "expired"
        );
        assert_eq!(kept.linked(&link).unwrap_err().status, 410);
        assert!(kept.job(&"a".into(), &jobs[2].id).is_ok());
        assert_eq!(jobs[2].state().status(), Status::Done);
    }
}
