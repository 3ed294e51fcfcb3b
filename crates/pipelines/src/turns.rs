//! Jobs that take turns on the machine's threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// A turn that lasted less is not passed on: what changes hands too often finds its caches cold.
const SHORTEST: Duration = Duration::from_millis(2);
/// How often one who waits looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(20);

/// Lets one job at a time compute, in the order in which they ask.
///
/// Jobs whose [`Control`](crate::Control) shares it change places between operations: whoever computes
/// goes to the end of the line where somebody waits.
#[derive(Debug, Default)]
pub struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
    /// Length of the line, for whoever computes and need not lock it.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: VecDeque<u64>,
    computing: Option<(ThreadId, Instant)>,
}

impl Turns {
    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits until this thread may compute; it does until the turn is dropped. A thread whose turn it is
    /// already goes on with that. None: `stop` was set before.
    pub(crate) fn take(self: &Arc<Self>, stop: &AtomicBool) -> Option<Turn> {
        let own = std::thread::current().id();
        let inner = self.line().is_held_by(own);
        if !inner && !self.wait(stop) {
            return None;
        }
        Some(Turn {
            turns: (!inner).then(|| Arc::clone(self)),
        })
    }

    /// Lets those who wait go first, where it is this thread's turn. False: `stop` was set meanwhile.
    pub(crate) fn pass_on(&self, stop: &AtomicBool) -> bool {
        if self.waiting() == 0 {
            return true;
        }
        let own = std::thread::current().id();
        {
            let mut line = self.line();
            match line.computing {
                Some((thread, since)) if thread == own && since.elapsed() >= SHORTEST => {
                    line.computing = None;
                }
                _ => return true,
            }
        }
        self.moved.notify_all();
        self.wait(stop)
    }

    fn wait(&self, stop: &AtomicBool) -> bool {
        let mut line = self.line();
        let ticket = line.next;
        line.next += 1;
        line.waiting.push_back(ticket);
        self.count(&line);
        loop {
            let stopped = stop.load(Ordering::Relaxed);
            let first = line.computing.is_none() && line.waiting.front() == Some(&ticket);
            if stopped || first {
                line.waiting.retain(|other| *other != ticket);
                self.count(&line);
                if !stopped {
                    line.computing = Some((std::thread::current().id(), Instant::now()));
                    return true;
                }
                drop(line);
                self.moved.notify_all();
                return false;
            }
            let waited = self.moved.wait_timeout(line, LOOK);
            (line, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, line: &Line) {
        self.waiting.store(line.waiting.len(), Ordering::Relaxed);
    }
}

impl Line {
    fn is_held_by(&self, thread: ThreadId) -> bool {
        self.computing.is_some_and(|(holder, _)| holder == thread)
    }
}

/// The turn of a thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// None where it is another's, which this one is a part of.
    turns: Option<Arc<Turns>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = &self.turns else { return };
        let mut line = turns.line();
        // One that was stopped while it waited has lost its turn before.
        if line.is_held_by(std::thread::current().id()) {
            line.computing = None;
            drop(line);
            turns.moved.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works in small pieces for a while; the times at which it did.
    fn work(turns: &Arc<Turns>, stop: &AtomicBool, pieces: usize) -> Vec<Instant> {
        let turn = turns.take(stop).unwrap();
        let mut times = Vec::new();
        for _ in 0..pieces {
            assert!(turns.pass_on(stop));
            times.push(Instant::now());
            std::thread::sleep(Duration::from_millis(3));
        }
        drop(turn);
        times
    }

    #[test]
    fn two_jobs_change_places_and_never_compute_at_once() {
        let (turns, stop) = (Arc::<Turns>::default(), AtomicBool::new(false));
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(|| work(&turns, &stop, 20));
            let own = work(&turns, &stop, 20);
            (own, other.join().unwrap())
        });
        let mut both: Vec<(Instant, bool)> = first.iter().map(|time| (*time, true)).collect();
        both.extend(second.iter().map(|time| (*time, false)));
        both.sort();
        for pair in both.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= Duration::from_millis(2), "at once");
        }
        let changes = both.windows(2).filter(|pair| pair[0].1 != pair[1].1);
        assert!(changes.count() > 20, "{both:?}");
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn one_who_is_stopped_leaves_the_line() {
        let turns = Arc::<Turns>::default();
        let (go, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let turn = turns.take(&go).unwrap();
        // A job within this one needs no other turn, and ending it does not end this one's.
        drop(turns.take(&go).unwrap());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| turns.take(&stop).is_none());
            while turns.waiting() == 0 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(other.join().unwrap());
        });
        assert_eq!(turns.waiting(), 0);
        drop(turn);
        std::thread::scope(|scope| scope.spawn(|| turns.take(&go).is_some()).join()).unwrap();
    }
}
