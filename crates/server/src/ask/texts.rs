//! Requests for texts.

use std::borrow::Cow;
use std::sync::Arc;

use brisk::options::{Kind, Options, Value as OptionValue};
use brisk::{ResultKind, StageCost, TextModel, TextPlan, TextPrompt, TextRequest, keys, registry};
use serde_json::{Map, Value};

use super::{Context, Pictures, messages, seed, seeds};
use crate::answer::Answer;
use crate::error::{ApiError, Result};
use crate::fields::{Endpoint, Given, PictureFile};
use crate::served::Served;

/// Tokens of an answer where a request names none.
const USUAL_TOKENS: usize = 256;
/// Most prompts of a completion.
const MAX_PROMPTS: usize = 16;
/// Most bytes of a completion's prompts.
const MAX_PROMPT: usize = 256 << 10;
/// Most texts that end an answer.
const MAX_STOPS: usize = 4;
/// Sequences of a request that run at the same time, at most.
const AT_ONCE: usize = 16;

/// What is asked for.
#[derive(Debug)]
pub struct TextAsk {
    /// Where.
    pub endpoint: Endpoint,
    /// Of which model.
    pub model: Arc<Served>,
    /// One for each seed, all with the same prompts; none where they speak of pictures, which are planned for when
    /// their turn comes.
    pub plans: Vec<TextPlan>,
    /// What is planned for then, without the pictures.
    requests: Vec<TextRequest>,
    pictures: Pictures,
    /// Most tokens of an answer.
    pub length: usize,
    /// Seed of the first.
    pub seed: u64,
    /// How the shown text is cut from what the model writes, for each prompt.
    pub answers: Vec<Answer>,
    /// Whether the reply is a stream.
    pub stream: bool,
    /// Whether a stream ends with what was used.
    pub include_usage: bool,
    /// Whether a stream shows the text while it fills.
    pub canvas: bool,
    /// What all of it computes.
    pub costs: Vec<StageCost>,
    /// Bytes that it needs beside the model.
    pub memory: u64,
    /// The prompt in words.
    pub shown_prompt: String,
}

/// Prompts that were read.
struct Texts {
    prompts: Vec<TextPrompt>,
    pictures: Vec<PictureFile>,
    suffix: Option<String>,
    shown: String,
}

