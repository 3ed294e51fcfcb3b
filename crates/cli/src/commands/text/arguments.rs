//! The arguments of `brisk text` beside the options that models honour.

use std::io::IsTerminal;
use std::path::PathBuf;

use brisk::options::Scope;
use brisk::{Options, ResultKind, TextModel, keys};
use clap::Args;

use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::flags::{Flags, Text, rare};
use crate::models;

/// Answer with a language model; without --model, the one in the box answers
#[derive(Debug, Args)]
#[command(
    override_usage = "brisk text [--model MODEL] \"QUESTION\" [OPTIONS]\n       brisk text [--model MODEL] --chat [OPTIONS]",
    next_help_heading = "Text",
    after_help = format!(
        "Without --steps a step decides every token that is sure enough (--threshold 0.9).\n{}",
        rare(ResultKind::Text)
    )
)]
pub struct TextArguments {
    /// What to answer or continue, in quotes; several are decoded together
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// The same as a flag
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT")]
    prompt: Vec<String>,
    /// Prompts, one a line, from a file or - for stdin; decoded together
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "prompt", "chat"])]
    prompts: Option<PathBuf>,
    /// Continue the text as it stands, without the model's chat template
    #[arg(long)]
    pub(super) raw: bool,
    /// Talk over several turns, a line each; so does no prompt on a terminal
    #[arg(long, conflicts_with_all = ["words", "prompt", "raw", "infill", "input_ids", "output_ids"])]
    chat: bool,
    #[command(flatten)]
    flags: Flags<Text>,

    /// Folder or hub id (OWNER/NAME); by default the model in the box, in builds that have one
    #[arg(short, long, help_heading = "Model", value_name = "MODEL")]
    model: Option<String>,
    /// Prompts as token ids: tensor input_ids, one prompt a row; needs no tokenizer
    #[arg(long, help_heading = "Output and machine", value_name = "FILE", conflicts_with_all = ["words", "prompt", "raw"])]
    pub(super) input_ids: Option<PathBuf>,
    /// Write prompts with answers (output_ids) and the forward passes (nfe)
    #[arg(long, help_heading = "Output and machine", value_name = "FILE")]
    pub(super) output_ids: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, help_heading = "Output and machine")]
    pub(super) json: bool,
    #[command(flatten, next_help_heading = "Output and machine")]
    pub(super) threads: ThreadArguments,
}

impl TextArguments {
    /// Whether to talk: asked for, or there is somebody at a terminal and nothing else to do.
    pub(super) fn wants_chat(&self) -> bool {
        let prompts =
            self.prompts.is_some() || self.words.iter().chain(&self.prompt).next().is_some();
        let nothing = self.input_ids.is_none() && !prompts && !self.json;
        self.chat || (nothing && std::io::stdin().is_terminal() && std::io::stderr().is_terminal())
    }

    /// The prompts given as text, none of them empty.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        if let Some(file) = &self.prompts {
            return crate::prompts::read(file);
        }
        let texts: Vec<String> = self.words.iter().chain(&self.prompt).cloned().collect();
        if self.input_ids.is_none() && texts.is_empty() {
            return Err(Failure::usage(
                "there is no prompt; give a text in quotes, --input-ids FILE, or --chat to talk",
            ));
        }
        if let Some(text) = texts.iter().find(|text| text.trim().is_empty()) {
            return Err(Failure::usage(format!(
                "the prompt {text:?} is empty; give some text"
            )));
        }
        Ok(texts)
    }

    /// Opens the model; with a file of tokens it needs no tokenizer.
    pub(super) fn open(&self) -> Result<Box<dyn TextModel>> {
        let mut options = self.flags.read()?.of_scope(Scope::Open);
        if self.input_ids.is_some() {
            let name = "without-tokenizer";
            brisk::registry::give(&mut options, ResultKind::Text, name, "true")?;
        }
        let variant = options.get(&keys::VARIANT);
        let name = self.model.as_deref();
        let found = models::find(name, variant.as_deref(), ResultKind::Text)?;
        Ok(brisk::registry::open_text(
            &found.folder,
            &models::settings(options),
        )?)
    }

    /// The options of the request.
    pub(super) fn options(&self) -> Result<Options> {
        Ok(self.flags.read()?.of_scope(Scope::Request))
    }
}
