//! Texts, about pictures or alone, token by token.

use std::sync::{Arc, Mutex, PoisonError};

use brisk_media::Picture;
use brisk_models::Cost;
use brisk_models::language_model::LanguageModel;
use brisk_models::vila_u::projector::Projector;
use brisk_models::vila_u::tower::{Parts, Tower};
use brisk_nn::{Tensor, Trace};
use brisk_store::ModelFolder;
use brisk_text::{ChatMessage, Tokenizer};
use serde_json::{Map, Value, json};

use super::files::{Drawing, Files};
use super::options::{PICTURE, VIDEO, WRITES};
use super::picture::prepared;
use super::prompt::{self, Piece, Shown};
use super::writing::{Decided, Written, next_scores, write};
use crate::error::{Error, Result};
use crate::events::{Control, Event, Work};
use crate::known_prompts::KnownPrompts;
use crate::memory;
use crate::options::{Options, Scope, Support, keys, text_keys};
use crate::request::{
    Decisions, FinishReason, GeneratedText, OpenSettings, StageCost, StageMemory, TextModel,
    TextPlan, TextPrompt, TextRequest, entries,
};

/// The one stage.
const STAGE: &str = "text";
/// Tokens of an answer where a request names none.
const LENGTH: usize = 128;

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn TextModel>> {
    WRITES.check(&folder.label(), Scope::Open, &settings.options)?;
    let files = Files::open(folder, settings)?;
    let language = match settings.plan_only {
        true => None,
        false => Some(files.load_language()?),
    };
    Ok(Box::new(Writer {
        files,
        language,
        eyes: Mutex::new(None),
    }))
}

struct Writer {
    files: Files,
    /// Absent where requests are only planned.
    language: Option<LanguageModel>,
    /// What pictures are read with, from when they first are.
    eyes: Mutex<Option<Arc<(Tower, Projector)>>>,
}

impl TextModel for Writer {
    fn label(&self) -> &str {
        &self.files.label
    }