impl TextAsk {
    pub(super) fn read(
        context: Context<'_>,
        endpoint: Endpoint,
        body: Map<String, Value>,
    ) -> Result<Self> {
        let mut given = endpoint.table().read(body)?;
        let model = context
            .models
            .wanted(given.text("model"), ResultKind::Text)?;
        let texts = match endpoint {
            Endpoint::Chat => conversation(context, &given, &model)?,
            _ => completion(&given)?,
        };
        let stream = given.flag("stream").unwrap_or(false);
        let canvas = given.flag("canvas").unwrap_or(false);
        let include_usage = include_usage(&given, stream)?;
        if canvas && !stream {
            return Err(ApiError::invalid(
                "canvas",
                "has no effect without `stream`",
            ));
        }
        let stops = stops(&given)?;
        let count = given.whole("n").unwrap_or(1);
        let most = context.settings.max_results;
        if count > most {
            return Err(ApiError::invalid(
                "n",
                format!("{count} is more than {most}"),
            ));
        }
        let mut options = std::mem::take(&mut given.options);
        check_temperature(&options, count)?;
        let mut pictures = Pictures::of(std::mem::take(&mut given.pictures));
        add_pictures(&model, &mut pictures, texts.pictures)?;
        let decoded = pictures.decode(context.release_memory)?;
        options.complete(&decoded.options);
        let most = context.settings.max_tokens;
        let room = model
            .writer()
            .map_or(USUAL_TOKENS, |writer| writer.context() / 2);
        let wanted = given.whole("max_tokens");
        let length = wanted.unwrap_or_else(|| USUAL_TOKENS.min(room).max(1));
        if length > most {
            let problem = format!("{length} is more than {most}");
            return Err(ApiError::invalid("max_tokens", problem));
        }
        let first = seed(options.get(&keys::SEED));
        let seeds = seeds(first, count)?;
        options.set(&keys::SEED, first);
        let request = TextRequest {
            prompts: texts.prompts,
            options,
        };
        let (plan, answers) = match &texts.suffix {
            None => {
                let plan = plan(&model, request, length)?;
                let answers = answers(&plan, length, &stops, 0);
                (plan, answers)
            }
            Some(suffix) => between(&model, request, suffix, length, &stops)?,
        };
        let texts_at_once = (plan.prompts.len() * count).clamp(1, AT_ONCE) as u64;
        let memory = plan.memory.needed / plan.prompts.len().max(1) as u64 * texts_at_once;
        let weights = model.weight_bytes(ResultKind::Text);
        if weights.saturating_add(memory) > context.memory {
            return Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "exceeds_memory",
                format!(
                    "the model takes {} MiB and the request {} more, and the server may use {}; ask for fewer \
                     or shorter texts",
                    weights >> 20,
                    memory >> 20,
                    context.memory >> 20
                ),
            ));
        }
        let cost = model
            .text_cost(&plan)
            .map_err(|error| ApiError::of_library(&error))?;
        let mut plans = seeds
            .into_iter()
            .map(|seed| match seed == first {
                true => Ok(plan.clone()),
                false => {
                    let mut request = plan.request.clone();
                    request.options.set(&keys::SEED, seed);
                    let planned = model.plan_texts(&request);
                    planned.map_err(|error| ApiError::of_library(&error))
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let length = plan.length;
        let mut requests = Vec::new();
        if !pictures.is_empty() {
            // Plans have them decoded.
            requests.extend(plans.drain(..).map(|plan| plan.request));
            for request in &mut requests {
                pictures.put_away(&mut request.options);
            }
        }
        Ok(Self {
            endpoint,
            requests,
            pictures,
            length,
            costs: vec![StageCost {
                cost: cost.cost.repeated(count as u64),
                ..cost
            }],
            memory,
            model,
            plans,
            seed: first,
            answers,
            stream,
            include_usage,
            canvas,
            shown_prompt: texts.shown,
        })
    }

    /// Whether a text of it may end before the model ends it.
    pub fn stops(&self) -> bool {
        self.answers.iter().any(|answer| !answer.stops.is_empty())
    }

    /// Whether somebody looks at its texts while they fill.
    pub fn is_watched(&self) -> bool {
        self.stream || self.stops()
    }

    /// The plans, those for pictures made by the model that writes. `release_memory` hands freed memory back to the
    /// system.
    ///
    /// # Errors
    /// A picture that cannot be decoded, or what a plan says.
    pub fn planned(
        &self,
        model: &dyn TextModel,
        release_memory: fn(),
    ) -> Result<Cow<'_, [TextPlan]>> {
        if self.requests.is_empty() {
            return Ok(Cow::Borrowed(&self.plans));
        }
        let decoded = self.pictures.decode(release_memory)?;
        let plans = self.requests.iter().map(|request| {
            let mut request = request.clone();
            request.options.complete(&decoded.options);
            let plan = model.plan(&request);
            plan.map_err(|error| ApiError::of_library(&error))
        });
        plans.collect::<Result<Vec<_>>>().map(Cow::Owned)
    }

    /// Texts of each prompt.
    fn texts_of_a_prompt(&self) -> usize {
        self.plans.len().max(self.requests.len())
    }

    /// Number of texts.
    pub fn count(&self) -> usize {
        self.texts_of_a_prompt() * self.answers.len()
    }

    /// Place in the reply of the text that is made as number `made`: texts of one prompt stand together.
    pub fn place(&self, made: usize) -> usize {
        let (plan, prompt) = (made / self.answers.len(), made % self.answers.len());
        prompt * self.texts_of_a_prompt() + plan
    }

    /// How text number `made` is shown.
    pub fn answer(&self, made: usize) -> &Answer {
        &self.answers[made % self.answers.len()]
    }
}

fn conversation(context: Context<'_>, given: &Given, model: &Served) -> Result<Texts> {
    let field = "messages";
    let read = messages::read(given.own.get(field).unwrap_or(&Value::Null))?;
    let Some(writer) = model.writer() else {
        return Err(ApiError::internal("the model writes nothing"));
    };
    if let (Some(tokenizer), false) = (writer.tokenizer(), context.settings.allow_special_tokens) {
        for turn in &read.turns {
            messages::check_special(field, &turn.content, tokenizer)?;
        }
    }
    let shown = read.turns.last().map(|turn| turn.content.clone());
    let prompt = match (writer.has_chat_template(), read.turns.as_slice()) {
        (true, _) => TextPrompt::WholeConversation(read.turns),
        (false, [turn]) if turn.role == "user" => TextPrompt::Question(turn.content.clone()),
        (false, _) => {
            return Err(ApiError::invalid(
                field,
                "the model has no chat template and so no turns; send one message of the user, or use \
                 /v1/completions",
            ));
        }
    };
    Ok(Texts {
        prompts: vec![prompt],
        pictures: read.pictures,
        suffix: None,
        shown: shown.unwrap_or_default(),
    })
}

