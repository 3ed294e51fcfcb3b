//! `brisk batch`: requests by the file, on this machine or through a queue.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use brisk_fleet::{DeadJobs, Error, Given, QueueOptions, RunOptions, SubmitOptions, Tally, Told};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{ThreadArguments, stop_on_interrupt};
use crate::failure::{Failure, Result};
use crate::output;
use crate::progress::Download;
use crate::text;

/// Carry out a file of requests: here, or by the workers of a queue
#[derive(Debug, Subcommand)]
pub enum BatchVerb {
    Run(Box<RunArguments>),
    Submit(Box<SubmitArguments>),
    Status(OneArguments),
    Wait(WaitArguments),
    Cancel(OneArguments),
    Dead(DeadArguments),
}

/// Carry out a file of requests on this machine; what is there already is not made again
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    options: RunOptions,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Give a file of requests to the workers of a queue; what is there already is not made again
#[derive(Debug, Args)]
pub struct SubmitArguments {
    #[command(flatten)]
    options: SubmitOptions,
    /// Wait until it is done, as brisk batch wait does
    #[arg(long)]
    wait: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// One batch
#[derive(Debug, Args)]
pub struct OneArguments {
    /// Its id, as submit prints it
    batch: String,
    #[command(flatten)]
    queue: QueueOptions,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Wait for a batch: submit what is missing again, write results.jsonl, fail unless every line has its result
#[derive(Debug, Args)]
pub struct WaitArguments {
    #[command(flatten)]
    one: OneArguments,
    /// The file of requests, where it is not where it was when it was submitted
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// List the requests that nobody carries out any more, and why
#[derive(Debug, Args)]
pub struct DeadArguments {
    /// Of this batch only
    batch: Option<String>,
    #[command(flatten)]
    queue: QueueOptions,
    /// Let them try again
    #[arg(long)]
    retry: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs what was asked for.
pub fn run(verb: BatchVerb) -> Result {
    match verb {
        BatchVerb::Run(arguments) => here(&arguments),
        BatchVerb::Submit(arguments) => submit(&arguments),
        BatchVerb::Status(arguments) => status(&arguments),
        BatchVerb::Wait(arguments) => wait(&arguments),
        BatchVerb::Cancel(arguments) => cancel(&arguments),
        BatchVerb::Dead(arguments) => dead(&arguments),
    }
}

fn submit(arguments: &SubmitArguments) -> Result {
    let interrupted = stop_on_interrupt()?;
    let began = Instant::now();
    let mut given = |done: &Given| {
        let Given {
            batch,
            given,
            total,
        } = done;
        let seconds = began.elapsed().as_secs_f64();
        output::note(&format!(
            "batch {batch}: {given} of {total} requests given to the queue in {seconds:.2} s"
        ));
    };
    let mut shown = Shown::new();
    let mut look = |tally: &Tally| shown.look(tally);
    let told: Option<Told<'_>> = match arguments.wait {
        true => Some(&mut look),
        false => None,
    };
    let done = brisk_fleet::submit(&arguments.options, interrupted, &mut given, told);
    let (
        Given {
            batch,
            given,
            total,
        },
        tally,
    ) = done.map_err(failure)?;
    match (tally, arguments.json) {
        (Some(tally), json) => ended(&tally, json),
        (None, true) => {
            output::print_json(&json!({"batch": batch, "given": given, "total": total}))
        }
        (None, false) => output::print(&batch),
    }
}

fn wait(arguments: &WaitArguments) -> Result {
    let interrupted = stop_on_interrupt()?;
    let mut shown = Shown::new();
    let OneArguments { batch, queue, json } = &arguments.one;
    let mut told = |tally: &Tally| shown.look(tally);
    let tally = brisk_fleet::wait(
        queue,
        batch,
        arguments.file.as_ref(),
        interrupted,
        &mut told,
    );
    ended(&tally.map_err(failure)?, *json)
}

fn status(arguments: &OneArguments) -> Result {
    let found = brisk_fleet::status(&arguments.queue, &arguments.batch, stop_on_interrupt()?);
    let status = found.map_err(failure)?;
    if arguments.json {
        return output::print_json(&serde_json::to_value(&status)?);
    }
    let state = if status.cancelled { ", cancelled" } else { "" };
    let mut lines = format!(
        "batch {}{state}: {} of {} done, {} failed, {} to do\n{} workers, {} messages in the queue",
        status.batch,
        status.done,
        status.total,
        status.failed,
        status.pending,
        status.workers,
        status.queued
    );
    if let (Some(rate), Some(left)) = (status.rate, status.seconds_left) {
        lines.push_str(&format!(
            ", {rate:.2} a second, {} left",
            text::seconds(left)
        ));
    }
    output::print(&lines)
}

fn cancel(arguments: &OneArguments) -> Result {
    brisk_fleet::cancel(&arguments.queue, &arguments.batch, stop_on_interrupt()?)
        .map_err(failure)?;
    match arguments.json {
        true => output::print_json(&json!({"batch": arguments.batch, "cancelled": true})),
        false => {
            output::note(&format!("batch {} is cancelled", arguments.batch));
            Ok(())
        }
    }
}

fn dead(arguments: &DeadArguments) -> Result {
    let batch = arguments.batch.as_deref();
    let found = brisk_fleet::dead(
        &arguments.queue,
        batch,
        arguments.retry,
        stop_on_interrupt()?,
    );
    let DeadJobs {
        jobs: found,
        revived,
    } = found.map_err(failure)?;
    let dead = found.iter().map(|(_, dead)| {
        let job = dead.job.as_ref();
        let names = job.map(|job| job.items.iter().map(|item| item.name.clone()));
        json!({
            "batch": job.map(|job| job.batch.clone()), "model": job.map(|job| job.model.clone()),
            "requests": names.map(Iterator::collect::<Vec<String>>).unwrap_or_default(),
            "error": dead.reason, "worker": dead.worker, "at": dead.at,
        })
    });
    let dead: Vec<serde_json::Value> = dead.collect();
    if arguments.json {
        return output::print_json(&json!({"dead": dead, "retried": revived}));
    }
    let cell = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let rows = dead.iter().map(|dead| {
        let requests = dead["requests"].as_array().map_or(0, Vec::len);
        let first = dead["requests"][0].as_str().unwrap_or("-");
        let named = match requests {
            0 | 1 => first.to_owned(),
            more => format!("{first} and {} more", more - 1),
        };
        vec![
            cell(&dead["batch"]),
            named,
            cell(&dead["error"]["code"]),
            cell(&dead["error"]["message"]),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    match (rows.is_empty(), revived) {
        (true, _) => output::note("no request is dead"),
        (false, _) => output::print(&text::table(&rows))?,
    }
    if let Some(revived) = revived.filter(|_| !rows.is_empty()) {
        output::note(&format!("{revived} may try again"));
    }
    Ok(())
}

fn here(arguments: &RunArguments) -> Result {
    arguments.threads.apply_to_others()?;
    let interrupted = stop_on_interrupt()?;
    let progress = Download::default();
    let mut shown = Shown::new();
    let mut told = |tally: &Tally| shown.look(tally);
    let done = brisk_fleet::run(&arguments.options, &progress, interrupted, &mut told);
    ended(&done.map_err(failure)?, arguments.json)
}

/// Tells how a batch ended; it failed where a request has no results.
fn ended(tally: &Tally, json: bool) -> Result {
    if json {
        output::print_json(&json!({
            "batch": tally.batch, "total": tally.total, "done": tally.done, "found": tally.found,
            "failed": tally.failed,
        }))?;
    } else {
        output::note(&format!(
            "batch {}: {} of {} done ({} were there), {} failed",
            tally.batch, tally.done, tally.total, tally.found, tally.failed
        ));
    }
    match tally.done == tally.total {
        true => Ok(()),
        false => Err(Failure::failed(format!(
            "{} of {} requests have no result; results.jsonl says why",
            tally.total - tally.done,
            tally.total
        ))),
    }
}

/// What a batch that stops means for the command.
pub fn failure(error: Error) -> Failure {
    match error {
        Error::Usage(message) => Failure::usage(message),
        Error::Models(error) => error.into(),
        Error::Stopped => Failure::stopped("stopped; the same command goes on from here"),
        error => Failure::failed(error.to_string()),
    }
}

/// Time between two lines that tell how far a batch is.
const APART: Duration = Duration::from_secs(10);

/// Lines that tell how far a batch is.
struct Shown {
    began: Instant,
    last: Option<Instant>,
}

impl Shown {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            last: None,
        }
    }

    fn look(&mut self, tally: &Tally) {
        let Some(last) = self.last else {
            self.last = Some(Instant::now());
            return output::note(&format!("batch {}: {} requests", tally.batch, tally.total));
        };
        let ended = tally.done + tally.failed;
        if last.elapsed() < APART || ended == tally.total {
            return;
        }
        self.last = Some(Instant::now());
        let made = (ended - tally.found) as f64;
        let rate = made / self.began.elapsed().as_secs_f64();
        let left = (tally.total - ended) as f64 / rate.max(1e-9);
        output::note(&format!(
            "{ended} of {}, {} failed, {rate:.2} a second, {} left",
            tally.total,
            tally.failed,
            text::seconds(left)
        ));
    }
}