    fn support(&self) -> &'static Support {
        &WRITES
    }

    fn context(&self) -> usize {
        self.files.language_config.context
    }

    fn vocabulary_size(&self) -> usize {
        self.files.language_config.vocab_size
    }

    fn has_chat_template(&self) -> bool {
        true
    }

    fn known_prompts(&self) -> Option<&KnownPrompts> {
        self.files.known_prompts.as_ref()
    }

    fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.files.tokenizer.as_ref()
    }

    fn plan(&self, request: &TextRequest) -> Result<TextPlan> {
        let asked = &request.options;
        WRITES.check(&self.files.label, Scope::Request, asked)?;
        if request.prompts.is_empty() {
            return Err(Error::request("prompt", "no prompt was given"));
        }
        let own = self.files.drawing;
        let drawing = Drawing {
            temperature: asked
                .get(&text_keys::TEMPERATURE)
                .unwrap_or(own.temperature),
            top_p: asked.get(&text_keys::TOP_P).unwrap_or(own.top_p),
            top_k: asked.get(&text_keys::TOP_K).unwrap_or(own.top_k),
        };
        if drawing.temperature == 0.0 {
            let dead = [text_keys::TOP_P.definition(), text_keys::TOP_K.definition()];
            if let Some(option) = dead.into_iter().find(|option| asked.has(option)) {
                return Err(Error::request(
                    option.name,
                    "has no effect at `temperature` 0, which takes the likeliest token; give a temperature",
                ));
            }
        }
        let (pictures, option) = self.pictures(asked)?;
        let shown = Shown {
            count: pictures.len(),
            option,
        };
        let length = asked.get(&text_keys::GEN_LENGTH).unwrap_or(LENGTH);
        let mut ends = self.files.ends.clone();
        ends.extend(asked.get(&text_keys::STOP_TOKEN).unwrap_or_default());
        let mut warnings = Vec::new();
        let prompts = request
            .prompts
            .iter()
            .map(|prompt| self.pieces(prompt, shown, length, &mut warnings))
            .collect::<Result<Vec<_>>>()?;
        for prompt in &prompts {
            self.check_prompt(prompt, length)?;
        }
        if !pictures.is_empty() {
            self.files.read_side()?;
        }
        let texts = request.prompts.iter().filter_map(TextPrompt::last_text);
        let known = self.files.known_prompts.as_ref();
        warnings.extend(known.and_then(|known| known.warning(texts)));
        warnings.extend(self.files.unread_warning());
        let tokens: Vec<Vec<u32>> = prompts.iter().map(|prompt| tokens(prompt)).collect();
        let seed = asked.get(&keys::SEED).unwrap_or(0);
        let positions = prompts.iter().map(|prompt| self.rows(prompt) + length);
        let memory = StageMemory {
            stage: STAGE,
            needed: self.files.cache_bytes(positions.sum()),
        };
        let suggestion = "use a smaller `gen-length`, fewer prompts at once, or free memory";
        memory::check(STAGE, memory.needed, memory::available(), suggestion)?;
        Ok(TextPlan {
            model: self.files.label.clone(),
            request: request.clone(),
            shown_from: tokens.iter().map(Vec::len).collect(),
            prompts: tokens,
            seed,
            length,
            end_tokens: ends.clone(),
            settings: effective(&drawing, pictures.len(), length, seed),
            memory,
            warnings,
            decisions: Arc::new(Decisions::new(Decided {
                prompts,
                pictures,
                drawing,
                ends,
                length,
                seed,
            })),
        })
    }

    fn weight_bytes(&self) -> u64 {
        let [language, tower] = self.files.weight_bytes();
        let eyes = self.eyes.lock().unwrap_or_else(PoisonError::into_inner);
        match eyes.is_some() {
            true => language.saturating_add(tower),
            false => language,
        }
    }

    fn cost(&self, plan: &TextPlan) -> Result<StageCost> {
        let label = &self.files.label;
        if plan.model != *label {
            return Err(Error::ForeignPlan {
                model: label.clone(),
            });
        }
        let decided: &Decided = plan.decisions.of(label)?;
        let config = &self.files.language_config;
        let mut cost = Cost::new(STAGE);
        for prompt in &decided.prompts {
            let (rows, length) = (self.rows(prompt), decided.length);
            cost.add(&Cost::sum(STAGE, &config.pass_cost(rows, rows, 1)));
            let step = Cost::sum(STAGE, &config.pass_cost(1, rows + length / 2, 1));
            cost.add(&step.repeated(length.saturating_sub(1) as u64));
        }
        Ok(StageCost {
            cost,
            weight_bytes: self.files.language_weight_bytes(),
        })
    }

    fn scores_next(&self) -> bool {
        true
    }

    fn next_scores(
        &self,
        plan: &TextPlan,
        behind: &[u32],
        control: &Control,
    ) -> Result<Vec<Vec<f32>>> {
        let (language, decided) = self.ready(plan)?;
        control.drive(|| {
            let seen = self.see(&decided.pictures, control)?;
            control.stage(STAGE, Work::Run, 0);
            let prompts = decided.prompts.iter();
            prompts
                .map(|prompt| next_scores(language, prompt, &seen, behind))
                .collect()
        })
    }

    fn generate(&self, plan: &TextPlan, control: &Control) -> Result<Vec<GeneratedText>> {
        let (language, decided) = self.ready(plan)?;
        let began = std::time::Instant::now();
        let texts = control.drive(|| {
            let seen = self.see(&decided.pictures, control)?;
            write(language, decided, &seen, plan, control)
        })?;
        control.send(Event::Done {
            results: texts.len(),
            seconds: began.elapsed().as_secs_f64(),
        });
        texts
            .into_iter()
            .zip(&plan.request.prompts)
            .zip(&plan.prompts)
            .map(|((written, prompt), tokens)| self.text_of(written, prompt, tokens))
            .collect()
    }
}

