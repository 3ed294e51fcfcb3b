//! Whole answers of a diffusion language model.

use brisk::{Control, OpenSettings, Options, ResultKind, TextPrompt, TextRequest, keys, registry};
use clap::Args;
use serde_json::{Map, Value, json};

use super::measure::measure;
use super::report::{Report, Stage};
use super::{ModelArguments, RunArguments};
use crate::failure::Result;
use crate::models;

/// Write an answer with a language model
#[derive(Debug, Args)]
#[command(
    before_help = "Decodes from made-up token ids with the dual cache; no tokenizer is read."
)]
pub struct TextArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// How linear layers keep their weights: none, 8bit or 4bit
    #[arg(long, value_name = "KIND", default_value = "none")]
    quantize: String,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 32)]
    prompt_tokens: u32,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 32)]
    gen_length: u32,
    /// Tokens of a block
    #[arg(long, value_name = "N", default_value_t = 32)]
    block_length: u32,
    /// Steps in all
    #[arg(long, value_name = "N", default_value_t = 8)]
    steps: u32,
    /// cpu (default), cuda, cuda:N or auto
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "cpu",
        hide_default_value = true
    )]
    device: String,
    #[command(flatten)]
    run: RunArguments,
}

fn sizes(values: &[(&str, Value)]) -> Map<String, Value> {
    let pairs = values.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// Times whole answers.
pub fn text(arguments: &TextArguments) -> Result {
    arguments.run.threads.apply()?;
    let folder = arguments.model.folder()?;
    let kind = ResultKind::Text;
    let mut options = Options::new().with_some(&keys::VARIANT, arguments.model.variant.clone());
    registry::give(&mut options, kind, "quantize", &arguments.quantize)?;
    registry::give(&mut options, kind, "without-tokenizer", "true")?;
    registry::give(&mut options, kind, "device", &arguments.device)?;
    let settings = OpenSettings {
        random: arguments.model.random(),
        ..models::settings(options)
    };
    let model = registry::open_text(&folder, &settings)?;
    let mut options = Options::new();
    for (name, value) in [
        ("gen-length", arguments.gen_length),
        ("block-length", arguments.block_length),
        ("steps", arguments.steps),
    ] {
        registry::give(&mut options, kind, name, &value.to_string())?;
    }
    registry::give(&mut options, kind, "cache", "dual")?;
    registry::give(&mut options, kind, "no-early-stop", "true")?;
    let vocabulary = model.vocabulary_size();
    let request = |prompt: Vec<u32>| TextRequest {
        prompts: vec![TextPrompt::Tokens(prompt)],
        options: options.clone(),
    };
    // The mask is no prompt's token.
    let trial = model
        .plan(&request(vec![0]))
        .or_else(|_| model.plan(&request(vec![1])))?;
    let mask = trial.settings.get("mask_token").and_then(Value::as_u64);
    let prompt: Vec<u32> = (0..arguments.prompt_tokens as usize)
        .map(|at| ((at * 7919 + 11) % vocabulary) as u32)
        .map(|id| {
            if Some(u64::from(id)) == mask {
                id.wrapping_sub(1) % vocabulary as u32
            } else {
                id
            }
        })
        .collect();
    let plan = model.plan(&request(prompt))?;
    let measured = measure(&arguments.run, |_| {
        Ok(model.generate(&plan, &Control::silent())?)
    })?;
    let forwards = measured.result.first().map_or(0, |row| row.forward_passes);
    let mut seconds = measured.total.clone();
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    let speed = (f64::from(arguments.gen_length) / median * 10.0).round() / 10.0;
    Report {
        component: "text",
        model: Some(folder.label()),
        random: settings.random.is_some(),
        sizes: sizes(&[
            ("prompt_tokens", json!(arguments.prompt_tokens)),
            ("gen_length", json!(arguments.gen_length)),
            ("forwards", json!(forwards)),
            ("device", json!(arguments.device)),
            ("tokens_per_second", json!(speed)),
            ("quantize", json!(arguments.quantize)),
        ]),
        stages: vec![Stage::new("text", measured.total)],
    }
    .print(&arguments.run)
}
