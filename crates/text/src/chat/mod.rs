//! Chat templates: the Jinja text that a model's files carry.
//!
//! The parser is minijinja's. Its values are not Python's, and what it computes has no bound of
//! memory, so templates are evaluated here: with Python's values, methods and spelling, within a
//! [`budget`], and with what transformers' sandbox offers (`tojson`, `raise_exception`,
//! `strftime_now`, loop controls, `{% generation %}`) and refuses (whatever changes a list or
//! begins with an underscore).

mod arguments;
mod budget;
mod containers;
mod evaluate;
mod expressions;
mod fault;
mod filters;
mod format;
mod json;
mod list_filters;
mod operators;
mod predicates;
mod source;
mod strings;
mod templates;
#[cfg(test)]
mod tests;
mod value;

use std::rc::Rc;

use budget::Budget;
use evaluate::Evaluator;
use fault::Fault;
pub use strings::is_space;
pub use templates::ChatTemplates;
use value::{Dict, Value};

use crate::{Error, Result};

/// Stack of the thread that renders: enough for the deepest template that is accepted.
const STACK: usize = 64 << 20;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A chat template, rendered as transformers renders it. It can read what it is given and nothing
/// else, and its time and memory are limited.
#[derive(Clone)]
pub struct ChatTemplate {
    text: String,
    specials: Vec<(String, String)>,
    label: String,
    clock: fn() -> jiff::civil::DateTime,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChatTemplate({})", self.label)
    }
}

impl ChatTemplate {
    /// Reads a template; `specials` are the special tokens it may name (`bos_token`, …), `label`
    /// the file for messages.
    ///
    /// # Errors
    /// A text that is no template.
    pub fn new(text: String, specials: Vec<(String, String)>, label: &str) -> Result<Self> {
        let template = Self {
            text: source::prepared(text).map_err(|fault| failed(label, &fault))?,
            specials,
            label: label.to_owned(),
            clock: || jiff::ZonedDateTime::now().datetime(),
        };
        template.on_own_stack(|| source::parsed(&template.text).map(|_| ()))?;
        Ok(template)
    }

    /// The text of a conversation, up to where the assistant answers. `thinking` is passed on as
    /// `enable_thinking` where it is given.
    ///
    /// # Errors
    /// The template fails, refuses the conversation, or takes too long or too much memory.
    pub fn render(&self, messages: &[ChatMessage], thinking: Option<bool>) -> Result<String> {
        self.on_own_stack(|| {
            let parsed = source::parsed(&self.text)?;
            let budget = Budget::new();
            let mut given = vec![
                ("messages", conversation(messages, &budget)?),
                ("add_generation_prompt", Value::Bool(true)),
                ("tools", Value::None),
                ("documents", Value::None),
            ];
            for (name, token) in &self.specials {
                given.push((name.as_str(), Value::text(token.as_str(), &budget)?));
            }
            if let Some(thinking) = thinking {
                given.push(("enable_thinking", Value::Bool(thinking)));
            }
            Evaluator::new(&budget, given, self.clock).render(&parsed)
        })
    }

    fn on_own_stack<T: Send>(&self, work: impl FnOnce() -> fault::Result<T> + Send) -> Result<T> {
        let done = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK);
            match thread.spawn_scoped(scope, work) {
                Ok(running) => running
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(error) => Err(Fault::new(format!("there is no thread for it: {error}"))),
            }
        });
        done.map_err(|fault| failed(&self.label, &fault))
    }
}

fn conversation(messages: &[ChatMessage], budget: &Budget) -> fault::Result<Value> {
    let turns = messages.iter().map(|message| {
        let mut turn = Dict::default();
        for (key, text) in [("role", &message.role), ("content", &message.content)] {
            turn.insert(Value::str(key), Value::text(text.as_str(), budget)?, budget)?;
        }
        Ok(Value::Dict(Rc::new(turn)))
    });
    Value::list(turns.collect::<fault::Result<_>>()?, budget)
}

/// Characters of a template's own message.
const LONGEST: usize = 500;

fn failed(label: &str, fault: &Fault) -> Error {
    let mut reason = fault.to_string();
    if let Some((cut, _)) = reason.char_indices().nth(LONGEST) {
        let more = reason.len() - cut;
        reason.truncate(cut);
        reason.push_str(&format!("… ({more} more bytes)"));
    }
    Error::Template {
        label: label.to_owned(),
        reason,
    }
}