impl Writer {
    /// The loaded model, with what was decided in a plan of it.
    fn ready<'a>(&'a self, plan: &'a TextPlan) -> Result<(&'a LanguageModel, &'a Decided)> {
        let label = &self.files.label;
        if plan.model != *label {
            return Err(Error::ForeignPlan {
                model: label.clone(),
            });
        }
        let Some(language) = &self.language else {
            return Err(Error::folder(
                label,
                "it was opened to plan only, without weights",
            ));
        };
        Ok((language, plan.decisions.of(label)?))
    }

    /// The pictures that a request is about, those that are given or frames of a clip, and the option that gave them.
    fn pictures(&self, asked: &Options) -> Result<(Vec<Arc<Picture>>, &'static str)> {
        let pictures = asked.get(&PICTURE).unwrap_or_default();
        let Some(clip) = asked.get(&VIDEO) else {
            return Ok((pictures, PICTURE.name()));
        };
        if !pictures.is_empty() {
            return Err(Error::request(
                VIDEO.name(),
                format!(
                    "has no place beside `{}`; leave one of them out",
                    PICTURE.name()
                ),
            ));
        }
        let frames = clip.evenly(self.files.clip_frames).into_iter();
        let frames = frames.map(|at| Arc::new(clip.frames()[at].clone()));
        Ok((frames.collect(), VIDEO.name()))
    }

    /// A prompt's tokens and places of pictures.
    fn pieces(
        &self,
        prompt: &TextPrompt,
        shown: Shown,
        length: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Piece>> {
        let text = match prompt {
            TextPrompt::Tokens(ids) => {
                if shown.count > 0 {
                    return Err(Error::request(
                        shown.option,
                        "a prompt of token ids has no places for pictures; give a text",
                    ));
                }
                return Ok(vec![Piece::Tokens(ids.clone())]);
            }
            TextPrompt::Continue(text) => {
                prompt::check_places(text, shown)?;
                text.clone()
            }
            TextPrompt::Question(text) => prompt::question(&prompt::with_places(text, shown)?),
            TextPrompt::Conversation(turns) => {
                return self.fitting(turns, shown, length, warnings);
            }
            TextPrompt::WholeConversation(turns) => return self.conversation(turns, shown),
        };
        prompt::pieces(self.reader()?, &text)
    }

    /// A conversation. Its first turns are forgotten where it would leave no room for the answer; the pictures
    /// stand before the first turn that is left.
    fn fitting(
        &self,
        turns: &[ChatMessage],
        shown: Shown,
        length: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Piece>> {
        let context = self.context();
        let mut forgotten = 0;
        loop {
            let rest = &turns[forgotten..];
            let pieces = self.conversation(rest, shown)?;
            let rows = self.rows(&pieces);
            if rows.saturating_add(length) <= context || rest.len() < 3 {
                if forgotten > 0 {
                    warnings.push(format!(
                        "the conversation is longer than the model's {context} positions less {length} for the \
                         answer; its first {forgotten} turns are forgotten"
                    ));
                }
                return Ok(pieces);
            }
            forgotten += 2;
        }
    }

    /// A conversation whose pictures stand before its first turn where it has no places for them.
    fn conversation(&self, turns: &[ChatMessage], shown: Shown) -> Result<Vec<Piece>> {
        let mut turns = turns.to_vec();
        let places: usize = turns
            .iter()
            .map(|turn| turn.content.matches(prompt::PLACE).count())
            .sum();
        match (turns.first_mut(), places) {
            (Some(first), 0) => first.content = prompt::with_places(&first.content, shown)?,
            _ => prompt::check_places(&prompt::PLACE.repeat(places), shown)?,
        }
        prompt::pieces(self.reader()?, &prompt::conversation(&turns)?)
    }

    fn reader(&self) -> Result<&Tokenizer> {
        self.files.tokenizer.as_deref().ok_or_else(|| {
            Error::folder(
                &self.files.label,
                "the model was opened without its tokenizer; text needs one",
            )
        })
    }

    /// Positions that a prompt takes.
    fn rows(&self, prompt: &[Piece]) -> usize {
        let rows = prompt.iter().map(|piece| match piece {
            Piece::Tokens(ids) => ids.len(),
            Piece::Picture(_) => self.files.tower_config.places(),
        });
        rows.sum()
    }

    fn check_prompt(&self, prompt: &[Piece], length: usize) -> Result<()> {
        let (rows, context) = (self.rows(prompt), self.context());
        if rows == 0 {
            return Err(Error::request("prompt", "it has no tokens"));
        }
        if rows.saturating_add(length) > context {
            return Err(Error::request(
                text_keys::GEN_LENGTH.name(),
                format!(
                    "{length} tokens behind a prompt of {rows} are more than the model's {context} positions; ask for \
                     at most {}",
                    context.saturating_sub(rows)
                ),
            ));
        }
        let rows = self.vocabulary_size();
        let ids = tokens(prompt);
        if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
            return Err(Error::request(
                "prompt",
                format!("token {id} is outside the vocabulary of {rows} tokens"),
            ));
        }
        Ok(())
    }

    /// Embeddings `[places,H]` of pictures.
    fn see(&self, pictures: &[Arc<Picture>], control: &Control) -> Result<Vec<Tensor>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let eyes = self.eyes(control)?;
        let (tower, projector) = &*eyes;
        let side = self.files.read_side()?;
        control.stage("vision tower", Work::Run, 0);
        let mut seen = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let picture = prepared(picture, side, self.files.aspect)?;
            let trace = &mut Trace::none();
            let encoded = tower.encode(&picture, trace)?;
            seen.push(projector.forward(&encoded.sum, trace)?);
        }
        Ok(seen)
    }

    fn eyes(&self, control: &Control) -> Result<Arc<(Tower, Projector)>> {
        let mut kept = self.eyes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(eyes) = &*kept {
            return Ok(eyes.clone());
        }
        control.stage("vision tower", Work::Load, 0);
        let parts = Parts {
            encoder: true,
            ..Parts::default()
        };
        let eyes = Arc::new((self.files.load_tower(parts)?, self.files.load_projector()?));
        *kept = Some(eyes.clone());
        Ok(eyes)
    }

    fn text_of(
        &self,
        written: Written,
        prompt: &TextPrompt,
        tokens: &[u32],
    ) -> Result<GeneratedText> {
        let end = written.answer.len() - usize::from(written.ended);
        let shown = &written.answer[..end];
        let text = match &self.files.tokenizer {
            Some(tokenizer) => tokenizer.decode_known(shown)?,
            None => {
                let listed: Vec<String> = shown.iter().map(u32::to_string).collect();
                listed.join(" ")
            }
        };
        let text = match prompt {
            TextPrompt::Continue(_) => text,
            _ => text.trim().to_owned(),
        };
        Ok(GeneratedText {
            text,
            prompt_tokens: tokens.len(),
            answer_tokens: end,
            forward_passes: written.passes,
            finish_reason: match written.ended {
                true => FinishReason::Stop,
                false => FinishReason::Length,
            },
            tokens: [tokens, &written.answer].concat(),
        })
    }
}

/// The tokens of a prompt; places of pictures have none.
fn tokens(prompt: &[Piece]) -> Vec<u32> {
    let ids = prompt.iter().flat_map(|piece| match piece {
        Piece::Tokens(ids) => &ids[..],
        Piece::Picture(_) => &[],
    });
    ids.copied().collect()
}

/// Effective values, for descriptions.
fn effective(drawing: &Drawing, pictures: usize, length: usize, seed: u64) -> Map<String, Value> {
    let drawn = drawing.temperature > 0.0;
    entries(json!({
        "gen_length": length, "temperature": drawing.temperature, "seed": seed,
        "top_p": (drawn && drawing.top_p < 1.0).then_some(drawing.top_p),
        "top_k": (drawn && drawing.top_k > 0).then_some(drawing.top_k),
        "pictures": (pictures > 0).then_some(pictures),
    }))
}
