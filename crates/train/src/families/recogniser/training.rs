//! The run.

use std::path::Path;
use std::sync::Arc;

use brisk_models::crnn::{Crnn, CrnnConfig};
use brisk_nn::Weights;
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::families::char_sam::Reader;
use brisk_store::{TensorSource, write_safetensors};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::RecogniserRecipe;
use super::objective::loss;
use super::sample::{Line, Sample};
use crate::data::scene_text::Fonts;
use crate::error::{FileContext, Result};
use crate::families::autoencoder::config_with;
use crate::families::fixed_norms::FixedNorms;
use crate::inputs::Inputs;
use crate::session::{self, Session, check_memory, check_start, write_json};
use crate::tensors::{self, NamedArray};

/// The folder of the result.
const MODEL: &str = "model";
/// Seed of the words that are never trained on.
const HELD_OUT: u64 = 0x7265_6164_6f75_7421;

/// What a finished run measured, with the weights as written (moving average, rounded to bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecogniserReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Held-out words, and as many letters.
    pub words: usize,
    /// Share of the words that were read without a fault.
    pub words_right: f64,
    /// Share of the letters by themselves.
    pub letters_right: f64,
}

/// Trains the recipe's model into `out`: `training_log.jsonl`, `checkpoints/`, and at the end `model/` (the published
/// names, bf16) and `report.json`. Continues when `out` holds a checkpoint of the same recipe.
/// `start` has the weights of a network of the recipe's shape to go on from.
///
/// # Errors
/// A start that does not fit the recipe, files that cannot be written, a run that diverges, or one that was asked to
/// stop: its checkpoint is written.
pub fn train_recogniser(
    recipe: &RecogniserRecipe,
    fonts: &Fonts,
    start: Option<&Arc<dyn TensorSource>>,
    out: &Path,
    control: &Control,
) -> Result<RecogniserReport> {
    recipe.validate()?;
    let config = recipe.model()?;
    let options = &recipe.training;
    let pixels = (config.image_height * 8 * config.image_height) as u64;
    check_memory(0, options.batch, 8 * pixels * config.output_channels as u64)?;
    let _lock = session::claim(out, MODEL)?;
    let weights = Weights::trainable(start.cloned(), options.seed);
    Crnn::load(&config, &weights)?;
    check_start(&weights, start.map(|start| &**start))?;
    let (fixed, parameters) = FixedNorms::of(weights.variables(), start.is_none())?;
    let inputs = Inputs::default().start_from(start)?;
    let mut session = Session::open(options, recipe, inputs, parameters, out, control)?;
    let held_out = Fonts::held_out();
    while !session.is_over() {
        let first = session.step * options.batch as u64;
        let batch: Vec<Sample> = session.together(|| {
            (first..first + options.batch as u64)
                .into_par_iter()
                .map(|index| Sample::draw(recipe, &config, fonts, index))
                .collect::<Result<_>>()
        })?;
        let placed = session.step < recipe.placed_steps;
        session.update(batch.len(), |part| {
            loss(&config, &weights, &batch[part], placed)
        })?;
        if session.is_due(recipe.eval_every) {
            let reader = frozen(&config, &fixed.with(session.ema.arrays()), false)?;
            let right = right(&reader, &held_out, recipe.eval_words, 0.0, control)?;
            session.log_measured(&[("words_right", right)])?;
        }
        session.settle()?;
    }
    session.finish()?;
    let arrays = fixed.with(session.ema.arrays());
    let folder = out.join(MODEL);
    std::fs::create_dir_all(&folder).at(&folder)?;
    let stored: Vec<_> = arrays.iter().map(NamedArray::to_bf16_tensor).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&folder.join("model.safetensors"), &stored, &metadata)?;
    let entries = [
        ("architectures", json!(["CRNN"])),
        ("model_type", "crnn".into()),
    ];
    write_json(
        &folder.join("config.json"),
        &config_with(&recipe.config, None, &entries)?,
    )?;
    control.stage("measuring held-out words", Work::Run, 0);
    let reader = frozen(&config, &arrays, true)?;
    let words = recipe.final_words;
    let report = RecogniserReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: arrays.iter().map(|array| array.values.len()).sum(),
        words,
        words_right: right(&reader, &held_out, words, 0.0, control)?,
        letters_right: right(&reader, &held_out, words, 1.0, control)?,
    };
    write_json(&out.join(session::REPORT), &report)?;
    Ok(report)
}

fn frozen(config: &CrnnConfig, arrays: &[NamedArray], rounded: bool) -> Result<Reader> {
    let weights = Weights::from_source(tensors::memory_source(arrays, "", rounded)?);
    Ok(Reader::load(config, &weights)?)
}

/// Share of `count` held-out words, or of single letters, that are read without a fault.
fn right(
    reader: &Reader,
    fonts: &Fonts,
    count: usize,
    letter_share: f64,
    control: &Control,
) -> Result<f64> {
    let mut right = 0;
    for index in 0..count as u64 {
        control.check()?;
        let line = Line::draw(fonts, HELD_OUT, index, letter_share)?;
        right += usize::from(reader.read(&line.picture)?.text == line.text);
    }
    Ok(right as f64 / count.max(1) as f64)
}
