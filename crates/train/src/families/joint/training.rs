//! The run.

use std::collections::BTreeSet;
use std::path::Path;

use brisk_media::Picture;
use brisk_models::vila_u::tower::{Parts, Quantizer, Tower};
use brisk_models::vila_u::{Greedy, Request};
use brisk_nn::Trace;
use brisk_pipelines::families::vila_u::prompt::{self, Answer};
use brisk_pipelines::{Control, KnownPrompts, events::Work};
use brisk_text::Tokenizer;
use serde::Serialize;

use super::conversation::{Conversation, Speaker};
use super::networks::{Configs, Networks, generator};
use super::objective::Batch;
use super::scores::{self, Scores, Shown};
use super::start::JointStart;
use super::vocabulary::Vocabulary;
use super::{JointRecipe, TowerFiles, exam, export, lessons};
use crate::captions;
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::families::image::MODEL;
use crate::families::part_weights::PartWeights;
use crate::inputs::Inputs;
use crate::log::mean_of_last_tenth;
use crate::pictures::{self, Order};
use crate::rng::Rng;
use crate::session::{self, LOG, REPORT, Session, write_json};
use crate::sheet;

/// Pictures of a row of a sample sheet.
const COLUMNS: usize = 4;
/// Captions that a finished model lists.
const LISTED: usize = 64;

/// What a finished run measured; of held-out pictures all, with the weights as written (moving average, rounded to
/// bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JointReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters of the language model.
    pub language_parameters: usize,
    /// Parameters of the projector.
    pub projector_parameters: usize,
    /// Parameters of the depth transformer.
    pub depth_parameters: usize,
    /// Pictures that were trained on.
    pub pictures: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
    /// Questions about held-out pictures.
    pub held_out_questions: usize,
    /// Share of them that was answered rightly, word for word.
    pub held_out_right: f64,
    /// Mean cross-entropy of the held-out pictures' codes, depth by depth.
    pub held_out_code_loss: Vec<f64>,
}

/// Everything of a run that stays as it is.
struct Setting<'a> {
    recipe: &'a JointRecipe,
    data: &'a PictureData,
    files: &'a TowerFiles,
    configs: Configs,
    tower: Tower,
    tokenizer: Tokenizer,
    training: Vec<usize>,
    codes: Vec<Vec<u32>>,
    held_out: Vec<usize>,
    held_out_codes: Vec<Vec<u32>>,
    control: &'a Control,
}

