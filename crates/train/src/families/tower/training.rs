//! The run.

use std::path::Path;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::vila_u::TOWER;
use brisk_models::vila_u::tower::{SiglipTextConfig, TowerConfig};
use brisk_nn::{Trace, Weights};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::families::similarity::CaptionReader;
use brisk_pipelines::folder::ComponentFolder;
use brisk_store::{ModelFolder, TensorSource};
use serde::Serialize;

use super::codebook::{Codebooks, Taken};
use super::networks::Networks;
use super::objective::{Batch, Seen, Weighing};
use super::texts;
use super::{TowerRecipe, export, scores};
use crate::captions;
use crate::data::pictures::PictureData;
use crate::error::{Error, Result};
use crate::eval;
use crate::inputs::Inputs;
use crate::pictures::{self, Order};
use crate::session::{self, Session, check_start, write_json};
use crate::sheet;
use crate::tensors;

/// The folder of the result.
const VISION_TOWER: &str = "vision_tower";
/// What is added to cosines, in the tower's file.
const BIAS: &str = "rqvaesiglip.siglip_model.logit_bias";

/// What a finished run measured, all with the weights as written (moving average, rounded to bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TowerReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters, those of the text encoder and the averages of codewords included.
    pub parameters: usize,
    /// Mean PSNR of the held-out pictures drawn from the first 1, 2, … codes of every place, dB; empty without
    /// held-out pictures.
    pub held_out_psnr: Vec<f64>,
    /// Mean squared error of the same, of values in 0..1.
    pub held_out_error: Vec<f64>,
    /// Number of held-out pictures.
    pub held_out_pictures: usize,
    /// Share of the codewords that the held-out pictures take.
    pub codebook_usage: f64,
    /// Share of held-out captions that find their pictures, and pictures their captions, among `retrieval_batch`.
    pub retrieval: f64,
    /// The same by lot.
    pub retrieval_chance: f64,
}

/// A finished tower to go on from: its weights under its own names, and its tokenizer of captions.
pub struct TowerStart {
    weights: Arc<dyn TensorSource>,
    tokenizer: Vec<u8>,
}

/// A folder's tower, its own or a model's, of `brisk train tokenizer`.
///
/// # Errors
/// Files that are missing or damaged.
pub fn open_tower(folder: &ModelFolder) -> Result<TowerStart> {
    let place = ComponentFolder::find(folder, TOWER.folders)?;
    let weights = place.weights(None)?;
    let names = weights.names().into_iter();
    // The depth transformer is another run's.
    let names = names.filter(|name| name.starts_with("rqvaesiglip."));
    let map = names.map(|name| (name.clone(), brisk_store::Slice::whole(name)));
    let map = map.collect();
    Ok(TowerStart {
        weights: Arc::new(brisk_store::MappedSource::new(weights.clone(), map)?),
        tokenizer: place.read(&format!("{}/{}", export::SIGLIP, export::CAPTIONS))?,
    })
}

/// Everything of a run that stays as it is.
struct Setting<'a> {
    recipe: &'a TowerRecipe,
    config: TowerConfig,
    text: SiglipTextConfig,
    reader: CaptionReader,
    data: &'a PictureData,
    training: Vec<usize>,
    held_out: Vec<usize>,
    control: &'a Control,
}

