//! Training of a DC-AE: reconstruct augmented pictures, keep the average of the weights, measure on held-out pictures.

use std::path::Path;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::component::LoadSettings;
use brisk_models::dcae::{self, Halves};
use brisk_nn::{Tensor, Weights, WeightsBuilder, is_of_part};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::folder::{ComponentFolder, Opened, Wanted};
use brisk_store::{ModelFolder, OutTensor, TensorSource, write_safetensors};
use candle_core::Var;
use serde::Serialize;
use serde_json::Value;

use crate::data::pictures::PictureData;
use crate::error::{Error, FileContext, Result};
use crate::eval::{self, BATCH};
use crate::inputs::Inputs;
use crate::loss::{self, Loss};
use crate::objectives::adversarial::{generator_loss, hinge_loss};
use crate::objectives::patch_gan::PatchDiscriminator;
use crate::objectives::perceptual::FeatureNetwork;
use crate::pictures::{self, Order};
use crate::recipe::AutoencoderRecipe;
use crate::session::{self, Session, check_start, write_json};
use crate::sheet;
use crate::tensors::{self, NamedArray};
use crate::terms::Terms;

pub(crate) use brisk_models::dcae::{Autoencoder, AutoencoderConfig};

/// The folder of the result.
const VAE: &str = "vae";
/// What names of a discriminator's variables begin with.
const DISCRIMINATOR: &str = "discriminator";

/// What a finished run measured, all with the weights as written (moving average, rounded to bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AutoencoderReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Mean PSNR of the held-out pictures, dB; none without held-out pictures.
    pub held_out_psnr: Option<f64>,
    /// Mean distance of the held-out pictures by features; none without a network or pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_perceptual: Option<f64>,
    /// Number of held-out pictures.
    pub held_out_pictures: usize,
    /// 1 / root mean square of the training pictures' latents.
    pub scaling_factor: f64,
}

/// Opens the autoencoder of a folder, its own or a pipeline's, however it is published, of this variant
/// where there is one.
///
/// # Errors
/// Files that are missing, damaged or of another network.
pub fn open_autoencoder(
    folder: &ModelFolder,
    variant: Option<&str>,
) -> Result<Opened<AutoencoderConfig>> {
    let place = ComponentFolder::find(folder, dcae::COMPONENT.folders)?;
    let wanted = Wanted {
        variant: variant.map(str::to_owned),
        ..Wanted::default()
    };
    Ok(place.open(
        |bytes, label| dcae::open(bytes, label).map(Box::new),
        &wanted,
    )?)
}

/// Loads both halves of an autoencoder, frozen; where trainings compute on a card, there.
///
/// # Errors
/// Weights that do not fit the configuration.
pub fn load_autoencoder(opened: &Opened<AutoencoderConfig>) -> Result<Autoencoder> {
    let weights = match (brisk_nn::training_device().is_cpu(), opened.stored()) {
        (false, Some(source)) => Weights::trainable(Some(Arc::clone(source)), 0),
        _ => opened.parameters(&LoadSettings::default())?.build()?,
    };
    let model = Autoencoder::load(&opened.config, &weights, Halves::Both)?;
    weights.finish(&[])?;
    Ok(model)
}

/// What a run does not train, as the model that it starts from has it.
struct Untrained(Vec<NamedArray>);

impl Untrained {
    /// The rest of a start beside the variables; parts that name none of these are refused.
    fn of(
        trained: &[String],
        variables: &[(String, Var)],
        start: Option<&Arc<dyn TensorSource>>,
    ) -> Result<Self> {
        let names = || variables.iter().map(|(name, _)| name);
        if let Some(part) = trained
            .iter()
            .find(|part| !names().any(|name| is_of_part(name, part)))
        {
            return Err(Error::Recipe(format!(
                "trained: the autoencoder has no part {part}; parts are named as its tensors are, such as \
                 decoder.conv_out"
            )));
        }
        let Some(start) = start.filter(|_| !trained.is_empty()) else {
            return Ok(Self(Vec::new()));
        };
        let mut rest = Vec::new();
        for name in start.names() {
            if names().any(|known| *known == name) {
                continue;
            }
            if let Some((_, shape)) = start.info(&name) {
                let values = tensors::read(&**start, &name, &shape)?;
                rest.push(NamedArray {
                    name,
                    shape,
                    values,
                });
            }
        }
        Ok(Self(rest))
    }

