//! `config.json` of LLaVA, or of a Llama body alone.

use brisk_nn::EncoderActivation;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clip::ClipVisionConfig;
use crate::config::{checked, parse};
use crate::language_model::LanguageModelConfig;
use crate::{Cost, Error, Result};

/// Defaults of the Llama class, which files leave out.
fn llama_defaults() -> Map<String, Value> {
    let defaults = json!({
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_act": "silu",
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    });
    match defaults {
        Value::Object(defaults) => defaults,
        _ => Map::new(),
    }
}

/// Settings of a text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct LlavaConfig {
    /// The language model, whose head is not loaded.
    pub text: LanguageModelConfig,
    /// How pictures are read; none: it reads texts alone.
    pub vision: Option<LlavaVision>,
}

/// How pictures become tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct LlavaVision {
    /// The vision encoder.
    pub encoder: ClipVisionConfig,
    /// Layers of it that are run.
    pub layers: usize,
    /// Whether the state of the whole picture is a token too.
    pub keeps_class: bool,
    /// Activation between the projector's two layers.
    pub activation: EncoderActivation,
    /// The token that a picture's rows stand for.
    pub image_token: u32,
}

#[derive(Deserialize)]
struct File {
    text_config: Map<String, Value>,
    vision_config: ClipVisionConfig,
    #[serde(alias = "image_token_id")]
    image_token_index: u32,
    #[serde(default = "gelu")]
    projector_hidden_act: String,
    #[serde(default = "last_but_one")]
    vision_feature_layer: i64,
    #[serde(default = "patches")]
    vision_feature_select_strategy: String,
    #[serde(default = "yes")]
    multimodal_projector_bias: bool,
}

fn gelu() -> String {
    "gelu".into()
}

fn last_but_one() -> i64 {
    -2
}

fn patches() -> String {
    "default".into()
}

fn yes() -> bool {
    true
}

impl LlavaConfig {
    /// Values of `architectures` and `model_type`.
    pub const CLASSES: [&'static str; 3] = ["LlavaForConditionalGeneration", "LlamaModel", "llava"];

    /// Keys that are read, or known to change nothing.
    pub const KEYS: &'static [&'static str] = &[
        "text_config",
        "vision_config",
        "image_token_index",
        "image_token_id",
        "image_seq_length",
        "ignore_index",
        "projector_hidden_act",
        "vision_feature_layer",
        "vision_feature_select_strategy",
        "multimodal_projector_bias",
        "vocab_size",
        "tie_word_embeddings",
        // Of a body alone.
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "mlp_bias",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
    ];

    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Values that cannot be honoured, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: Map<String, Value> = parse(bytes, label)?;
        if !file.contains_key("text_config") && !file.contains_key("vision_config") {
            let text = LanguageModelConfig::llama(bytes, label)?;
            return Ok(Self { text, vision: None });
        }
        let file: File = parse(bytes, label)?;
        let mut text = llama_defaults();
        text.extend(file.text_config.clone());
        let text = Value::Object(text).to_string();
        let text = LanguageModelConfig::llama(text.as_bytes(), &format!("{label}, `text_config`"))?;
        let vision = file.vision();
        let vision = vision.map_err(|error| Error::Config(format!("{label}: {error}")))?;
        let config = Self {
            text,
            vision: Some(vision),
        };
        checked(config.validate(), label)?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        if let Some(vision) = &self.vision
            && vision.image_token as usize >= self.text.vocab_size
        {
            return Err(Error::Config(format!(
                "`image_token_index` is {}, outside the vocabulary of {}",
                vision.image_token, self.text.vocab_size
            )));
        }
        Ok(())
    }

    /// The work of a text of so many tokens, part by part, and of reading so many pictures for it.
    pub fn encode_cost(&self, tokens: usize, pictures: usize) -> Vec<Cost> {
        let mut costs = self.text.pass_cost(tokens, tokens.div_ceil(2), 0);
        // There is no head.
        costs.pop();
        if let Some(vision) = self.vision.as_ref().filter(|_| pictures > 0) {
            let seen = vision.cost(self.text.hidden_size).into_iter();
            costs.extend(seen.map(|cost| cost.for_batch(pictures)));
        }
        costs
    }

    /// Number of parameters that are loaded.
    pub fn parameters(&self) -> u64 {
        let text = LanguageModelConfig {
            tied: true,
            ..self.text.clone()
        };
        let vision = self.vision.as_ref().map_or(0, |vision| {
            let (from, to) = (
                vision.encoder.hidden_size as u64,
                self.text.hidden_size as u64,
            );
            vision.encoder.parameters(vision.layers) + from * to + to + to * to + to
        });
        text.parameters() + vision
    }
}

