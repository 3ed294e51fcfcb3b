//! The lines of MLT17's `gt_NAME.txt`: eight numbers, a script, a transcription.

use super::{Word, counted, outline, word};
use crate::error::{Error, Result};

/// `x1,y1,x2,y2,x3,y3,x4,y4,script,transcription`, in which further commas belong to the transcription.
pub(super) fn read(text: &str, label: &str) -> Result<Vec<Word>> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line): (usize, &str)| {
        of(line).map_err(|problem| Error::config(label, format!("line {}: {problem}", number + 1)))
    };
    counted(lines.map(read).collect::<Result<_>>()?, label)
}

fn of(line: &str) -> Result<Word, String> {
    let parts: Vec<&str> = line.splitn(10, ',').collect();
    let expected = "expected x1,y1,x2,y2,x3,y3,x4,y4,script,transcription";
    if parts.len() < 10 {
        return Err(format!("{expected}, found {} parts", parts.len()));
    }
    let number = |part: &&str| {
        part.trim().parse::<f64>().map_err(|_| {
            format!(
                "{expected}, found {:?}",
                brisk_store::shown_within(part, 40)
            )
        })
    };
    let numbers = parts[..8]
        .iter()
        .map(number)
        .collect::<Result<Vec<f64>, _>>()?;
    let points = numbers.chunks_exact(2).map(|at| [at[0], at[1]]).collect();
    word(outline(points)?, Some(parts[9]))
}
