//! Training of the checker, and its own accuracy.

use std::path::Path;

use brisk_media::Picture;
use brisk_nn::{Tensor, Weights};
use brisk_pipelines::Control;
use brisk_store::write_safetensors;
use rayon::prelude::*;
use serde::Serialize;

use super::degrade::degrade;
use super::model::{CheckerConfig, SIZE, SceneChecker};
use super::targets::{self, Targets};
use super::verdict::judge;
use crate::data::scenes::{Drawings, Kind, Scene, Split};
use crate::error::Result;
use crate::inputs::Inputs;
use crate::pictures::signed;
use crate::recipe::CheckerRecipe;
use crate::rng::Rng;
use crate::session::{self, Session, check_memory, write_json};
use crate::tensors;

/// The folder of the result.
const CHECKER: &str = "checker";

/// Seed of the scenes that accuracy is measured on.
const FRESH: u64 = 0x0066_7265_7368;
/// Pictures that are looked at together.
const BATCH: usize = 32;

/// What a finished checker is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckerReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Fresh scenes of each kind.
    pub scenes_a_kind: usize,
    /// Share of them that it judged right, of each kind.
    pub accuracy: Vec<(Kind, f64)>,
    /// The same of scenes that were blurred and disturbed.
    pub accuracy_degraded: Vec<(Kind, f64)>,
}

/// Trains the recipe's checker into `out`: `training_log.jsonl`, `checkpoints/`, and at the end `checker/`
/// (`config.json`, `model.safetensors`) and `report.json`. Continues when `out` holds a checkpoint of the same recipe.
///
/// # Errors
/// Files that cannot be written, a run that diverges, or one that was asked to stop: its checkpoint is written.
pub fn train_checker(
    recipe: &CheckerRecipe,
    drawings: &Drawings,
    out: &Path,
    control: &Control,
) -> Result<CheckerReport> {
    recipe.validate()?;
    let _lock = session::claim(out, CHECKER)?;
    let config = CheckerConfig::new(recipe.channels, recipe.blocks);
    let options = &recipe.training;
    check_memory(0, options.batch, (SIZE * SIZE * 24) as u64)?;
    let weights = Weights::trainable(None, options.seed);
    let model = SceneChecker::load(&config, &weights)?;
    weights.finish(&[])?;
    let parameters = weights.variables();
    let count = parameters
        .iter()
        .map(|(_, variable)| variable.elem_count())
        .sum();
    let mut session = Session::open(options, recipe, Inputs::default(), parameters, out, control)?;
    while !session.is_over() {
        let first = session.step * options.batch as u64;
        let seed = options.seed;
        let batch = session.together(|| {
            let indices = first..first + options.batch as u64;
            indices
                .into_par_iter()
                .map(|index| sample(drawings, seed, index))
                .collect::<Result<Vec<_>>>()
        })?;
        session.update(batch.len(), |part| {
            let part = &batch[part];
            let mut values = Vec::with_capacity(part.len() * SIZE * SIZE * 3);
            for (picture, _) in part {
                values.extend(signed(picture));
            }
            let input = Tensor::from_vec(values, (part.len(), SIZE, SIZE, 3))?;
            let targets: Vec<&Targets> = part.iter().map(|(_, targets)| targets).collect();
            targets::loss(&model.forward(&input)?, &targets)
        })?;
        if session.is_due(recipe.eval_every) {
            let checker = frozen(&config, session.ema.arrays(), false)?;
            let found = accuracy(&checker, drawings, recipe.eval_scenes, false, control)?;
            let mean = found.iter().map(|(_, share)| share).sum::<f64>() / found.len() as f64;
            session.log_measured(&[("exact_match", mean)])?;
        }
        session.settle()?;
    }
    session.finish()?;
    let folder = out.join(CHECKER);
    std::fs::create_dir_all(&folder).map_err(|source| crate::Error::File {
        path: folder.clone(),
        source,
    })?;
    let arrays = session.ema.arrays();
    let stored: Vec<_> = arrays.iter().map(|array| array.to_bf16_tensor()).collect();
    write_safetensors(
        &folder.join("model.safetensors"),
        &stored,
        &Default::default(),
    )?;
    write_json(&folder.join("config.json"), &config)?;
    let checker = frozen(&config, arrays, true)?;
    let scenes = recipe.final_scenes;
    let report = CheckerReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: count,
        scenes_a_kind: scenes,
        accuracy: accuracy(&checker, drawings, scenes, false, control)?,
        accuracy_degraded: accuracy(&checker, drawings, scenes, true, control)?,
    };
    write_json(&out.join(session::REPORT), &report)?;
    Ok(report)
}

