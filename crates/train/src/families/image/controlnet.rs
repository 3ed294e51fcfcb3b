//! Training of a ControlNet (arXiv 2302.05543) for a SANA transformer, which stays as it is: copies of its first blocks see a
//! sketch beside the latent, and what they make of it is added behind the blocks that they were copied from.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::dcae::{Autoencoder, AutoencoderConfig};
use brisk_models::gemma2::Gemma2Model;
use brisk_models::sana::{ForwardExtras, SanaConfig, SanaTransformer};
use brisk_models::sana_controlnet::{ControlStart, SanaControlNet, SanaControlNetConfig};
use brisk_nn::{Tensor, Weights};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::folder::Opened;
use brisk_store::{MappedSource, Slice, TensorSource};
use serde::{Deserialize, Serialize};

use super::export::{copy, write_part};
use super::lessons::{Batch, Lessons, Run, Setting};
use super::{Models, Start, TEXT_ENCODER, TRANSFORMER, sample};
use crate::data::pictures::PictureData;
use crate::data::sketch::{MOST_THICKNESS, sketch};
use crate::error::{Error, FileContext, JsonContext, Result};
use crate::latents::Latents;
use crate::log::mean_of_last_tenth;
use crate::loss::{self, Loss};
use crate::pictures;
use crate::recipe::{ImageRecipe, MAX_SAMPLES, require_count};
use crate::rng::Rng;
use crate::session::{self, LOG, REPORT, Session, check_start_but, write_json};
use crate::tensors::{self, NamedArray};
use crate::{eval, sheet};

/// The folder of the ControlNet in a run's folder, and before names of its parameters.
pub(crate) const CONTROLNET: &str = "controlnet";
/// What of a transformer a ControlNet has too, its blocks apart.
const SHARED: [&str; 4] = [
    "patch_embed.",
    "time_embed.",
    "caption_projection.",
    "caption_norm.",
];
const BLOCKS: &str = "transformer_blocks.";
/// What it has for itself, zero at the beginning: before its blocks, and behind each of them.
const OWN: [&str; 2] = ["input_block.", "controlnet_blocks."];
/// Told from other draws of a run's seed.
const STROKES: u64 = 0x7374_726f_6b65;
/// Pictures of a row of the sheet, each behind its sketch.
const COLUMNS: usize = 6;

/// A ControlNet to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlNetOptions {
    /// Blocks that are copied, from the first one on; fewer than the transformer has.
    pub blocks: usize,
    /// Sketches of each picture, in strokes of other thickness; a sample takes one of them.
    #[serde(default = "ControlNetOptions::usual_sketches")]
    pub sketches: usize,
}

impl ControlNetOptions {
    /// With so many blocks.
    pub fn new(blocks: usize) -> Self {
        Self {
            blocks,
            sketches: Self::usual_sketches(),
        }
    }

    fn usual_sketches() -> usize {
        2
    }

    pub(crate) fn validate(self) -> Result<()> {
        require_count("control.blocks", self.blocks, MAX_SAMPLES)?;
        require_count("control.sketches", self.sketches, MAX_SAMPLES)
    }
}

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ControlNetReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Blocks that were copied.
    pub blocks: usize,
    /// Parameters of the ControlNet.
    pub parameters: usize,
    /// Bytes of the optimiser's state.
    pub optimiser_bytes: u64,
    /// Pictures that were trained on.
    pub pictures: usize,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
}

/// A transformer's ControlNet.
pub(crate) fn controlnet_config(
    transformer: &SanaConfig,
    options: &ControlNetOptions,
) -> Result<SanaControlNetConfig> {
    if options.blocks >= transformer.num_layers {
        return Err(Error::Recipe(format!(
            "control.blocks is {}; the transformer has {} blocks, of which fewer can be copied",
            options.blocks, transformer.num_layers
        )));
    }
    Ok(SanaControlNetConfig {
        transformer: SanaConfig {
            num_layers: options.blocks,
            ..transformer.clone()
        },
    })
}

/// The parameters that a ControlNet begins with: those of the transformer that it copies, whose names begin with `prefix`.
pub(crate) fn copied(
    transformer: &Arc<dyn TensorSource>,
    prefix: &str,
    options: &ControlNetOptions,
) -> Result<Arc<dyn TensorSource>> {
    let names = transformer.names().into_iter();
    let map = names.filter_map(|name| {
        let own = name.strip_prefix(prefix)?;
        let kept = SHARED.iter().any(|part| own.starts_with(part))
            || own
                .strip_prefix(BLOCKS)
                .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok())
                .is_some_and(|index| index < options.blocks);
        kept.then(|| (format!("{CONTROLNET}.{own}"), Slice::whole(name.clone())))
    });
    let map = map.collect();
    Ok(Arc::new(MappedSource::new(transformer.clone(), map)?))
}

/// Whether a parameter is one that no transformer has.
pub(crate) fn is_own(name: &str) -> bool {
    name.strip_prefix(CONTROLNET)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|own| OWN.iter().any(|part| own.starts_with(part)))
}

