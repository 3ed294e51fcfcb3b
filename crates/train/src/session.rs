//! What every run shares: updates, the schedule, the clock, the log, checkpoints and resuming.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use brisk_nn::{WeightReport, Weights};
use brisk_pipelines::events::Work;
use brisk_pipelines::{Control, Event};
use brisk_store::TensorSource;
use brisk_store::output::FolderLock;
use candle_core::Var;
use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::{self, Contents, RunState};
use crate::ema::Ema;
use crate::error::{Error, FileContext, JsonContext, Result};
use crate::inputs::Inputs;
use crate::log::{LogEntry, LogWriter, Measured};
use crate::loss::Loss;
use crate::optimiser::{self, Gradients, Optimiser, OptimiserOptions};
use crate::recipe::TrainingOptions;
use crate::recipe_changes;
use crate::rng::Rng;
use crate::schedule::Schedule;
use crate::shards::Shards;
use crate::tensors;
use crate::terms::{Collected, Sums, Terms};

/// Updates without a finite gradient in a row after which a run gives up.
const MAX_SKIPPED: u64 = 50;

/// Name of the log in a run's folder.
pub(crate) const LOG: &str = "training_log.jsonl";

/// What is written at the end of a run.
pub(crate) const REPORT: &str = "report.json";

const CHECKPOINTS: &str = "checkpoints";

/// Bytes that a parameter takes: itself, its gradient of two parts, its average, the optimiser's two, a copy to save.
const PARAMETER_BYTES: u64 = 28;

/// Refuses a model and a batch that the machine has no room for, before anything is made of their numbers. A
/// sample takes at least `sample` bytes.
pub(crate) fn check_memory(parameters: u64, batch: usize, sample: u64) -> Result<()> {
    let Some(available) = brisk_pipelines::memory::available() else {
        return Ok(());
    };
    let samples = sample.saturating_mul(batch as u64);
    let model = parameters.saturating_mul(PARAMETER_BYTES);
    if samples.saturating_add(model) <= available {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(Error::Recipe(format!(
        "{parameters} parameters take {} MiB, and training.batch of {batch} another {} MiB or more; {} MiB are available",
        mib(model),
        mib(samples),
        mib(available)
    )))
}

/// The lock of a run's folder, which is made where there is none: one training at a time writes into it, and
/// what it makes goes into the folder `result` of it.
///
/// # Errors
/// Another process holds it, which the message names; or results are there that this run did not make and would
/// overwrite.
pub(crate) fn claim(out: &Path, result: &str) -> Result<FolderLock> {
    let refuse = |path: &Path, problem: &str| Err(std::io::Error::other(problem)).at(path);
    let result = out.join(result);
    for (path, purpose) in [(out, "the run"), (&result, "its result")] {
        if path.exists() && !path.is_dir() {
            return refuse(
                path,
                &format!("it is a file, expected a folder for {purpose}"),
            );
        }
    }
    std::fs::create_dir_all(out).at(out)?;
    let lock = FolderLock::take(out)?;
    if checkpoint::is_any(&out.join(CHECKPOINTS))? {
        return Ok(lock);
    }
    // Before its first checkpoint a run may have written a model, and has a log.
    let report = out.join(REPORT);
    let strangers = result.exists() && !out.join(LOG).exists();
    if let Some(path) = [(strangers, &result), (report.exists(), &report)]
        .iter()
        .find_map(|(there, path)| there.then_some(path))
    {
        return refuse(
            path,
            "it would be overwritten, as there is no checkpoint that a run could go on from; give another \
             folder, or remove it",
        );
    }
    Ok(lock)
}

pub(crate) struct Session<'a> {
    options: &'a TrainingOptions,
    out: &'a Path,
    recipe: Value,
    inputs: Inputs,
    pub control: &'a Control,
    parameters: Vec<(String, Var)>,
    optimiser: Box<dyn Optimiser>,
    shards: Shards,
    schedule: Schedule,
    pub ema: Ema,
    pub rng: Rng,
    pub step: u64,
    finished: bool,
    /// Step at which the run was over first.
    ended: Option<u64>,
    seconds_before: f64,
    started: Instant,
    skipped_in_a_row: u64,
    log: LogWriter,
    /// Sum and number of the losses since the last line of the log, and when that was.
    losses: (f64, u64),
    /// The same of the terms of losses, by their keys in the log.
    terms: Sums,
    logged: (u64, f64),
    /// The last update's rate and gradient norm.
    last: (f64, f64),
}

