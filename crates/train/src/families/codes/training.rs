//! The run.

use std::path::Path;

use brisk_media::Picture;
use brisk_models::hart::tokenizer::Parts;
use brisk_models::hart::{Generator, Greedy, Request};
use brisk_nn::{KeyValueType, Tensor, Trace};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::families::hart::prompt::{EncodedPrompt, PromptTokenizer};

use super::draws::Draws;
use super::lessons::Lessons;
use super::networks::{Configs, Networks, prompt_tokenizer, without_case};
use super::objective::Batch;
use super::{CodesRecipe, TokenizerFiles, export};
use crate::captions;
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::families::image::{ImageReport, MODEL, Start};
use crate::families::part_weights::PartWeights;
use crate::inputs::Inputs;
use crate::objectives::diffusion::Process;
use crate::pictures::{self, Order};
use crate::rng::Rng;
use crate::session::{self, Session};
use crate::sheet;

/// Pictures of a row of a sample sheet.
const COLUMNS: usize = 4;

/// Trains the recipe's model on the codes that `files` make of the pictures, from nothing or from another model
/// of its shape, whose tokenizer of texts it keeps, into `out`: `training_log.jsonl`, `samples/`,
/// `checkpoints/`, and at the end `model/` (the authors' layout, bf16, with tokenizer and text encoder) and
/// `report.json`. Continues when `out` holds a checkpoint of the same recipe.
///
/// # Errors
/// A data set, tokenizer or start that does not fit the recipe, files that cannot be read or written, a run
/// that diverges, or one that was asked to stop: its checkpoint is written.
pub fn train_codes(
    recipe: &CodesRecipe,
    data: &PictureData,
    files: &TokenizerFiles,
    start: Option<&Start>,
    out: &Path,
    control: &Control,
) -> Result<ImageReport> {
    recipe.validate()?;
    let options = &recipe.training;
    let training = recipe.pictures.training(data, control)?;
    let mut order = Order::new((0..training.len()).collect(), options.seed)?;
    let _lock = session::claim(out, MODEL)?;
    let text_file = match start {
        Some(start) => start.tokenizer.clone(),
        None => {
            control.stage("training the tokenizer of texts", Work::Run, 0);
            let vocabulary = captions::vocabulary(&recipe.text_encoder)?;
            without_case(&brisk_text::train_bpe(
                &captions::lines(data, &training),
                vocabulary,
            )?)?
        }
    };
    let (texts, vocabulary) = prompt_tokenizer(&text_file)?;
    let configs = Configs::new(recipe, &files.config, vocabulary)?;
    let parameters = configs.parameters();
    let config = &configs.transformer_model;
    let sample = (config.context_token * config.embed_dim * config.depth * 16) as u64;
    session::check_memory(parameters, options.batch, sample)?;
    control.stage("encoding the pictures", Work::Run, 0);
    let lessons = Lessons::new(files, &config.scales()?, data, &training, control)?;
    let sources = start.map(Start::sources);
    let weights = PartWeights::new(sources.clone(), options.seed);
    let networks = Networks::trainable(&configs, &weights)?;
    weights.check(sources.clone())?;
    let inputs = Inputs::default()
        .data(data)?
        .tokenizer(&*files.stored)?
        .start(sources.as_ref().map_or(&[], |parts| &parts[..]))?;
    let variables = weights.variables();
    let mut session = Session::open(options, recipe, inputs, variables, out, control)?;
    let process = Process::cosine();
    let length = config.context_token;
    while !session.is_over() {
        let slots = order.batch(session.step, options.batch);
        let rng = &mut session.rng;
        let drawn = slots.iter().map(|slot| {
            let entry = &data.entries()[training[*slot]];
            let caption =
                captions::caption(entry, recipe.name_probability, &recipe.caption_scores, rng);
            Ok(texts.prompt(&caption, length)?)
        });
        let prompts = drawn.collect::<Result<Vec<EncodedPrompt>>>()?;
        let draws = Draws::new(recipe, slots.len(), lessons.last(), rng);
        let batch = Batch {
            lessons: &lessons,
            slots: &slots,
            prompts: &prompts,
            draws: &draws,
            process: &process,
            diffusion: &recipe.diffusion,
        };
        session.update(slots.len(), |part| batch.loss(&networks, part))?;
        if session.is_due(recipe.sample_every) {
            let average = Networks::frozen(&configs, session.ema.arrays(), false)?;
            write_sheet(&mut session, average, files, &texts, recipe)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("writing the model", Work::Run, 0);
    let average = Networks::frozen(&configs, session.ema.arrays(), true)?;
    write_sheet(&mut session, average, files, &texts, recipe)?;
    let pieces = export::Pieces {
        configs: &configs,
        text_file: &text_file,
        files,
        guidance: recipe.guidance,
        known_prompts: captions::known(data, &training),
        evaluation: captions::evaluation(data, &training, &recipe.pictures.of(data, true))?,
    };
    export::write(&pieces, &session, training.len(), out)
}

/// The recipe's prompts as the model draws them with nothing left to chance but the noise that the diffusion
/// head starts from, which is always the same.
fn write_sheet(
    session: &mut Session,
    networks: Networks,
    files: &TokenizerFiles,
    texts: &PromptTokenizer,
    recipe: &CodesRecipe,
) -> Result<()> {
    let length = networks.transformer.config().context_token;
    let steps = networks.transformer.config().num_sampling_steps;
    let prompts = recipe.sample_prompts.iter();
    let prompts = prompts.map(|prompt| Ok(texts.prompt(prompt, length)?));
    let prompts = prompts.collect::<Result<Vec<EncodedPrompt>>>()?;
    let context = networks.encode(&prompts)?;
    let masks: Vec<Vec<bool>> = prompts.iter().map(|prompt| prompt.real.clone()).collect();
    let places = networks.transformer.scales().side().pow(2);
    let width = files.config.z_channels;
    let noise = Rng::new(recipe.training.seed).normals(prompts.len() * places * width);
    let mut chooser = Greedy {
        smooth: true,
        noise: vec![Tensor::from_vec(noise, (prompts.len(), places, width))?],
    };
    let generator = Generator::new(networks.transformer, files.load(Parts::Decoder)?);
    let request = Request {
        context: &context,
        masks: &masks,
        guidance: recipe.guidance,
        given: &[],
        residual: true,
        steps,
        kept_as: KeyValueType::F32,
    };
    let trace = &mut Trace::none();
    let drawn = generator.draw(&request, &mut chooser, &mut |_, _| Ok(()), trace)?;
    let decoded = generator.tokenizer().picture(&drawn.latent, trace)?;
    let cells = pictures::to_pictures(&decoded)?.into_iter();
    let cells: Vec<(Picture, String)> = cells.zip(recipe.sample_prompts.iter().cloned()).collect();
    let path = session.sample_path()?;
    sheet::write(&path, &cells, COLUMNS)?;
    session.sample_written(path);
    Ok(())
}
