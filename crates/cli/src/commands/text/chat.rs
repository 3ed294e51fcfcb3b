//! A conversation: a line is a turn, and every answer sees the turns before it.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Instant;

use brisk_pipelines::Control;
use brisk_pipelines::language::TextPipeline;
use brisk_store::Limit;
use brisk_store::read::read_line;
use brisk_text::ChatMessage;
use serde_json::json;

use super::canvas::Canvas;
use super::options::TextArguments;
use super::per_forward;
use crate::commands::stop_on_interrupt;
use crate::failure::{Failure, Result};
use crate::{models, output, text};

/// Runs the conversation until the input ends.
pub fn run(arguments: &TextArguments) -> Result {
    let request = arguments.decoding.request(false)?;
    let folder = models::open_text(arguments.model.as_deref(), arguments.variant.as_deref())?;
    let pipeline = TextPipeline::load(&folder, &arguments.load_options()?)?;
    let mask = pipeline
        .complete(&request)
        .plan(pipeline.model().config())?
        .mask;
    pipeline.encode_chat(&[turn("user", "Hello")])?;
    let stop = stop_on_interrupt()?;
    let control = Control::silent().with_cancel(stop.clone());
    let person = std::io::stdin().is_terminal();
    if person {
        output::note(&format!(
            "{}; /new forgets what was said, /exit or Ctrl-D ends",
            pipeline.label()
        ));
    }
    let mut said: Vec<ChatMessage> = Vec::new();
    let mut lines = std::io::stdin().lock();
    loop {
        if person {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "> ").and_then(|()| stderr.flush());
        }
        let Some(line) = read_line(&mut lines, "stdin", Limit::TEXT)? else {
            return Ok(());
        };
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/new" => {
                said.clear();
                continue;
            }
            question => said.push(turn("user", question)),
        }
        let prompt = fitting(&pipeline, &mut said, request.gen_length)?;
        let mut canvas = Canvas::new(&pipeline, mask, 1, arguments.json);
        let began = Instant::now();
        let prompts = [prompt];
        let found = pipeline.generate(&prompts, &request, &control, &mut |row, ids| {
            canvas.show(row, &ids[prompts[0].len()..]);
        });
        canvas.finish();
        if stop.load(Ordering::Relaxed) && found.is_err() {
            return Err(Failure::failed("cancelled"));
        }
        let found = found?;
        let seconds = began.elapsed().as_secs_f64();
        for row in &found {
            let answer = pipeline
                .tokenizer()?
                .decode_known(&row.ids[row.prompt..row.prompt + row.answer])?;
            if arguments.json {
                let document = json!({
                    "text": answer, "prompt_tokens": row.prompt, "tokens": row.answer,
                    "forwards": row.forwards, "tokens_per_forward": per_forward(row), "seconds": seconds,
                });
                output::print(&document.to_string())?;
            } else {
                output::print(&answer)?;
                output::note(&format!(
                    "({} tokens in {} forward passes, {})",
                    row.answer,
                    row.forwards,
                    text::seconds(seconds)
                ));
            }
            said.push(turn("assistant", &answer));
        }
    }
}

fn turn(role: &str, content: &str) -> ChatMessage {
    ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}

/// The conversation in tokens. Its first turns are forgotten where it would leave no room for the
/// answer; a single question that is too long is the request's error.
fn fitting(
    pipeline: &TextPipeline,
    said: &mut Vec<ChatMessage>,
    length: usize,
) -> Result<Vec<u32>> {
    let context = pipeline.model().config().context;
    let mut forgotten = 0;
    loop {
        let prompt = pipeline.encode_chat(said)?;
        if prompt.len().saturating_add(length) <= context || said.len() < 3 {
            if forgotten > 0 {
                output::warn(&format!(
                    "the conversation is longer than the model's {context} positions less {length} for the \
                     answer; its first {forgotten} turns are forgotten"
                ));
            }
            return Ok(prompt);
        }
        said.drain(..2);
        forgotten += 2;
    }
}
