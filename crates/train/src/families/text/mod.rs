//! Training of a diffusion language model of LLaDA's kind on generated arithmetic problems.
//!
//! LLaDA (arXiv 2502.09992): of a sequence every token is hidden with a probability p that is drawn
//! per sequence, and the model predicts the hidden ones. The loss is the cross-entropy of each,
//! weighted by 1/p and divided by the sequence's length: a bound on its negative log-likelihood. In
//! the second phase only answers are hidden, and end tokens that fill up an answer count as part of
//! it, so that the model ends its texts itself.

mod examples;
mod export;
mod masks;

use std::path::Path;
use std::sync::Arc;

use brisk_models::language_model::{LanguageModel, LanguageModelConfig, Rows, Span};
use brisk_nn::Weights;
use brisk_pipelines::events::Work;
use brisk_pipelines::options::Options;
use brisk_pipelines::{Control, OpenSettings, ResultKind, registry};
use brisk_store::{ModelFolder, TensorSource};
use serde::Serialize;

use crate::data::arithmetic::Split;
use crate::error::{Error, Result};
use crate::eval::text::{TextEvaluation, evaluate_text_model};
use crate::inputs::Inputs;
use crate::loss;
use crate::recipe::TextRecipe;
use crate::session::{self, Session};
use examples::Examples;
use masks::Masked;

/// The folder of the result.
const MODEL: &str = "model";

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Problems that were trained on.
    pub problems: u64,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
    /// Share of the evaluated held-out problems that were answered exactly.
    pub exact_match: f64,
}

