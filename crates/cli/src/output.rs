//! Where text goes: results to stdout, everything else to stderr.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Failure, Result};

/// Writes a result to stdout. A reader that has gone away is no failure.
pub fn print(text: &str) -> Result {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| {
        if !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    });
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes the bytes of a file to stdout.
pub fn print_bytes(bytes: &[u8]) -> Result {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document to stdout.
pub fn print_json(document: &Value) -> Result {
    print(&format!("{document:#}"))
}

/// Writes a line to stderr; there is nobody to tell if that fails.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes a warning to stderr.
pub fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// Checks before a long run that its result can be written.
pub fn check_writable(path: &Path) -> Result {
    Ok(brisk_store::output::check_writable(path)?)
}