    /// All arrays of the autoencoder, with those that are trained; what the run trains beside it is left out.
    fn with(&self, trained: &[NamedArray]) -> Vec<NamedArray> {
        let own = |array: &&NamedArray| !array.name.starts_with(DISCRIMINATOR);
        trained.iter().filter(own).chain(&self.0).cloned().collect()
    }
}

/// The autoencoder of the recipe with the given weights, frozen.
fn frozen(config: &AutoencoderConfig, arrays: &[NamedArray], rounded: bool) -> Result<Autoencoder> {
    let weights = Weights::from_source(tensors::memory_source(arrays, "", rounded)?);
    let model = Autoencoder::load(config, &weights, Halves::Both)?;
    weights.finish(&[])?;
    Ok(model)
}

/// Trains the recipe's autoencoder into `out`: `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end
/// `vae/` (diffusers layout, bf16) and `report.json`. Continues when `out` holds a checkpoint of the same recipe.
/// `start` is an autoencoder of the recipe's shape to go on from, of which parts may be trained alone: phases 2 and 3 of
/// DC-AE (arXiv 2410.10733, section 3.2). `features` is for a recipe with a perceptual loss.
///
/// # Errors
/// A data set or a start that does not fit the recipe, files that cannot be written, a run that diverges, or one that was asked to
/// stop: its checkpoint is written.
pub fn train_autoencoder(
    recipe: &AutoencoderRecipe,
    data: &PictureData,
    start: Option<&Opened<AutoencoderConfig>>,
    features: Option<&FeatureNetwork>,
    out: &Path,
    control: &Control,
) -> Result<AutoencoderReport> {
    recipe.validate()?;
    let weight = recipe.perceptual_weight;
    if (weight > 0.0) != features.is_some() {
        return Err(Error::Recipe(format!(
            "perceptual_weight is {weight}, and {} network compares features: give both or none",
            if features.is_some() { "a" } else { "no" }
        )));
    }
    if !recipe.trained.is_empty() && start.is_none() {
        return Err(Error::Recipe(format!(
            "trained: only {} of an autoencoder that is not there; give it (--from)",
            recipe.trained.join(", ")
        )));
    }
    let config = recipe.autoencoder()?;
    let size = data.required_side()?;
    if size != recipe.picture_size || !size.is_multiple_of(config.ratio()) {
        return Err(Error::Data(format!(
            "pictures of {size} px; the recipe wants {} and a multiple of {}",
            recipe.picture_size,
            config.ratio()
        )));
    }
    let training = recipe.pictures.training(data, control)?;
    let held_out = recipe.pictures.of(data, true);
    let options = &recipe.training;
    let mut order = Order::new(training.clone(), options.seed)?;
    let parameters = config.parameters();
    let parameters = parameters.encoder + parameters.decoder;
    session::check_memory(parameters, options.batch, (size * size * 24) as u64)?;
    let _lock = session::claim(out, VAE)?;
    let start = start.and_then(Opened::stored);
    let weights = WeightsBuilder::trainable(start.cloned(), options.seed)
        .trained(&recipe.trained)
        .build()?;
    let model = Autoencoder::load(&config, &weights, Halves::Both)?;
    weights.finish(&[])?;
    check_start(&weights, start.map(|start| &**start))?;
    let mut parameters = weights.variables();
    let untrained = Untrained::of(&recipe.trained, &parameters, start)?;
    let discriminator = match &recipe.adversarial {
        Some(options) => {
            let weights = Weights::trainable(None, recipe.training.seed);
            let network = PatchDiscriminator::load(&weights.pp(DISCRIMINATOR), options)?;
            parameters.extend(weights.variables());
            Some((network, options.weight))
        }
        None => None,
    };
    let mut inputs = Inputs::default().data(data)?.start_from(start)?;
    if let Some(network) = features {
        inputs = inputs.features(network);
    }
    let mut session = Session::open(options, recipe, inputs, parameters, out, control)?;
    while !session.is_over() {
        let indices = order.batch(session.step, options.batch);
        let target =
            pictures::augmented_batch(data, &indices, &recipe.augmentation, &mut session.rng)?;
        let learns = discriminator.is_some() && session.step % 2 == 1;
        session.update_noting(indices.len(), |part| {
            let each = size * size * 3;
            let target = &target[part.start * each..part.end * each];
            let input = Tensor::from_slice(target, (part.len(), size, size, 3))?;
            let output = model.decode(&model.encode(&input)?)?;
            if let (Some((network, _)), true) = (&discriminator, learns) {
                let real = network.logits(&input, true)?;
                let fake = network.logits(&output.detach(), true)?;
                let loss = Loss::of(&hinge_loss(&real, &fake)?)?;
                let terms = vec![("discriminator_loss", loss.value)];
                return Ok((loss, terms));
            }
            let mut loss = loss::reconstruction(&output, target, &recipe.loss)?;
            let mut terms = Terms::new();
            if let Some(network) = features {
                let distance = network.distance(&output, &input)?;
                loss = loss.plus(&distance, weight)?;
                terms.push(("perceptual_loss", f64::from(distance.to_scalar::<f32>()?)));
            }
            if let Some((network, weight)) = &discriminator {
                let part = generator_loss(&network.logits(&output, false)?)?;
                loss = loss.plus(&part, *weight)?;
                terms.push(("adversarial_loss", f64::from(part.to_scalar::<f32>()?)));
            }
            Ok((loss, terms))
        })?;
        let measure = session.is_due(recipe.eval_every) && !held_out.is_empty();
        let sample = session.is_due(recipe.sample_every);
        if measure || sample {
            let average = frozen(&config, &untrained.with(session.ema.arrays()), false)?;
            if measure {
                let some = &held_out[..held_out.len().min(recipe.eval_pictures)];
                let psnr = eval::mean_psnr(&average, data, some)?;
                session.log_measured(&[("psnr", psnr)])?;
            }
            if sample {
                write_sheet(&mut session, &average, data, &training, &held_out)?;
            }
        }
        session.settle()?;
    }
    session.finish()?;
    let pictures = [&training[..], &held_out[..]];
    let rest = (&untrained, features);
    export(session, recipe, &config, rest, data, pictures, out)
}

