//! Requests by the file: batches on one machine or on many, through a queue.
//!
//! A request is what HTTP takes, is checked by the same tables, and gives the same bytes. Its name is its
//! identity: results lie at `{out}/{batch}/{2 hex}/{name}`, and what is there is never made again. So the
//! truth is the file of requests and the results that exist; everything else may be lost.
#![forbid(unsafe_code)]

pub mod batch;
mod drive;
mod error;
mod front;
mod make;
mod models;
mod outputs;
mod queue;
mod run;
mod status;
mod submit;
mod verbs;
mod wait;
mod worker;

pub use error::{Error, Result};
pub use front::serve;
pub use models::ModelOptions;
pub use queue::{Dead, EntryOptions, Job, QueueOptions};
pub use run::{RunOptions, Tally};
pub use status::Status;
pub use submit::SubmitOptions;
pub use verbs::{DeadJobs, Given, Told, cancel, dead, run, status, submit, wait, work};
pub use worker::WorkOptions;
