//! A batch, or a part of it, on this machine alone.

use std::path::PathBuf;

use brisk::HubProgress;
use brisk_server::engine::Engine;
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;

use crate::batch::{self, BatchOptions, Failure, Input, Record, Shard, Status};
use crate::error::{Error, Result};
use crate::make::{Activity, Order, Stop, Trouble, make};
use crate::models::{Answering, ModelOptions};
use crate::outputs::Outputs;
use crate::verbs::Told;

/// Requests that are on their way together: texts share passes, and pictures are written while the next is
/// drawn.
const AT_ONCE: usize = 16;

/// Options of `brisk batch run`.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// Requests in OpenAI's batch format, or a prompt a line
    pub file: PathBuf,

    /// Where results go: a folder, s3://, gs:// or az://
    #[arg(long, value_name = "PLACE")]
    pub out: String,

    /// Only this part of the file: 3/16 is the third of 16
    #[arg(
        long,
        value_name = "I/N",
        default_value = "1/1",
        hide_default_value = true
    )]
    pub shard: Shard,

    /// What holds for all requests.
    #[command(flatten)]
    pub batch: BatchOptions,

    /// The models.
    #[command(flatten)]
    pub models: ModelOptions,
}

/// How far a batch is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The batch's id.
    pub batch: String,
    /// Requests in all.
    pub total: usize,
    /// Requests with results.
    pub done: usize,
    /// Of those, the ones whose results were there already.
    pub found: usize,
    /// Requests without.
    pub failed: usize,
}

impl Tally {
    /// Counts a record.
    pub fn count(&mut self, record: &Record) {
        match record.status {
            Status::Done => {
                self.done += 1;
                self.found += usize::from(record.seconds.is_none());
            }
            Status::Failed | Status::Missing => self.failed += 1,
        }
    }
}

/// Makes what is not there yet, and writes `results.jsonl` into the folder of the batch, in the order of the
/// file. `told` hears of every request that is done.
///
/// # Errors
/// A file, models or a place that do not work; a place that is full; [`Error::Stopped`].
pub async fn run(
    options: &RunOptions,
    progress: &dyn HubProgress,
    stop: &Stop,
    told: Told<'_>,
) -> Result<Tally> {
    let input = Input::read(&options.file, &options.batch)?;
    let outputs = Outputs::open(&options.out)?;
    let engine = Engine::start(options.models.settings(), progress)?;
    let models = Answering::find(&input, &engine.models())?;
    outputs.prepare().await?;
    let id = batch::id(&input, &options.batch, &models.slugs());
    let entries = input.entries.iter().enumerate();
    let entries = entries.filter(|(place, _)| options.shard.has(*place));
    let entries: Vec<_> = entries.map(|(_, entry)| entry).collect();
    let mut tally = Tally {
        batch: id.clone(),
        total: entries.len(),
        ..Tally::default()
    };
    told(&tally);
    let activity = Activity::default();
    let records = futures_util::stream::iter(entries).map(|entry| {
        let (engine, outputs, input, models) = (&engine, &outputs, &input, &models);
        let (id, activity) = (&id, &activity);
        async move {
            let mut body = input.body(entry, id)?;
            if let Some(model) = models.of(entry) {
                body.insert("model".to_owned(), model.id.clone().into());
            }
            let order = Order {
                batch: id,
                name: &entry.name,
                paths: entry.paths(),
                endpoint: entry.endpoint,
                body,
            };
            match make(engine, outputs, order, activity, stop).await {
                Ok(record) => Ok(record),
                Err(Trouble::Request(error)) => {
                    Ok(Record::failed(&entry.name, Failure::from(&error)))
                }
                Err(Trouble::Outputs(error)) => Err(error),
                Err(Trouble::Stopped) => Err(Error::Stopped),
            }
        }
    });
    let mut records = std::pin::pin!(records.buffered(AT_ONCE));
    let mut report = Vec::new();
    while let Some(record) = records.next().await {
        let record = record?;
        tally.count(&record);
        add(&mut report, &record)?;
        told(&tally);
    }
    let path = format!("{id}/results{}.jsonl", options.shard.suffix());
    outputs.put(&path, Bytes::from(report)).await?;
    Ok(tally)
}

/// Adds a line to a report.
pub(crate) fn add(report: &mut Vec<u8>, record: &Record) -> Result<()> {
    serde_json::to_writer(&mut *report, record)
        .map_err(|error| Error::Failed(format!("cannot write results.jsonl: {error}")))?;
    report.push(b'\n');
    Ok(())
}
