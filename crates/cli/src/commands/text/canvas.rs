//! The canvas while it fills, drawn in place on a terminal.

use std::io::IsTerminal;

use brisk_pipelines::language::TextPipeline;
use brisk_text::Tokenizer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Stands for a token that is not decided yet.
const BLANK: &str = "░";

/// Shows one canvas; silent where stderr is no terminal, for several prompts, and without a
/// tokenizer.
pub struct Canvas<'a> {
    drawn: Option<(ProgressBar, &'a Tokenizer)>,
    mask: u32,
}

impl<'a> Canvas<'a> {
    /// Decides whether to draw.
    pub fn new(pipeline: &'a TextPipeline, mask: u32, prompts: usize, quiet: bool) -> Self {
        let wanted = !quiet && prompts == 1 && std::io::stderr().is_terminal();
        let tokenizer = pipeline.tokenizer().ok().filter(|_| wanted);
        let drawn = tokenizer.map(|tokenizer| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            (bar, tokenizer)
        });
        Self { drawn, mask }
    }

    /// Draws the canvas as it is now.
    pub fn show(&mut self, _row: usize, ids: &[u32]) {
        if let Some((bar, tokenizer)) = &self.drawn {
            bar.set_message(readable(tokenizer, ids, self.mask));
            bar.tick();
        }
    }

    /// Removes it; the text itself goes to stdout.
    pub fn finish(&mut self) {
        if let Some((bar, _)) = self.drawn.take() {
            bar.finish_and_clear();
        }
    }
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
