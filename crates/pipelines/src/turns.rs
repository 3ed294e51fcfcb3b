//! Jobs that take turns on the machine's threads.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// A turn that lasted less is not passed on: what changes hands too often finds its caches cold.
const SHORTEST: Duration = Duration::from_millis(2);
/// How often one who waits looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(20);

thread_local! {
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long this thread waited for turns so far, all together.
pub fn waited() -> Duration {
    WAITED.get()
}

/// Lets one job at a time compute; they share the time evenly.
///
/// Jobs whose [`Control`](crate::Control) shares it change places between operations: whoever computes
/// goes to the line where somebody waits who had less time. So a job of many short operations gets as much
/// beside one of few long ones as the other way round. Who comes in begins where the others are, and saves
/// up nothing while it is away.
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
    waiting: Vec<Waiting>,
    computing: Option<Computing>,
    /// What whoever got the last turn had had before it.
    clock: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: u64,
    /// Time that it had, on a clock that all share.
    had: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Computing {
    thread: ThreadId,
    since: Instant,
    /// Time that it had before.
    had: Duration,
}

impl Turns {
    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits until this thread may compute; it does until the turn is dropped. A thread whose turn it is
    /// already goes on with that, after those who had less time. None: `stop` was set before.
    pub(crate) fn take(self: &Arc<Self>, stop: &AtomicBool) -> Option<Turn> {
        let own = std::thread::current().id();
        let inner = self.line().is_held_by(own);
        let goes_on = match inner {
            true => self.pass_on(stop),
            false => self.wait(stop, None),
        };
        goes_on.then(|| Turn {
            turns: (!inner).then(|| Arc::clone(self)),
        })
    }

    /// Lets those who wait and had less time go first, where it is this thread's turn. False: `stop` was
    /// set meanwhile.
    pub(crate) fn pass_on(&self, stop: &AtomicBool) -> bool {
        if self.waiting() == 0 {
            return true;
        }
        let own = std::thread::current().id();
        let had = {
            let mut line = self.line();
            let Some(turn) = line.computing.filter(|turn| turn.thread == own) else {
                return true;
            };
            let took = turn.since.elapsed();
            let had = turn.had + took;
            let least = line.waiting.iter().map(|other| other.had).min();
            if took < SHORTEST || least.is_none_or(|least| least > had) {
                return true;
            }
            line.computing = None;
            had
        };
        self.moved.notify_all();
        self.wait(stop, Some(had))
    }

    /// Waits for a turn, as one who `had` so much time, or comes in.
    fn wait(&self, stop: &AtomicBool, had: Option<Duration>) -> bool {
        let began = Instant::now();
        let mut line = self.line();
        let ticket = line.next;
        line.next += 1;
        let had = had.unwrap_or_else(|| line.now());
        line.waiting.push(Waiting { ticket, had });
        self.count(&line);
        let got = loop {
            let stopped = stop.load(Ordering::Relaxed);
            let first = line.computing.is_none() && line.first() == Some(ticket);
            if stopped || first {
                line.waiting.retain(|other| other.ticket != ticket);
                self.count(&line);
                if !stopped {
                    line.clock = line.clock.max(had);
                    line.computing = Some(Computing {
                        thread: std::thread::current().id(),
                        since: Instant::now(),
                        had,
                    });
                }
                break !stopped;
            }
            let waited = self.moved.wait_timeout(line, LOOK);
            (line, _) = waited.unwrap_or_else(PoisonError::into_inner);
        };
        drop(line);
        WAITED.set(WAITED.get() + began.elapsed());
        if !got {
            self.moved.notify_all();
        }
        got
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
        self.computing.is_some_and(|turn| turn.thread == thread)
    }

    /// Where one who comes in begins: beside whoever computes, however long that has been alone.
    fn now(&self) -> Duration {
        let computing = self.computing.map(|turn| turn.had + turn.since.elapsed());
        computing.unwrap_or_default().max(self.clock)
    }

    /// Whose turn is next: who had least, and came first of those.
    fn first(&self) -> Option<u64> {
        let waiting = self.waiting.iter();
        let least = waiting.min_by_key(|other| (other.had, other.ticket));
        least.map(|other| other.ticket)
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

    /// Short operations beside long ones get half of the time, not one for one.
    #[test]
    fn time_is_shared_whatever_operations_take() {
        let (turns, stop) = (Arc::<Turns>::default(), AtomicBool::new(false));
        let over = AtomicBool::new(false);
        let busy = |piece: Duration| {
            let turn = turns.take(&stop).unwrap();
            let mut worked = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                assert!(turns.pass_on(&stop));
                std::thread::sleep(piece);
                worked += piece;
            }
            drop(turn);
            (worked, waited())
        };
        let (long, short) = std::thread::scope(|scope| {
            let long = scope.spawn(|| busy(Duration::from_millis(60)));
            let short = scope.spawn(|| busy(Duration::from_millis(3)));
            std::thread::sleep(Duration::from_millis(1200));
            over.store(true, Ordering::Relaxed);
            (long.join().unwrap(), short.join().unwrap())
        });
        let share = short.0.as_secs_f64() / (short.0 + long.0).as_secs_f64();
        assert!((0.3..0.7).contains(&share), "{short:?} beside {long:?}");
        assert!(short.1 > Duration::from_millis(300), "{short:?}");
    }

    /// Who was alone for a while owes nothing to one who comes in.
    #[test]
    fn one_who_comes_late_gets_no_more_than_half() {
        let (turns, stop) = (Arc::<Turns>::default(), AtomicBool::new(false));
        let over = AtomicBool::new(false);
        let late = AtomicBool::new(false);
        let first = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                let turn = turns.take(&stop).unwrap();
                let mut beside = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    assert!(turns.pass_on(&stop));
                    std::thread::sleep(Duration::from_millis(5));
                    if late.load(Ordering::Relaxed) {
                        beside += Duration::from_millis(5);
                    }
                }
                drop(turn);
                beside
            });
            std::thread::sleep(Duration::from_millis(1500));
            late.store(true, Ordering::Relaxed);
            scope.spawn(|| {
                let turn = turns.take(&stop).unwrap();
                while !over.load(Ordering::Relaxed) {
                    assert!(turns.pass_on(&stop));
                    std::thread::sleep(Duration::from_millis(5));
                }
                drop(turn);
            });
            std::thread::sleep(Duration::from_millis(1000));
            over.store(true, Ordering::Relaxed);
            first.join().unwrap()
        });
        assert!(first > Duration::from_millis(250), "{first:?} of a second");
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
