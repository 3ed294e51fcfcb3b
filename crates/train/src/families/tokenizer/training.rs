//! The run.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::hart::Scales;
use brisk_models::hart::tokenizer::{COMPONENT, Parts, Tokenizer, TokenizerConfig, plain_names};
use brisk_nn::{Tensor, Trace, Weights};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::folder::ComponentFolder;
use brisk_store::{ModelFolder, OutTensor, TensorSource, write_safetensors};
use candle_core::Var;
use serde::Serialize;

use super::objective::{Phase, objective};
use super::revive::revive;
use super::{TokenizerRecipe, level};
use crate::data::pictures::PictureData;
use crate::error::{Error, FileContext, Result};
use crate::eval::{self, BATCH};
use crate::families::autoencoder::config_with;
use crate::inputs::Inputs;
use crate::pictures::{self, Order};
use crate::session::{self, Session, check_start, write_json};
use crate::sheet;
use crate::tensors::{self, NamedArray};

/// The folder of the result.
const TOKENIZER: &str = "tokenizer";
/// Pictures whose places decide which codewords are taken.
const REVIVAL_PICTURES: usize = 64;
/// Where the published class keeps the tokenizer.
const PUBLISHED: &str = "vae.";
/// The codebook.
pub(super) const CODEBOOK: &str = "quantize.embedding.weight";

/// What a finished run measured, all with the weights as written (moving average, rounded to bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenizerReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Mean PSNR of the held-out pictures decoded from their latents, dB; none without held-out pictures.
    pub held_out_psnr: Option<f64>,
    /// The same from their codes alone.
    pub held_out_psnr_discrete: Option<f64>,
    /// Number of held-out pictures.
    pub held_out_pictures: usize,
    /// Codewords that the training pictures take.
    pub codewords_taken: usize,
}

/// What is decoded of a picture.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Its latent.
    Latent,
    /// Its codes.
    Codes,
}

/// A tokenizer with its grids, frozen.
struct Frozen {
    model: Tokenizer,
    scales: Scales,
}

impl Frozen {
    fn of(config: &TokenizerConfig, arrays: &[NamedArray], rounded: bool) -> Result<Self> {
        let weights = Weights::from_source(tensors::memory_source(arrays, "", rounded)?);
        Ok(Self {
            model: Tokenizer::load(config, &weights, Parts::All)?,
            scales: config.scales()?,
        })
    }

    fn decoded(&self, pictures: &Tensor, source: Source) -> Result<Tensor> {
        let latent = self.model.latent(pictures, &mut Trace::none())?;
        let latent = match source {
            Source::Latent => latent,
            Source::Codes => self.model.quantizer().encode(&self.scales, &latent)?.sum,
        };
        Ok(self.model.picture(&latent, &mut Trace::none())?)
    }

    /// Mean PSNR of pictures from their latents and from their codes.
    fn psnr(&self, data: &PictureData, indices: &[usize]) -> Result<[f64; 2]> {
        let measure =
            |source| eval::mean_psnr_of(data, indices, |pictures| self.decoded(pictures, source));
        Ok([measure(Source::Latent)?, measure(Source::Codes)?])
    }
}

/// The weights of a folder's tokenizer, its own or a model's, under the tokenizer's own names.
///
/// # Errors
/// Files that are missing or damaged.
pub fn open_tokenizer(folder: &ModelFolder) -> Result<Arc<dyn TensorSource>> {
    let place = ComponentFolder::find(folder, COMPONENT.folders)?;
    Ok(plain_names(place.weights(None)?)?)
}

/// Trains the recipe's tokenizer into `out`: `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end
/// `tokenizer/` (the authors' layout, bf16) and `report.json`. Continues when `out` holds a checkpoint of
/// the same recipe. `start` has the weights of a tokenizer of the recipe's shape to go on from, under the
/// tokenizer's own names.
///
/// # Errors
/// A data set or a start that does not fit the recipe, files that cannot be written, a run that diverges,
/// or one that was asked to stop: its checkpoint is written.
pub fn train_tokenizer(
    recipe: &TokenizerRecipe,
    data: &PictureData,
    start: Option<&Arc<dyn TensorSource>>,
    out: &Path,
    control: &Control,
) -> Result<TokenizerReport> {
    recipe.validate()?;
    let config = recipe.tokenizer()?;
    let scales = config.scales()?;
    let size = data.required_side()?;
    if size != recipe.picture_size {
        return Err(Error::Data(format!(
            "pictures of {size} px; the recipe wants {}",
            recipe.picture_size
        )));
    }
    let training = recipe.pictures.training(data, control)?;
    let held_out = recipe.pictures.of(data, true);
    let options = &recipe.training;
    let mut order = Order::new(training.clone(), options.seed)?;
    let sample = (size * size * config.ch * 24) as u64;
    session::check_memory(config.parameters(), options.batch, sample)?;
    let _lock = session::claim(out, TOKENIZER)?;
    let weights = Weights::trainable(start.cloned(), options.seed);
    let model = Tokenizer::load(&config, &weights, Parts::All)?;
    check_start(&weights, start.map(|start| &**start))?;
    let parameters = weights.variables();
    let table = codebook(&parameters)?;
    let inputs = Inputs::default().data(data)?.start_from(start)?;
    let mut session = Session::open(options, recipe, inputs, parameters, out, control)?;
    while !session.is_over() {
        let joint = session.phase_progress() < recipe.joint_share;
        if joint && session.is_due(recipe.revive_every) {
            let number = session.step / recipe.revive_every;
            let indices = order.batch(number, REVIVAL_PICTURES.min(training.len()));
            let shown = pictures::batch(data, &indices)?;
            revive(&model, &scales, &table, &shown, &mut session.rng)?;
        }
        let indices = order.batch(session.step, options.batch);
        let target =
            pictures::augmented_batch(data, &indices, &recipe.augmentation, &mut session.rng)?;
        let continuous: Vec<bool> = indices
            .iter()
            .map(|_| session.rng.chance(recipe.continuous_probability))
            .collect();
        session.update(indices.len(), |part| {
            let each = size * size * 3;
            let values = &target[part.start * each..part.end * each];
            let input = Tensor::from_slice(values, (part.len(), size, size, 3))?;
            let phase = match joint {
                true => Phase::Joint(&recipe.quantization),
                false => Phase::Decoder(&continuous[part]),
            };
            objective(&model, &scales, (&input, values), &recipe.loss, phase)
        })?;
        let measure = session.is_due(recipe.eval_every) && !held_out.is_empty();
        let sample = session.is_due(recipe.sample_every);
        if measure || sample {
            let average = Frozen::of(&config, session.ema.arrays(), false)?;
            if measure {
                let some = &held_out[..held_out.len().min(recipe.eval_pictures)];
                let [latent, codes] = average.psnr(data, some)?;
                session.log_measured(&[("psnr", latent), ("psnr_discrete", codes)])?;
            }
            if sample {
                write_sheet(&mut session, &average, data, &training, &held_out)?;
            }
        }
        session.settle()?;
    }
    session.finish()?;
    export(session, recipe, &config, data, (&training, &held_out), out)
}

