//! `brisk text`: an answer from a language model.

mod arguments;
mod canvas;
mod chat;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use brisk::{Control, Event, GeneratedText, TextModel, TextPrompt, TextRequest};
use brisk_store::{Dtype, OutTensor, check_outputs, write_safetensors};
use serde_json::json;

pub use arguments::TextArguments;

use super::stop_on_interrupt;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::progress::Warnings;
use crate::{output, text};

/// Runs the command.
pub fn run(arguments: &TextArguments) -> Result {
    arguments.threads.apply()?;
    if arguments.wants_chat() {
        return chat::run(arguments);
    }
    let texts = arguments.texts()?;
    let options = arguments.options()?;
    if let Some(path) = &arguments.output_ids {
        output::expect_format("--output-ids", path, Format::Safetensors)?;
        let read: Vec<&Path> = arguments.input_ids.iter().map(PathBuf::as_path).collect();
        check_outputs(&[path], &read)?;
        output::check_writable(path)?;
    }
    super::report_drawn_seed(&options);
    let model = arguments.open()?;
    let prompts = prompts(arguments, &texts, &*model)?;
    let plan = model.plan(&TextRequest { prompts, options })?;
    let count = plan.prompts.len();
    let warnings = Warnings::default();
    let control =
        control(&*model, count, arguments.json, &warnings).with_cancel(stop_on_interrupt()?);
    plan.warnings
        .iter()
        .for_each(|warning| control.warn(warning));
    let began = Instant::now();
    let found = match model.generate(&plan, &control) {
        Err(brisk::Error::Cancelled) => {
            return Err(Failure::stopped("cancelled; nothing was written"));
        }
        other => other?,
    };
    found
        .iter()
        .filter_map(empty_answer)
        .for_each(|why| control.warn(why));
    drop(control);
    let seconds = began.elapsed().as_secs_f64();
    if let Some(path) = &arguments.output_ids {
        write_ids(path, &found)?;
    }
    if arguments.json {
        let listed: Vec<_> = found
            .iter()
            .map(|row| {
                json!({
                    "text": row.text, "ids": row.tokens[row.prompt_tokens..],
                    "prompt_tokens": row.prompt_tokens, "tokens": row.answer_tokens,
                    "forwards": row.forward_passes, "tokens_per_forward": row.tokens_per_pass(),
                })
            })
            .collect();
        return output::print_json(&json!({
            "answers": listed, "model": model.label(), "seed": plan.seed, "seconds": seconds,
            "settings": plan.settings, "warnings": warnings.take(),
            "output_ids": arguments.output_ids.as_ref().map(|path| path.display().to_string()),
        }));
    }
    for row in &found {
        output::note(&format!(
            "{} tokens in {} forward passes, {:.2} tokens a pass",
            row.answer_tokens,
            row.forward_passes,
            row.tokens_per_pass()
        ));
    }
    output::note(&format!("done in {}", text::seconds(seconds)));
    let answers: Vec<&str> = found.iter().map(|row| row.text.as_str()).collect();
    output::print_answer(&answers.join("\n"))
}

/// Why there is nothing to read, where there is nothing.
fn empty_answer(row: &GeneratedText) -> Option<String> {
    if !row.text.trim().is_empty() {
        return None;
    }
    Some(if row.answer_tokens == 0 {
        "the answer is empty: the model's first token ends the text; another prompt, or --end-tokens last, may \
         get more"
            .to_owned()
    } else {
        format!(
            "the answer is empty: its {} tokens are special tokens or white space, which are not shown",
            row.answer_tokens
        )
    })
}

/// A control that shows warnings, and a canvas where there is somebody to see it.
fn control(model: &dyn TextModel, prompts: usize, quiet: bool, warnings: &Warnings) -> Control {
    let warnings = warnings.clone();
    let mut canvas = canvas::canvas(model, prompts, quiet);
    let draws = canvas.is_some();
    let control = Control::new(move |event| {
        warnings.watch(&event);
        match (&mut canvas, event) {
            (_, Event::Warning(warning)) => output::warn(&warning),
            (Some(canvas), event) => canvas(event),
            _ => {}
        }
    });
    match draws {
        true => control.with_canvas(),
        false => control,
    }
}

/// The prompts: from the file, or the texts.
fn prompts(
    arguments: &TextArguments,
    texts: &[String],
    model: &dyn TextModel,
) -> Result<Vec<TextPrompt>> {
    if let Some(path) = &arguments.input_ids {
        let inputs = brisk_nn::tensor_file::TensorFile::open(path)?;
        let (shape, ids) = inputs.ids("input_ids", model.vocabulary_size())?;
        return Ok(ids
            .chunks(shape[1])
            .map(|row| TextPrompt::Tokens(row.to_vec()))
            .collect());
    }
    let prompt = |text: &String| match arguments.raw {
        true => TextPrompt::Continue(text.clone()),
        false => TextPrompt::Question(text.clone()),
    };
    Ok(texts.iter().map(prompt).collect())
}

/// `output_ids` `[B,P+G]` and `nfe` `[B]`, both i64. Prompts from a file have one length.
fn write_ids(path: &Path, found: &[GeneratedText]) -> Result {
    let width = found.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
    if found.iter().any(|row| row.tokens.len() != width) {
        return Err(Failure::failed(
            "--output-ids holds one table: give prompts of one length, or one prompt",
        ));
    }
    let table = |name: &str, shape: Vec<usize>, values: Vec<i64>| OutTensor {
        name: name.to_owned(),
        dtype: Dtype::I64,
        shape,
        data: Cow::Owned(values.into_iter().flat_map(i64::to_le_bytes).collect()),
    };
    let ids = found
        .iter()
        .flat_map(|row| row.tokens.iter().map(|id| i64::from(*id)));
    let forwards = found.iter().map(|row| row.forward_passes as i64);
    let tensors = [
        table("output_ids", vec![found.len(), width], ids.collect()),
        table("nfe", vec![found.len()], forwards.collect()),
    ];
    Ok(write_safetensors(path, &tensors, &BTreeMap::new())?)
}