/// Eight pictures over their reconstructions, held-out ones where there are any.
fn write_sheet(
    session: &mut Session,
    model: &Autoencoder,
    data: &PictureData,
    training: &[usize],
    held_out: &[usize],
) -> Result<()> {
    let shown = eval::spread(training, held_out);
    let input = pictures::batch(data, &shown)?;
    let output = pictures::to_pictures(&model.decode(&model.encode(&input)?)?)?;
    let mut cells: Vec<(Picture, String)> = Vec::new();
    for index in &shown {
        let name = data.entries()[*index].name.clone();
        cells.push((pictures::original(data, *index)?, name));
    }
    cells.extend(output.into_iter().map(|picture| (picture, String::new())));
    let path = session.sample_path()?;
    sheet::write(&path, &cells, shown.len())?;
    session.sample_written(path);
    Ok(())
}

/// The keys of a recipe's configuration with its class name in front.
pub(crate) fn config_with(
    config: &Value,
    class: Option<&str>,
    changes: &[(&str, Value)],
) -> Result<Value> {
    let Some(keys) = config.as_object() else {
        return Err(Error::Recipe(
            "a model's configuration is not an object".to_owned(),
        ));
    };
    let mut written = serde_json::Map::new();
    if let Some(class) = class {
        written.insert("_class_name".to_owned(), class.into());
    }
    for (key, value) in keys {
        written.insert(key.clone(), value.clone());
    }
    for (key, value) in changes {
        written.insert((*key).to_owned(), value.clone());
    }
    Ok(Value::Object(written))
}

