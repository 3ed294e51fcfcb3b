//! Jobs that wait: in order within a caller, while callers take turns by the seconds they use.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use brisk::ResultKind;

use crate::error::ApiError;
use crate::job::{Job, Status};

/// Jobs of one model in a row while others wait for another.
const MOST_IN_A_ROW: usize = 8;
/// Longest time of one model in a row while others wait for another.
const LONGEST_IN_A_ROW: Duration = Duration::from_secs(60);

/// Jobs that one thread takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Those for pictures, for masks of them, and for clips.
    Pictures,
    /// Those for texts.
    Texts,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Pictures, Self::Texts];

    /// What its jobs give.
    pub fn gives(self) -> &'static [ResultKind] {
        match self {
            Self::Pictures => &[ResultKind::Pictures, ResultKind::Masks, ResultKind::Clips],
            Self::Texts => &[ResultKind::Text],
        }
    }
}

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
    /// Of all lanes, in the order in which they came.
    waiting: VecDeque<Arc<Job>>,
    /// Seconds that its jobs used, on a clock that all callers share.
    used: f64,
}

impl Caller {
    fn of(&self, lane: Lane) -> impl Iterator<Item = &Arc<Job>> {
        let waiting = self.waiting.iter();
        waiting.filter(move |job| job.ask.lane() == lane)
    }
}

