//! The training log: one JSON object a line.

use std::collections::BTreeMap;
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
    /// What an evaluation measured, by the keys of [`MEASURES`]; empty on other lines.
    #[serde(flatten)]
    pub measured: Measured,
}

/// Measured values by their keys in a line of the log.
pub type Measured = BTreeMap<String, f64>;

/// Something that evaluations measure.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Its key in a line of the log.
    pub key: &'static str,
    /// The same as words of a command are spelt.
    pub option: &'static str,
    /// What it is called beside others.
    pub name: &'static str,
    /// What it is called on the axis of a chart.
    pub title: &'static str,
    /// Its unit.
    pub unit: Unit,
}

/// Everything that evaluations measure.
pub const MEASURES: [Measure; 25] = [
    Measure {
        key: "psnr",
        option: "psnr",
        name: "held-out",
        title: "held-out PSNR (dB)",
        unit: Unit::Decibels,
    },
    Measure {
        key: "psnr_discrete",
        option: "psnr-discrete",
        name: "from codes alone",
        title: "held-out PSNR from codes alone (dB)",
        unit: Unit::Decibels,
    },
    Measure {
        key: "exact_match",
        option: "exact-match",
        name: "held-out problems right",
        title: "held-out problems right",
        unit: Unit::Share,
    },
    Measure {
        key: "fg_iou",
        option: "fg-iou",
        name: "letters",
        title: "text pixels by boxes of letters (IoU)",
        unit: Unit::Share,
    },
    Measure {
        key: "fg_iou_words",
        option: "fg-iou-words",
        name: "words",
        title: "text pixels by boxes of words (IoU)",
        unit: Unit::Share,
    },
    Measure {
        key: "words_found",
        option: "words-found",
        name: "words found",
        title: "held-out words that a box lies over",
        unit: Unit::Share,
    },
    Measure {
        key: "words_right",
        option: "words-right",
        name: "words right",
        title: "held-out words read without a fault",
        unit: Unit::Share,
    },
    Measure {
        key: "consistency_loss",
        option: "consistency-loss",
        name: "consistency",
        title: "consistency loss",
        unit: Unit::None,
    },
    Measure {
        key: "tangent_norm",
        option: "tangent-norm",
        name: "tangent",
        title: "norm of the tangent",
        unit: Unit::None,
    },
    Measure {
        key: "adversarial_loss",
        option: "adversarial-loss",
        name: "adversarial",
        title: "adversarial loss",
        unit: Unit::None,
    },
    Measure {
        key: "discriminator_loss",
        option: "discriminator-loss",
        name: "discriminator",
        title: "loss of the discriminator",
        unit: Unit::None,
    },
    Measure {
        key: "reconstruction_loss",
        option: "reconstruction-loss",
        name: "reconstruction",
        title: "loss of pictures or frames",
        unit: Unit::None,
    },
    Measure {
        key: "perceptual_loss",
        option: "perceptual-loss",
        name: "perceptual",
        title: "distance of pictures by features",
        unit: Unit::None,
    },
    Measure {
        key: "commitment_loss",
        option: "commitment-loss",
        name: "commitment",
        title: "distance of vectors from their codewords",
        unit: Unit::None,
    },
    Measure {
        key: "contrastive_loss",
        option: "contrastive-loss",
        name: "contrast",
        title: "contrastive loss",
        unit: Unit::None,
    },
    Measure {
        key: "retrieval",
        option: "retrieval",
        name: "retrieved",
        title: "held-out captions found by their pictures, and the other way",
        unit: Unit::Share,
    },
    Measure {
        key: "codebook_usage",
        option: "codebook-usage",
        name: "codewords taken",
        title: "codewords that held-out pictures take",
        unit: Unit::Share,
    },
    Measure {
        key: "text_loss",
        option: "text-loss",
        name: "text",
        title: "cross-entropy of the texts",
        unit: Unit::None,
    },
    Measure {
        key: "code_loss",
        option: "code-loss",
        name: "codes",
        title: "cross-entropy of the codes",
        unit: Unit::None,
    },
    Measure {
        key: "answers_right",
        option: "answers-right",
        name: "answers right",
        title: "held-out questions answered rightly",
        unit: Unit::Share,
    },
    Measure {
        key: "motion_right",
        option: "motion-right",
        name: "motions right",
        title: "clips that show the motion asked for",
        unit: Unit::Share,
    },
    Measure {
        key: "frechet_distance",
        option: "frechet-distance",
        name: "from true clips",
        title: "Fréchet distance from true clips",
        unit: Unit::None,
    },
    Measure {
        key: "matching_loss",
        option: "matching-loss",
        name: "matching",
        title: "loss of matching the teacher's distribution",
        unit: Unit::None,
    },
    Measure {
        key: "guidance_loss",
        option: "guidance-loss",
        name: "guided",
        title: "distance from the guided teacher",
        unit: Unit::None,
    },
    Measure {
        key: "critic_loss",
        option: "critic-loss",
        name: "critic",
        title: "loss of the critic",
        unit: Unit::None,
    },
];

impl LogEntry {
    /// What is worth showing of it, as an event has it. Lines of an evaluation may have no loss.
    pub fn numbers(&self) -> Vec<Number> {
        let number = |name, unit, value| Number { name, unit, value };
        let mut numbers = Vec::new();
        if self.loss.is_some() || self.measured.is_empty() {
            numbers.push(number("loss", Unit::None, self.loss));
        }
        for measure in &MEASURES {
            if let Some(value) = self.measured.get(measure.key) {
                numbers.push(number(measure.name, measure.unit, Some(*value)));
            }
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

/// The mean of the last tenth of a log's losses; none where there are none.
///
/// # Errors
/// As [`read_log`].
pub(crate) fn mean_of_last_tenth(path: &Path) -> Result<Option<f64>> {
    let entries = read_log(path)?;
    let losses: Vec<f64> = entries.iter().filter_map(|entry| entry.loss).collect();
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    Ok((!tail.is_empty()).then(|| tail.iter().sum::<f64>() / tail.len() as f64))
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
            measured: Measured::new(),
        }
    }

    #[test]
    fn measured_values_stand_beside_the_others() {
        let mut entry = entry(3);
        entry.measured.insert("psnr".to_owned(), 31.5);
        let line = serde_json::to_string(&entry).unwrap();
        assert!(line.contains("\"psnr\":31.5"), "{line}");
        let back: LogEntry = serde_json::from_str(&line).unwrap();
        assert_eq!(back, entry);
        let names: Vec<_> = entry.numbers().iter().map(|number| number.name).collect();
        assert_eq!(names, ["loss", "held-out", "rate", "samples", "skipped"]);
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