impl LlavaVision {
    /// The work of a picture, to rows of a language model of this width.
    pub(super) fn cost(&self, to: usize) -> [Cost; 2] {
        let [width, rows, to] = [self.encoder.hidden_size, self.tokens(), to].map(|n| n as u64);
        let mut projector = Cost::new("multi_modal_projector");
        projector.linear(rows, width, to);
        projector.linear(rows, to, to);
        [self.encoder.cost(self.layers), projector]
    }

    /// Tokens of a picture.
    pub fn tokens(&self) -> usize {
        self.encoder.grid() * self.encoder.grid() + usize::from(self.keeps_class)
    }
}

impl File {
    fn vision(self) -> Result<LlavaVision> {
        self.vision_config.validate()?;
        let fail = |message: String| Err(Error::Config(message));
        let all = self.vision_config.num_hidden_layers as i64;
        let chosen = self.vision_feature_layer;
        // Counted with the embedding in front.
        let layers = if chosen < 0 { all + 1 + chosen } else { chosen };
        if !(1..=all).contains(&layers) {
            return fail(format!(
                "`vision_feature_layer` is {chosen} of {all} layers; expected 1 to {all}, or -1 to -{all}"
            ));
        }
        if !self.multimodal_projector_bias {
            return fail("`multimodal_projector_bias` is false; expected true".into());
        }
        Ok(LlavaVision {
            layers: layers as usize,
            keeps_class: match &*self.vision_feature_select_strategy {
                "default" => false,
                "full" => true,
                other => {
                    return fail(format!(
                        "`vision_feature_select_strategy` is {other:?}; expected \"default\" or \"full\""
                    ));
                }
            },
            activation: match EncoderActivation::from_name(&self.projector_hidden_act) {
                Ok(EncoderActivation::GeluErf) => EncoderActivation::GeluErf,
                _ => {
                    return fail(format!(
                        "`projector_hidden_act` is {:?}; expected \"gelu\"",
                        self.projector_hidden_act
                    ));
                }
            },
            image_token: self.image_token_index,
            encoder: self.vision_config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = r#"{
        "image_token_index": 128257, "vision_feature_layer": -2,
        "text_config": {"intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "llama",
            "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "vocab_size": 128320},
        "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14}}"#;

    #[test]
    fn what_published_files_leave_out_has_its_default() {
        let config = LlavaConfig::from_json(PUBLISHED.as_bytes(), "config.json").unwrap();
        assert_eq!(
            (config.text.hidden_size, config.text.num_layers),
            (4096, 32)
        );
        let vision = config.vision.unwrap();
        assert_eq!((vision.layers, vision.tokens()), (23, 576));
    }

    #[test]
    fn wrong_values_are_named() {
        for (from, to, word) in [
            ("-2", "-30", "`vision_feature_layer` is -30"),
            ("128257", "128320", "`image_token_index` is 128320"),
            (
                "\"patch_size\": 14",
                "\"patch_size\": 0",
                "`patch_size` is 0",
            ),
            ("\"llama\"", "\"gemma\"", "gemma"),
        ] {
            let text = PUBLISHED.replace(from, to);
            let error = LlavaConfig::from_json(text.as_bytes(), "config.json").unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
