//! The networks that learn.

use brisk_models::hart::tokenizer::TokenizerConfig;
use brisk_models::hart::{self, transformer};
use brisk_models::qwen2::{Qwen2Config, Qwen2Encoder};
use brisk_nn::{Tensor, Trace, Weights};
use brisk_pipelines::families::hart::prompt::{EncodedPrompt, PromptTokenizer};
use brisk_pipelines::folder::{ComponentFolder, Wanted};
use brisk_store::ModelFolder;
use brisk_text::Tokenizer;
use serde_json::{Value, json};
use transformer::{Codewords, Transformer, TransformerConfig};

use super::CodesRecipe;
use crate::error::{Error, JsonContext, Result};
use crate::families::autoencoder::config_with;
use crate::families::image::Start;
use crate::families::image::start::below;
use crate::families::image::{TEXT_ENCODER, TRANSFORMER};
use crate::families::part_weights::PartWeights;
use crate::tensors::{self, NamedArray};

/// The token that short prompts are filled up with.
pub(super) const PADDING: &str = "<pad>";

/// The configurations, as they are read and as they are written.
pub(super) struct Configs {
    pub text: Value,
    pub transformer: Value,
    pub text_model: Qwen2Config,
    pub transformer_model: TransformerConfig,
    codewords: Codewords,
}

impl Configs {
    /// Of a recipe whose text encoder has a table of `vocabulary` tokens.
    pub fn new(
        recipe: &CodesRecipe,
        tokenizer: &TokenizerConfig,
        vocabulary: usize,
    ) -> Result<Self> {
        let changes = [("vocab_size", vocabulary.into())];
        let text = config_with(&recipe.text_encoder, None, &changes)?;
        let bytes = serde_json::to_vec(&text).in_document("recipe")?;
        let text_model = Qwen2Config::from_json(&bytes, "recipe, text_encoder")?;
        let transformer_model = recipe.transformer()?;
        let (wants, has) = (transformer_model.context_dim, text_model.0.hidden_size);
        if wants != has {
            return Err(Error::Recipe(format!(
                "transformer.context_dim is {wants}, text_encoder.hidden_size {has}; they must agree"
            )));
        }
        Ok(Self {
            text,
            transformer: config_with(&recipe.transformer, None, &[])?,
            text_model,
            transformer_model,
            codewords: Codewords {
                count: tokenizer.vocab_size,
                width: tokenizer.z_channels,
            },
        })
    }
}

impl Configs {
    /// Parameters of both networks.
    pub fn parameters(&self) -> u64 {
        self.text_model.parameters_without_head()
            + self.transformer_model.parameter_count(self.codewords)
    }
}

/// Transformer and text encoder.
pub(super) struct Networks {
    text: Qwen2Encoder,
    pub transformer: Transformer,
}

impl Networks {
    pub fn trainable(configs: &Configs, weights: &PartWeights<2>) -> Result<Self> {
        let [text, transformer] = weights.parts();
        let (text, transformer) = (text.pp(TEXT_ENCODER), transformer.pp(TRANSFORMER));
        Self::load(configs, &text, &transformer)
    }

    /// From the moving average, as it will be written when `rounded`.
    pub fn frozen(configs: &Configs, arrays: &[NamedArray], rounded: bool) -> Result<Self> {
        let part = |prefix: &str| {
            tensors::memory_source(arrays, &format!("{prefix}."), rounded).map(Weights::from_source)
        };
        Self::load(configs, &part(TEXT_ENCODER)?, &part(TRANSFORMER)?)
    }

    fn load(configs: &Configs, text: &Weights, transformer: &Weights) -> Result<Self> {
        let config = &configs.transformer_model;
        Ok(Self {
            text: Qwen2Encoder::load(&configs.text_model.0, text)?,
            transformer: Transformer::load(config, configs.codewords, transformer)?,
        })
    }

    /// Rows of text `[B,L,D]` of prompts of one length.
    pub fn encode(&self, prompts: &[EncodedPrompt]) -> Result<Tensor> {
        let texts: Vec<(&[u32], &[bool])> = prompts
            .iter()
            .map(|prompt| (&prompt.ids[..], &prompt.real[..]))
            .collect();
        let rows = self.text.encode(&texts, &mut Trace::none())?;
        let length = prompts.first().map_or(0, |prompt| prompt.ids.len());
        Ok(rows.reshape((prompts.len(), length, rows.dim(1)?))?)
    }
}

/// The tokenizer of texts with which a model is trained.
pub(super) fn prompt_tokenizer(file: &[u8]) -> Result<(PromptTokenizer, usize)> {
    let tokenizer = Tokenizer::from_bytes(file, "the model's tokenizer.json")?;
    let Some(padding) = tokenizer.token_id(PADDING) else {
        return Err(Error::Data(format!(
            "the model's tokenizer.json has no {PADDING}, which short prompts are filled up with"
        )));
    };
    let vocabulary = tokenizer.vocabulary_size();
    Ok((PromptTokenizer::new(tokenizer, padding, false), vocabulary))
}

/// A tokenizer that takes no notice of upper and lower case.
///
/// # Errors
/// A file that is no JSON.
pub(super) fn without_case(file: &[u8]) -> Result<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(file).in_document("tokenizer.json")?;
    let normalizer = document["normalizer"].take();
    document["normalizer"] =
        json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, normalizer]});
    serde_json::to_vec_pretty(&document).in_document("tokenizer.json")
}

/// What a run on codes takes from a finished model: its networks and its tokenizer of texts.
///
/// # Errors
/// Parts that are missing, damaged or of another network.
pub fn open_codes_start(folder: &ModelFolder, variant: Option<&str>) -> Result<Start> {
    let wanted = Wanted {
        variant: variant.map(str::to_owned),
        ..Wanted::default()
    };
    let place = |part| ComponentFolder::new(folder, part);
    let text = place(TEXT_ENCODER).open(
        |bytes, label| Qwen2Config::from_json(bytes, label).map(Box::new),
        &wanted,
    )?;
    let transformer = ComponentFolder::find(folder, hart::COMPONENT.folders)?
        .open_as(&hart::COMPONENT, &wanted)?;
    Ok(Start {
        text: below(TEXT_ENCODER, &text)?,
        transformer: below(TRANSFORMER, &transformer)?,
        tokenizer: place(TEXT_ENCODER).read("tokenizer.json")?,
    })
}