fn completion(given: &Given) -> Result<Texts> {
    let texts: Vec<String> = match given.own.get("prompt") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| ApiError::invalid("prompt", "expected a text or a list of texts"))?,
        _ => {
            return Err(ApiError::invalid(
                "prompt",
                "expected a text or a list of texts",
            ));
        }
    };
    if texts.is_empty() || texts.len() > MAX_PROMPTS {
        let problem = format!("{} texts; expected 1 to {MAX_PROMPTS}", texts.len());
        return Err(ApiError::invalid("prompt", problem));
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > MAX_PROMPT {
        let problem = format!("{bytes} bytes; at most {MAX_PROMPT} are taken");
        return Err(ApiError::invalid("prompt", problem));
    }
    if texts.iter().any(String::is_empty) {
        return Err(ApiError::invalid(
            "prompt",
            "is empty; give a text to continue",
        ));
    }
    let suffix = given.text("suffix").map(str::to_owned);
    if suffix.is_some() && texts.len() > 1 {
        let problem = "has its place behind one prompt; several were given";
        return Err(ApiError::invalid("suffix", problem));
    }
    Ok(Texts {
        shown: texts.join("\n"),
        prompts: texts.into_iter().map(TextPrompt::Continue).collect(),
        pictures: Vec::new(),
        suffix,
    })
}

fn include_usage(given: &Given, stream: bool) -> Result<bool> {
    let field = "stream_options";
    let Some(options) = given.own.get(field) else {
        return Ok(false);
    };
    if !stream {
        return Err(ApiError::invalid(field, "has no effect without `stream`"));
    }
    let Some(options) = options.as_object() else {
        return Err(ApiError::invalid(
            field,
            "expected {\"include_usage\": true}",
        ));
    };
    for (name, value) in options {
        match (name.as_str(), value) {
            ("include_usage", Value::Bool(_)) | ("include_obfuscation", Value::Bool(false)) => {}
            _ => {
                let shown = brisk_store::shown_within(name, 32);
                let problem = format!("{shown}: expected include_usage with true or false");
                return Err(ApiError::invalid(field, problem));
            }
        }
    }
    Ok(options.get("include_usage") == Some(&Value::Bool(true)))
}

fn stops(given: &Given) -> Result<Vec<String>> {
    let wrong = || {
        let problem = format!("expected a text or a list of 1 to {MAX_STOPS}, none of them empty");
        ApiError::invalid("stop", problem)
    };
    let stops: Vec<String> = match given.own.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        Some(_) => return Err(wrong()),
    };
    let fits = |stop: &String| (1..=1024).contains(&stop.len());
    match (1..=MAX_STOPS).contains(&stops.len()) && stops.iter().all(fits) {
        true => Ok(stops),
        false => Err(wrong()),
    }
}

/// Temperatures go to 2, and several answers to one prompt are only several with one.
fn check_temperature(options: &Options, count: usize) -> Result<()> {
    let Some(option) = registry::option(ResultKind::Text, "temperature") else {
        return Ok(());
    };
    let given = options
        .to_json()
        .get(&option.field_name())
        .and_then(Value::as_f64);
    let temperature = given.unwrap_or(0.0);
    if temperature > 2.0 {
        let problem = format!("{temperature} is outside 0..=2");
        return Err(ApiError::invalid("temperature", problem));
    }
    if count > 1 && temperature == 0.0 {
        let problem = format!("{count} texts would be the same; give a `temperature` above 0");
        return Err(ApiError::invalid("n", problem));
    }
    Ok(())
}

/// Gives the pictures of a conversation to a model that takes some.
fn add_pictures(model: &Served, pictures: &mut Pictures, files: Vec<PictureFile>) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let support = model.support(ResultKind::Text);
    let takes = support.and_then(|support| {
        let mut honoured = support.honoured();
        honoured.find(|honoured| honoured.option.kind == Kind::Pictures)
    });
    let Some(takes) = takes else {
        return Err(ApiError::bad(
            "unsupported_option",
            "messages",
            format!("messages: {} sees no pictures; send texts only", model.id),
        ));
    };
    pictures.add(takes.option, files);
    Ok(())
}

