//! Training of a text-to-image model: a SANA transformer and its text encoder, together, by flow matching on the latents of
//! a frozen autoencoder.

pub(crate) mod adapter;
pub(crate) mod controlnet;
pub(crate) mod export;
mod lessons;
mod sample;
pub(crate) mod start;
pub(crate) mod surgery;

use std::ops::Range;
use std::path::Path;

use brisk_models::dcae::{Autoencoder, AutoencoderConfig};
use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::sana::{CaptionContext, ForwardExtras, SanaConfig, SanaTransformer};
use brisk_nn::{Tensor, Weights};
use brisk_pipelines::Control;
use brisk_pipelines::diffusion::schedulers::shifted;
use brisk_pipelines::events::Work;
use brisk_pipelines::folder::Opened;
use serde::Serialize;

use crate::data::pictures::{PictureData, PictureShape};
use crate::error::{Error, JsonContext, Result};
use crate::families::autoencoder::config_with;
use crate::families::part_weights::PartWeights;
use crate::latents::Latents;
use crate::loss::{self, Loss};
use crate::pictures;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;
use crate::session::{self, Session};
use crate::sheet;
use crate::tensors::{self, NamedArray};
use lessons::{Batch, Lessons, Run, Setting};
pub use start::Start;

/// Noise levels, as in the models that use this objective.
const LEVELS: usize = 1000;
/// The folder of the model in a run's folder.
pub(crate) const MODEL: &str = "model";
pub(crate) const TRANSFORMER: &str = "transformer";
pub(crate) const TEXT_ENCODER: &str = "text_encoder";

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters of the transformer.
    pub transformer_parameters: usize,
    /// Parameters of the text encoder.
    pub text_encoder_parameters: usize,
    /// Bytes of the optimiser's state.
    pub optimiser_bytes: u64,
    /// Pictures that were trained on.
    pub pictures: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
}

/// Transformer and text encoder over one set of weights.
struct Models {
    text: Gemma2Model,
    transformer: SanaTransformer,
}

/// The configurations as they are written.
#[derive(Clone)]
struct Configs {
    text: serde_json::Value,
    transformer: serde_json::Value,
    text_model: Gemma2Config,
    transformer_model: SanaConfig,
}

impl Configs {
    fn new(recipe: &ImageRecipe, vocabulary: usize) -> Result<Configs> {
        let text = config_with(
            &recipe.text_encoder,
            None,
            &[("vocab_size", vocabulary.into())],
        )?;
        let transformer = config_with(&recipe.transformer, Some("SanaTransformer2DModel"), &[])?;
        let bytes = |value: &serde_json::Value| serde_json::to_vec(value).in_document("recipe");
        let text_model = Gemma2Config::from_json(&bytes(&text)?, "recipe, text_encoder")?;
        let transformer_model =
            SanaConfig::from_json(&bytes(&transformer)?, "recipe, transformer")?;
        if transformer_model.caption_channels != text_model.hidden_size {
            return Err(Error::Recipe(format!(
                "transformer.caption_channels is {}, text_encoder.hidden_size {}; they must agree",
                transformer_model.caption_channels, text_model.hidden_size
            )));
        }
        if transformer_model.guidance_embeds {
            return Err(Error::Recipe(
                "transformer.guidance_embeds is for distilled models; expected false".to_owned(),
            ));
        }
        Ok(Configs {
            text,
            transformer,
            text_model,
            transformer_model,
        })
    }
}

impl Models {
    fn trainable(configs: &Configs, weights: &PartWeights<2>) -> Result<Models> {
        let [text, transformer] = weights.parts();
        let transformer = transformer.pp(TRANSFORMER);
        Ok(Models {
            text: Gemma2Model::load(&configs.text_model, &text.pp(TEXT_ENCODER))?,
            transformer: SanaTransformer::load(&configs.transformer_model, &transformer)?,
        })
    }

