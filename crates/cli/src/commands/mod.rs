//! One file a verb, and what several share.

pub mod batch;
pub mod bench;
pub mod compare;
pub mod completions;
pub mod component;
pub mod convert;
pub mod distill;
pub mod doctor;
pub mod eval;
pub mod grow;
pub mod image;
pub mod inspect;
pub mod masks;
pub mod models;
pub mod probe;
pub mod prune;
pub mod quantize;
pub mod reproduce;
pub mod serve;
pub mod text;
pub mod train;
pub mod video;
pub mod work;

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use brisk::{Options, keys};
use brisk_models::component::{Entry, Setting};
use brisk_nn::Location;

use crate::arguments::{Arguments, Verb};
use crate::failure::{Failure, Result};
use crate::{output, terminal};

/// Runs what was asked for.
pub fn run(arguments: Arguments) -> Result {
    brisk_kernels::simd::check_environment().map_err(Failure::usage)?;
    match arguments.verb {
        Verb::Image(arguments) => image::run(&arguments),
        Verb::Text(arguments) => text::run(&arguments),
        Verb::Video(arguments) => video::run(&arguments),
        Verb::Masks(arguments) => masks::run(&arguments),
        Verb::Models(arguments) => models::run(&arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Compare(arguments) => compare::run(&arguments),
        Verb::Quantize(arguments) => quantize::run(&arguments),
        Verb::Grow(arguments) => grow::run(&arguments),
        Verb::Prune(arguments) => prune::run(&arguments),
        Verb::Convert(arguments) => convert::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Train(verb) => train::run(&verb),
        Verb::Distill(verb) => distill::run(&verb),
        Verb::Eval(verb) => eval::run(&verb),
        Verb::Reproduce(arguments) => reproduce::run(&arguments),
        Verb::Serve(arguments) => serve::run(*arguments),
        Verb::Batch(verb) => batch::run(verb),
        Verb::Work(arguments) => work::run(&arguments),
        Verb::Completions(arguments) => completions::completions(&arguments),
        Verb::Man(arguments) => completions::man(&arguments),
        Verb::Probe(arguments) => probe::run(&arguments),
        Verb::Bench(verb) => bench::run(&verb),
    }
}

/// Threads that the work may use; all of the machine's by default.
#[derive(Debug, clap::Args)]
pub struct ThreadArguments {
    /// Threads to use (default: all)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl ThreadArguments {
    /// Starts the thread pool, of which this thread is one from then on: from outside, every parallel loop
    /// would be a message to it and back. Before any work, which this thread must do itself.
    pub fn apply(&self) -> Result {
        Self::start(self.bound(), true)
    }

    /// Starts the thread pool for the work of other threads, for which this one only waits.
    pub fn apply_to_others(&self) -> Result {
        Self::start(self.bound(), false)
    }

    /// Threads for the pool, as many as the machine has if 0; the tensor library gets no more.
    fn bound(&self) -> usize {
        if let Some(threads) = self.threads {
            bound_tensor_library("CANDLE_NUM_THREADS", threads);
        }
        self.threads.map_or(0, usize::from)
    }

    /// The same for a training, whose parts are spread over the threads: the tensor library does not
    /// spread operations as well, for which all parts would wait in turn.
    pub fn apply_to_training(&self) -> Result {
        let machine = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok();
        let threads = self.threads.map(usize::from).or_else(machine);
        let all = || std::thread::available_parallelism().map_or(0, NonZero::get);
        bound_tensor_library("CANDLE_NUM_THREADS", 1);
        bound_tensor_library("RAYON_NUM_THREADS", 1);
        Self::start(threads.unwrap_or_else(all), true)
    }

    /// Starts so many threads, as many as the machine has if 0; with this one among them where `own` says so.
    fn start(threads: usize, own: bool) -> Result {
        brisk_nn::flush_denormals();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .start_handler(|_| brisk_nn::flush_denormals());
        let pool = if own { pool.use_current_thread() } else { pool };
        Ok(pool.build_global()?)
    }
}

/// Bounds how many threads the tensor library spreads an operation over, unless the environment does.
fn bound_tensor_library(variable: &str, threads: u16) {
    if std::env::var_os(variable).is_none() {
        // SAFETY: commands start their threads after this, so nothing reads the environment beside it.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var(variable, threads.to_string());
        }
    }
}

/// Where one component computes.
#[derive(Debug, clap::Args)]
pub struct DeviceArguments {
    /// cpu (default), cuda, cuda:N or auto
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "cpu",
        hide_default_value = true
    )]
    device: String,
    /// Compute in f32 on a card
    #[arg(long)]
    precise: bool,
}

impl DeviceArguments {
    /// Whether neither was given.
    pub fn is_default(&self) -> bool {
        self.device == "cpu" && !self.precise
    }

    /// Refuses any place but the CPU, for what runs there only.
    pub fn only_host(&self, name: &str) -> Result {
        match brisk_pipelines::device::location(&self.device, self.precise)? {
            location if location == Location::HOST => Ok(()),
            _ => Err(Failure::usage(format!(
                "--device: {name} runs on the CPU only"
            ))),
        }
    }

    /// The place, for an entry that can run there.
    pub fn location(&self, entry: &Entry) -> Result<Location> {
        let location = brisk_pipelines::device::location(&self.device, self.precise)?;
        if location != Location::HOST && !entry.honours(Setting::Device) {
            return Err(Failure::usage(format!(
                "--device: a {} runs on the CPU only",
                entry.name
            )));
        }
        Ok(location)
    }
}

/// What Ctrl-C sets, once it is listened for.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether Ctrl-C was pressed since [`stop_on_interrupt`].
pub fn interrupted() -> bool {
    INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Says which seed was drawn where nobody chose one, so that the result can be had again.
pub fn report_drawn_seed(options: &Options) {
    let drawn = options.source(keys::SEED.definition());
    if let (Some("random" | "-1"), Some(seed)) = (drawn, options.get(&keys::SEED)) {
        output::note(&format!("seed {seed}"));
    }
}

/// A flag that Ctrl-C sets. A second Ctrl-C ends the program at once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    stop_or_leave(Arc::default())
}

/// The same, but while `idle` is set Ctrl-C ends the program: there is nothing to stop.
pub fn stop_or_leave(idle: Arc<AtomicBool>) -> Result<Arc<AtomicBool>> {
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    let set = Arc::clone(&flag);
    let mode = terminal::Mode::of_stdin();
    ctrlc::set_handler(move || {
        if idle.load(Ordering::Relaxed) {
            mode.restore();
            std::process::exit(0);
        }
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        output::note("stopping; once more to stop at once");
    })
    .map_err(|error| Failure::failed(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(flag)
}
