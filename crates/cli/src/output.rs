//! Where text goes: results to stdout, everything else to stderr.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::path::Path;

use brisk_store::is_obeyed;
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Bytes of an error or a warning. Whoever quotes a file cuts what it quotes; this is what holds where
/// one does not.
const LONGEST_MESSAGE: usize = 4000;

/// Writes a result to stdout, where nothing in it is obeyed by a terminal. A reader that has gone away is no
/// failure.
pub fn print(text: &str) -> Result {
    write(&harmless(text))
}

/// Writes what a model said to stdout: as it is, unless somebody is looking.
pub fn print_answer(text: &str) -> Result {
    if std::io::stdout().is_terminal() {
        return print(text);
    }
    write(text)
}

fn write(text: &str) -> Result {
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
    write(&json_text(&format!("{document:#}")))
}

/// Writes one JSON document to stdout, on one line.
pub fn print_json_line(document: &Value) -> Result {
    write(&json_text(&document.to_string()))
}

/// JSON whose characters outside of ASCII are none that a terminal obeys; the others are escaped already.
fn json_text(document: &str) -> String {
    let mut text = String::with_capacity(document.len());
    for c in document.chars() {
        if is_obeyed(c) {
            text.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            text.push(c);
        }
    }
    text
}

/// Writes a line to stderr; there is nobody to tell if that fails.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", harmless(text));
}

/// Writes a warning to stderr.
pub fn warn(text: &str) {
    message(&format!("warning: {text}"));
}

/// Writes a message to stderr that may quote a file.
pub fn message(text: &str) {
    note(&bounded(text));
}

/// A message of bounded length, of which only the first line begins at the margin: a text from a file
/// cannot pass for a message of ours.
fn bounded(text: &str) -> String {
    let mut cut = text.len().min(LONGEST_MESSAGE);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut shown = String::new();
    for (place, line) in text[..cut].split('\n').enumerate() {
        let margin = match (place, line.starts_with(' ') || line.is_empty()) {
            (0, _) => "",
            (_, true) => "\n",
            (_, false) => "\n  ",
        };
        shown.push_str(margin);
        shown.push_str(line);
    }
    if cut < text.len() {
        shown.push_str(&format!("… ({} more bytes)", text.len() - cut));
    }
    shown
}

/// A text without anything that a terminal would obey, besides line ends.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Refuses a name for a chart that does not say what is written.
pub fn expect_svg(path: &Path) -> Result {
    let ending = path.extension().and_then(|ending| ending.to_str());
    if ending.is_some_and(|ending| ending.eq_ignore_ascii_case("svg")) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--output: {}: charts are written as SVG; give a name that ends in .svg",
        path.display()
    )))
}

/// A format in which a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A picture.
    Png,
    /// Tensors.
    Safetensors,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Endings of names that say a format.
const ENDINGS: [&str; 24] = [
    "bin",
    "bmp",
    "ckpt",
    "gguf",
    "gif",
    "html",
    "jpeg",
    "jpg",
    "json",
    "jsonl",
    "md",
    "npy",
    "npz",
    "pdf",
    "png",
    "pt",
    "pth",
    "safetensors",
    "svg",
    "tif",
    "tiff",
    "txt",
    "webp",
    "zip",
];

/// Refuses a name that says another format than `option` writes.
pub fn expect_format(option: &str, path: &Path, format: Format) -> Result {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    if ending == format.ending() || !ENDINGS.contains(&ending.as_str()) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{option}: {} would be no .{ending}; brisk writes {}, name it .{}",
        path.display(),
        match format {
            Format::Png => "PNG",
            Format::Safetensors => "safetensors",
        },
        format.ending()
    )))
}

/// Checks before a long run that its result can be written.
pub fn check_writable(path: &Path) -> Result {
    Ok(brisk_store::output::check_writable(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(
            harmless("a\u{1b}]0;t\u{7}\r\tb\n"),
            "a\\u{1b}]0;t\\u{7}\\r\tb\n"
        );
        assert_eq!(json_text("\"\u{9b}31m\""), "\"\\u009b31m\"");
    }

    #[test]
    fn a_name_says_what_is_written() {
        for (name, format, fits) in [
            ("a.png", Format::Png, true),
            ("a.PNG", Format::Png, true),
            ("a", Format::Png, true),
            ("a.v2", Format::Safetensors, true),
            ("a.jpg", Format::Png, false),
            ("a.safetensors", Format::Png, false),
            ("a.png", Format::Safetensors, false),
            ("a.pth", Format::Safetensors, false),
        ] {
            let found = expect_format("--output", Path::new(name), format);
            assert_eq!(found.is_ok(), fits, "{name}");
        }
    }

    #[test]
    fn a_message_is_short_and_alone_at_the_margin() {
        assert_eq!(
            bounded("error: a\n  b\nerror: c"),
            "error: a\n  b\n  error: c"
        );
        let long = bounded(&"é".repeat(1_000_000));
        assert!(
            long.len() < 4100 && long.ends_with("(1996000 more bytes)"),
            "{}",
            &long[3990..]
        );
    }
}