impl<'a> Session<'a> {
    /// Starts in `out`, or continues the run whose checkpoint is there.
    pub fn open(
        options: &'a TrainingOptions,
        recipe: &impl Serialize,
        inputs: Inputs,
        parameters: Vec<(String, Var)>,
        out: &'a Path,
        control: &'a Control,
    ) -> Result<Session<'a>> {
        std::fs::create_dir_all(out).at(out)?;
        let recipe = serde_json::to_value(recipe).in_document("recipe")?;
        let mut optimiser = optimiser::build(
            options.optimiser,
            parameters.clone(),
            OptimiserOptions {
                weight_decay: options.weight_decay,
                clip: options.clip,
                betas: options.betas,
                eight_bit: options.eight_bit,
            },
        );
        let mut ema = Ema::new(&parameters, options.ema_decay)?;
        let mut state = RunState {
            step: 0,
            rng: Rng::stream(options.seed, u64::MAX).state(),
            seconds: 0.0,
            skipped: 0,
            skipped_in_a_row: 0,
            losses: (Some(0.0), 0),
            terms: BTreeMap::new(),
            logged: (0, 0.0),
            finished: false,
            ended: None,
            recipe: recipe.clone(),
            inputs: Some(inputs.clone()),
        };
        if let Some(found) = checkpoint::latest(&out.join(CHECKPOINTS))? {
            if let Some(problem) = &found.passed_over {
                control.warn(format!("a later checkpoint is passed over: {problem}"));
            }
            let of_recipe = recipe_changes::refusal(&found.state.recipe, &recipe);
            let began = found.state.inputs.as_ref();
            let of_inputs = || began.and_then(|began| began.refusal(&inputs));
            if let Some(message) = of_recipe.or_else(of_inputs) {
                return Err(Error::Checkpoint {
                    path: found.path,
                    message,
                });
            }
            for (name, variable) in &parameters {
                let values = tensors::read(&found.weights, name, variable.dims())?;
                tensors::set(variable, values)?;
            }
            ema.load(&found.average)?;
            optimiser.load_state(&found.optimiser, found.state.skipped)?;
            let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
            let (arrays, codes) = (optimiser.state(), optimiser.codes());
            let kept = arrays.iter().map(|array| array.name.as_str());
            let kept: Vec<&str> = kept
                .chain(codes.iter().map(|codes| codes.name.as_str()))
                .collect();
            found.expect(&names, &kept)?;
            state = found.state;
            state.ended = state.ended.or(state.finished.then_some(state.step));
            if options.prolong.is_some() && state.ended.is_none() {
                return Err(Error::Checkpoint {
                    path: found.path,
                    message: format!(
                        "the run is at step {} and not over; let it end before it is prolonged",
                        state.step
                    ),
                });
            }
            let log = out.join(LOG);
            if !log.exists() {
                control.warn(format!(
                    "{} is not there any more; it begins anew after step {}",
                    log.display(),
                    state.step
                ));
            }
            // It may have become longer.
            let seconds = options
                .max_minutes
                .map_or(f64::INFINITY, |minutes| 60.0 * minutes);
            match (options.prolong, state.ended) {
                (Some(more), Some(ended)) => {
                    state.finished &= state.step >= ended.saturating_add(more);
                }
                _ => {
                    state.finished &= state.step >= options.steps || state.seconds >= seconds;
                    state.ended = state
                        .ended
                        .filter(|_| state.step >= options.steps || state.finished);
                }
            }
        } else if options.prolong.is_some() {
            return Err(Error::Recipe(format!(
                "{} holds no run that could be prolonged",
                out.display()
            )));
        }
        let session = Session {
            options,
            out,
            recipe,
            inputs,
            control,
            parameters,
            optimiser,
            shards: Shards::new(options.shards)?,
            schedule: Schedule {
                peak: options.learning_rate
                    * options
                        .rate_scaling
                        .map_or(1.0, |scaling| scaling.factor(options.batch)),
                warm_up_steps: options.warm_up_steps,
                decay: options.decay,
            },
            ema,
            rng: Rng::from_state(state.rng),
            step: state.step,
            finished: state.finished,
            ended: state.ended,
            seconds_before: state.seconds,
            started: Instant::now(),
            skipped_in_a_row: state.skipped_in_a_row,
            log: LogWriter::open(&out.join(LOG), state.step)?,
            losses: (state.losses.0.unwrap_or(f64::NAN), state.losses.1),
            terms: Sums(state.terms),
            logged: state.logged,
            last: (0.0, 0.0),
        };
        if session.is_over() {
            let step = session.step;
            control.send(Event::Log(format!(
                "all of the run's {step} steps are done; the results are written anew"
            )));
        } else {
            if session.step > 0 {
                control.send(Event::Resumed { step: session.step });
            }
            control.stage("training", Work::Run, 0);
        }
        Ok(session)
    }

    /// Bytes of the optimiser's state.
    pub fn optimiser_bytes(&self) -> u64 {
        self.optimiser.state_bytes()
    }

    /// Samples an update.
    pub fn batch(&self) -> usize {
        self.options.batch
    }

    /// Runs parallel iterators of `work` on the run's threads.
    pub fn together<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.shards.together(work)
    }

    pub fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    /// Share of the run that is over: of the updates or of the time, whichever is larger.
    pub fn progress(&self) -> f64 {
        if let Some((ended, more)) = self.prolongation() {
            return (self.step.saturating_sub(ended) as f64 / more as f64).min(1.0);
        }
        let steps = self.step as f64 / self.options.steps as f64;
        let time = self
            .options
            .max_minutes
            .map_or(0.0, |minutes| self.seconds() / (60.0 * minutes));
        steps.max(time).min(1.0)
    }

    /// What [`Self::progress`] says to a run with phases: one that goes on behind its end stays in the last of them, so
    /// that what was trained on its result still fits.
    pub fn phase_progress(&self) -> f64 {
        match self.prolongation() {
            Some(_) => 1.0,
            None => self.progress(),
        }
    }

    /// Where a prolongation begins, and its updates.
    fn prolongation(&self) -> Option<(u64, u64)> {
        Some((self.ended?, self.options.prolong?))
    }

    pub fn is_over(&self) -> bool {
        self.finished || self.progress() >= 1.0
    }

    /// True every `interval` updates.
    pub fn is_due(&self, interval: u64) -> bool {
        self.step.is_multiple_of(interval)
    }

    /// One update with the gradient of `loss`, which gives the mean loss of a range of the batch's
    /// samples.
    pub fn update(
        &mut self,
        batch: usize,
        loss: impl Fn(std::ops::Range<usize>) -> Result<Loss> + Sync,
    ) -> Result<()> {
        self.update_noting(batch, |part| Ok((loss(part)?, Terms::new())))
    }

    /// As [`Session::update`], with what the loss is made of, whose means go into the log.
    pub fn update_noting(
        &mut self,
        batch: usize,
        loss: impl Fn(std::ops::Range<usize>) -> Result<(Loss, Terms)> + Sync,
    ) -> Result<()> {
        let (shards, terms) = (&self.shards, &mut self.terms);
        let (value, gradients) = noting(shards, terms, batch, &self.parameters, loss)?;
        self.apply(value, gradients)
    }

    /// As [`Session::update_noting`], where the loss depends on the run's parameters through other variables, `of`: `pull`
    /// makes the gradients of the run's parameters of those of these.
    pub fn update_through(
        &mut self,
        batch: usize,
        of: &[(String, Var)],
        loss: impl Fn(std::ops::Range<usize>) -> Result<(Loss, Terms)> + Sync,
        pull: impl FnOnce(Gradients) -> Result<Gradients>,
    ) -> Result<()> {
        let (value, gradients) = noting(&self.shards, &mut self.terms, batch, of, loss)?;
        self.apply(value, pull(gradients)?)
    }

    /// Changes the parameters by a batch's mean loss and gradients.
    fn apply(&mut self, value: f64, gradients: Gradients) -> Result<()> {
        let before = self.prolongation().map_or(0, |(ended, _)| ended);
        let rate = self
            .schedule
            .rate(self.step.saturating_sub(before), self.progress());
        let optimiser = &mut self.optimiser;
        let report = self.shards.together(|| optimiser.step(gradients, rate))?;
        if report.skipped {
            self.skipped_in_a_row += 1;
            if self.skipped_in_a_row >= MAX_SKIPPED {
                return Err(Error::Diverged {
                    step: self.step,
                    skipped: self.skipped_in_a_row,
                    in_a_row: true,
                });
            }
        } else {
            self.skipped_in_a_row = 0;
            let (ema, parameters, step) = (&mut self.ema, &self.parameters, self.step);
            self.shards.together(|| ema.update(parameters, step))?;
        }
        self.step += 1;
        self.last = (rate, report.gradient_norm);
        self.losses.0 += value;
        self.losses.1 += 1;
        if self.is_due(self.options.log_every) {
            self.write_log(Measured::default())?;
        }
        Ok(())
    }

    fn write_log(&mut self, mut measured: Measured) -> Result<()> {
        measured.append(&mut self.terms.take());
        let seconds = self.seconds();
        let samples = (self.step - self.logged.0) * self.options.batch as u64;
        let (sum, count) = self.losses;
        let entry = LogEntry {
            step: self.step,
            loss: finite(sum / count as f64),
            learning_rate: self.last.0,
            gradient_norm: finite(self.last.1),
            seconds,
            samples_per_second: samples as f64 / (seconds - self.logged.1).max(1e-9),
            skipped: self.optimiser.skipped(),
            measured: measured
                .into_iter()
                .filter(|(_, value)| value.is_finite())
                .collect(),
        };
        self.log.write(&entry)?;
        self.losses = (0.0, 0);
        self.logged = (self.step, seconds);
        self.control.send(Event::Progress {
            step: self.step,
            share: self.progress(),
            seconds,
            numbers: entry.numbers(),
        });
        Ok(())
    }

    /// Writes a line of the log with what an evaluation measured, by the keys of [`crate::log::MEASURES`].
    pub fn log_measured(&mut self, values: &[(&str, f64)]) -> Result<()> {
        let named = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), *value));
        self.write_log(named.collect())
    }

    /// Writes a checkpoint; `finished` marks the end of the schedule.
    pub fn save(&mut self, finished: bool) -> Result<()> {
        self.finished = finished;
        if finished {
            self.ended.get_or_insert(self.step);
        }
        let state = RunState {
            step: self.step,
            rng: self.rng.state(),
            seconds: self.seconds(),
            skipped: self.optimiser.skipped(),
            skipped_in_a_row: self.skipped_in_a_row,
            losses: (finite(self.losses.0), self.losses.1),
            terms: self.terms.0.clone(),
            logged: self.logged,
            finished,
            ended: self.ended,
            recipe: self.recipe.clone(),
            inputs: Some(self.inputs.clone()),
        };
        let weights = tensors::copy_variables(&self.parameters)?;
        let (optimiser, codes) = (self.optimiser.state(), self.optimiser.codes());
        let contents = Contents {
            weights: &weights,
            average: self.ema.arrays(),
            optimiser: &optimiser,
            codes: &codes,
        };
        checkpoint::save(&self.out.join(CHECKPOINTS), &state, &contents)?;
        self.control.send(Event::Saved { step: self.step });
        Ok(())
    }

    /// After every update: a checkpoint when one is due or the run is to stop.
    ///
    /// # Errors
    /// The run is to stop; its checkpoint is written. Or it cannot be.
    pub fn settle(&mut self) -> Result<()> {
        let stop = if self.is_over() {
            Ok(())
        } else {
            self.control.check()
        };
        if stop.is_err() || self.is_due(self.options.checkpoint_every) {
            self.save(false)?;
        }
        Ok(stop?)
    }

    /// Says that a sheet of samples was written.
    pub fn sample_written(&self, path: PathBuf) {
        self.control.send(Event::Written {
            what: "sample sheet",
            path,
        });
    }

    /// The file for a sample sheet of the present step; its folder exists.
    pub fn sample_path(&self) -> Result<PathBuf> {
        let folder = self.out.join("samples");
        std::fs::create_dir_all(&folder).at(&folder)?;
        Ok(folder.join(format!("step-{:08}.png", self.step)))
    }

    /// Marks the run as finished in its checkpoint, unless it was already.
    ///
    /// # Errors
    /// More updates were skipped than not: what is there is not a trained model.
    pub fn finish(&mut self) -> Result<()> {
        let skipped = self.optimiser.skipped();
        if skipped * 2 > self.step {
            return Err(Error::Diverged {
                step: self.step,
                skipped,
                in_a_row: false,
            });
        }
        if self.finished {
            return Ok(());
        }
        self.save(true)
    }
}

