//! `brisk serve`: pictures and text over HTTP.

use std::io::IsTerminal;

use brisk_server::{Settings, StartError};
use clap::Args;

use super::ThreadArguments;
use crate::allocator;
use crate::failure::{Failure, Result};
use crate::output;
use crate::progress::Download;

/// Serve pictures and text over HTTP: OpenAI's interface, jobs, a page
#[derive(Debug, Args)]
pub struct ServeArguments {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Serves until told to end; the log goes to stderr.
pub fn run(arguments: ServeArguments) -> Result {
    arguments.threads.apply()?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let listening = |address| output::note(&format!("listening on http://{address}"));
    let settings = Settings {
        release_memory: Some(allocator::release_memory),
        ..arguments.settings
    };
    brisk_server::serve(settings, &Download::default(), listening).map_err(|error| match error {
        StartError::Models(error) => error.into(),
        StartError::Settings(message) => Failure::usage(message),
        StartError::System(..) => Failure::failed(error.to_string()),
    })
}
