//! The training log: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use brisk_pipelines::{Number, Unit};
use brisk_store::{Limit, read_text};
use serde::{Deserialize, Serialize};

use crate::error::{FileContext, JsonContext, Result};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Finished updates.
    pub step: u64,
    /// Mean loss since the previous line; absent when it was not finite.
    pub loss: Option<f64>,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping at the last update; absent when it was not finite.
    pub gradient_norm: Option<f64>,
    /// Seconds of training so far, over all restarts.
    pub seconds: f64,
    /// Samples a second since the previous line, evaluations included.
    pub samples_per_second: f64,
    /// Updates skipped so far for non-finite gradients.
    pub skipped: u64,
    /// Held-out PSNR in dB, on the lines of an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psnr: Option<f64>,
    /// Share of held-out problems that were answered exactly, on the lines of an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
}

impl LogEntry {
    /// What is worth showing of it, as an event has it. Lines of an evaluation may have no loss.
    pub fn numbers(&self) -> Vec<Number> {
        let number = |name, unit, value| Number { name, unit, value };
        let mut numbers = Vec::new();
        let evaluated = self.psnr.is_some() || self.exact_match.is_some();
        if self.loss.is_some() || !evaluated {
            numbers.push(number("loss", Unit::None, self.loss));
        }
        if self.psnr.is_some() {
            numbers.push(number("held-out", Unit::Decibels, self.psnr));
        }
        if self.exact_match.is_some() {
            numbers.push(number(
                "held-out problems right",
                Unit::Share,
                self.exact_match,
            ));
        }
        numbers.push(number("rate", Unit::None, Some(self.learning_rate)));
        numbers.push(number(
            "samples",
            Unit::PerSecond,
            Some(self.samples_per_second),
        ));
        if self.skipped > 0 {
            numbers.push(number("skipped", Unit::Count, Some(self.skipped as f64)));
        }
        numbers
    }
}

/// Appends lines to a log file.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
}

impl LogWriter {
    /// Opens or creates the log at `path` and drops the lines past `step`: those a killed run wrote after its last checkpoint.
    pub fn open(path: &Path, step: u64) -> Result<LogWriter> {
        let mut kept = String::new();
        if path.exists() {
            for entry in read_log(path)?.iter().filter(|entry| entry.step <= step) {
                kept.push_str(&serde_json::to_string(entry).in_document(path.display())?);
                kept.push('\n');
            }
        }
        brisk_store::write_atomic(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).at(path)?;
        Ok(LogWriter {
            path: path.to_owned(),
            file,
        })
    }

    /// Appends one line.
    pub fn write(&mut self, entry: &LogEntry) -> Result<()> {
        let mut line = serde_json::to_string(entry).in_document(self.path.display())?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).at(&self.path)
    }
}

/// Reads a log back. A last line that was cut off by a kill is left out.
pub fn read_log(path: &Path) -> Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    let text = read_text(path, Limit::DATA)?;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if lines.peek().is_none() => {}
            Err(error) => {
                let place = format!("{}, line {}", path.display(), index + 1);
                return Err(error).in_document(place);
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: u64) -> LogEntry {
        LogEntry {
            step,
            loss: Some(0.5),
            learning_rate: 1e-3,
            gradient_norm: None,
            seconds: 1.0,
            samples_per_second: 8.0,
            skipped: 1,
            psnr: None,
            exact_match: None,
        }
    }

    #[test]
    fn reopening_drops_what_the_checkpoint_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut writer = LogWriter::open(&path, 0).unwrap();
        for step in [10, 20, 30] {
            writer.write(&entry(step)).unwrap();
        }
        writer.file.write_all(b"{\"step\": 4").unwrap();
        assert_eq!(read_log(&path).unwrap().len(), 3);
        LogWriter::open(&path, 20)
            .unwrap()
            .write(&entry(21))
            .unwrap();
        let steps: Vec<u64> = read_log(&path).unwrap().iter().map(|e| e.step).collect();
        assert_eq!(steps, [10, 20, 21]);
    }
}
