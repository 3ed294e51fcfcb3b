//! Texts of models that have no open sessions: a job after another.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brisk::{Control, Event, TextModel};

use super::texts::written;
use super::{Clock, Compute};
use crate::ask::{Ask, TextAsk};
use crate::error::{ApiError, Result};
use crate::job::{Canvas, Job};
use crate::outcome::Outcome;

impl Compute {
    /// Writes the texts of a job.
    pub(super) fn write_alone(
        &self,
        job: &Arc<Job>,
        ask: &TextAsk,
        model: &dyn TextModel,
    ) -> Result<()> {
        let clock = Clock::start();
        let mut texts = Vec::with_capacity(ask.count());
        let plans = ask.planned(model, self.release_memory)?;
        for (index, plan) in plans.iter().enumerate() {
            let first = index * ask.answers.len();
            let (control, halted) = self.text_control(job, ask, first, model);
            for warning in &plan.warnings {
                control.warn(warning);
            }
            let made =
                match model.generate(plan, &control) {
                    Ok(made) => made.into_iter().map(|text| Canvas {
                        passes: text.forward_passes,
                        mask: u32::MAX,
                        tokens: text.tokens,
                    }),
                    // Every text came to one of its stops.
                    Err(brisk::Error::Cancelled) if *lock(&halted) && !job.is_cancelled() => {
                        job.go_on();
                        let state = job.state();
                        let canvases = state.canvases[first..first + ask.answers.len()].to_vec();
                        drop(state);
                        texts.extend(canvases.into_iter().enumerate().map(|(at, canvas)| {
                            written(ask, first + at, &canvas, canvas.mask, model)
                        }));
                        continue;
                    }
                    Err(error) => return Err(ApiError::of_library(&error)),
                };
            for (at, mut canvas) in made.enumerate() {
                let from = plan.shown_from[at].min(canvas.tokens.len());
                canvas.tokens.drain(..from);
                texts.push(written(ask, first + at, &canvas, u32::MAX, model));
            }
        }
        self.metrics.wrote(&texts);
        self.measured(job, [("text", clock.seconds())]);
        job.finish(Outcome::Texts(texts));
        Ok(())
    }

    /// What a job hears of its texts from number `first` on; halts the model when every text came to one of
    /// its stops, which the flag then says.
    fn text_control(
        &self,
        job: &Arc<Job>,
        ask: &TextAsk,
        first: usize,
        model: &dyn TextModel,
    ) -> (Control, Arc<Mutex<bool>>) {
        let halted = Arc::new(Mutex::new(false));
        let tokenizer = model.tokenizer().filter(|_| ask.stops()).cloned();
        let (listening, told) = (Arc::clone(job), Arc::clone(&halted));
        let mut ended = vec![false; ask.answers.len()];
        let control = Control::new(move |event| {
            let sequence = match &event {
                Event::Canvas { sequence, .. } => Some(*sequence),
                _ => None,
            };
            listening.note(event, first);
            let (Some(tokenizer), Some(sequence)) = (&tokenizer, sequence) else {
                return;
            };
            let Ask::Texts(ask) = &listening.ask else {
                return;
            };
            let state = listening.state();
            let Some(canvas) = state.canvases.get(first + sequence) else {
                return;
            };
            let answer = ask.answer(first + sequence);
            let shown = answer.shown(&canvas.tokens, canvas.mask, false, tokenizer);
            drop(state);
            ended[sequence] |= shown.ended;
            if ended.iter().all(|ended| *ended) {
                *lock(&told) = true;
                listening.halt_flag().store(true, Ordering::Relaxed);
            }
        });
        let control = self.control(control.with_cancel(job.halt_flag()));
        match ask.is_watched() {
            true => (control.with_canvas(), halted),
            false => (control, halted),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
