//! The canvas while it fills, drawn in place on a terminal.

use std::io::IsTerminal;

use brisk::{Event, TextModel};
use brisk_text::Tokenizer;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{output, terminal};

/// Stands for a token that is not decided yet.
const BLANK: &str = "░";

/// A listener that draws one canvas; none where stderr is no terminal, for several prompts, and without
/// a tokenizer.
pub fn canvas(
    model: &dyn TextModel,
    prompts: usize,
    quiet: bool,
) -> Option<Box<dyn FnMut(Event) + Send>> {
    if quiet || prompts != 1 || !std::io::stderr().is_terminal() {
        return None;
    }
    let tokenizer = model.tokenizer()?.clone();
    let bar = ProgressBar::with_draw_target(None, terminal::progress_target());
    let style = ProgressStyle::with_template("{msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    Some(Box::new(move |event| match event {
        Event::Canvas {
            tokens,
            mask,
            start,
            ..
        } => {
            let text = readable(&tokenizer, &tokens[start..], mask);
            bar.set_message(output::harmless(&text).into_owned());
            bar.tick();
        }
        // The text itself goes to stdout.
        Event::Done { .. } => bar.finish_and_clear(),
        _ => {}
    }))
}

/// Decided runs as text, a blank for every other token.
fn readable(tokenizer: &Tokenizer, ids: &[u32], mask: u32) -> String {
    let mut text = String::new();
    for run in ids.chunk_by(|a, b| (*a == mask) == (*b == mask)) {
        if run[0] == mask {
            text.push_str(&BLANK.repeat(run.len()));
        } else {
            // Tokens cut in the middle of a character have no text of their own yet.
            text.push_str(&tokenizer.decode_known(run).unwrap_or_default());
        }
    }
    text
}