/// Plans `length` tokens, or as many more as a given block length needs.
fn plan(model: &Served, mut request: TextRequest, length: usize) -> Result<TextPlan> {
    let give = |request: &mut TextRequest, length: usize| {
        registry::option(ResultKind::Text, "gen-length").map_or(Ok(()), |option| {
            request
                .options
                .give(option, OptionValue::Whole(length as u64))
        })
    };
    let failed = |error: brisk::Error| ApiError::of_library(&error);
    give(&mut request, length).map_err(failed)?;
    let block = whole(&request.options, "block_length");
    if let Some(block) = block.filter(|block| *block > 0) {
        give(&mut request, length.next_multiple_of(block)).map_err(failed)?;
    }
    match model.plan_texts(&request) {
        // A nucleus of everything is none.
        Err(error) if error.option() == Some("top-p") && is_one(&request.options, "top_p") => {
            if let Some(option) = registry::option(ResultKind::Text, "top-p") {
                request.options.remove(option);
            }
            model.plan_texts(&request).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

fn whole(options: &Options, field: &str) -> Option<usize> {
    let value = options.to_json().get(field)?.as_u64()?;
    usize::try_from(value).ok()
}

fn is_one(options: &Options, field: &str) -> bool {
    options.to_json().get(field).and_then(Value::as_f64) == Some(1.0)
}

fn answers(plan: &TextPlan, length: usize, stops: &[String], hidden: usize) -> Vec<Answer> {
    let prompts = plan.prompts.iter();
    prompts
        .map(|prompt| Answer {
            hidden,
            most: length,
            ends: plan.end_tokens.clone(),
            stops: stops.to_vec(),
            prompt_tokens: prompt.len(),
        })
        .collect()
}

/// Plans to fill in `length` tokens between a prompt and its suffix.
fn between(
    model: &Served,
    request: TextRequest,
    suffix: &str,
    length: usize,
    stops: &[String],
) -> Result<(TextPlan, Vec<Answer>)> {
    let refused = || {
        let problem = format!("{} fills in no blanks; leave it out", model.id);
        ApiError::bad("unsupported_option", "suffix", format!("suffix: {problem}"))
    };
    let failed = |error: brisk::Error| ApiError::of_library(&error);
    let infill = registry::option(ResultKind::Text, "infill").ok_or_else(refused)?;
    let support = model.support(ResultKind::Text).ok_or_else(refused)?;
    if !support.honours(infill) {
        return Err(refused());
    }
    // As for a text that goes on: the prompt's tokens, and the mask.
    let open = plan(model, request.clone(), length)?;
    let mask = open.settings.get("mask_token").and_then(Value::as_u64);
    let mask = mask
        .and_then(|mask| u32::try_from(mask).ok())
        .ok_or_else(refused)?;
    let tokenizer = model
        .writer()
        .and_then(|writer| writer.tokenizer())
        .ok_or_else(refused)?;
    let behind = tokenizer
        .encode_plain(suffix)
        .map_err(|error| ApiError::invalid("suffix", error))?;
    let before = open.prompts[0].clone();
    let (hidden, own) = (before.len(), before.len() + behind.len());
    let tokens = [before, vec![mask; length], behind].concat();
    let mut request = TextRequest {
        prompts: vec![TextPrompt::Tokens(tokens)],
        options: request.options,
    };
    let give = |request: &mut TextRequest, option, value| request.options.give(option, value);
    give(&mut request, infill, OptionValue::Flag(true)).map_err(failed)?;
    if let Some(option) = registry::option(ResultKind::Text, "gen-length") {
        give(&mut request, option, OptionValue::Whole(0)).map_err(failed)?;
    }
    let plan = model
        .plan_texts(&request)
        .map_err(|error| match error.option() {
            Some("infill") => ApiError {
                param: Some("suffix".to_owned()),
                ..ApiError::of_library(&error)
            },
            _ => ApiError::of_library(&error),
        })?;
    let mut answers = answers(&plan, length, stops, hidden);
    for answer in &mut answers {
        answer.prompt_tokens = own;
    }
    Ok((plan, answers))
}