/// The mean loss of a batch and the gradients of some variables; what it is made of goes into `sums`.
fn noting(
    shards: &Shards,
    sums: &mut Sums,
    batch: usize,
    of: &[(String, Var)],
    loss: impl Fn(std::ops::Range<usize>) -> Result<(Loss, Terms)> + Sync,
) -> Result<(f64, Gradients)> {
    let collected = Collected::default();
    let loss = |part: std::ops::Range<usize>| {
        let (loss, terms) = loss(part.clone())?;
        collected.add(&part, batch, terms);
        Ok(loss)
    };
    let found = shards.gradients(batch, of, loss)?;
    sums.add(collected);
    Ok(found)
}

/// Refuses weights to start from that lack some of the model's, which has loaded them: it has refused other
/// shapes and tensors that it does not have.
pub(crate) fn check_start(weights: &Weights, start: Option<&dyn TensorSource>) -> Result<()> {
    match start {
        Some(start) => check_start_but(weights, start, |_| false),
        None => Ok(()),
    }
}

/// As [`check_start`], where what is `new` in the model may be missing.
pub(crate) fn check_start_but(
    weights: &Weights,
    start: &dyn TensorSource,
    new: impl Fn(&str) -> bool,
) -> Result<()> {
    let missing: Vec<String> = weights
        .variables()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| start.info(name).is_none() && !new(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(brisk_nn::Error::Weights(Box::new(WeightReport {
        origin: "the model to start from".to_owned(),
        missing,
        ..WeightReport::default()
    }))
    .into())
}

/// None for what JSON cannot hold.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Writes a JSON document with a newline at its end.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).in_document(path.display())?;
    text.push('\n');
    Ok(brisk_store::write_atomic(path, text.as_bytes())?)
}
