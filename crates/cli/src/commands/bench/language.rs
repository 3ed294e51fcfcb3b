//! Diffusion language models: one decoding step over a cache, and whole answers.

use brisk::{Control, OpenSettings, Options, ResultKind, TextPrompt, TextRequest, keys, registry};
use brisk_models::language_model::{LanguageModel, LanguageModelConfig, Rows, Span};
use brisk_nn::KeyValueCache;
use clap::Args;
use serde_json::{Map, Value, json};

use super::components::Prepared;
use super::measure::{Laps, measure};
use super::report::{Report, Stage};
use super::{FileArguments, ModelArguments, Opened, RunArguments};
use crate::commands::component::check_names;
use crate::failure::{Failure, Result};
use crate::models::{self, quantisation};

/// Compute one block of a language model over its cache
#[derive(Debug, Args)]
#[command(
    before_help = "The last --block tokens of --context, over the keys and values of those before them, with the\n\
    logits of every token of the block: a step of block-wise decoding."
)]
pub struct LanguageModelArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// How linear layers keep their weights: none, 8bit or 4bit
    #[arg(long, value_name = "KIND", default_value = "none")]
    quantize: String,
    /// Tokens in all
    #[arg(long, value_name = "N", default_value_t = 512, conflicts_with = "inputs", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    context: u32,
    /// Tokens of the block
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    block: u32,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    run: RunArguments,
}

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
    #[command(flatten)]
    run: RunArguments,
}

fn sizes(values: &[(&str, Value)]) -> Map<String, Value> {
    let pairs = values.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// The part that a traced value ends.
fn part(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or(name, |(_, inner)| inner) {
        "embedding" => "embedding",
        "keys" => "qkv",
        "attention" => "attention",
        "mlp" => "mlp",
        _ => "between",
    }
}

/// Times a block step.
pub fn language_model(arguments: &LanguageModelArguments) -> Result {
    let how = quantisation("--quantize", &arguments.quantize)?;
    let prepared = Prepared::begin(&arguments.run, &arguments.files)?;
    let component = arguments.model.open("language_model")?;
    let config = LanguageModelConfig::from_json(&component.found.config, &component.found.label)?;
    let inputs =
        prepared.inputs(|made| Ok(made.text(arguments.context as usize, config.vocab_size)))?;
    check_names(&inputs, &["input_ids", "attention_mask"])?;
    let (shape, ids) = inputs.ids("input_ids", config.vocab_size)?;
    let (context, block) = (shape[1], arguments.block as usize);
    if shape[0] != 1 || block > context {
        return Err(Failure::usage(format!(
            "a block of {block} tokens in {} rows of {context}: expected one row of at least a block",
            shape[0]
        )));
    }
    let Opened {
        weights,
        weight_bytes,
    } = component.quantised_weights(config.parameters(), how)?;
    let model = LanguageModel::load(&config, &weights)?;
    let mut cache = model.cache(context)?;
    let first = context - block;
    model.hidden(&[Span::whole(&ids)], &mut [Some(&mut cache)], Rows::None)?;
    let measured = measure(&arguments.run, |laps| {
        step(&model, &ids, first, &mut cache, laps)
    })?;
    let costs = config.pass_cost(block, context, block);
    let bytes = how.bytes_per_value(weight_bytes);
    prepared.finish(
        Report {
            component: "language_model",
            model: Some(component.found.label.clone()),
            random: component.random.is_some(),
            sizes: sizes(&[
                ("context", json!(context)),
                ("block", json!(block)),
                ("quantize", json!(how.name())),
            ]),
            stages: measured.stages("language_model", &costs, bytes),
        },
        "logits",
        || Ok(measured.result.unsqueeze(0)?),
    )
}

/// Logits of every token from `first` on.
fn step(
    model: &LanguageModel,
    ids: &[u32],
    first: usize,
    cache: &mut KeyValueCache,
    laps: &mut Laps,
) -> Result<brisk_nn::Tensor> {
    let span = Span::from(&ids[first..], first);
    let hidden = model.hidden_traced(&[span], &mut [Some(cache)], Rows::All, &mut |name, _| {
        laps.lap(part(name));
    })?;
    let logits = model.logits(&hidden)?;
    laps.lap("head");
    Ok(logits)
}

/// Times whole answers.
pub fn text(arguments: &TextArguments) -> Result {
    arguments.run.threads.apply()?;
    let folder = arguments.model.folder()?;
    let kind = ResultKind::Text;
    let mut options = Options::new().with_some(&keys::VARIANT, arguments.model.variant.clone());
    registry::give(&mut options, kind, "quantize", &arguments.quantize)?;
    registry::give(&mut options, kind, "without-tokenizer", "true")?;
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
    Report {
        component: "text",
        model: Some(folder.label()),
        random: settings.random.is_some(),
        sizes: sizes(&[
            ("prompt_tokens", json!(arguments.prompt_tokens)),
            ("gen_length", json!(arguments.gen_length)),
            ("forwards", json!(forwards)),
            ("quantize", json!(arguments.quantize)),
        ]),
        stages: vec![Stage::new("text", measured.total)],
    }
    .print(&arguments.run)
}
