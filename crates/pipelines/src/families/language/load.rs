//! A model folder to a pipeline.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_models::language_model::{Attention, LanguageModelConfig};
use brisk_nn::{Location, Quantization};
use brisk_store::{ModelFolder, shown};
use brisk_text::{ChatTemplate, ChatTemplates, Tokenizer};
use serde_json::Value;

use super::pipeline::TextPipeline;
use super::weights;
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Wanted, unread_warning};
use crate::known_prompts::KnownPrompts;
use crate::request::RandomWeights;
use crate::tokenizer::{self, spelling};

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Variant of the weight files, such as `bf16`.
    pub variant: Option<String>,
    /// Name of the chat template, where the model's files hold several; by default the one named
    /// `default`.
    pub chat_template: Option<String>,
    /// Leave the tokenizer: ids come in and go out.
    pub without_tokenizer: bool,
    /// Block-causal attention with blocks of this length, for models whose configuration doesn't
    /// say that they were trained so (BD3-LM) or with which blocks (SDAR).
    pub block_causal: Option<usize>,
    /// How linear layers and the head keep their weights.
    pub quantization: Quantization,
    /// Where weights and caches are put, and so where the model computes.
    pub location: Location,
    /// A file for quantized weights: made by the first load, used by later ones, refused where it was
    /// made of other weights.
    pub quantized_weights: Option<PathBuf>,
    /// Read no weights: requests can be planned, not run.
    pub plan_only: bool,
    /// Random weights in place of the folder's, which needs none then.
    pub random: Option<RandomWeights>,
}

/// Names of the files of a model folder.
#[derive(Debug, Clone, Copy)]
pub struct LanguageFiles;

impl LanguageFiles {
    /// The configuration.
    pub const CONFIG: &'static str = "config.json";
    /// End tokens.
    pub const GENERATION: &'static str = "generation_config.json";
    /// The tokenizer.
    pub const TOKENIZER: &'static str = "tokenizer.json";
    /// Special tokens and the chat template.
    pub const TOKENIZER_CONFIG: &'static str = "tokenizer_config.json";
    /// The chat template where it has a file of its own.
    pub const TEMPLATE: &'static str = "chat_template.jinja";
    /// Where further chat templates are, each in a file of its name.
    pub const MORE_TEMPLATES: &'static str = "additional_chat_templates/";
}

/// Special tokens that a chat template may name.
const SPECIAL_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// Spellings of the mask, where no file says which token it is.
const MASKS: [&str; 4] = ["<|mdm_mask|>", "<|mask|>", "<|MASK|>", "|<MASK>|"];
/// Tokens that end a turn, besides the configured end tokens.
const TURN_ENDS: [&str; 3] = ["<|eot_id|>", "<|im_end|>", "<|role_end|>"];

