//! The run.

use std::path::Path;
use std::sync::Arc;

use brisk_nn::Weights;
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_store::{TensorSource, write_safetensors};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::DetectorRecipe;
use super::objective::loss;
use super::sample::Sample;
use super::scores::{DetectorScores, frozen, scores};
use crate::data::scene_text::Fonts;
use crate::error::{FileContext, Result};
use crate::families::autoencoder::config_with;
use crate::families::fixed_norms::FixedNorms;
use crate::inputs::Inputs;
use crate::session::{self, Session, check_memory, check_start, write_json};
use crate::tensors::NamedArray;

/// The folder of the result.
const MODEL: &str = "model";

/// What a finished run measured, with the weights as written (moving average, rounded to bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DetectorReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Held-out scenes.
    pub scenes: usize,
    /// What was found in them.
    pub scores: DetectorScores,
}

/// Trains the recipe's model into `out`: `training_log.jsonl`, `checkpoints/`, and at the end `model/` (the published
/// names, bf16) and `report.json`. Continues when `out` holds a checkpoint of the same recipe.
/// `start` has the weights of a network of the recipe's shape to go on from.
///
/// # Errors
/// A start that does not fit the recipe, files that cannot be written, a run that diverges, or one that was asked to
/// stop: its checkpoint is written.
pub fn train_detector(
    recipe: &DetectorRecipe,
    fonts: &Fonts,
    start: Option<&Arc<dyn TensorSource>>,
    out: &Path,
    control: &Control,
) -> Result<DetectorReport> {
    recipe.validate()?;
    let config = recipe.model()?;
    let options = &recipe.training;
    let pixels = (recipe.picture_size * recipe.picture_size) as u64;
    check_memory(
        0,
        options.batch,
        40 * pixels * config.stage_channels[0] as u64,
    )?;
    let _lock = session::claim(out, MODEL)?;
    let weights = Weights::trainable(start.cloned(), options.seed);
    brisk_models::craft::Craft::load(&config, &weights)?;
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
                .map(|index| Sample::draw(recipe, fonts, options.seed, index))
                .collect::<Result<_>>()
        })?;
        session.update(batch.len(), |part| loss(&config, &weights, &batch[part]))?;
        if session.is_due(recipe.eval_every) {
            let detector = frozen(&config, &fixed.with(session.ema.arrays()), false)?;
            let scores = scores(&detector, &held_out, recipe.eval_scenes, control)?;
            session.log_measured(&[("words_found", scores.words_found)])?;
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
        ("architectures", json!(["CRAFT"])),
        ("model_type", "craft".into()),
    ];
    write_json(
        &folder.join("config.json"),
        &config_with(&recipe.config, None, &entries)?,
    )?;
    control.stage("measuring held-out scenes", Work::Run, 0);
    let detector = frozen(&config, &arrays, true)?;
    let report = DetectorReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: arrays.iter().map(|array| array.values.len()).sum(),
        scenes: recipe.final_scenes,
        scores: scores(&detector, &held_out, recipe.final_scenes, control)?,
    };
    write_json(&out.join(session::REPORT), &report)?;
    Ok(report)
}