    /// From the moving average, as it will be written when `rounded`.
    fn frozen(configs: &Configs, arrays: &[NamedArray], rounded: bool) -> Result<Models> {
        let part = |prefix: &str| {
            tensors::memory_source(arrays, &format!("{prefix}."), rounded).map(Weights::from_source)
        };
        Ok(Models {
            text: Gemma2Model::load(&configs.text_model, &part(TEXT_ENCODER)?)?,
            transformer: SanaTransformer::load(&configs.transformer_model, &part(TRANSFORMER)?)?,
        })
    }

    /// Encodes tokenised prompts of any lengths.
    fn encode(&self, prompts: &[Vec<u32>]) -> Result<CaptionContext> {
        let (hidden, lengths) = self.rows(prompts)?;
        Ok(self.transformer.encode_caption(&hidden, &lengths)?)
    }

    /// Rows `[B,L,D]` of tokenised prompts of any lengths, with the number of each one's.
    fn rows(&self, prompts: &[Vec<u32>]) -> Result<(Tensor, Vec<usize>)> {
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // Padded on the right with 0: attention is causal, so no valid row sees the padding.
        let mut ids = vec![0u32; prompts.len() * longest];
        for (row, prompt) in ids.chunks_exact_mut(longest.max(1)).zip(prompts) {
            row[..prompt.len()].copy_from_slice(prompt);
        }
        let ids = Tensor::from_vec(ids, (prompts.len(), longest))?;
        // The valid rows come first already, as `compact_text` would put them.
        Ok((self.text.forward(&ids, None)?, lengths))
    }

    /// The mean loss of a part of a batch: how far the velocities are from those of the noise.
    fn flow_loss(&self, batch: &Batch, part: Range<usize>) -> Result<Loss> {
        let (input, times) = batch.noised.part(&part)?;
        let context = self.encode(&batch.prompts[part.clone()])?;
        let extras = ForwardExtras::default();
        let velocity = self
            .transformer
            .forward(&input, &times, None, &context, &extras)?;
        loss::mean_square(&velocity, batch.noised.target(&part))
    }
}

/// The noise level index of one sample: logistic of a normal number.
fn draw_level(rng: &mut Rng, (mean, deviation): (f64, f64)) -> usize {
    let u = 1.0 / (1.0 + (-(mean + deviation * rng.normal_pair().0)).exp());
    ((u * LEVELS as f64) as usize).min(LEVELS - 1)
}

/// One batch of flow matching.
struct Noised {
    /// `(1−σ)·x0 + σ·ε`
    input: Vec<f32>,
    /// `ε − x0`
    target: Vec<f32>,
    /// What the model is told, one a sample.
    times: Vec<f32>,
    /// Rows, columns and channels of each sample.
    shape: (usize, usize, usize),
}

impl Noised {
    fn values(&self, part: &Range<usize>) -> Range<usize> {
        let (height, width, channels) = self.shape;
        let each = height * width * channels;
        part.start * each..part.end * each
    }

    /// What the model sees of a part of the samples: `[B,h,w,C]`, and its times `[B]`.
    fn part(&self, part: &Range<usize>) -> Result<(Tensor, Tensor)> {
        let (height, width, channels) = self.shape;
        let shape = (part.len(), height, width, channels);
        Ok((
            Tensor::from_slice(&self.input[self.values(part)], shape)?,
            Tensor::from_slice(&self.times[part.clone()], part.len())?,
        ))
    }

    /// What it is to predict of them.
    fn target(&self, part: &Range<usize>) -> &[f32] {
        &self.target[self.values(part)]
    }
}

/// The time of σ that a model is told whose pipeline multiplies times of 0 to 1000 by `scale`. One that takes them as they
/// are sees integers, although the mixture uses the exact σ.
fn model_time(sigma: f64, scale: f64) -> f32 {
    let time = sigma * LEVELS as f64;
    if scale == 1.0 {
        // The tolerance keeps i/1000·1000 at i.
        return (time + 1e-9).floor() as f32;
    }
    (time * scale) as f32
}

