//! The `brisk` command: text to pictures, and what belongs to it.
//!
//! This crate reads arguments, shows progress and writes results; the work is done by the crates
//! below it. Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage,
//! 130 stopped on request.
#![deny(unsafe_code)]

mod allocator;
mod arguments;
mod commands;
mod failure;
mod flags;
mod models;
mod output;
mod panic;
mod progress;
mod prompts;
mod terminal;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_memory();
    panic::install_hook();
    brisk_store::exit_when_a_file_is_cut();
    match std::panic::catch_unwind(|| commands::run(arguments::parse())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            output::message(&failure.line());
            ExitCode::from(failure.exit_code())
        }
        Err(_) => ExitCode::from(1),
    }
}