impl TextPipeline {
    /// Loads a model from a folder with `config.json` and weights, and its tokenizer.
    ///
    /// # Errors
    /// Files that are missing, damaged or do not fit each other.
    pub fn load(folder: &ModelFolder, options: &LoadOptions) -> Result<Self> {
        let wanted = Wanted {
            variant: options.variant.clone(),
            random: options.random,
            ..Wanted::default()
        }
        .without_low_bit();
        let mut network = ComponentFolder::new(folder, "").open(
            |bytes, label| LanguageModelConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let config = &mut network.config;
        // The sampler of converted models ends the prompt with a block; the others don't.
        let aligned = options.block_causal.is_some() && config.attention == Attention::Full;
        if let Some(block) = options.block_causal {
            if block == 0 {
                return Err(Error::request("block-causal", "0: expected at least 1"));
            }
            config.attention = Attention::BlockCausal(block);
        }
        let mut stop_tokens = Vec::new();
        let component = ComponentFolder::new(folder, "");
        if folder.exists(LanguageFiles::GENERATION) {
            let file = tokenizer::read_object(&component, LanguageFiles::GENERATION)?;
            stop_tokens = end_tokens(&file).map_err(|problem| {
                Error::config(place(folder, LanguageFiles::GENERATION), problem)
            })?;
        }
        let unread = component.unread_keys()?;
        let mut notes: Vec<String> = unread_warning(&unread).into_iter().collect();
        let mut mask_token = None;
        let (mut tokenizer, mut template) = (None, None);
        if !options.without_tokenizer {
            let settings = tokenizer::settings(&component)?;
            let otherwise = "--input-ids and --output-ids work without one";
            let read = tokenizer::open(&component, &settings, otherwise)?;
            mask_token = check_tokenizer(folder, &read, &settings, config)?;
            notes.extend(unknown_mask(folder, &read, &settings));
            let turns = TURN_ENDS.iter().filter_map(|token| read.token_id(token));
            stop_tokens.extend(turns);
            template = read_template(folder, &settings, options.chat_template.as_deref())?;
            tokenizer = Some(Arc::new(read));
        } else if options.chat_template.is_some() {
            return Err(Error::request(
                "chat-template",
                "has no effect without the model's tokenizer",
            ));
        }
        stop_tokens.retain(|id| !config.eos_token_ids.contains(id));
        stop_tokens.dedup();
        let stored = network.bytes_per_value();
        let weight_bytes = weights::bytes(&network.config, options.quantization, stored);
        let model = weights::load(&network, options)?;
        Ok(Self {
            label: folder.label(),
            model,
            tokenizer,
            template,
            stop_tokens,
            mask_token,
            aligned,
            weight_bytes,
            bytes_per_weight: options.quantization.bytes_per_value(stored),
            plan_only: options.plan_only,
            known_prompts: KnownPrompts::read(folder)?,
            notes,
        })
    }
}

fn place(folder: &ModelFolder, file: &str) -> String {
    format!("{}/{file}", folder.label())
}

/// The end tokens of a generation configuration: an id, or a list of them.
fn end_tokens(file: &Value) -> std::result::Result<Vec<u32>, String> {
    let given = match file.get("eos_token_id") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(given) => given,
    };
    let listed = match given {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let ids = listed
        .into_iter()
        .map(|id| u32::try_from(id.as_u64()?).ok());
    ids.collect::<Option<_>>().ok_or_else(|| {
        format!(
            "eos_token_id is {}, expected the id of a token, or a list of ids",
            shown(&given.to_string())
        )
    })
}

/// Says that the mask, as the settings spell it, is none of the tokenizer's tokens.
fn unknown_mask(folder: &ModelFolder, tokenizer: &Tokenizer, settings: &Value) -> Option<String> {
    let mask = spelling(settings, "mask_token")?;
    tokenizer.token_id(&mask).is_none().then(|| {
        format!(
            "{}: mask_token is \"{}\", which the tokenizer does not know; it is passed over",
            place(folder, LanguageFiles::TOKENIZER_CONFIG),
            shown(&mask)
        )
    })
}

/// Checks that tokenizer and model belong together; the mask, as the tokenizer spells it.
fn check_tokenizer(
    folder: &ModelFolder,
    tokenizer: &Tokenizer,
    settings: &Value,
    config: &LanguageModelConfig,
) -> Result<Option<u32>> {
    let fail = |message: String| Err(Error::folder(folder.label(), message));
    if let Some(highest) = tokenizer.highest_id()
        && highest as usize >= config.vocab_size
    {
        return fail(format!(
            "the tokenizer has ids up to {highest}, the model's head {} rows; they do not belong together",
            config.vocab_size
        ));
    }
    let spelt = spelling(settings, "mask_token");
    let named = spelt.as_deref().and_then(|token| tokenizer.token_id(token));
    if let Some(mask) = config.mask_token_id {
        if !tokenizer.knows(mask) {
            return fail(format!(
                "the model's mask is token {mask}, which the tokenizer ({} tokens) doesn't know; \
                 they do not belong together",
                tokenizer.vocabulary_size()
            ));
        }
        if let Some(named) = named
            && named != mask
        {
            return fail(format!(
                "the model's mask is token {mask}, the tokenizer's is {named}; they do not belong together"
            ));
        }
        return Ok(Some(mask));
    }
    Ok(named.or_else(|| MASKS.iter().find_map(|token| tokenizer.token_id(token))))
}

/// The chat template, wherever the files keep it: in files of their own, which come first, or in the
/// tokenizer's settings.
fn read_template(
    folder: &ModelFolder,
    settings: &Value,
    name: Option<&str>,
) -> Result<Option<ChatTemplate>> {
    let place = |file: &str| place(folder, file);
    let text = |file: &str| folder.read_text(file);
    let mut templates = ChatTemplates::new();
    let file = LanguageFiles::TEMPLATE;
    if folder.exists(file) {
        templates.add_file(None, text(file)?, &place(file));
    }
    for file in folder.list() {
        let named = file
            .strip_prefix(LanguageFiles::MORE_TEMPLATES)
            .and_then(|name| name.strip_suffix(".jinja"));
        if let Some(name) = named {
            templates.add_file(Some(name), text(&file)?, &place(&file));
        }
    }
    templates.add_settings(settings, &place(LanguageFiles::TOKENIZER_CONFIG))?;
    let specials = SPECIAL_TOKENS
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), spelling(settings, key)?)))
        .collect();
    Ok(templates.open(name, specials)?)
}
