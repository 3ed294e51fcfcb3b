//! The models in memory, within a budget that running jobs share.
//!
//! A model is lent to the thread that works with it and comes back with what it has loaded. Whoever needs
//! room waits in a line; models that nobody works with make it, those used longest ago first.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use brisk::options::Options;
use brisk::{Control, ImageModel, MaskModel, ResultKind, TextModel, VideoModel, registry};

use crate::error::{ApiError, Result};
use crate::metrics::Metrics;
use crate::served::{Residence, Served};

/// How long a model that could not be loaded is not tried again.
const FAILURE_KEPT: Duration = Duration::from_secs(60);
/// How often one who waits for room looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// A model that is open.
pub enum Model {
    /// It draws.
    Image(Box<dyn ImageModel>),
    /// It writes.
    Text(Box<dyn TextModel>),
    /// It finds pixels.
    Masks(Box<dyn MaskModel>),
    /// It makes clips.
    Video(Box<dyn VideoModel>),
}

impl Model {
    /// Bytes of what it has in memory.
    fn bytes(&self, served: &Served) -> u64 {
        match self {
            Self::Image(model) => model.weight_bytes().loaded,
            Self::Text(model) => model.weight_bytes(),
            Self::Masks(_) => served.bytes,
            Self::Video(model) => model.weight_bytes().loaded,
        }
    }
}

struct Idle {
    served: Arc<Served>,
    kind: ResultKind,
    model: Model,
    bytes: u64,
    used: Instant,
}

impl Idle {
    fn is(&self, served: &Served, kind: ResultKind) -> bool {
        self.served.id == served.id && self.kind == kind
    }
}

#[derive(Default)]
struct Inner {
    /// Models that nobody works with.
    idle: Vec<Idle>,
    /// Bytes of those that are lent, and of the jobs that they are lent for.
    lent: u64,
    /// Those who wait for room, by number.
    line: VecDeque<u64>,
    next: u64,
    /// Whether a model was let go whose memory the allocator still keeps.
    let_go: bool,
}

/// All models in memory.
pub struct Residents {
    /// Bytes that models and jobs may take together.
    budget: u64,
    metrics: Arc<Metrics>,
    release_memory: fn(),
    inner: Mutex<Inner>,
    moved: Condvar,
}

