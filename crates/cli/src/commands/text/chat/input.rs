//! What a conversation reads: lines that a person edits, or those of a pipe.

use std::io::{IsTerminal, StdinLock};

use brisk_store::Limit;
use brisk_store::read::read_line;
use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};

use crate::failure::{Failure, Result};

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Answer this.
    Question(String),
    /// Say what can be asked for.
    Help,
    /// Forget what was said.
    New,
    /// Write the conversation to this file.
    Save(String),
    /// No such command.
    Unknown(String),
    /// The input is over.
    End,
}

impl Turn {
    /// A line; none where it is empty.
    fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let is_command = word
            .strip_prefix('/')
            .is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase()));
        match word {
            "" => None,
            "/help" => Some(Self::Help),
            "/new" | "/clear" => Some(Self::New),
            "/save" => Some(Self::Save(rest.trim().to_owned())),
            "/exit" | "/quit" => Some(Self::End),
            _ if is_command => Some(Self::Unknown(word.to_owned())),
            _ => Some(Self::Question(line.to_owned())),
        }
    }
}

/// The source of turns.
pub enum Input {
    /// A person at a terminal, whose lines can be edited and called up again.
    Person(Box<DefaultEditor>),
    /// Anything else.
    Pipe(StdinLock<'static>),
}

impl Input {
    /// Decides by where stdin comes from.
    pub fn open() -> Result<Self> {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return Ok(Self::Pipe(std::io::stdin().lock()));
        }
        // stdout is for answers alone.
        let config = Config::builder().behavior(Behavior::PreferTerm).build();
        let editor = DefaultEditor::with_config(config).map_err(unreadable)?;
        Ok(Self::Person(Box::new(editor)))
    }

    /// Whether somebody is there.
    pub fn is_person(&self) -> bool {
        matches!(self, Self::Person(_))
    }

    /// The next turn. Ctrl-D and, while nothing is being answered, Ctrl-C end the conversation.
    pub fn next(&mut self) -> Result<Turn> {
        loop {
            let line = match self {
                Self::Person(editor) => match editor.readline("> ") {
                    Ok(line) => {
                        editor
                            .add_history_entry(line.as_str())
                            .map_err(unreadable)?;
                        line
                    }
                    Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(Turn::End),
                    Err(error) => return Err(unreadable(error)),
                },
                Self::Pipe(lines) => match read_line(lines, "stdin", Limit::TEXT)? {
                    Some(line) => line,
                    None => return Ok(Turn::End),
                },
            };
            if let Some(turn) = Turn::read(&line) {
                return Ok(turn);
            }
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("cannot read stdin: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        let question = |text: &str| Some(Turn::Question(text.to_owned()));
        assert_eq!(Turn::read("  "), None);
        assert_eq!(Turn::read(" what is 3 / 4? "), question("what is 3 / 4?"));
        assert_eq!(
            Turn::read("/usr/bin is what?"),
            question("/usr/bin is what?")
        );
        assert_eq!(Turn::read("/quit"), Some(Turn::End));
        assert_eq!(Turn::read("/clear"), Some(Turn::New));
        assert_eq!(
            Turn::read("/save my talk.json"),
            Some(Turn::Save("my talk.json".to_owned()))
        );
        assert_eq!(Turn::read("/sing"), Some(Turn::Unknown("/sing".to_owned())));
    }
}