/// Trains the recipe's tower into `out`: `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end
/// `vision_tower/` (the published layout, bf16, without a depth transformer) and `report.json`. Continues when `out`
/// holds a checkpoint of the same recipe. `start` is a tower of the recipe's shape to go on from.
///
/// # Errors
/// A data set or a start that does not fit the recipe, files that cannot be written, a run that diverges, or one
/// that was asked to stop: its checkpoint is written.
pub fn train_tower(
    recipe: &TowerRecipe,
    data: &PictureData,
    start: Option<&TowerStart>,
    out: &Path,
    control: &Control,
) -> Result<TowerReport> {
    recipe.validate()?;
    let config = recipe.tower()?;
    let side = config.siglip()?.image_size;
    let size = data.required_side()?;
    if size != side {
        return Err(Error::Data(format!(
            "pictures of {size} px; the recipe wants {side}"
        )));
    }
    let training = recipe.pictures.training(data, control)?;
    let options = &recipe.training;
    let mut order = Order::new(training.clone(), options.seed)?;
    let mut text = recipe.text()?;
    let text_file = match start {
        Some(start) => start.tokenizer.clone(),
        None => {
            control.stage("training the tokenizer of captions", Work::Run, 0);
            let lines = captions::lines(data, &training);
            brisk_text::train_sentencepiece(&lines, text.vocab_size)?
        }
    };
    let reader = texts::reader(&text_file, text.max_position_embeddings)?;
    text.vocab_size = reader.vocabulary();
    let sample = (side * side * config.decoder.ch * 16) as u64;
    let parameters = config.parameter_count(super::networks::PARTS) * 2;
    let parameters = parameters + text.parameters(config.embed_dim);
    session::check_memory(parameters, options.batch, sample)?;
    let _lock = session::claim(out, VISION_TOWER)?;
    let weights = Weights::trainable(start.map(|start| start.weights.clone()), options.seed);
    let networks = Networks::load(&config, &text, &weights)?;
    let books = Codebooks::of(&config, recipe.codebook()?, &weights)?;
    check_start(&weights, start.map(|start| &*start.weights))?;
    let variables = weights.variables();
    if let (None, Some((_, bias))) = (start, variables.iter().find(|(name, _)| name == BIAS)) {
        // As likely as a picture's caption is among those that it is compared with.
        let compared = options
            .batch
            .div_ceil(options.shards.min(options.batch).max(1));
        tensors::set(bias, vec![-(compared.saturating_sub(1).max(1) as f32).ln()])?;
    }
    let inputs = Inputs::default()
        .data(data)?
        .start_from(start.map(|start| &start.weights))?;
    let mut session = Session::open(options, recipe, inputs, variables, out, control)?;
    let setting = Setting {
        recipe,
        reader,
        data,
        held_out: recipe.pictures.of(data, true),
        training,
        control,
        text,
        config,
    };
    while !session.is_over() {
        let quantizes = session.phase_progress() >= recipe.alignment_share;
        setting.update(&mut session, &networks, &books, &mut order, quantizes)?;
        let measure = session.is_due(recipe.eval_every) && !setting.held_out.is_empty();
        let sample = session.is_due(recipe.sample_every) && quantizes;
        if measure || sample {
            let average = setting.frozen(&session, false)?;
            if measure {
                setting.measure(&mut session, &average, quantizes)?;
            }
            if sample {
                setting.write_sheet(&mut session, &average)?;
            }
        }
        session.settle()?;
    }
    session.finish()?;
    setting.export(session, &text_file, out)
}