/// Trains the recipe's language model, from scratch or from the weights of another one of its shape,
/// into `out`: `training_log.jsonl`, `checkpoints/`, at every evaluation and at the end `model/`
/// (LLaDA's layout, bf16), and at the end `report.json`. Continues when `out` holds a checkpoint of
/// the same recipe.
///
/// # Errors
/// A recipe that does not fit together, files that cannot be read or written, a run that diverges, or
/// one that was asked to stop: its checkpoint is written.
pub fn train_text(
    recipe: &TextRecipe,
    start: Option<&Arc<dyn TensorSource>>,
    out: &Path,
    control: &Control,
) -> Result<TextReport> {
    recipe.validate()?;
    let options = &recipe.training;
    control.stage("making the vocabulary", Work::Run, 0);
    let examples = Examples::new(recipe)?;
    let written = export::config(recipe, &examples)?;
    let bytes = serde_json::to_vec(&written).map_err(|e| Error::Recipe(e.to_string()))?;
    let config = LanguageModelConfig::from_json(&bytes, "recipe, model")?;
    examples.check(recipe, &config)?;
    let longest = recipe
        .lengths
        .iter()
        .map(|(length, _)| *length)
        .max()
        .unwrap_or(0);
    session::check_memory(config.parameters(), options.batch, 16 * longest as u64)?;
    let _lock = session::claim(out, MODEL)?;
    let folder = out.join(MODEL);
    let weights = Weights::trainable(start.cloned(), options.seed);
    let model = LanguageModel::load(&config, &weights.pp("model"))?;
    session::check_start(&weights, start.map(|start| &**start))?;
    let parameters = weights.variables();
    let inputs = Inputs::default().start_from(start)?;
    let mut session = Session::open(options, recipe, inputs, parameters, out, control)?;
    while !session.is_over() {
        let first = session.step * options.batch as u64;
        let batch = masks::batch(
            &examples,
            first,
            session.progress(),
            recipe,
            &mut session.rng,
        )?;
        session.update(batch.len(), |part| update_loss(&model, &batch[part]))?;
        if session.is_due(recipe.eval_every) {
            export::write(recipe, &written, &examples, session.ema.arrays(), &folder)?;
            // A stopped measurement would leave its line out of the log, so this one is not.
            let exact_match = session.together(|| measure(recipe, &folder, &Control::silent()))?;
            session.log_measured(&[("exact_match", exact_match)])?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("writing the model", Work::Run, 0);
    export::write(recipe, &written, &examples, session.ema.arrays(), &folder)?;
    let exact_match = session.together(|| measure(recipe, &folder, control))?;
    export::report(&session, &examples, exact_match, out)
}

/// The mean loss of some masked sequences.
fn update_loss(model: &LanguageModel, batch: &[Masked]) -> Result<loss::Loss> {
    let spans: Vec<Span> = batch
        .iter()
        .map(|sample| Span::whole(&sample.ids))
        .collect();
    let mut caches: Vec<_> = batch.iter().map(|_| None).collect();
    let (mut rows, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (index, sample) in batch.iter().enumerate() {
        for &(position, target) in &sample.hidden {
            rows.push((index, position));
            targets.push(target);
            weights.push(sample.weight / batch.len() as f32);
        }
    }
    let hidden = model.hidden(&spans, &mut caches, Rows::Some(&rows))?;
    loss::cross_entropy(&model.logits(&hidden)?, &targets, &weights)
}

/// Exact match on the recipe's held-out problems, decoded as `brisk text` decodes by default but
/// with the dual cache.
fn measure(recipe: &TextRecipe, folder: &Path, control: &Control) -> Result<f64> {
    let folder = ModelFolder::Disk(folder.to_owned());
    let model = registry::open_text(&folder, &OpenSettings::default())?;
    let length = recipe.lengths.first().map_or(128, |(length, _)| *length);
    let mut options = Options::new();
    for (name, value) in [
        ("cache", "dual".to_owned()),
        ("gen-length", length.to_string()),
        ("threshold", "0.9".to_owned()),
    ] {
        registry::give(&mut options, ResultKind::Text, name, &value)?;
    }
    let evaluation = TextEvaluation {
        seed: recipe.training.seed,
        split: Split::HeldOut,
        problems: recipe.eval_problems,
        batch: 16,
        options,
    };
    let report = evaluate_text_model(&*model, &evaluation, control)?;
    Ok(report.exact_match)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use crate::rng::Rng;
    use crate::tensors;

    /// A small trainable model and a batch of unequal sequences for it.
    fn small() -> (LanguageModel, Weights, Vec<Masked>) {
        let Recipe::Text(mut recipe) = Recipe::open("arithmetic-text").unwrap() else {
            panic!("the recipe is for text");
        };
        let sizes = [
            ("d_model", 32),
            ("n_heads", 2),
            ("n_kv_heads", 2),
            ("mlp_hidden_size", 48),
            ("n_layers", 2),
        ];
        for (key, size) in sizes {
            recipe.model[key] = size.into();
        }
        recipe.training.batch = 3;
        let examples = Examples::new(&recipe).unwrap();
        let written = export::config(&recipe, &examples).unwrap();
        let bytes = serde_json::to_vec(&written).unwrap();
        let config = LanguageModelConfig::from_json(&bytes, "test").unwrap();
        let weights = Weights::trainable(None, 3);
        let model = LanguageModel::load(&config, &weights.pp("model")).unwrap();
        let batch = masks::batch(&examples, 0, 0.9, &recipe, &mut Rng::new(4)).unwrap();
        (model, weights, batch)
    }

    /// The gradient of the whole loss, of every parameter, against differences of the loss.
    #[test]
    fn gradients_match_differences_of_the_loss() {
        let (model, weights, batch) = small();
        let mut rng = Rng::new(5);
        let value = || update_loss(&model, &batch).unwrap().value;
        let gradients = update_loss(&model, &batch)
            .unwrap()
            .surrogate
            .backward()
            .unwrap();
        for (name, variable) in weights.variables() {
            let gradient = gradients
                .get(variable.as_tensor())
                .unwrap_or_else(|| panic!("{name} has no gradient"));
            let gradient = tensors::values(&gradient.into()).unwrap();
            let start = tensors::values(&variable.as_tensor().into()).unwrap();
            let direction: Vec<f32> = rng.normals(start.len());
            let slope: f64 = gradient
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g) * f64::from(*d))
                .sum();
            let size = 3e-4;
            let at = |step: f32| {
                let moved = start
                    .iter()
                    .zip(&direction)
                    .map(|(s, d)| s + step * d)
                    .collect();
                tensors::set(&variable, moved).unwrap();
                value()
            };
            let difference = (at(size) - at(-size)) / f64::from(2.0 * size);
            at(0.0);
            let scale = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!(
                (slope - difference).abs() < 0.02 * scale.max(1e-3),
                "{name}: gradient {slope}, difference {difference}"
            );
        }
    }
}
