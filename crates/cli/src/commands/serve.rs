//! `brisk serve`: pictures and text over HTTP.

use std::io::IsTerminal;
use std::net::SocketAddr;

use brisk_fleet::{EntryOptions, QueueOptions};
use brisk_server::{Settings, StartError};
use clap::Args;

use super::ThreadArguments;
use super::batch::failure;
use crate::allocator;
use crate::failure::{Failure, Result};
use crate::output;
use crate::progress::Download;

/// Options that mean nothing where workers have the models.
const OF_MODELS: [&str; 16] = [
    "models",
    "aliases",
    "preload",
    "keep",
    "memory",
    "public_url",
    "save",
    "ui_dir",
    "max_jobs",
    "max_jobs_per_caller",
    "max_results",
    "max_steps",
    "max_pixels",
    "max_tokens",
    "allow_special_tokens",
    "threads",
];

/// Serve pictures and text over HTTP: OpenAI's interface, jobs, a page
#[derive(Debug, Args)]
pub struct ServeArguments {
    #[command(flatten)]
    settings: Settings,
    /// Hold no models: give requests to the workers of this queue, nats://HOST or tls://HOST
    #[arg(long, value_name = "URL", conflicts_with_all = OF_MODELS)]
    queue: Option<String>,
    #[command(flatten)]
    entry: EntryOptions,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Writes the log of a program that goes on to stderr.
pub fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Nobody may read it any more, which is no reason to fail at what is logged.
        .log_internal_errors(false)
        .init();
}

/// Serves until told to end; the log goes to stderr.
pub fn run(arguments: ServeArguments) -> Result {
    arguments.threads.apply_to_others()?;
    log_to_stderr();
    let listening = |address: SocketAddr| output::note(&format!("listening on http://{address}"));
    if let Some(queue) = arguments.queue {
        let queue = QueueOptions {
            queue,
            entry: arguments.entry,
        };
        return brisk_fleet::serve(arguments.settings, &queue, &listening).map_err(failure);
    }
    let settings = Settings {
        release_memory: Some(allocator::release_memory),
        ..arguments.settings
    };
    brisk_server::serve(settings, &Download::default(), &listening).map_err(|error| match error {
        StartError::Models(error) => error.into(),
        StartError::Settings(message) => Failure::usage(message),
        StartError::System(..) => Failure::failed(error.to_string()),
    })
}