impl Setting<'_> {
    fn update(
        &self,
        session: &mut Session,
        networks: &Networks,
        books: &Codebooks,
        order: &mut Order,
        quantizes: bool,
    ) -> Result<()> {
        let (recipe, data) = (self.recipe, self.data);
        let indices = order.batch(session.step, recipe.training.batch);
        let rng = &mut session.rng;
        let values = pictures::augmented_batch(data, &indices, &recipe.augmentation, rng)?;
        let captions = indices.iter().map(|index| {
            let entry = &data.entries()[*index];
            let caption =
                captions::caption(entry, recipe.name_probability, &recipe.caption_scores, rng);
            Ok(self.reader.ids(&caption)?)
        });
        let captions = captions.collect::<Result<Vec<_>>>()?;
        let batch = Batch {
            values: &values,
            size: self.config.siglip()?.image_size,
            captions: &captions,
            weighing: Weighing {
                pictures: &recipe.loss,
                contrastive: recipe.contrastive,
                commitment: recipe.codebook()?.latent_loss_weight,
                texts_learn: !quantizes || recipe.text_encoder_learns,
                quantizes,
            },
            seen: Seen::default(),
        };
        session.update_noting(indices.len(), |part| batch.loss(networks, part))?;
        for (depth, seen) in batch.seen.depths().iter().enumerate() {
            let taken = Taken {
                vectors: &seen.vectors,
                codes: &seen.codes,
            };
            books.follow(depth, &taken, &mut session.rng)?;
        }
        Ok(())
    }

    /// The moving average, as it will be written when `rounded`.
    fn frozen(&self, session: &Session, rounded: bool) -> Result<Networks> {
        Networks::frozen(&self.config, &self.text, session.ema.arrays(), rounded)
    }

    fn retrieval(
        &self,
        networks: &Networks,
        indices: &[usize],
        quantized: bool,
        control: &Control,
    ) -> Result<f64> {
        let batch = self.recipe.retrieval_batch;
        let pictures = (self.data, indices);
        scores::retrieval(networks, &self.reader, pictures, batch, quantized, control)
    }

    fn measure(&self, session: &mut Session, average: &Networks, quantizes: bool) -> Result<()> {
        let some = &self.held_out[..self.held_out.len().min(self.recipe.eval_pictures)];
        // A wish to stop waits for the checkpoint behind this.
        let control = &Control::silent();
        let retrieval = self.retrieval(average, some, quantizes, control)?;
        let mut values = vec![("retrieval", retrieval)];
        if quantizes {
            let drawn = scores::drawn(average, self.data, some, control)?;
            values.extend(drawn.psnr.last().map(|psnr| ("psnr", *psnr)));
            values.push(("codebook_usage", drawn.usage));
        }
        session.log_measured(&values)
    }

    /// Eight pictures over what their first 1, 2, … codes give; held-out ones where there are any.
    fn write_sheet(&self, session: &mut Session, networks: &Networks) -> Result<()> {
        let data = self.data;
        let shown = eval::spread(&self.training, &self.held_out);
        let mut cells: Vec<(Picture, String)> = Vec::new();
        for index in &shown {
            let name = data.entries()[*index].name.clone();
            cells.push((pictures::original(data, *index)?, name));
        }
        let tower = &networks.tower;
        let encoded = tower.encode(&pictures::batch(data, &shown)?, &mut Trace::none())?;
        for (depth, sum) in tower.quantizer().sums(&encoded.codes)?.iter().enumerate() {
            let decoded = tower.decode(&tower.maps(sum)?, &mut Trace::none())?;
            let drawn = pictures::to_pictures(&decoded)?.into_iter();
            cells.extend(drawn.map(|picture| (picture, format!("{} of a place", depth + 1))));
        }
        let path = session.sample_path()?;
        sheet::write(&path, &cells, shown.len())?;
        session.sample_written(path);
        Ok(())
    }

    fn export(&self, mut session: Session, text_file: &[u8], out: &Path) -> Result<TowerReport> {
        let control = self.control;
        let frozen = self.frozen(&session, true)?;
        control.stage("measuring the held-out pictures", Work::Run, 0);
        let (drawn, retrieval) = match &self.held_out[..] {
            [] => (scores::Drawn::default(), 0.0),
            held_out => (
                scores::drawn(&frozen, self.data, held_out, control)?,
                self.retrieval(&frozen, held_out, true, control)?,
            ),
        };
        self.write_sheet(&mut session, &frozen)?;
        let arrays = session.ema.arrays();
        let folder = out.join(VISION_TOWER);
        export::write(
            self.recipe,
            arrays,
            text_file,
            self.text.vocab_size,
            &folder,
        )?;
        let compared = self.recipe.retrieval_batch.min(self.held_out.len());
        let report = TowerReport {
            steps: session.step,
            seconds: session.seconds(),
            parameters: arrays.iter().map(|array| array.values.len()).sum(),
            held_out_psnr: drawn.psnr,
            held_out_error: drawn.error,
            held_out_pictures: self.held_out.len(),
            codebook_usage: drawn.usage,
            retrieval,
            retrieval_chance: 1.0 / compared.max(1) as f64,
        };
        write_json(&out.join(session::REPORT), &report)?;
        Ok(report)
    }
}
