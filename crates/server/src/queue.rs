//! Jobs that wait: in order within a caller, while callers take turns by the seconds they use.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ApiError;
use crate::job::{Job, Status};

/// Jobs of one model in a row while others wait for another.
const MOST_IN_A_ROW: usize = 8;
/// Longest time of one model in a row while others wait for another.
const LONGEST_IN_A_ROW: Duration = Duration::from_secs(60);

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all.
    pub jobs: usize,
    /// Of one caller.
    pub of_caller: usize,
}

#[derive(Debug, Default)]
struct Caller {
    waiting: VecDeque<Arc<Job>>,
    /// Seconds that its jobs used, on a clock that all callers share.
    used: f64,
}

/// The model that computes, and since when.
#[derive(Debug, Default)]
struct Row {
    model: String,
    jobs: usize,
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Inner {
    callers: HashMap<Arc<str>, Caller>,
    /// What the caller had used whose turn was last: where newcomers begin.
    clock: f64,
    row: Row,
    running: Option<Arc<Job>>,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    inner: Mutex<Inner>,
    grown: Condvar,
    limits: Limits,
}

impl Queue {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            inner: Mutex::default(),
            grown: Condvar::new(),
            limits,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job.
    ///
    /// # Errors
    /// The queue, or the caller's share of it, is full; or the server ends.
    pub fn push(&self, job: &Arc<Job>) -> Result<(), ApiError> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(ApiError::shutting_down());
        }
        let waiting: usize = inner
            .callers
            .values()
            .map(|caller| caller.waiting.len())
            .sum();
        let seconds = inner.seconds();
        if waiting >= self.limits.jobs {
            let message = format!("{waiting} jobs wait already; ask again in a while");
            return Err(ApiError::too_many("queue_full", message, seconds));
        }
        let clock = inner.clock;
        let caller = inner.callers.entry(Arc::clone(&job.caller)).or_default();
        if caller.waiting.len() >= self.limits.of_caller {
            let message = format!(
                "{} of your jobs wait already; ask again in a while",
                caller.waiting.len()
            );
            return Err(ApiError::too_many("queue_full", message, seconds));
        }
        if caller.waiting.is_empty() {
            // Who was away saves up no turns.
            caller.used = caller.used.max(clock);
        }
        caller.waiting.push_back(Arc::clone(job));
        inner.tell_positions();
        self.grown.notify_one();
        Ok(())
    }

    /// The next job, when there is one; none when the queue is closed.
    pub fn next(&self) -> Option<Arc<Job>> {
        let mut inner = self.inner();
        inner.running = None;
        loop {
            if inner.closed {
                return None;
            }
            if let Some(job) = inner.take() {
                inner.running = Some(Arc::clone(&job));
                inner.tell_positions();
                return Some(job);
            }
            inner = self
                .grown
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Charges a caller for a job that estimated its time wrongly.
    pub fn charge(&self, job: &Job, seconds: f64) {
        let mut inner = self.inner();
        if let Some(caller) = inner.callers.get_mut(&job.caller) {
            caller.used += seconds - job.estimate;
        }
    }

    /// Stops a job: one that waits ends at once, one that runs at its next check.
    pub fn cancel(&self, job: &Job) {
        job.cancel();
        self.remove(|waiting| waiting.id == job.id)
            .iter()
            .for_each(|job| job.fail(Status::Cancelled, None));
    }

    /// Takes out the jobs that wait and are to go.
    pub fn remove(&self, goes: impl Fn(&Job) -> bool) -> Vec<Arc<Job>> {
        let mut inner = self.inner();
        let mut removed = Vec::new();
        for caller in inner.callers.values_mut() {
            let (gone, stays): (VecDeque<_>, VecDeque<_>) =
                caller.waiting.drain(..).partition(|job| goes(job));
            caller.waiting = stays;
            removed.extend(gone);
        }
        if !removed.is_empty() {
            inner.tell_positions();
        }
        removed
    }

    /// Takes no more jobs; those that wait fail.
    pub fn close(&self) {
        self.inner().closed = true;
        self.grown.notify_all();
        for job in self.remove(|_| true) {
            job.fail(Status::Failed, Some(ApiError::shutting_down()));
        }
    }

    /// Whether it takes no more jobs.
    pub fn is_closed(&self) -> bool {
        self.inner().closed
    }

    /// The job that runs.
    pub fn running(&self) -> Option<Arc<Job>> {
        self.inner().running.clone()
    }

    /// Number of jobs that wait, and the seconds that they and the running one will take.
    pub fn load(&self) -> (usize, f64) {
        let inner = self.inner();
        let waiting = inner.callers.values().map(|caller| caller.waiting.len());
        (waiting.sum(), inner.seconds())
    }
}

impl Inner {
    /// Estimated seconds of everything that waits and runs.
    fn seconds(&self) -> f64 {
        let waiting = self.callers.values().flat_map(|caller| &caller.waiting);
        waiting.chain(&self.running).map(|job| job.estimate).sum()
    }

    /// Callers with jobs, the one whose turn it is first.
    fn turns(&self) -> Vec<Arc<str>> {
        let mut turns: Vec<(f64, Instant, &Arc<str>)> = self
            .callers
            .iter()
            .filter_map(|(name, caller)| Some((caller.used, caller.waiting.front()?.created, name)))
            .collect();
        turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        turns
            .into_iter()
            .map(|(_, _, name)| Arc::clone(name))
            .collect()
    }

    /// The caller whose job is next: the first in turn, unless one further back asks for the model that
    /// computes already, which may go on for a while.
    fn chosen(&self) -> Option<Arc<str>> {
        let turns = self.turns();
        let first = turns.first()?;
        let fresh = self.row.jobs < MOST_IN_A_ROW
            && self
                .row
                .since
                .is_some_and(|since| since.elapsed() < LONGEST_IN_A_ROW);
        if fresh {
            let same = turns.iter().find(|name| {
                let front = self
                    .callers
                    .get(*name)
                    .and_then(|caller| caller.waiting.front());
                front.is_some_and(|job| job.ask.model().id == self.row.model)
            });
            if let Some(same) = same {
                return Some(Arc::clone(same));
            }
        }
        Some(Arc::clone(first))
    }

    fn take(&mut self) -> Option<Arc<Job>> {
        let name = self.chosen()?;
        let caller = self.callers.get_mut(&name)?;
        let job = caller.waiting.pop_front()?;
        self.clock = self.clock.max(caller.used);
        caller.used += job.estimate;
        let model = &job.ask.model().id;
        if self.row.model == *model {
            self.row.jobs += 1;
        } else {
            self.row = Row {
                model: model.clone(),
                jobs: 1,
                since: Some(Instant::now()),
            };
        }
        // Who has nothing waiting and is behind the clock is as good as new.
        let clock = self.clock;
        self.callers
            .retain(|_, caller| !caller.waiting.is_empty() || caller.used > clock);
        Some(job)
    }

    /// Tells every job that waits how many are before it, as turns would go now.
    fn tell_positions(&self) {
        let mut used: Vec<(f64, usize, &Caller)> = self
            .callers
            .values()
            .map(|caller| (caller.used, 0, caller))
            .collect();
        let waiting: usize = used.iter().map(|(_, _, caller)| caller.waiting.len()).sum();
        for position in 0..waiting {
            let turn = |place: &usize| {
                let (used, at, caller) = &used[*place];
                Some((*used, caller.waiting.get(*at)?.created))
            };
            let next = (0..used.len())
                .filter_map(|place| Some((turn(&place)?, place)))
                .min_by(|((a, first), _), ((b, second), _)| a.total_cmp(b).then(first.cmp(second)));
            let Some((_, place)) = next else {
                return;
            };
            let (used, at, caller) = &mut used[place];
            let job = &caller.waiting[*at];
            if job.state().position != Some(position) {
                job.change(|state| state.position = Some(position));
            }
            *used += job.estimate;
            *at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Ask;
    use crate::ask::tests::image_ask;

    fn job(caller: &str, model: &str, estimate: f64) -> Arc<Job> {
        let ask = Ask::Images(image_ask(model));
        Arc::new(Job::new(caller.into(), ask, None, estimate))
    }

    fn queue(jobs: usize, of_caller: usize) -> Queue {
        Queue::new(Limits { jobs, of_caller })
    }

    fn order(queue: &Queue, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| queue.next().unwrap().caller.to_string())
            .collect()
    }

    #[test]
    fn callers_take_turns_by_what_they_use() {
        let queue = queue(64, 16);
        for _ in 0..3 {
            queue.push(&job("heavy", "a", 10.0)).unwrap();
        }
        for _ in 0..3 {
            queue.push(&job("light", "a", 4.0)).unwrap();
        }
        let order = order(&queue, 6);
        assert_eq!(
            order,
            ["heavy", "light", "light", "light", "heavy", "heavy"]
        );
    }

    #[test]
    fn a_model_goes_on_for_a_while() {
        let queue = queue(64, 32);
        queue.push(&job("one", "a", 1.0)).unwrap();
        assert_eq!(queue.next().unwrap().ask.model().id, "a");
        queue.push(&job("two", "b", 1.0)).unwrap();
        for _ in 0..20 {
            queue.push(&job("one", "a", 1.0)).unwrap();
        }
        let models: Vec<String> = (0..10)
            .map(|_| queue.next().unwrap().ask.model().id.clone())
            .collect();
        let other = models.iter().position(|model| model == "b");
        assert_eq!(other, Some(MOST_IN_A_ROW - 1), "{models:?}");
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let queue = queue(3, 2);
        queue.push(&job("a", "m", 1.0)).unwrap();
        queue.push(&job("a", "m", 1.0)).unwrap();
        let error = queue.push(&job("a", "m", 1.0)).unwrap_err();
        assert_eq!((error.code, error.retry_after), ("queue_full", Some(2)));
        queue.push(&job("b", "m", 1.0)).unwrap();
        assert_eq!(queue.push(&job("c", "m", 1.0)).unwrap_err().status, 429);
        assert_eq!(queue.load(), (3, 3.0));
    }

    #[test]
    fn positions_follow_turns() {
        let queue = queue(8, 8);
        let jobs = [job("a", "m", 5.0), job("a", "m", 5.0), job("b", "m", 1.0)];
        jobs.iter().for_each(|job| queue.push(job).unwrap());
        let positions = || jobs.each_ref().map(|job| job.state().position);
        assert_eq!(positions(), [Some(0), Some(2), Some(1)]);
        queue.cancel(&jobs[0]);
        assert_eq!(jobs[0].state().status(), Status::Cancelled);
        assert_eq!(positions(), [None, Some(0), Some(1)]);
    }

    #[test]
    fn a_closed_queue_fails_what_waits() {
        let queue = queue(8, 8);
        let waiting = job("a", "m", 1.0);
        queue.push(&waiting).unwrap();
        queue.close();
        assert!(queue.next().is_none());
        assert_eq!(
            waiting.state().error.as_ref().unwrap().code,
            "shutting_down"
        );
        assert_eq!(queue.push(&job("a", "m", 1.0)).unwrap_err().status, 503);
    }
}
