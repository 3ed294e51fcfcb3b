//! `brisk work`: carry out what waits in a queue.

use brisk_fleet::WorkOptions;
use clap::Args;

use super::batch::failure;
use super::serve::log_to_stderr;
use super::{ThreadArguments, stop_on_interrupt};
use crate::failure::Result;
use crate::output;
use crate::progress::Download;

/// Carry out the requests of a queue, on as many machines as wanted
#[derive(Debug, Args)]
pub struct WorkArguments {
    #[command(flatten)]
    options: WorkOptions,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Works until told to end; the log goes to stderr.
pub fn run(arguments: &WorkArguments) -> Result {
    arguments.threads.apply_to_others()?;
    log_to_stderr();
    let interrupted = stop_on_interrupt()?;
    let progress = Download::default();
    let mut ready = |name: &str, models: &[String]| {
        output::note(&format!(
            "worker {name} takes jobs of {}",
            models.join(", ")
        ));
    };
    brisk_fleet::work(&arguments.options, &progress, interrupted, &mut ready).map_err(failure)
}