/// Noises the latents at `slots`, which are of one shape.
fn noise(
    latents: &Latents,
    slots: &[usize],
    recipe: &ImageRecipe,
    time_scale: f64,
    rng: &mut Rng,
) -> Noised {
    let cells = slots.first().map(|slot| latents.shape(*slot));
    let (height, width) = cells.map_or((0, 0), |cells| (cells.height, cells.width));
    let shape = (height, width, latents.channels());
    let each = height * width * latents.channels();
    let mut batch = Noised {
        input: Vec::with_capacity(slots.len() * each),
        target: Vec::with_capacity(slots.len() * each),
        times: Vec::with_capacity(slots.len()),
        shape,
    };
    for slot in slots {
        let level = draw_level(rng, recipe.noise_law) as f64 / LEVELS as f64;
        let sigma = shifted(level, recipe.flow_shift);
        batch.times.push(model_time(sigma, time_scale));
        let sigma = sigma as f32;
        let epsilon = rng.normals(each);
        for (clean, noise) in latents.row(*slot).iter().zip(epsilon) {
            batch.input.push((1.0 - sigma) * clean + sigma * noise);
            batch.target.push(noise - clean);
        }
    }
    batch
}

/// Trains the recipe's text-to-image model, from scratch or from another one of its shape, whose tokenizer it keeps,
/// into `out`: `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end `model/` (complete diffusers layout,
/// bf16, with the autoencoder as it is stored) and `report.json`. Continues when `out` holds a checkpoint of the same
/// recipe.
///
/// # Errors
/// A data set or autoencoder that does not fit the recipe, files that cannot be read or written, a run that
/// diverges, or one that was asked to stop: its checkpoint is written.
pub fn train_image(
    recipe: &ImageRecipe,
    data: &PictureData,
    vae: &Opened<AutoencoderConfig>,
    start: Option<&Start>,
    out: &Path,
    control: &Control,
) -> Result<ImageReport> {
    recipe.validate()?;
    if recipe.lora.is_some() {
        return Err(Error::Recipe(
            "lora is given, which trains no whole model".to_owned(),
        ));
    }
    if recipe.control.is_some() {
        return Err(Error::Recipe(
            "control is given, which trains a ControlNet and no model".to_owned(),
        ));
    }
    let options = &recipe.training;
    let training = recipe.pictures.training(data, control)?;
    let _lock = session::claim(out, MODEL)?;
    let tokenizer_file = match start {
        Some(start) => start.tokenizer.clone(),
        None => {
            control.stage("training the tokenizer", Work::Run, 0);
            let vocabulary = crate::captions::vocabulary(&recipe.text_encoder)?;
            brisk_text::train_bpe(&crate::captions::lines(data, &training), vocabulary)?
        }
    };
    let sources = start.map(Start::sources);
    let run = Run {
        recipe,
        data,
        vae,
        out,
    };
    let begun = sources.as_ref().map_or(&[][..], |parts| parts);
    let setting = Setting::of(&run, training, &tokenizer_file, begun)?;
    setting.check_memory(0)?;
    let weights = PartWeights::new(sources.clone(), options.seed);
    let models = Models::trainable(&setting.configs, &weights)?;
    weights.check(sources.clone())?;
    let parameters = weights.variables();
    let lessons = setting.encoded(control)?;
    let inputs = lessons.inputs.clone();
    let mut order = lessons.order()?;
    let mut session = Session::open(options, recipe, inputs, parameters, out, control)?;
    while !session.is_over() {
        let batch = lessons.batch(&mut order, &mut session)?;
        session.update(batch.slots.len(), |part| models.flow_loss(&batch, part))?;
        if session.is_due(recipe.sample_every) {
            let average = Models::frozen(&lessons.configs, session.ema.arrays(), false)?;
            write_sheet(&mut session, &average, &lessons)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("writing the model", Work::Run, 0);
    let average = Models::frozen(&lessons.configs, session.ema.arrays(), true)?;
    write_sheet(&mut session, &average, &lessons)?;
    let pieces = export::Pieces {
        arrays: session.ema.arrays(),
        configs: &lessons.configs,
        tokenizer: &tokenizer_file,
        vae,
        flow_shift: recipe.flow_shift,
        guidance: recipe.guidance,
        known_prompts: crate::captions::known(data, &lessons.training),
    };
    export::write(&pieces, &session, lessons.training.len(), out)
}

/// Values of the largest latent of the data, of which all are to be learned by a transformer of this configuration.
///
/// # Errors
/// Pictures or an autoencoder that do not fit the transformer.
pub(crate) fn largest_latent(
    data: &PictureData,
    autoencoder: &Autoencoder,
    config: &SanaConfig,
) -> Result<usize> {
    let (ratio, patch) = (autoencoder.ratio(), config.patch_size);
    let channels = autoencoder.config().latent_channels;
    let multiple = ratio * patch;
    let fits = |shape: &PictureShape| {
        shape.height.is_multiple_of(multiple) && shape.width.is_multiple_of(multiple)
    };
    let shapes = data.shapes();
    let other = shapes.keys().find(|shape| !fits(shape));
    if other.is_some() || channels != config.in_channels {
        let shape = other.or_else(|| shapes.keys().next());
        return Err(Error::Data(format!(
            "pictures of {} px and an autoencoder of ratio {ratio} with {channels} channels do not fit a \
             transformer of {} channels and patches of {patch}",
            shape.map(ToString::to_string).unwrap_or_default(),
            config.in_channels
        )));
    }
    let cells = shapes.keys().map(|shape| shape.area() / (ratio * ratio));
    Ok(cells.max().unwrap_or(0) * channels)
}

fn write_sheet(session: &mut Session, models: &Models, lessons: &Lessons) -> Result<()> {
    let (recipe, autoencoder) = (lessons.recipe, &lessons.autoencoder);
    let prompts = &recipe.sample_prompts;
    let shape = lessons.latents.usual_shape()?;
    let samples = sample::generate(models, &lessons.tokenizer, recipe, prompts, shape, None)?;
    let decoded = autoencoder.decode(&(samples / autoencoder.scaling_factor())?)?;
    let cells: Vec<_> = pictures::to_pictures(&decoded)?
        .into_iter()
        .zip(recipe.sample_prompts.iter().cloned())
        .collect();
    let path = session.sample_path()?;
    sheet::write(&path, &cells, 4)?;
    session.sample_written(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_logistic_of_a_normal() {
        let mut rng = Rng::new(2);
        let levels: Vec<usize> = (0..20_000)
            .map(|_| draw_level(&mut rng, (0.0, 1.0)))
            .collect();
        let below = |bound: usize| levels.iter().filter(|l| **l < bound).count() as f64 / 2e4;
        assert!((below(500) - 0.5).abs() < 0.02);
        // logistic(−1) = 0.26894, one deviation below.
        assert!((below(269) - 0.1587).abs() < 0.02);
        assert!(levels.iter().all(|level| *level < LEVELS));
    }

    #[test]
    fn a_dense_embedding_sees_the_exact_time() {
        assert_eq!(model_time(0.75, 1.0), 750.0);
        assert_eq!(model_time(0.7509, 1.0), 750.0);
        assert_eq!(model_time(0.7509, 1e-3), 0.7509);
    }

    #[test]
    fn shifted_levels_and_times() {
        assert_eq!(shifted(0.0, 3.0), 0.0);
        assert!((shifted(0.5, 3.0) - 0.75).abs() < 1e-12);
        assert!((shifted(0.999, 1.0) - 0.999).abs() < 1e-12);
    }
}
