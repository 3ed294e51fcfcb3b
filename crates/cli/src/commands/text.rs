//! `brisk text`: an answer from a diffusion language model.

mod canvas;
mod chat;
mod options;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use brisk_pipelines::Control;
use brisk_pipelines::language::{Generation, TextPipeline};
use brisk_store::{Dtype, OutTensor, write_safetensors};
use serde_json::json;

pub use options::TextArguments;

use super::stop_on_interrupt;
use crate::failure::{Failure, Result};
use crate::tensors::Inputs;
use crate::{models, output, text};
use canvas::Canvas;

/// Runs the command.
pub fn run(arguments: &TextArguments) -> Result {
    arguments.threads.apply()?;
    if arguments.wants_chat() {
        return chat::run(arguments);
    }
    let request = arguments.request()?;
    if let Some(path) = &arguments.output_ids {
        output::check_writable(path)?;
    }
    let folder = models::open_text(arguments.model.as_deref(), arguments.variant.as_deref())?;
    let pipeline = TextPipeline::load(&folder, &arguments.load_options()?)?;
    let prompts = prompts(arguments, &pipeline)?;
    let stop = stop_on_interrupt()?;
    let control = Control::silent().with_cancel(stop.clone());
    let mask = pipeline
        .complete(&request)
        .plan(pipeline.model().config())?
        .mask;
    let mut canvas = Canvas::new(&pipeline, mask, prompts.len(), arguments.json);
    let began = Instant::now();
    let found = pipeline.generate(&prompts, &request, &control, &mut |row, ids| {
        canvas.show(row, &ids[shown_from(arguments, &prompts[row])..]);
    });
    canvas.finish();
    let found = match found {
        Err(_) if stop.load(Ordering::Relaxed) => {
            return Err(Failure::failed("cancelled; nothing was written"));
        }
        other => other?,
    };
    let seconds = began.elapsed().as_secs_f64();
    if let Some(path) = &arguments.output_ids {
        write_ids(path, &found)?;
    }
    let answers = found
        .iter()
        .map(|row| answer(arguments, &pipeline, row))
        .collect::<Result<Vec<String>>>()?;
    if arguments.json {
        let listed: Vec<_> = found
            .iter()
            .zip(&answers)
            .map(|(row, text)| {
                json!({
                    "text": text, "ids": row.ids[row.prompt..], "prompt_tokens": row.prompt,
                    "tokens": row.answer, "forwards": row.forwards,
                    "tokens_per_forward": per_forward(row),
                })
            })
            .collect();
        return output::print_json(&json!({
            "answers": listed, "model": pipeline.label(), "seed": request.seed, "seconds": seconds,
            "output_ids": arguments.output_ids.as_ref().map(|path| path.display().to_string()),
        }));
    }
    for row in &found {
        output::note(&format!(
            "{} tokens in {} forward passes, {:.2} tokens a pass",
            row.answer,
            row.forwards,
            per_forward(row)
        ));
    }
    output::note(&format!("done in {}", text::seconds(seconds)));
    output::print(&answers.join("\n"))
}

/// Every generated token counts up to the first end token; a run that only fills in has none.
fn per_forward(row: &Generation) -> f64 {
    row.answer as f64 / row.forwards.max(1) as f64
}

/// Where the shown text begins: blanks are shown in their surroundings.
fn shown_from(arguments: &TextArguments, prompt: &[u32]) -> usize {
    if arguments.infill { 0 } else { prompt.len() }
}

fn answer(arguments: &TextArguments, pipeline: &TextPipeline, row: &Generation) -> Result<String> {
    let from = if arguments.infill { 0 } else { row.prompt };
    let ids = &row.ids[from..row.prompt + row.answer];
    if arguments.input_ids.is_some() && pipeline.tokenizer().is_err() {
        let listed: Vec<String> = ids.iter().map(u32::to_string).collect();
        return Ok(listed.join(" "));
    }
    Ok(pipeline.tokenizer()?.decode_known(ids)?)
}

/// Token ids of every prompt: from the file, or of the texts.
fn prompts(arguments: &TextArguments, pipeline: &TextPipeline) -> Result<Vec<Vec<u32>>> {
    if let Some(path) = &arguments.input_ids {
        let inputs = Inputs::open(path)?;
        let config = pipeline.model().config();
        let (shape, ids) = inputs.ids("input_ids", config.vocab_size)?;
        return Ok(ids.chunks(shape[1]).map(<[u32]>::to_vec).collect());
    }
    arguments
        .texts()
        .map(|text| Ok(pipeline.encode(text, arguments.raw)?))
        .collect()
}

/// `output_ids` `[B,P+G]` and `nfe` `[B]`, both i64. Prompts from a file have one length.
fn write_ids(path: &Path, found: &[Generation]) -> Result {
    let width = found.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    if found.iter().any(|row| row.ids.len() != width) {
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
        .flat_map(|row| row.ids.iter().map(|id| i64::from(*id)));
    let forwards = found.iter().map(|row| row.forwards as i64);
    let tensors = [
        table("output_ids", vec![found.len(), width], ids.collect()),
        table("nfe", vec![found.len()], forwards.collect()),
    ];
    Ok(write_safetensors(path, &tensors, &BTreeMap::new())?)
}