impl Residents {
    /// None yet; `release_memory` hands the memory of models that are let go back to the system.
    pub fn new(budget: u64, metrics: Arc<Metrics>, release_memory: fn()) -> Self {
        Self {
            budget,
            metrics,
            release_memory,
            inner: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    /// Bytes that models in memory and running jobs take, by estimate.
    pub fn taken(&self) -> u64 {
        let inner = self.inner();
        inner.lent + inner.idle.iter().map(|idle| idle.bytes).sum::<u64>()
    }

    /// Whether somebody waits for room.
    pub fn is_awaited(&self) -> bool {
        !self.inner().line.is_empty()
    }

    /// Lends a model, open or not, with `needed` bytes for it and what is done with it. Waits for room, as
    /// long as `wanted`; none where that ends.
    ///
    /// # Errors
    /// More than the budget beside models that stay, or a model that could not be loaded a moment ago.
    pub fn lend(
        self: &Arc<Self>,
        served: &Arc<Served>,
        kind: ResultKind,
        needed: u64,
        wanted: impl Fn() -> bool,
    ) -> Result<Option<Lent>> {
        if let Residence::Failed { at, error } = served.residence()
            && at.elapsed() < FAILURE_KEPT
        {
            let left = FAILURE_KEPT - at.elapsed();
            return Err(error.retry(left.as_secs_f64()));
        }
        let mut inner = self.inner();
        let ticket = inner.next;
        inner.next += 1;
        inner.line.push_back(ticket);
        let found = loop {
            if !wanted() {
                break Ok(None);
            }
            if inner.line.front() == Some(&ticket) {
                if self.make_room(&mut inner, Some((served, kind)), needed) {
                    break Ok(Some(()));
                }
                if inner.lent == 0 {
                    break Err(self.exceeded(needed));
                }
            }
            let waited = self.moved.wait_timeout(inner, LOOK);
            (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        };
        inner.line.retain(|other| *other != ticket);
        let lent = found.map(|found| {
            found.map(|()| {
                let own = inner.idle.iter().position(|idle| idle.is(served, kind));
                let own = own.map(|at| inner.idle.remove(at));
                inner.lent += needed;
                Lent {
                    residents: Arc::clone(self),
                    served: Arc::clone(served),
                    kind,
                    model: own.map(|idle| idle.model),
                    bytes: needed,
                }
            })
        });
        let let_go = std::mem::take(&mut inner.let_go);
        drop(inner);
        self.moved.notify_all();
        if let_go {
            (self.release_memory)();
        }
        lent
    }

    /// Lets idle models go, `own` not, until `needed` bytes fit; false where they do not.
    fn make_room(
        &self,
        inner: &mut Inner,
        own: Option<(&Arc<Served>, ResultKind)>,
        needed: u64,
    ) -> bool {
        let is_own = |idle: &Idle| own.is_some_and(|(served, kind)| idle.is(served, kind));
        loop {
            let others = inner.idle.iter().filter(|idle| !is_own(idle));
            let taken: u64 = others.clone().map(|idle| idle.bytes).sum();
            if (inner.lent + taken).saturating_add(needed) <= self.budget {
                return true;
            }
            let kept: u64 = others
                .clone()
                .filter(|idle| idle.served.kept)
                .map(|idle| idle.bytes)
                .sum();
            if (inner.lent + kept).saturating_add(needed) > self.budget {
                return false;
            }
            let goes = inner
                .idle
                .iter()
                .enumerate()
                .filter(|(_, idle)| !is_own(idle) && !idle.served.kept)
                .min_by_key(|(_, idle)| idle.used)
                .map(|(at, _)| at);
            let Some(goes) = goes else {
                return false;
            };
            let gone = inner.idle.remove(goes);
            gone.served.set_residence(Residence::Idle);
            inner.let_go = true;
        }
    }

    fn exceeded(&self, needed: u64) -> ApiError {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "exceeds_memory",
            format!(
                "the request needs about {} MiB beside the models that are kept, and the server may use {} \
                 in all",
                needed >> 20,
                self.budget >> 20
            ),
        )
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model in use. Dropped, it is idle.
pub struct Lent {
    residents: Arc<Residents>,
    served: Arc<Served>,
    kind: ResultKind,
    model: Option<Model>,
    /// Bytes that are set aside.
    bytes: u64,
}

impl Lent {
    /// The model, opened where it is not: one that writes with its weights, others read them at their first
    /// request. `control` stops that.
    ///
    /// # Errors
    /// Files that are missing, damaged, or do not fit together.
    pub fn open(&mut self, control: &Control) -> Result<&mut Model> {
        let model = match self.model.take() {
            Some(model) => model,
            None => self.load(control)?,
        };
        Ok(self.model.insert(model))
    }

    fn load(&self, control: &Control) -> Result<Model> {
        let served = &self.served;
        served.set_residence(Residence::Loading);
        let settings = brisk::settings(Options::new());
        let opened = control.drive(|| match self.kind {
            ResultKind::Pictures => {
                registry::open_image(&served.folder, &settings).map(Model::Image)
            }
            ResultKind::Text => registry::open_text(&served.folder, &settings).map(Model::Text),
            ResultKind::Masks => registry::open_masks(&served.folder, &settings).map(Model::Masks),
            ResultKind::Clips => registry::open_video(&served.folder, &settings).map(Model::Video),
        });
        match opened {
            Ok(model) => {
                self.residents.metrics.loaded(&served.id);
                served.set_residence(Residence::Loaded);
                Ok(model)
            }
            Err(brisk::Error::Cancelled) => {
                served.set_residence(Residence::Idle);
                Err(ApiError::internal("loading was stopped"))
            }
            Err(error) => {
                let message = format!("{} cannot be loaded: {error}", served.id);
                let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "load_failed", message)
                    .retry(FAILURE_KEPT.as_secs_f64());
                served.set_residence(Residence::Failed {
                    at: Instant::now(),
                    error: error.clone(),
                });
                Err(error)
            }
        }
    }
}

/// Bytes of a lent model's jobs, apart from the model itself.
pub struct Room {
    residents: Arc<Residents>,
    bytes: u64,
}

impl Lent {
    /// The model, where it is open and writes.
    pub fn text(&self) -> Option<&dyn TextModel> {
        match &self.model {
            Some(Model::Text(model)) => Some(&**model),
            _ => None,
        }
    }

    /// Counts `bytes` of what was set aside apart from the rest.
    pub fn split(&mut self, bytes: u64) -> Room {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Room {
            residents: Arc::clone(&self.residents),
            bytes,
        }
    }

    /// Sets aside `bytes` more, if there is room now and nobody waits for it.
    pub fn room(&self, bytes: u64) -> Option<Room> {
        let residents = &self.residents;
        let mut inner = residents.inner();
        if !inner.line.is_empty() || !residents.make_room(&mut inner, None, bytes) {
            return None;
        }
        inner.lent += bytes;
        Some(Room {
            residents: Arc::clone(residents),
            bytes,
        })
    }

    /// Drops the model: it panicked.
    pub fn discard(mut self) {
        self.model = None;
        self.served.set_residence(Residence::Idle);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.residents.inner().lent -= self.bytes;
        self.residents.moved.notify_all();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut inner = self.residents.inner();
        inner.lent -= self.bytes;
        if let Some(model) = self.model.take() {
            inner.idle.push(Idle {
                served: Arc::clone(&self.served),
                kind: self.kind,
                bytes: model.bytes(&self.served),
                model,
                used: Instant::now(),
            });
        }
        drop(inner);
        self.residents.moved.notify_all();
    }
}

impl std::fmt::Debug for Residents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Residents")
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ResultKind = ResultKind::Pictures;

    fn residents(budget: u64) -> Arc<Residents> {
        Arc::new(Residents::new(budget, Arc::default(), || ()))
    }

    fn served(id: &str) -> Arc<Served> {
        Arc::new(Served::absent(id))
    }

    fn lend(residents: &Arc<Residents>, id: &str, needed: u64) -> Result<Option<Lent>> {
        residents.lend(&served(id), KIND, needed, || true)
    }

    #[test]
    fn what_never_fits_is_refused_and_what_fits_later_waits() {
        let residents = residents(100);
        assert_eq!(
            lend(&residents, "a", 101).err().unwrap().code,
            "exceeds_memory"
        );
        let first = lend(&residents, "a", 60).unwrap().unwrap();
        assert_eq!(residents.taken(), 60);
        assert!(first.room(41).is_none());
        let more = first.room(40).unwrap();
        assert_eq!(residents.taken(), 100);
        drop(more);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lend(&residents, "b", 60).unwrap().is_some());
            while !residents.is_awaited() {
                std::thread::yield_now();
            }
            // Nobody takes the room that somebody waits for.
            assert!(first.room(1).is_none());
            drop(first);
            assert!(second.join().unwrap());
        });
        assert_eq!(residents.taken(), 0);
    }

    #[test]
    fn who_is_not_wanted_any_more_leaves_the_line() {
        let residents = residents(100);
        let _first = lend(&residents, "a", 60).unwrap().unwrap();
        let found = residents.lend(&served("b"), KIND, 60, || false);
        assert!(found.unwrap().is_none() && !residents.is_awaited());
    }
}
