//! A conversation: a line is a turn, and every answer sees the turns before it.

mod input;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brisk::{TextPrompt, TextRequest};
use brisk_text::ChatMessage;
use serde_json::json;

use super::arguments::TextArguments;
use super::{control, empty_answer};
use crate::commands::stop_or_leave;
use crate::failure::{Failure, Result};
use crate::progress::Warnings;
use crate::{output, text};
use input::{Input, Turn};

const HELP: &str = "/new, /clear   forget what was said\n\
    /save FILE     write the conversation to a JSON file\n\
    /help          show this\n\
    /quit, /exit   end; so do Ctrl-D and Ctrl-C\n\
    Ctrl-C while an answer is written stops it";

/// Runs the conversation until the input ends.
pub fn run(arguments: &TextArguments) -> Result {
    let options = arguments.options()?;
    let model = arguments.open()?;
    let request = |turns: &[ChatMessage]| TextRequest {
        prompts: vec![TextPrompt::Conversation(turns.to_vec())],
        options: options.clone(),
    };
    // What the model or its template refuses is said before anybody has typed.
    model.plan(&request(&[turn("user", "Hello")]))?;
    let idle = Arc::new(AtomicBool::new(false));
    let stop = stop_or_leave(Arc::clone(&idle))?;
    let mut input = Input::open()?;
    if input.is_person() {
        output::note(&format!(
            "{}; /help shows what there is besides talking",
            model.label()
        ));
    }
    let mut said: Vec<ChatMessage> = Vec::new();
    loop {
        idle.store(true, Ordering::Relaxed);
        let next = input.next()?;
        idle.store(false, Ordering::Relaxed);
        match next {
            Turn::End => return Ok(()),
            Turn::Help => {
                output::note(HELP);
                continue;
            }
            Turn::New => {
                said.clear();
                continue;
            }
            Turn::Save(file) => {
                match save(&file, model.label(), &said) {
                    Ok(()) => output::note(&format!("{} turns in {file}", said.len())),
                    Err(failure) => refused(&input, failure)?,
                }
                continue;
            }
            Turn::Unknown(command) => {
                let message = format!("{command} is no command; /help lists them");
                refused(&input, Failure::usage(message))?;
                continue;
            }
            Turn::Question(question) => said.push(turn("user", &question)),
        }
        let plan = model.plan(&request(&said))?;
        let warnings = Warnings::default();
        let control = control(&*model, 1, arguments.json, &warnings).with_cancel(stop.clone());
        plan.warnings
            .iter()
            .for_each(|warning| control.warn(warning));
        let began = Instant::now();
        let found = model.generate(&plan, &control);
        if let Ok(found) = &found {
            found
                .iter()
                .filter_map(empty_answer)
                .for_each(|why| control.warn(why));
        }
        drop(control);
        if matches!(found, Err(brisk::Error::Cancelled)) && input.is_person() {
            // The question is forgotten with its answer.
            stop.store(false, Ordering::Relaxed);
            said.pop();
            continue;
        }
        let found = found?;
        let seconds = began.elapsed().as_secs_f64();
        for row in &found {
            if arguments.json {
                let document = json!({
                    "text": row.text, "prompt_tokens": row.prompt_tokens, "tokens": row.answer_tokens,
                    "forwards": row.forward_passes, "tokens_per_forward": row.tokens_per_pass(),
                    "seconds": seconds, "warnings": warnings.take(),
                });
                output::print_json_line(&document)?;
            } else {
                output::print_answer(&row.text)?;
                output::note(&format!(
                    "({} tokens in {} forward passes, {})",
                    row.answer_tokens,
                    row.forward_passes,
                    text::seconds(seconds)
                ));
            }
            said.push(turn("assistant", &row.text));
        }
    }
}

/// A person is told what went wrong and goes on; anything else ends.
fn refused(input: &Input, failure: Failure) -> Result {
    if !input.is_person() {
        return Err(failure);
    }
    output::note(&failure.to_string());
    Ok(())
}

fn save(file: &str, model: &str, said: &[ChatMessage]) -> Result {
    if file.is_empty() {
        return Err(Failure::usage("/save needs the name of a file"));
    }
    let path = Path::new(file);
    output::check_writable(path)?;
    let turns: Vec<_> = said
        .iter()
        .map(|turn| json!({"role": turn.role, "content": turn.content}))
        .collect();
    let document = json!({"model": model, "messages": turns});
    let text = format!("{document:#}\n");
    Ok(brisk_store::write_atomic(path, text.as_bytes())?)
}

fn turn(role: &str, content: &str) -> ChatMessage {
    ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}