/// Trains the recipe's networks on the codes that the tower `files` makes of the pictures, from nothing or from
/// another model of their shape, whose tokenizer of texts they keep, into `out`: `training_log.jsonl`, `samples/`,
/// `checkpoints/`, and at the end `model/` (the published layout, bf16, with the tower) and `report.json`. Continues
/// when `out` holds a checkpoint of the same recipe.
///
/// # Errors
/// A data set, tower or start that does not fit the recipe, files that cannot be read or written, a run that
/// diverges, or one that was asked to stop: its checkpoint is written.
pub fn train_joint(
    recipe: &JointRecipe,
    data: &PictureData,
    files: &TowerFiles,
    start: Option<&JointStart>,
    out: &Path,
    control: &Control,
) -> Result<JointReport> {
    recipe.validate()?;
    files.check(data.required_side()?)?;
    let options = &recipe.training;
    let training = recipe.pictures.training(data, control)?;
    let mut order = Order::new((0..training.len()).collect(), options.seed)?;
    let _lock = session::claim(out, MODEL)?;
    let vocabulary = match start {
        Some(start) => Vocabulary::of(start.tokenizer.clone())?,
        None => {
            control.stage("training the tokenizer of texts", Work::Run, 0);
            let size = captions::vocabulary_of("llm", &recipe.llm)?;
            Vocabulary::train(data, &training, size, options.seed)?
        }
    };
    let configs = Configs::new(recipe, files, vocabulary.size())?;
    let language = &configs.language;
    let positions = files.config.places() + 64;
    let sample = (positions * language.hidden_size * language.num_layers * 64) as u64;
    session::check_memory(configs.parameters(), options.batch, sample)?;
    control.stage("encoding the pictures", Work::Run, 0);
    let held_out = recipe.pictures.of(data, true);
    let codes = lessons::codes(files, data, &training, control)?;
    let held_out_codes = lessons::codes(files, data, &held_out, control)?;
    let sources = start.map(JointStart::sources);
    let weights = PartWeights::new(sources.clone(), options.seed);
    let networks = Networks::trainable(&configs, &weights)?;
    weights.check(sources.clone())?;
    let inputs = Inputs::default()
        .data(data)?
        .tokenizer(&*files.stored)?
        .start(sources.as_ref().map_or(&[], |parts| &parts[..]))?;
    let variables = weights.variables();
    let mut session = Session::open(options, recipe, inputs, variables, out, control)?;
    let setting = Setting {
        recipe,
        data,
        files,
        tower: files.load(Parts::default())?,
        tokenizer: vocabulary.tokenizer()?,
        configs,
        training,
        codes,
        held_out,
        held_out_codes,
        control,
    };
    let speaker = Speaker::new(&setting.tokenizer, files.config.places())?;
    while !session.is_over() {
        let slots = order.batch(session.step, options.batch);
        let conversations = setting.conversations(&speaker, &slots, &mut session.rng)?;
        let codes = slots.iter().map(|slot| &setting.codes[*slot][..]);
        let batch = Batch {
            quantizer: setting.quantizer(),
            conversations: &conversations,
            codes: codes.collect(),
        };
        session.update_noting(slots.len(), |part| batch.loss(&networks, part))?;
        if session.is_due(recipe.eval_every) && !setting.held_out.is_empty() {
            setting.measure(&mut session, &speaker)?;
        }
        if session.is_due(recipe.sample_every) {
            setting.write_sheet(&mut session, false)?;
        }
        session.settle()?;
    }
    session.finish()?;
    setting.export(session, &vocabulary, &speaker, out)
}

