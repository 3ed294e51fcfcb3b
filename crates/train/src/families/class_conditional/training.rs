//! The run.

use std::path::Path;

use brisk_media::Picture;
use brisk_models::class_conditional::sampler::{Guided, Sampler};
use brisk_models::class_conditional::{ClassConditionalConfig, ClassConditionalTransformer};
use brisk_models::dcae::{Autoencoder, AutoencoderConfig};
use brisk_nn::{Tensor, Trace, Weights, WeightsBuilder};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::folder::Opened;
use serde::Serialize;

use super::classes::Classes;
use super::export;
use super::objective::Objective;
use super::recipe::ClassRecipe;
use crate::data::pictures::PictureData;
use crate::error::{Error, Result};
use crate::families::image::MODEL;
use crate::inputs::Inputs;
use crate::latents::Latents;
use crate::pictures::{self, Order};
use crate::rng::Rng;
use crate::session::{self, Session};
use crate::tensors::{self, NamedArray};
use crate::{eval, sheet};

/// Pictures of a row of a sample sheet.
const COLUMNS: usize = 8;
/// Pictures of a sheet that are drawn at once.
const AT_ONCE: usize = 16;
/// Positions of a DiT, which are not trained, and all that is.
const POSITIONS: &str = "pos_embed";
const TRAINED: [&str; 5] = [
    "x_embedder",
    "t_embedder",
    "y_embedder",
    "blocks",
    "final_layer",
];

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters of the network.
    pub parameters: u64,
    /// Bytes of the optimiser's state.
    pub optimiser_bytes: u64,
    /// Pictures that were trained on.
    pub pictures: usize,
    /// Classes.
    pub classes: usize,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
}

