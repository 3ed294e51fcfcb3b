//! A conversation: a line is a turn, and every answer sees the turns before it.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use brisk::{TextPrompt, TextRequest};
use brisk_store::Limit;
use brisk_store::read::read_line;
use brisk_text::ChatMessage;
use serde_json::json;

use super::arguments::TextArguments;
use super::control;
use crate::commands::stop_on_interrupt;
use crate::failure::Result;
use crate::{output, text};

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
    let stop = stop_on_interrupt()?;
    let person = std::io::stdin().is_terminal();
    if person {
        output::note(&format!(
            "{}; /new forgets what was said, /exit or Ctrl-D ends",
            model.label()
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
        let plan = model.plan(&request(&said))?;
        for warning in &plan.warnings {
            output::warn(warning);
        }
        let control = control(&*model, 1, arguments.json, stop.clone());
        let began = Instant::now();
        let found = model.generate(&plan, &control)?;
        drop(control);
        let seconds = began.elapsed().as_secs_f64();
        for row in &found {
            if arguments.json {
                let document = json!({
                    "text": row.text, "prompt_tokens": row.prompt_tokens, "tokens": row.answer_tokens,
                    "forwards": row.forward_passes, "tokens_per_forward": row.tokens_per_pass(),
                    "seconds": seconds,
                });
                output::print(&document.to_string())?;
            } else {
                output::print(&row.text)?;
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

fn turn(role: &str, content: &str) -> ChatMessage {
    ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}