impl Setting<'_> {
    fn quantizer(&self) -> &Quantizer {
        self.tower.quantizer()
    }

    /// One conversation for each picture: by lot a question about it, or its caption, or none.
    fn conversations(
        &self,
        speaker: &Speaker,
        slots: &[usize],
        rng: &mut Rng,
    ) -> Result<Vec<Conversation>> {
        let recipe = self.recipe;
        let conversations = slots.iter().map(|slot| {
            let entry = &self.data.entries()[self.training[*slot]];
            if rng.chance(recipe.question_share) {
                let mut questions = lessons::questions(entry, rng);
                let asked = questions.swap_remove(rng.below(questions.len()));
                let framed = rng.chance(recipe.framed_share);
                return speaker.answering(&asked.question, &asked.answer, framed);
            }
            let caption = match rng.chance(recipe.text_dropout) {
                true => String::new(),
                false => {
                    lessons::caption(entry, recipe.name_probability, &recipe.caption_scores, rng)
                }
            };
            speaker.drawing(&caption)
        });
        conversations.collect()
    }

    fn scores(
        &self,
        networks: &Networks,
        speaker: &Speaker,
        count: usize,
        control: &Control,
    ) -> Result<Scores> {
        let count = count.min(self.held_out.len());
        let shown = Shown {
            entries: self.held_out[..count]
                .iter()
                .map(|index| &self.data.entries()[*index])
                .collect(),
            codes: &self.held_out_codes[..count],
        };
        scores::measure(networks, self.quantizer(), speaker, &shown, control)
    }

    fn measure(&self, session: &mut Session, speaker: &Speaker) -> Result<()> {
        let networks = Networks::frozen(&self.configs, session.ema.arrays(), false)?;
        // A wish to stop waits for the checkpoint behind this.
        let control = &Control::silent();
        let scores = self.scores(&networks, speaker, self.recipe.eval_pictures, control)?;
        let names: Vec<String> = (1..=scores.codes.len())
            .map(|depth| format!("held_out_code_loss_{depth}"))
            .collect();
        let mut values = vec![("answers_right", scores.right)];
        let depths = names.iter().map(String::as_str);
        values.extend(depths.zip(scores.codes.iter().copied()));
        session.log_measured(&values)
    }

    /// The recipe's prompts, drawn with the likeliest codes.
    fn write_sheet(&self, session: &mut Session, rounded: bool) -> Result<()> {
        let recipe = self.recipe;
        let generator = generator(&self.configs, self.files, session.ema.arrays(), rounded)?;
        let encode = |caption: &str| {
            let text = prompt::drawing(caption, Answer::Picture);
            Ok(self.tokenizer.encode(&text)?)
        };
        let prompts = recipe.sample_prompts.iter().map(|prompt| encode(prompt));
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        let without = vec![encode("")?; prompts.len()];
        let request = Request {
            prompts: &prompts,
            unconditional: (recipe.guidance != 1.0).then_some(&without[..]),
            guidance: recipe.guidance,
            places: self.files.config.places(),
            given: &[],
        };
        let trace = &mut Trace::none();
        let drawn = generator.draw(&request, &mut Greedy, &mut |_| Ok(()), trace)?;
        let maps = generator.pictures(&drawn.sums, trace)?;
        let cells = pictures::to_pictures(&maps.affine(2.0, -1.0)?)?.into_iter();
        let cells = cells.zip(recipe.sample_prompts.iter().cloned());
        let cells: Vec<(Picture, String)> = cells.collect();
        let path = session.sample_path()?;
        sheet::write(&path, &cells, COLUMNS)?;
        session.sample_written(path);
        Ok(())
    }

    /// Some captions, and the words of all, questions included.
    fn known_prompts(&self) -> KnownPrompts {
        let entries = || {
            self.training
                .iter()
                .map(|index| &self.data.entries()[*index])
        };
        let names: BTreeSet<&str> = entries().map(|entry| entry.name.as_str()).collect();
        let every = names.len().div_ceil(LISTED).max(1);
        let listed = names.iter().step_by(every).map(|name| (*name).to_owned());
        let mut rng = Rng::new(self.recipe.training.seed);
        let mut seen: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for entry in entries() {
            seen.extend(entry.tags.iter().cloned());
            seen.extend(
                lessons::questions(entry, &mut rng)
                    .into_iter()
                    .map(|q| q.question),
            );
        }
        KnownPrompts::new(listed.collect(), seen)
    }

    fn export(
        &self,
        mut session: Session,
        vocabulary: &Vocabulary,
        speaker: &Speaker,
        out: &Path,
    ) -> Result<JointReport> {
        let control = self.control;
        control.stage("measuring the held-out pictures", Work::Run, 0);
        let networks = Networks::frozen(&self.configs, session.ema.arrays(), true)?;
        let scores = self.scores(&networks, speaker, self.held_out.len(), control)?;
        control.stage("writing the model", Work::Run, 0);
        self.write_sheet(&mut session, true)?;
        let pieces = export::Pieces {
            configs: &self.configs,
            vocabulary,
            files: self.files,
            known_prompts: self.known_prompts(),
        };
        let model = out.join(MODEL);
        let [language, projector, depth] = export::write(&pieces, &session, out, &model)?;
        exam::write(self.data, &self.held_out, &model)?;
        let report = JointReport {
            steps: session.step,
            seconds: session.seconds(),
            language_parameters: language,
            projector_parameters: projector,
            depth_parameters: depth,
            pictures: self.training.len(),
            vocabulary: vocabulary.size(),
            loss: mean_of_last_tenth(&out.join(LOG))?,
            held_out_questions: scores.questions,
            held_out_right: scores.right,
            held_out_code_loss: scores.codes,
        };
        write_json(&out.join(REPORT), &report)?;
        Ok(report)
    }
}