/// What latents of this mean square are multiplied by, so that it becomes 1. Five digits, as in published files; the
/// model of the latents sees the rounded value.
///
/// # Errors
/// A mean square that is none.
pub(crate) fn scaling_factor(mean_square: f64) -> Result<f64> {
    if !(mean_square.is_finite() && mean_square > 0.0) {
        return Err(Error::Data(format!(
            "the mean square of the latents is {mean_square}; the training has failed"
        )));
    }
    let exact = 1.0 / mean_square.sqrt();
    // By a whole power of ten, so that the file has these digits and no more.
    let digits = 4 - exact.log10().floor() as i32;
    let power = 10f64.powi(digits.abs());
    Ok(match digits > 0 {
        true => (exact * power).round() / power,
        false => (exact / power).round() * power,
    })
}

/// Writes an autoencoder in diffusers' layout, in bf16.
pub(crate) fn write(arrays: &[NamedArray], config: &Value, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).at(folder)?;
    let tensors: Vec<OutTensor> = arrays.iter().map(NamedArray::to_bf16_tensor).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(
        &folder.join("diffusion_pytorch_model.safetensors"),
        &tensors,
        &metadata,
    )?;
    write_json(&folder.join("config.json"), config)
}

/// Mean distance of reconstructions by features.
fn mean_distance(
    network: &FeatureNetwork,
    model: &Autoencoder,
    data: &PictureData,
    indices: &[usize],
    control: &Control,
) -> Result<f64> {
    let mut sum = 0f64;
    for some in indices.chunks(BATCH) {
        control.check()?;
        let input = pictures::batch(data, some)?;
        let output = model.decode(&model.encode(&input)?)?;
        let distance = network.distance(&output, &input)?.to_scalar::<f32>()?;
        sum += f64::from(distance) * some.len() as f64;
    }
    Ok(sum / indices.len() as f64)
}

fn export(
    mut session: Session,
    recipe: &AutoencoderRecipe,
    config: &AutoencoderConfig,
    (untrained, features): (&Untrained, Option<&FeatureNetwork>),
    data: &PictureData,
    [training, held_out]: [&[usize]; 2],
    out: &Path,
) -> Result<AutoencoderReport> {
    let control = session.control;
    control.stage("measuring the latents", Work::Run, 0);
    let arrays = untrained.with(session.ema.arrays());
    let model = frozen(config, &arrays, true)?;
    let mut squares = (0f64, 0usize);
    for indices in training.chunks(BATCH) {
        control.check()?;
        let latents = tensors::values(&model.encode(&pictures::batch(data, indices)?)?)?;
        squares.0 += latents.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        squares.1 += latents.len();
    }
    let scaling_factor = scaling_factor(squares.0 / squares.1 as f64)?;
    control.stage("measuring the held-out pictures", Work::Run, 0);
    let psnr = if held_out.is_empty() {
        None
    } else {
        Some(eval::mean_psnr(&model, data, held_out)?)
    };
    let perceptual = match features.filter(|_| !held_out.is_empty()) {
        Some(network) => Some(mean_distance(network, &model, data, held_out, control)?),
        None => None,
    };
    write_sheet(&mut session, &model, data, training, held_out)?;
    let config = config_with(
        &recipe.config,
        Some("AutoencoderDC"),
        &[("scaling_factor", scaling_factor.into())],
    )?;
    write(&arrays, &config, &out.join(VAE))?;
    let report = AutoencoderReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: arrays.iter().map(|array| array.values.len()).sum(),
        held_out_psnr: psnr,
        held_out_perceptual: perceptual,
        held_out_pictures: held_out.len(),
        scaling_factor,
    };
    write_json(&out.join(session::REPORT), &report)?;
    Ok(report)
}