/// The model that computes in a lane, and since when.
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
    rows: [Row; Lane::ALL.len()],
    running: Vec<Arc<Job>>,
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
        self.grown.notify_all();
        Ok(())
    }

    /// The next job of a lane, when there is one; none when the queue is closed.
    pub fn next(&self, lane: Lane) -> Option<Arc<Job>> {
        self.next_after_rest(lane, Duration::MAX, || ())
    }

    /// As [`next`](Self::next); where nothing comes for as long as `quiet`, `rest` is done once meanwhile.
    pub fn next_after_rest(
        &self,
        lane: Lane,
        quiet: Duration,
        rest: impl FnOnce(),
    ) -> Option<Arc<Job>> {
        let mut rest = Some(rest);
        let mut inner = self.inner();
        loop {
            if inner.closed {
                return None;
            }
            if let Some(name) = inner.chosen(lane) {
                return inner.take(lane, &name);
            }
            let quiet = match rest {
                Some(_) => quiet,
                None => Duration::MAX,
            };
            let waited = self.grown.wait_timeout(inner, quiet);
            let (after, time) = waited.unwrap_or_else(PoisonError::into_inner);
            inner = after;
            if time.timed_out()
                && let Some(rest) = rest.take()
            {
                drop(inner);
                rest();
                inner = self.inner();
            }
        }
    }

    /// The next job of a lane, if it is there, to `model`, and `fits`, with what that gave.
    pub fn next_of<T>(
        &self,
        lane: Lane,
        model: &str,
        fits: impl FnOnce(&Job) -> Option<T>,
    ) -> Option<(Arc<Job>, T)> {
        let mut inner = self.inner();
        let name = inner.chosen(lane).filter(|_| !inner.closed)?;
        let job = inner.callers.get(&name)?.of(lane).next()?;
        if job.ask.model().id != model {
            return None;
        }
        let fit = fits(job)?;
        Some((inner.take(lane, &name)?, fit))
    }

    /// A job runs no more; its caller is charged for the seconds that it took.
    pub fn left(&self, job: &Job, seconds: f64) {
        let mut inner = self.inner();
        inner.running.retain(|running| running.id != job.id);
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

    /// The jobs that run.
    pub fn running(&self) -> Vec<Arc<Job>> {
        self.inner().running.clone()
    }

    /// Number of jobs that wait, and the seconds that they and the running ones will take.
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
        waiting
            .chain(&self.running)
            .fold(0.0, |sum, job| sum + job.estimate)
    }

    /// Callers with jobs of a lane, the one whose turn it is first.
    fn turns(&self, lane: Lane) -> Vec<Arc<str>> {
        let mut turns: Vec<(f64, Instant, &Arc<str>)> = self
            .callers
            .iter()
            .filter_map(|(name, caller)| Some((caller.used, caller.of(lane).next()?.created, name)))
            .collect();
        turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        turns
            .into_iter()
            .map(|(_, _, name)| Arc::clone(name))
            .collect()
    }

    /// The caller whose job is next: the first in turn, unless one further back asks for the model that
    /// computes already, which may go on for a while.
    fn chosen(&self, lane: Lane) -> Option<Arc<str>> {
        let turns = self.turns(lane);
        let first = turns.first()?;
        let row = &self.rows[lane as usize];
        let fresh = row.jobs < MOST_IN_A_ROW
            && row
                .since
                .is_some_and(|since| since.elapsed() < LONGEST_IN_A_ROW);
        if fresh {
            let same = turns.iter().find(|name| {
                let caller = self.callers.get(*name);
                let front = caller.and_then(|caller| caller.of(lane).next());
                front.is_some_and(|job| job.ask.model().id == row.model)
            });
            if let Some(same) = same {
                return Some(Arc::clone(same));
            }
        }
        Some(Arc::clone(first))
    }

    /// Takes the next job of a caller.
    fn take(&mut self, lane: Lane, name: &Arc<str>) -> Option<Arc<Job>> {
        let caller = self.callers.get_mut(name)?;
        let mut waiting = caller.waiting.iter();
        let at = waiting.position(|job| job.ask.lane() == lane)?;
        let job = caller.waiting.remove(at)?;
        self.clock = self.clock.max(caller.used);
        caller.used += job.estimate;
        let model = &job.ask.model().id;
        let row = &mut self.rows[lane as usize];
        if row.model == *model {
            row.jobs += 1;
        } else {
            *row = Row {
                model: model.clone(),
                jobs: 1,
                since: Some(Instant::now()),
            };
        }
        // Who has nothing waiting and is behind the clock is as good as new.
        let clock = self.clock;
        self.callers
            .retain(|_, caller| !caller.waiting.is_empty() || caller.used > clock);
        self.running.push(Arc::clone(&job));
        self.tell_positions();
        Some(job)
    }

    /// Tells every job that waits how many of its lane are before it, as turns would go now.
    fn tell_positions(&self) {
        Lane::ALL.into_iter().for_each(|lane| self.tell(lane));
    }

    fn tell(&self, lane: Lane) {
        let mut used: Vec<(f64, usize, Vec<&Arc<Job>>)> = self
            .callers
            .values()
            .map(|caller| (caller.used, 0, caller.of(lane).collect()))
            .collect();
        let waiting: usize = used.iter().map(|(_, _, jobs)| jobs.len()).sum();
        for position in 0..waiting {
            let turn = |place: &usize| {
                let (used, at, jobs) = &used[*place];
                Some((*used, jobs.get(*at)?.created))
            };
            let next = (0..used.len())
                .filter_map(|place| Some((turn(&place)?, place)))
                .min_by(|((a, first), _), ((b, second), _)| a.total_cmp(b).then(first.cmp(second)));
            let Some((_, place)) = next else {
                return;
            };
            let (used, at, jobs) = &mut used[place];
            let job = jobs[*at];
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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
            .map(|_| queue.next(Lane::Pictures).unwrap().caller.to_string())
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
        assert_eq!(queue.next(Lane::Pictures).unwrap().ask.model().id, "a");
        queue.push(&job("two", "b", 1.0)).unwrap();
        for _ in 0..20 {
            queue.push(&job("one", "a", 1.0)).unwrap();
        }
        let models: Vec<String> = (0..10)
            .map(|_| queue.next(Lane::Pictures).unwrap().ask.model().id.clone())
            .collect();
        let other = models.iter().position(|model| model == "b");
        assert_eq!(other, Some(MOST_IN_A_ROW - 1), "{models:?}");
    }

    #[test]
    fn only_the_next_job_joins_and_only_where_it_fits() {
        let queue = queue(8, 8);
        queue.push(&job("one", "a", 1.0)).unwrap();
        queue.push(&job("one", "b", 1.0)).unwrap();
        let join = |model: &str, fits: bool| {
            let fits = |_: &Job| fits.then_some(());
            queue.next_of(Lane::Pictures, model, fits).is_some()
        };
        assert!(!join("b", true) && !join("a", false));
        assert!(queue.next_of(Lane::Texts, "a", |_| Some(())).is_none());
        assert!(join("a", true) && join("b", true) && !join("b", true));
        assert_eq!(queue.running().len(), 2);
        let first = queue.running()[0].clone();
        queue.left(&first, 1.0);
        assert_eq!(queue.running().len(), 1);
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
    fn a_lane_without_jobs_rests_once() {
        let (queue, rests) = (queue(8, 8), AtomicUsize::new(0));
        let rest = || {
            rests.fetch_add(1, Ordering::SeqCst);
        };
        queue.push(&job("a", "m", 1.0)).unwrap();
        let next = || queue.next_after_rest(Lane::Pictures, Duration::from_millis(1), rest);
        assert!(next().is_some());
        assert_eq!(rests.load(Ordering::SeqCst), 0);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(next);
            std::thread::sleep(Duration::from_millis(50));
            queue.push(&job("a", "m", 1.0)).unwrap();
            assert!(waiting.join().unwrap().is_some());
        });
        assert_eq!(rests.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_closed_queue_fails_what_waits() {
        let queue = queue(8, 8);
        let waiting = job("a", "m", 1.0);
        queue.push(&waiting).unwrap();
        queue.close();
        assert!(queue.next(Lane::Pictures).is_none());
        assert_eq!(
            waiting.state().error.as_ref().unwrap().code,
            "shutting_down"
        );
        assert_eq!(queue.push(&job("a", "m", 1.0)).unwrap_err().status, 503);
    }
}
