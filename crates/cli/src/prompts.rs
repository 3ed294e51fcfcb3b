//! Prompts from a file or from stdin, one a line.

use std::io::BufReader;
use std::path::Path;

use brisk_store::read::read_line;
use brisk_store::{Limit, read_text};

use crate::failure::{Failure, Result};

/// Most prompts of one command.
const MOST: usize = 10_000;

/// Lines that are not empty, without the space around them.
pub fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// The [`lines`] of a file; `-` reads stdin.
pub fn read(file: &Path) -> Result<Vec<String>> {
    let mut prompts = Vec::new();
    if file == Path::new("-") {
        let mut stdin = BufReader::new(std::io::stdin().lock());
        let mut count = 0;
        while let Some(line) = read_line(&mut stdin, "stdin", Limit::TEXT)? {
            // Empty lines count: input without end has an end here.
            count += 1;
            prompts.extend(lines(&line));
            if count > MOST {
                return Err(Failure::usage(format!("--prompts: more than {MOST} lines")));
            }
        }
    } else {
        let text =
            read_text(file, Limit::TEXT).map_err(|error| Failure::from(error).at("--prompts"))?;
        prompts = lines(&text);
    }
    if prompts.is_empty() {
        return Err(Failure::usage(format!(
            "--prompts: {} has no lines",
            file.display()
        )));
    }
    Ok(prompts)
}
