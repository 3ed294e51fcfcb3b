//! The pipeline as a model that writes.

use std::sync::Arc;

use brisk_store::ModelFolder;
use brisk_text::{ChatMessage, Tokenizer};
use serde_json::{Map, Value, json};

use super::decoding::{Decoding, DecodingPlan};
use super::load::LoadOptions;
use super::open_session::OpenSession;
use super::options::SUPPORT;
use super::pipeline::TextPipeline;
use super::session::Generation;
use crate::error::{Error, Result};
use crate::events::{Control, Event};
use crate::known_prompts::KnownPrompts;
use crate::memory;
use crate::options::{Scope, Support};
use crate::request::{
    Decisions, FinishReason, GeneratedText, OpenSettings, StageCost, TextModel, TextPlan,
    TextPrompt, TextRequest, TextSession,
};

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn TextModel>> {
    let options = LoadOptions::read(settings)?;
    Ok(Box::new(TextPipeline::load(folder, &options)?))
}

/// What was decided of a request.
pub(super) struct Decided {
    pub(super) decoding: Decoding,
    pub(super) plan: Arc<DecodingPlan>,
}

impl TextModel for TextPipeline {
    fn label(&self) -> &str {
        &self.label
    }

    fn support(&self) -> &'static Support {
        &SUPPORT
    }

    fn context(&self) -> usize {
        self.model.config().context
    }

    fn vocabulary_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    fn known_prompts(&self) -> Option<&KnownPrompts> {
        self.known_prompts.as_ref()
    }

    fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    fn plan(&self, request: &TextRequest) -> Result<TextPlan> {
        SUPPORT.check(&self.label, Scope::Request, &request.options)?;
        if request.prompts.is_empty() {
            return Err(Error::request("prompt", "no prompt was given"));
        }
        let decoding = self.complete(&Decoding::read(&request.options)?);
        let plan = decoding.plan(self.model.config())?;
        let mut warnings = Vec::new();
        let prompts = request
            .prompts
            .iter()
            .map(|prompt| self.encode_prompt(prompt, decoding.gen_length, &mut warnings))
            .collect::<Result<Vec<_>>>()?;
        for prompt in &prompts {
            decoding.check_prompt(prompt, &plan, self.model.config())?;
        }
        let texts = request.prompts.iter().filter_map(TextPrompt::last_text);
        let unknown = self
            .known_prompts
            .as_ref()
            .and_then(|known| known.warning(texts));
        warnings.extend(unknown);
        warnings.extend(self.notes.iter().cloned());
        let shown = |prompt: &Vec<u32>| if decoding.infill { 0 } else { prompt.len() };
        let memory = self.memory(&prompts, &decoding);
        let suggestion = "use a smaller `gen-length`, fewer prompts at once, or free memory";
        memory::check(memory.stage, memory.needed, memory::available(), suggestion)?;
        Ok(TextPlan {
            model: self.label.clone(),
            request: request.clone(),
            shown_from: prompts.iter().map(shown).collect(),
            prompts,
            seed: decoding.seed,
            length: decoding.gen_length,
            end_tokens: plan.ends.clone(),
            settings: settings(&decoding, &plan),
            memory,
            warnings,
            decisions: Arc::new(Decisions::new(Decided {
                decoding,
                plan: Arc::new(plan),
            })),
        })
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    fn cost(&self, plan: &TextPlan) -> Result<StageCost> {
        self.plan_cost(plan)
    }

    fn generate(&self, plan: &TextPlan, control: &Control) -> Result<Vec<GeneratedText>> {
        let decided = self.decided(plan)?;
        let mask = decided.plan.mask;
        let mut show = |sequence: usize, tokens: &[u32]| {
            if control.wants_canvas() {
                control.send(Event::Canvas {
                    sequence,
                    tokens: tokens.to_vec(),
                    mask,
                    start: plan.shown_from[sequence],
                });
            }
        };
        let began = std::time::Instant::now();
        let found = control.drive(|| {
            self.decode(
                &plan.prompts,
                &decided.decoding,
                &decided.plan,
                control,
                &mut show,
            )
        })?;
        control.send(Event::Done {
            results: found.len(),
            seconds: began.elapsed().as_secs_f64(),
        });
        found
            .into_iter()
            .zip(&plan.shown_from)
            .map(|(row, &from)| self.text_of(row, from))
            .collect()
    }

    fn session(&self) -> Option<Box<dyn TextSession + '_>> {
        Some(Box::new(OpenSession::new(self)))
    }
}

