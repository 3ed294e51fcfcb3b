//! The text of a template: bounds on what is parsed, and the one statement the parser lacks.

use minijinja::machinery::ast::Stmt;
use minijinja::machinery::{Token, WhitespaceConfig, parse, tokenize};

use super::fault::{Fault, Result};

/// Bytes of a template.
const LENGTH: usize = 1 << 20;
/// Symbols of one expression or statement.
const SYMBOLS: usize = 5000;
/// Branches in a row.
const BRANCHES: usize = 1000;

/// As transformers sets its environment.
fn whitespace() -> WhitespaceConfig {
    WhitespaceConfig {
        keep_trailing_newline: false,
        lstrip_blocks: true,
        trim_blocks: true,
    }
}

/// A template that the parser takes: `generation` blocks, which mark what a model is trained on and
/// print what they hold, become `with` blocks. Nothing moves to another line or column.
pub fn prepared(text: String) -> Result<String> {
    if text.len() > LENGTH {
        return Err(Fault::new(format!(
            "it has {} bytes; at most {LENGTH} are read",
            text.len()
        )));
    }
    let mut renamed = Vec::new();
    let (mut symbols, mut branches, mut opened) = (0, 0, false);
    for token in tokenize(&text, false, Default::default(), whitespace()) {
        // What cannot be read is told by the parser, with its place.
        let Ok((token, span)) = token else { break };
        symbols += 1;
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => symbols = 0,
            Token::Ident(name @ ("generation" | "endgeneration")) if opened => {
                renamed.push((span.start_offset as usize, name.len()));
            }
            Token::Ident("elif") if opened => branches += 1,
            _ => {}
        }
        if symbols > SYMBOLS || branches > BRANCHES {
            return Err(Fault::new(format!(
                "more than {SYMBOLS} symbols in one statement, or {BRANCHES} branches"
            ))
            .at(usize::from(span.start_line)));
        }
        opened = matches!(token, Token::BlockStart);
    }
    let mut text = text;
    for (start, length) in renamed {
        let name = if length == "generation".len() {
            "with"
        } else {
            "endwith"
        };
        text.replace_range(start..start + length, &format!("{name:length$}"));
    }
    Ok(text)
}

/// The statements of a prepared template.
pub fn parsed(text: &str) -> Result<Stmt<'_>> {
    Ok(parse(text, "template", Default::default(), whitespace())?)
}
