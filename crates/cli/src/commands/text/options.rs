//! The options of `brisk text`, and the request they make.

use std::io::IsTerminal;
use std::path::PathBuf;

use brisk_pipelines::language::{LoadOptions, TextRequest};
use clap::Args;

use super::super::ThreadArguments;
use super::super::decoding::DecodingArguments;
use crate::failure::{Failure, Result};
use crate::models::quantisation;

/// Answer with a diffusion language model: LLaDA, Dream, SDAR, Fast-dLLM v2 and their kin
#[derive(Debug, Args)]
#[command(
    override_usage = "brisk text [--model MODEL] \"QUESTION\" [OPTIONS]\n       brisk text [--model MODEL] --chat [OPTIONS]",
    next_help_heading = "Text",
    after_help = "Without --steps a step decides every token that is sure enough (--threshold 0.9).\n\
                  Rarely needed: --end-tokens free|never|last, --entropy-bound X, --sub-block-length N,\n\
                  --stop-token ID, --mask-token ID, --block-causal N, --top-k N, --algorithm-temperature X"
)]
pub struct TextArguments {
    /// What to answer or continue, in quotes; several are decoded together
    #[arg(value_name = "PROMPT")]
    pub words: Vec<String>,
    /// The same as a flag
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Continue the text as it stands, without the model's chat template
    #[arg(long)]
    pub raw: bool,
    /// Fill in the masks of the prompt
    #[arg(long)]
    pub infill: bool,
    /// Talk over several turns, a line each; so does no prompt on a terminal
    #[arg(long, conflicts_with_all = ["words", "prompt", "raw", "infill", "input_ids", "output_ids"])]
    pub chat: bool,
    #[command(flatten)]
    pub decoding: DecodingArguments,

    /// Folder or hub id (OWNER/NAME); by default the model in the box, in builds that have one
    #[arg(short, long, help_heading = "Model and files", value_name = "MODEL")]
    pub model: Option<String>,
    /// How linear layers keep their weights: none (default), 8bit or 4bit
    #[arg(
        long,
        help_heading = "Model and files",
        value_name = "KIND",
        default_value = "none",
        hide_default_value = true
    )]
    pub quantize: String,
    /// Keep quantised weights in this file: the first run writes it, later ones load faster
    #[arg(long, help_heading = "Model and files", value_name = "FILE")]
    pub quantized_weights: Option<PathBuf>,
    /// Variant of the weight files
    #[arg(long, help_heading = "Model and files", value_name = "NAME")]
    pub variant: Option<String>,
    /// Prompts as token ids: tensor input_ids, one prompt a row; needs no tokenizer
    #[arg(long, help_heading = "Model and files", value_name = "FILE", conflicts_with_all = ["words", "prompt", "raw"])]
    pub input_ids: Option<PathBuf>,
    /// Write prompts with answers (output_ids) and the forward passes (nfe)
    #[arg(long, help_heading = "Model and files", value_name = "FILE")]
    pub output_ids: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, help_heading = "Model and files")]
    pub json: bool,
    #[command(flatten, next_help_heading = "Model and files")]
    pub threads: ThreadArguments,
}

impl TextArguments {
    /// Whether to talk: asked for, or there is somebody at a terminal and nothing else to do.
    pub fn wants_chat(&self) -> bool {
        let nothing = self.input_ids.is_none() && self.texts().next().is_none() && !self.json;
        self.chat || (nothing && std::io::stdin().is_terminal() && std::io::stderr().is_terminal())
    }

    /// The prompts given as text.
    pub fn texts(&self) -> impl Iterator<Item = &String> {
        self.words.iter().chain(&self.prompt)
    }

    /// How the model is loaded: with a token file, a tokenizer is not needed.
    ///
    /// # Errors
    /// A quantisation of another name.
    pub fn load_options(&self) -> Result<LoadOptions> {
        Ok(LoadOptions {
            variant: self.variant.clone(),
            without_tokenizer: self.input_ids.is_some(),
            block_causal: self.decoding.block_causal,
            quantisation: quantisation("--quantize", &self.quantize)?,
            quantised_weights: self.quantized_weights.clone(),
            random: None,
        })
    }

    /// The request, as far as it can be told without the model.
    pub fn request(&self) -> Result<TextRequest> {
        if self.input_ids.is_none() && self.texts().next().is_none() {
            return Err(Failure::usage(
                "there is no prompt; give a text in quotes, --input-ids FILE, or --chat to talk",
            ));
        }
        if let Some(text) = self.texts().find(|text| text.trim().is_empty()) {
            return Err(Failure::usage(format!(
                "the prompt {text:?} is empty; give some text"
            )));
        }
        self.decoding.request(self.infill)
    }
}
