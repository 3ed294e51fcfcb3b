//! The run.

use std::path::Path;
use std::sync::Arc;

use brisk_models::sam::{SamConfig, plain_names};
use brisk_nn::Weights;
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::families::sam::Segmenter;
use brisk_store::{TensorSource, write_safetensors};
use rayon::prelude::*;
use serde::Serialize;

use super::MasksRecipe;
use super::objective::Networks;
use super::sample::Sample;
use crate::data::scene_text::Fonts;
use crate::error::{FileContext, Result};
use crate::families::autoencoder::config_with;
use crate::families::masks::scores::{MaskScores, score_boxes};
use crate::inputs::Inputs;
use crate::session::{self, Session, check_memory, check_start, write_json};
use crate::tensors::{self, NamedArray};

/// The folder of the result.
const MODEL: &str = "model";
/// Frequencies of positions, which are drawn once and stay.
const FREQUENCIES: &str = "shared_image_embedding.positional_embedding";
/// Seed of the scenes that are never trained on.
const HELD_OUT: u64 = 0x0068_656c_646f_7574;

/// What a finished run measured, with the weights as written (moving average, rounded to bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MasksReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Held-out scenes.
    pub scenes: usize,
    /// Masks of letters by their true boxes.
    pub letters: MaskScores,
    /// Masks of words by their true boxes.
    pub words: MaskScores,
}

/// Trains the recipe's model into `out`: `training_log.jsonl`, `checkpoints/`, and at the end `model/` (transformers'
/// layout, bf16) and `report.json`. Continues when `out` holds a checkpoint of the same recipe.
/// `start` has the weights of a network of the recipe's shape to go on from.
///
/// # Errors
/// A start that does not fit the recipe, files that cannot be written, a run that diverges, or one that was asked to
/// stop: its checkpoint is written.
pub fn train_masks(
    recipe: &MasksRecipe,
    fonts: &Fonts,
    start: Option<&Arc<dyn TensorSource>>,
    out: &Path,
    control: &Control,
) -> Result<MasksReport> {
    recipe.validate()?;
    let config = recipe.model()?;
    let options = &recipe.training;
    let (grid, side) = (config.grid(), config.image_size());
    let scenes = recipe.scenes(side);
    let stream = config.vision_config.vit().map_or(0, |vision| {
        grid * grid * vision.hidden_size * vision.num_hidden_layers
    });
    check_memory(0, options.batch, 200 * stream as u64)?;
    let _lock = session::claim(out, MODEL)?;
    let start = start.cloned().map(plain_names).transpose()?;
    let start = start.as_ref();
    let weights = Weights::trainable(start.cloned(), options.seed);
    Networks::load(&config, &weights)?;
    weights.finish(&[])?;
    check_start(&weights, start.map(|start| &**start))?;
    let mut parameters = weights.variables();
    let fixed: Vec<NamedArray> = parameters
        .iter()
        .filter(|(name, _)| name == FREQUENCIES)
        .map(|(name, variable)| NamedArray::of_variable(name, variable))
        .collect::<Result<_>>()?;
    parameters.retain(|(name, _)| name != FREQUENCIES);
    let inputs = Inputs::default().start_from(start)?;
    let mut session = Session::open(options, recipe, inputs, parameters, out, control)?;
    let average = |session: &Session| -> Vec<NamedArray> {
        session.ema.arrays().iter().chain(&fixed).cloned().collect()
    };
    let held_out = Fonts::held_out();
    while !session.is_over() {
        let first = session.step * options.batch as u64;
        let batch: Vec<Sample> = session.together(|| {
            (first..first + options.batch as u64)
                .into_par_iter()
                .map(|index| Sample::draw(recipe, side, fonts, index))
                .collect::<Result<_>>()
        })?;
        // What layers make of variables when they are loaded does not follow them.
        session.update(batch.len(), |part| {
            Networks::load(&config, &weights)?.loss(&batch[part], side)
        })?;
        if session.is_due(recipe.eval_every) {
            let mut segmenter = frozen(&config, &average(&session), false)?;
            let scores = score_boxes(
                &mut segmenter,
                &scenes,
                &held_out,
                HELD_OUT,
                recipe.eval_scenes,
                control,
            )?;
            let [letters, words] = scores;
            session.log_measured(&[("fg_iou", letters.fg_iou), ("fg_iou_words", words.fg_iou)])?;
        }
        session.settle()?;
    }
    session.finish()?;
    let arrays = average(&session);
    let folder = out.join(MODEL);
    std::fs::create_dir_all(&folder).at(&folder)?;
    let stored: Vec<_> = arrays.iter().map(NamedArray::to_bf16_tensor).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&folder.join("model.safetensors"), &stored, &metadata)?;
    let entries = [
        ("architectures", serde_json::json!(["SamModel"])),
        ("model_type", "sam".into()),
    ];
    write_json(
        &folder.join("config.json"),
        &config_with(&recipe.config, None, &entries)?,
    )?;
    control.stage("measuring held-out scenes", Work::Run, 0);
    let mut segmenter = frozen(&config, &arrays, true)?;
    let count = recipe.final_scenes;
    let [letters, words] =
        score_boxes(&mut segmenter, &scenes, &held_out, HELD_OUT, count, control)?;
    let report = MasksReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: arrays.iter().map(|array| array.values.len()).sum(),
        scenes: count,
        letters,
        words,
    };
    write_json(&out.join(session::REPORT), &report)?;
    Ok(report)
}

fn frozen(config: &SamConfig, arrays: &[NamedArray], rounded: bool) -> Result<Segmenter> {
    let weights = Weights::from_source(tensors::memory_source(arrays, "", rounded)?);
    Ok(Segmenter::load(config, &weights)?)
}