/// The variable of the codebook.
fn codebook(parameters: &[(String, Var)]) -> Result<Var> {
    let found = parameters.iter().find(|(name, _)| name == CODEBOOK);
    let found = found.map(|(_, table)| table.clone());
    found.ok_or_else(|| Error::Data(format!("the tokenizer has no {CODEBOOK}")))
}

/// Eight pictures over what their codes, and then their latents, give; held-out ones where there are any.
fn write_sheet(
    session: &mut Session,
    frozen: &Frozen,
    data: &PictureData,
    training: &[usize],
    held_out: &[usize],
) -> Result<()> {
    let shown = eval::spread(training, held_out);
    let input = pictures::batch(data, &shown)?;
    let mut cells: Vec<(Picture, String)> = Vec::new();
    for index in &shown {
        let name = data.entries()[*index].name.clone();
        cells.push((pictures::original(data, *index)?, name));
    }
    for (source, label) in [(Source::Codes, "codes"), (Source::Latent, "latent")] {
        let output = pictures::to_pictures(&frozen.decoded(&input, source)?)?;
        cells.extend(
            output
                .into_iter()
                .map(|picture| (picture, label.to_owned())),
        );
    }
    let path = session.sample_path()?;
    sheet::write(&path, &cells, shown.len())?;
    session.sample_written(path);
    Ok(())
}

fn export(
    mut session: Session,
    recipe: &TokenizerRecipe,
    config: &TokenizerConfig,
    data: &PictureData,
    (training, held_out): (&[usize], &[usize]),
    out: &Path,
) -> Result<TokenizerReport> {
    let control = session.control;
    control.stage("measuring the latents", Work::Run, 0);
    let trained = Frozen::of(config, session.ema.arrays(), false)?;
    let factor = level::factor(&trained.model, &trained.scales, data, training, control)?;
    let arrays = level::scaled(session.ema.arrays(), factor);
    let frozen = Frozen::of(config, &arrays, true)?;
    control.stage("counting the codewords", Work::Run, 0);
    let mut taken = BTreeSet::new();
    for indices in training.chunks(BATCH) {
        control.check()?;
        let shown = pictures::batch(data, indices)?;
        let latent = frozen.model.latent(&shown, &mut Trace::none())?;
        let encoded = frozen.model.quantizer().encode(&frozen.scales, &latent)?;
        taken.extend(encoded.codes.into_iter().flatten());
    }
    control.stage("measuring the held-out pictures", Work::Run, 0);
    let psnr = match held_out {
        [] => None,
        held_out => Some(frozen.psnr(data, held_out)?),
    };
    write_sheet(&mut session, &frozen, data, training, held_out)?;
    let folder = out.join(TOKENIZER);
    std::fs::create_dir_all(&folder).at(&folder)?;
    let published = |array: &NamedArray| OutTensor {
        name: format!("{PUBLISHED}{}", array.name),
        ..array.to_bf16_tensor()
    };
    let tensors: Vec<OutTensor> = arrays.iter().map(published).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&folder.join("model.safetensors"), &tensors, &metadata)?;
    let config = config_with(&recipe.config, None, &[])?;
    write_json(&folder.join("config.json"), &config)?;
    let report = TokenizerReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: arrays.iter().map(|array| array.values.len()).sum(),
        held_out_psnr: psnr.map(|[latent, _]| latent),
        held_out_psnr_discrete: psnr.map(|[_, codes]| codes),
        held_out_pictures: held_out.len(),
        codewords_taken: taken.len(),
    };
    write_json(&out.join(session::REPORT), &report)?;
    Ok(report)
}