/// The sketches of pictures as latents: `sketches` of each, one after another.
pub(crate) struct Sketches {
    rows: Vec<Vec<f32>>,
    each: usize,
}

impl Sketches {
    /// Draws and encodes them.
    pub fn new(
        data: &PictureData,
        training: &[usize],
        autoencoder: &Autoencoder,
        (options, seed): (&ControlNetOptions, u64),
        control: &Control,
    ) -> Result<Self> {
        let drawn: Vec<usize> = (0..training.len() * options.sketches).collect();
        let mut rows = Vec::with_capacity(drawn.len());
        for some in drawn.chunks(ENCODED) {
            control.check()?;
            let drawn = some.iter().map(|slot| {
                let picture = pictures::original(data, training[slot / options.sketches])?;
                Ok(sketch(&picture, thickness(seed, *slot, &picture)))
            });
            let drawn: Vec<Picture> = drawn.collect::<Result<_>>()?;
            for alike in drawn.chunk_by(|a, b| (a.width, a.height) == (b.width, b.height)) {
                for some in alike.chunks(eval::BATCH) {
                    rows.extend(eval::scaled_rows(autoencoder, &pictures::batch_of(some)?)?);
                }
            }
        }
        Ok(Self {
            rows,
            each: options.sketches,
        })
    }

    /// Which sketches the pictures at `slots` are shown with.
    pub fn draw(&self, slots: &[usize], rng: &mut Rng) -> Vec<usize> {
        let drawn = slots
            .iter()
            .map(|slot| slot * self.each + rng.below(self.each));
        drawn.collect()
    }

    /// Some of them, of pictures of one shape: `[B,h,w,C]`.
    pub fn latents(&self, chosen: &[usize], latents: &Latents) -> Result<Tensor> {
        let cells = chosen.first().map(|index| latents.shape(index / self.each));
        let cells = cells.ok_or_else(|| Error::Data("no sketch is chosen".to_owned()))?;
        let shape = (chosen.len(), cells.height, cells.width, latents.channels());
        let values = chosen.iter().flat_map(|index| &self.rows[*index]).copied();
        Ok(Tensor::from_vec(values.collect(), shape)?)
    }
}

/// Sketches that are encoded together.
const ENCODED: usize = 64;

/// Thickness of the strokes of a picture's sketch, in pixels.
fn thickness(seed: u64, slot: usize, picture: &Picture) -> usize {
    let size = picture.width.min(picture.height);
    let share = Rng::stream(seed ^ STROKES, slot as u64).uniform();
    (share * MOST_THICKNESS * size as f64).round() as usize
}

/// A model with a ControlNet and what it is shown.
struct Controlled<'a> {
    lessons: &'a Lessons<'a>,
    models: &'a Models,
    controlnet: &'a SanaControlNet,
    sketches: &'a Sketches,
}

impl Controlled<'_> {
    /// The mean loss of a part of a batch.
    fn loss(&self, batch: &Batch, shown: &[usize], part: Range<usize>) -> Result<Loss> {
        let (input, times) = batch.noised.part(&part)?;
        let (hidden, lengths) = self.models.rows(&batch.prompts[part.clone()])?;
        let residuals = self.controlnet.forward(
            ControlStart::Latent(&input),
            &self
                .sketches
                .latents(&shown[part.clone()], &self.lessons.latents)?,
            &times,
            None,
            &self.controlnet.encode_caption(&hidden, &lengths)?,
            1.0,
        )?;
        let transformer = &self.models.transformer;
        let extras = ForwardExtras {
            residuals: &residuals,
            ..ForwardExtras::default()
        };
        let context = transformer.encode_caption(&hidden, &lengths)?;
        let velocity = transformer.forward(&input, &times, None, &context, &extras)?;
        loss::mean_square(&velocity, batch.noised.target(&part))
    }

    /// Draws by sketches of the pictures at the places `shown`, and writes both.
    fn write_sheet(&self, session: &mut Session, shown: &[usize]) -> Result<()> {
        let Self {
            lessons,
            models,
            controlnet,
            sketches,
        } = self;
        let (recipe, data) = (lessons.recipe, lessons.data);
        let index = |slot: &usize| lessons.training[*slot];
        let prompts: Vec<String> = shown
            .iter()
            .map(|slot| data.entries()[index(slot)].name.clone())
            .collect();
        let first: Vec<usize> = shown.iter().map(|slot| slot * sketches.each).collect();
        let steering = sample::Steering {
            controlnet,
            latent: sketches.latents(&first, &lessons.latents)?,
        };
        let drawn = sample::generate(
            models,
            &lessons.tokenizer,
            recipe,
            &prompts,
            lessons.latents.usual_shape()?,
            Some(&steering),
        )?;
        let autoencoder = &lessons.autoencoder;
        let decoded = autoencoder.decode(&(drawn / autoencoder.scaling_factor())?)?;
        let mut cells = Vec::with_capacity(2 * prompts.len());
        let pairs = shown
            .iter()
            .zip(first)
            .zip(pictures::to_pictures(&decoded)?);
        for (((slot, sketched), drawn), prompt) in pairs.zip(prompts) {
            let picture = pictures::original(data, index(slot))?;
            let stroke = thickness(recipe.training.seed, sketched, &picture);
            cells.push((sketch(&picture, stroke), String::new()));
            cells.push((drawn, prompt));
        }
        let path = session.sample_path()?;
        sheet::write(&path, &cells, COLUMNS)?;
        session.sample_written(path);
        Ok(())
    }
}

