//! Prompts from a file or from stdin, one a line.

use std::io::BufReader;
use std::path::Path;

use brisk_store::read::read_line;
use brisk_store::{Limit, read_text};

use crate::failure::{Failure, Result};

/// Most prompts of one command.
const MOST: usize = 10_000;

/// Lines that are not empty; `-` reads stdin.
pub fn read(file: &Path) -> Result<Vec<String>> {
    let mut prompts = Vec::new();
    if file == Path::new("-") {
        let mut stdin = BufReader::new(std::io::stdin().lock());
        while let Some(line) = read_line(&mut stdin, "stdin", Limit::TEXT)? {
            prompts.push(line);
            if prompts.len() > MOST {
                return Err(Failure::usage(format!("--prompts: more than {MOST} lines")));
            }
        }
    } else {
        let text =
            read_text(file, Limit::TEXT).map_err(|error| Failure::from(error).at("--prompts"))?;
        prompts.extend(text.lines().map(str::to_owned));
    }
    let prompts: Vec<String> = prompts
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if prompts.is_empty() {
        return Err(Failure::usage(format!(
            "--prompts: {} has no lines",
            file.display()
        )));
    }
    Ok(prompts)
}