impl TextPipeline {
    /// What was decided of a plan of this model, which has its weights.
    pub(super) fn decided<'p>(&self, plan: &'p TextPlan) -> Result<&'p Decided> {
        let decided = self.decided_of(plan)?;
        if self.plan_only {
            return Err(Error::folder(
                &self.label,
                "it was opened to plan only, without weights",
            ));
        }
        Ok(decided)
    }

    /// What was decided of a plan of this model.
    pub(super) fn decided_of<'p>(&self, plan: &'p TextPlan) -> Result<&'p Decided> {
        if plan.model != self.label {
            return Err(Error::ForeignPlan {
                model: self.label.clone(),
            });
        }
        plan.decisions.of(&self.label)
    }

    fn encode_prompt(
        &self,
        prompt: &TextPrompt,
        length: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<u32>> {
        match prompt {
            TextPrompt::Tokens(ids) => Ok(ids.clone()),
            TextPrompt::Continue(text) => self.encode(text, true),
            TextPrompt::Question(text) => {
                if self.template.is_none() {
                    let warning = "the model's files hold no chat template: the text is continued as it \
                                   stands, as `raw` does";
                    if !warnings.iter().any(|known| known == warning) {
                        warnings.push(warning.to_owned());
                    }
                }
                self.encode(text, false)
            }
            TextPrompt::Conversation(turns) => self.encode_fitting(turns, length, warnings),
            TextPrompt::WholeConversation(turns) => self.encode_chat(turns),
        }
    }

    /// A conversation in tokens. Its first turns are forgotten where it would leave no room for the
    /// answer; a single question that is too long is the request's error.
    fn encode_fitting(
        &self,
        turns: &[ChatMessage],
        length: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<u32>> {
        let context = self.model.config().context;
        let mut forgotten = 0;
        loop {
            let rest = &turns[forgotten..];
            let prompt = self.encode_chat(rest)?;
            if prompt.len().saturating_add(length) <= context || rest.len() < 3 {
                if forgotten > 0 {
                    warnings.push(format!(
                        "the conversation is longer than the model's {context} positions less {length} for the \
                         answer; its first {forgotten} turns are forgotten"
                    ));
                }
                return Ok(prompt);
            }
            forgotten += 2;
        }
    }

    pub(super) fn text_of(&self, row: Generation, from: usize) -> Result<GeneratedText> {
        let end = row.prompt + row.answer;
        let shown = &row.ids[from..end];
        let text = match &self.tokenizer {
            Some(tokenizer) => tokenizer.decode_known(shown)?,
            None => {
                let listed: Vec<String> = shown.iter().map(u32::to_string).collect();
                listed.join(" ")
            }
        };
        let finish_reason = if end < row.ids.len() {
            FinishReason::Stop
        } else {
            FinishReason::Length
        };
        Ok(GeneratedText {
            text,
            prompt_tokens: row.prompt,
            answer_tokens: row.answer,
            forward_passes: row.forwards,
            finish_reason,
            tokens: row.ids,
        })
    }
}

/// Effective values, for descriptions.
fn settings(decoding: &Decoding, plan: &DecodingPlan) -> Map<String, Value> {
    let document = json!({
        "cache": decoding.cache.name(),
        "gen_length": decoding.gen_length,
        "block_length": plan.block_length,
        "steps": plan.steps,
        "algorithm": plan.algorithm.name(),
        "rule": format!("{:?}", plan.selection),
        "temperature": decoding.temperature,
        "seed": decoding.seed,
        "mask_token": plan.mask,
    });
    match document {
        Value::Object(entries) => entries,
        _ => Map::new(),
    }
}