/// Trains the recipe's ControlNet of sketches for the model of `start`, which stays as it is, into `out`:
/// `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end `controlnet/` (diffusers' layout, bf16) and
/// `report.json`. Continues when `out` holds a checkpoint of the same recipe.
///
/// # Errors
/// A recipe without `control`, or with as many blocks as the transformer has; otherwise as [`super::train_image`].
pub fn train_controlnet(
    recipe: &ImageRecipe,
    data: &PictureData,
    vae: &Opened<AutoencoderConfig>,
    start: &Start,
    out: &Path,
    control: &Control,
) -> Result<ControlNetReport> {
    recipe.validate()?;
    let Some(asked) = &recipe.control else {
        return Err(Error::Recipe(
            "control is not given; it says what to train".to_owned(),
        ));
    };
    let options = &recipe.training;
    let training = recipe.pictures.training(data, control)?;
    let _lock = session::claim(out, CONTROLNET)?;
    let run = Run {
        recipe,
        data,
        vae,
        out,
    };
    let setting = Setting::of(&run, training, &start.tokenizer, &start.sources())?;
    let configs = setting.configs.clone();
    let transformer = &configs.transformer_model;
    let config = controlnet_config(transformer, asked)?;
    setting.check_memory(config.parameters())?;
    let part =
        |source: &Arc<dyn TensorSource>, name: &str| Weights::from_source(source.clone()).pp(name);
    let models = Models {
        text: Gemma2Model::load(&configs.text_model, &part(&start.text, TEXT_ENCODER))?,
        transformer: SanaTransformer::load(transformer, &part(&start.transformer, TRANSFORMER))?,
    };
    let begun = copied(&start.transformer, &format!("{TRANSFORMER}."), asked)?;
    let weights = Weights::trainable(Some(begun.clone()), options.seed);
    let controlnet = SanaControlNet::load(&config, &weights.pp(CONTROLNET))?;
    check_start_but(&weights, &*begun, is_own)?;
    let lessons = setting.encoded(control)?;
    control.stage("encoding their sketches", Work::Run, 0);
    let sketches = Sketches::new(
        data,
        &lessons.training,
        &lessons.autoencoder,
        (asked, options.seed),
        control,
    )?;
    let inputs = lessons.inputs.clone();
    let mut order = lessons.order()?;
    let mut session = Session::open(options, recipe, inputs, weights.variables(), out, control)?;
    let (_, usual) = lessons.latents.usual()?;
    let shown = eval::spread_over(&usual, recipe.sample_prompts.len());
    let sheet = |session: &mut Session, rounded: bool| -> Result<()> {
        let source =
            tensors::memory_source(session.ema.arrays(), &format!("{CONTROLNET}."), rounded)?;
        let average = SanaControlNet::load(&config, &Weights::from_source(source))?;
        let controlled = Controlled {
            lessons: &lessons,
            models: &models,
            controlnet: &average,
            sketches: &sketches,
        };
        controlled.write_sheet(session, &shown)
    };
    let controlled = Controlled {
        lessons: &lessons,
        models: &models,
        controlnet: &controlnet,
        sketches: &sketches,
    };
    while !session.is_over() {
        let batch = lessons.batch(&mut order, &mut session)?;
        let chosen = sketches.draw(&batch.slots, &mut session.rng);
        session.update(batch.slots.len(), |part| {
            controlled.loss(&batch, &chosen, part)
        })?;
        if session.is_due(recipe.sample_every) {
            sheet(&mut session, false)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("writing the ControlNet", Work::Run, 0);
    sheet(&mut session, true)?;
    let report = ControlNetReport {
        steps: session.step,
        seconds: session.seconds(),
        blocks: asked.blocks,
        parameters: write(session.ema.arrays(), &config, out)?,
        optimiser_bytes: session.optimiser_bytes(),
        pictures: lessons.training.len(),
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}

/// Writes the ControlNet's folder; gives its number of parameters.
pub(crate) fn write(
    arrays: &[NamedArray],
    config: &SanaControlNetConfig,
    out: &Path,
) -> Result<usize> {
    let folder = out.join(CONTROLNET);
    std::fs::create_dir_all(&folder).at(&folder)?;
    let weights = folder.join("diffusion_pytorch_model.safetensors");
    let count = write_part(arrays, CONTROLNET, &weights)?;
    let mut document = serde_json::to_value(&config.transformer).in_document("controlnet")?;
    document["_class_name"] = "SanaControlNetModel".into();
    write_json(&folder.join("config.json"), &document)?;
    copy(&out.join(LOG), &folder.join(LOG))?;
    Ok(count)
}