/// One training picture. Scenes of both parts of the split: the checker must know what no model is shown.
fn sample(drawings: &Drawings, seed: u64, index: u64) -> Result<(Picture, Targets)> {
    let rng = &mut Rng::stream(seed ^ 0x0063_6865_636b, index);
    let split = match rng.chance(0.5) {
        true => Split::Training,
        false => Split::HeldOut,
    };
    let scene = Scene::draw(seed, index, None, split);
    let rendered = drawings.render(&scene, SIZE)?;
    let picture = degrade(&rendered.picture, rng)?;
    Ok((picture, Targets::of(&scene, &rendered)))
}

fn frozen(
    config: &CheckerConfig,
    arrays: &[tensors::NamedArray],
    rounded: bool,
) -> Result<SceneChecker> {
    let weights = Weights::from_source(tensors::memory_source(arrays, "", rounded)?);
    let model = SceneChecker::load(config, &weights)?;
    weights.finish(&[])?;
    Ok(model)
}

/// Share of `count` fresh true scenes of each kind, of combinations held out from models, that are judged to be
/// what they are; blurred and disturbed first where that is asked.
///
/// # Errors
/// A cancellation.
pub fn accuracy(
    checker: &SceneChecker,
    drawings: &Drawings,
    count: usize,
    degraded: bool,
    control: &Control,
) -> Result<Vec<(Kind, f64)>> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let mut right = 0;
        let indices: Vec<u64> = (0..count as u64).collect();
        for chunk in indices.chunks(BATCH) {
            control.check()?;
            let drawn = chunk.par_iter().map(|index| {
                let scene = Scene::draw(FRESH, *index, Some(kind), Split::HeldOut);
                let picture = drawings.render(&scene, SIZE)?.picture;
                let rng = &mut Rng::stream(FRESH, *index);
                let picture = if degraded {
                    degrade(&picture, rng)?
                } else {
                    picture
                };
                Ok((scene, picture))
            });
            let drawn: Vec<(Scene, Picture)> = drawn.collect::<Result<_>>()?;
            let (scenes, pictures): (Vec<_>, Vec<_>) = drawn.into_iter().unzip();
            let seen = checker.look(&pictures)?;
            let verdicts = scenes
                .iter()
                .zip(&seen)
                .map(|(scene, seen)| judge(scene, seen));
            right += verdicts.filter(|verdict| verdict.right).count();
        }
        found.push((kind, right as f64 / count.max(1) as f64));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::packages;
    use crate::recipe::Recipe;

    #[test]
    fn a_checker_is_trained_written_and_read_back() {
        let Recipe::Checker(mut recipe) = Recipe::open("scene-checker").unwrap() else {
            panic!("scene-checker trains something else")
        };
        (recipe.channels, recipe.blocks) = ([4, 4, 8], 1);
        (recipe.training.steps, recipe.training.batch) = (4, 4);
        (recipe.eval_every, recipe.eval_scenes, recipe.final_scenes) = (2, 2, 3);
        let packages = packages(None);
        let drawings = Drawings::open(packages.path()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let control = Control::silent();
        let train = || train_checker(&recipe, &drawings, folder.path(), &control).unwrap();
        let report = train();
        assert_eq!((report.steps, report.scenes_a_kind), (4, 3));
        assert_eq!(report.accuracy.len(), Kind::ALL.len());
        assert_eq!(
            train().accuracy,
            report.accuracy,
            "a finished run stays as it is"
        );
        let written = folder.path().join("checker");
        let checker = SceneChecker::open(&written).unwrap();
        let seen = checker.look(&[Picture::filled(64, 64, [255; 3])]).unwrap();
        assert_eq!(seen.len(), 1);
        let config = written.join("config.json");
        let other = std::fs::read_to_string(&config)
            .unwrap()
            .replace("owl", "hawk");
        std::fs::write(&config, other).unwrap();
        let error = SceneChecker::open(&written).err().unwrap().to_string();
        assert!(
            error.contains("config.json") && error.contains("train it again"),
            "{error}"
        );
    }
}