/// Trains the recipe's network on classes of pictures, as latents of `vae`, into `out`: `latents.safetensors`,
/// `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end `model/` (configuration and weights as published, bf16,
/// names of the classes, the autoencoder as it is stored) and `report.json`. Continues when `out` holds a checkpoint of the
/// same recipe.
///
/// # Errors
/// A data set or autoencoder that does not fit the recipe, files that cannot be read or written, a run that diverges, or one
/// that was asked to stop: its checkpoint is written.
pub fn train_class(
    recipe: &ClassRecipe,
    data: &PictureData,
    vae: &Opened<AutoencoderConfig>,
    out: &Path,
    control: &Control,
) -> Result<ClassReport> {
    recipe.validate()?;
    let options = &recipe.training;
    let classes = Classes::of(recipe, data, control)?;
    let sampled = classes.sampled(recipe)?;
    let (written, config) = recipe.network(classes.names.len())?;
    let sample = config.tokens() * config.hidden_size * (config.depth + 1) * 16;
    session::check_memory(config.parameters(), options.batch, sample as u64)?;
    let autoencoder = eval::load_autoencoder(vae)?;
    let _lock = session::claim(out, MODEL)?;
    let inputs = Inputs::default().data(data)?.autoencoder(vae)?;
    check(data, &autoencoder, &config)?;
    let pictures = &classes.pictures;
    let latents = Latents::of(data, pictures, &autoencoder, &inputs, out, control)?;
    let mut order = Order::new((0..classes.pictures.len()).collect(), options.seed)?;
    let fixed = fixed(&config);
    let (weights, network) = trainable(&config, &fixed, options.seed)?;
    let objective = Objective::of(&config);
    let mut session = Session::open(options, recipe, inputs, weights.variables(), out, control)?;
    let sheet = |session: &mut Session, rounded: bool| -> Result<()> {
        let average = frozen(&config, session.ema.arrays(), &fixed, rounded)?;
        write_sheet(session, &average, &autoencoder, recipe, &classes, &sampled)
    };
    while !session.is_over() {
        let slots = order.batch(session.step, options.batch);
        let rng = &mut session.rng;
        let batch = objective.batch(&config, &latents, &classes.of, &slots, rng)?;
        session.update(slots.len(), |part| objective.loss(&network, &batch, part))?;
        if session.is_due(recipe.sample_every) {
            sheet(&mut session, false)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("writing the model", Work::Run, 0);
    sheet(&mut session, true)?;
    let pieces = export::Pieces {
        arrays: session.ema.arrays(),
        fixed: &fixed,
        config: &written,
        parameters: config.parameters(),
        classes: &classes,
        guidance: recipe.guidance,
        vae,
        data,
    };
    export::write(&pieces, &session, out)
}

fn check(
    data: &PictureData,
    autoencoder: &Autoencoder,
    config: &ClassConditionalConfig,
) -> Result<()> {
    let (ratio, channels) = (autoencoder.ratio(), autoencoder.config().latent_channels);
    if channels != config.in_channels {
        return Err(Error::Data(format!(
            "the autoencoder's latents have {channels} channels, network.in_channels is {}; expected the same",
            config.in_channels
        )));
    }
    let (side, wanted) = (data.required_side()?, config.input_size * ratio);
    if side != wanted {
        return Err(Error::Data(format!(
            "pictures of {side} px; network.input_size {} of {ratio} px a cell needs {wanted}",
            config.input_size
        )));
    }
    Ok(())
}

/// What the network has and training leaves alone.
fn fixed(config: &ClassConditionalConfig) -> Vec<NamedArray> {
    let positions = config.fixed_positions().into_iter();
    let array = |values: Vec<f32>| NamedArray {
        name: POSITIONS.to_owned(),
        shape: vec![1, config.tokens(), config.hidden_size],
        values,
    };
    positions.map(array).collect()
}

/// The network over variables that begin as its layers say.
fn trainable(
    config: &ClassConditionalConfig,
    fixed: &[NamedArray],
    seed: u64,
) -> Result<(Weights, ClassConditionalTransformer)> {
    let weights = match fixed {
        [] => WeightsBuilder::trainable(None, seed),
        fixed => {
            let source = tensors::memory_source(fixed, "", false)?;
            let trained = TRAINED.map(str::to_owned);
            WeightsBuilder::trainable(Some(source), seed).trained(&trained)
        }
    };
    let weights = weights.build()?;
    let network = ClassConditionalTransformer::load(config, &weights)?;
    Ok((weights, network))
}

/// From the moving average, as it will be written when `rounded`.
fn frozen(
    config: &ClassConditionalConfig,
    arrays: &[NamedArray],
    fixed: &[NamedArray],
    rounded: bool,
) -> Result<ClassConditionalTransformer> {
    let all = [arrays, fixed].concat();
    let source = tensors::memory_source(&all, "", rounded)?;
    let weights = Weights::from_source(source);
    Ok(ClassConditionalTransformer::load(config, &weights)?)
}

/// The recipe's classes by the network's own sampler, always from the same noise.
fn write_sheet(
    session: &mut Session,
    network: &ClassConditionalTransformer,
    autoencoder: &Autoencoder,
    recipe: &ClassRecipe,
    classes: &Classes,
    sampled: &[u32],
) -> Result<()> {
    let config = network.config();
    let (side, channels) = (config.input_size, config.in_channels);
    let sampler = Sampler::new(config, recipe.sample_steps)?;
    let mut rng = Rng::new(recipe.training.seed);
    let mut cells: Vec<(Picture, String)> = Vec::with_capacity(sampled.len());
    for some in sampled.chunks(AT_ONCE) {
        let shape = (some.len(), side, side, channels);
        let mut noise = || {
            let values = rng.normals(some.len() * side * side * channels);
            Tensor::from_vec(values, shape)
        };
        let start = noise()?;
        let drawn = sampler.run(
            &Guided::new(network, some, recipe.guidance as f32)?,
            &start,
            &mut |_| noise(),
            &mut |_, _| Ok(()),
            &mut Trace::none(),
        )?;
        let decoded = autoencoder.decode(&(drawn / autoencoder.scaling_factor())?)?;
        let names = some
            .iter()
            .map(|class| classes.names[*class as usize].clone());
        cells.extend(pictures::to_pictures(&decoded)?.into_iter().zip(names));
    }
    let path = session.sample_path()?;
    sheet::write(&path, &cells, COLUMNS)?;
    session.sample_written(path);
    Ok(())
}
