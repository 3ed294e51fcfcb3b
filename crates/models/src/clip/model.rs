//! Both encoders, whose results are compared (`CLIPModel` of transformers).

use brisk_nn::{Init, LayerNorm, Linear, Tensor, Trace, Weights};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::text::PLACES;
use super::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use crate::config::{check_count, checked, parse};
use crate::{Error, Result};

const TEXT: &str = "text_model";
const VISION: &str = "vision_model";
/// The logarithm of the temperature that training starts with.
const LOGIT_SCALE: f64 = 2.6592;

/// Settings of both encoders.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipModelConfig {
    /// The text encoder.
    pub text: ClipTextConfig,
    /// The vision encoder.
    pub vision: ClipVisionConfig,
    /// Numbers that a text or picture becomes.
    pub projection_dim: usize,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    text_config: Option<Map<String, Value>>,
    #[serde(default)]
    vision_config: Option<Map<String, Value>>,
    /// What older files say besides, which counts before the above.
    #[serde(default)]
    text_config_dict: Option<Map<String, Value>>,
    #[serde(default)]
    vision_config_dict: Option<Map<String, Value>>,
    #[serde(default = "usual_projection")]
    projection_dim: usize,
}

fn usual_projection() -> usize {
    512
}

/// One encoder's part of the file.
fn part<Config: for<'a> Deserialize<'a>>(
    key: &str,
    parts: [Option<Map<String, Value>>; 2],
    label: &str,
) -> Result<Config> {
    let mut all = Map::new();
    for part in parts.into_iter().flatten() {
        all.extend(part.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let text = Value::Object(all).to_string();
    parse(text.as_bytes(), &format!("{label}, `{key}`"))
}

impl ClipModelConfig {
    /// Values of `architectures` and `model_type`.
    pub const CLASSES: [&'static str; 2] = ["CLIPModel", "clip"];

    /// Keys that are read, or known to change nothing.
    pub const KEYS: &'static [&'static str] = &[
        "text_config",
        "vision_config",
        "text_config_dict",
        "vision_config_dict",
        "projection_dim",
        "logit_scale_init_value",
        "initializer_factor",
    ];

    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Values that cannot be honoured, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: File = parse(bytes, label)?;
        let text = [file.text_config, file.text_config_dict];
        let vision = [file.vision_config, file.vision_config_dict];
        let config = Self {
            text: part("text_config", text, label)?,
            vision: part("vision_config", vision, label)?,
            projection_dim: file.projection_dim,
        };
        checked(config.validate(), label)?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        check_count("projection_dim", self.projection_dim, 1 << 16)?;
        self.text.validate()?;
        self.vision.validate()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let vision = &self.vision;
        let projections = (self.text.hidden_size + vision.hidden_size) * self.projection_dim;
        let own = 2 * vision.hidden_size + projections + 1;
        self.text.parameters() + vision.parameters(vision.num_hidden_layers) + own as u64
    }
}

/// CLIP.
#[derive(Debug)]
pub struct ClipModel {
    config: ClipModelConfig,
    text: ClipText,
    vision: ClipVision,
    /// Behind the vision encoder's last layer.
    norm: LayerNorm,
    text_projection: Linear,
    visual_projection: Linear,
    /// What similarities are multiplied by.
    scale: f64,
}

/// Texts and pictures beside each other.
#[derive(Debug)]
pub struct Similarity {
    /// Texts `[B,E]`, each of length 1.
    pub texts: Tensor,
    /// Pictures `[P,E]`, each of length 1.
    pub pictures: Tensor,
    /// How alike they are, `[P,B]`, by CLIP's temperature.
    pub logits: Tensor,
}

impl ClipModel {
    /// Loads both encoders.
    ///
    /// # Errors
    /// One report of every tensor that is missing, unexpected or of another shape.
    pub fn load(config: &ClipModelConfig, weights: &Weights) -> Result<Self> {
        let (text, vision) = (&config.text, &config.vision);
        let (start, to) = (Init::Normal(0.02), config.projection_dim);
        let seen = weights.pp(VISION);
        let scale = weights.get("logit_scale", &[], Init::Constant(LOGIT_SCALE as f32))?;
        let projection =
            |name: &str, from: usize| Linear::load(&weights.pp(name), from, to, false, start);
        let model = Self {
            text: ClipText::read(text, &weights.pp(TEXT))?,
            vision: ClipVision::load(vision, vision.num_hidden_layers, &seen)?,
            norm: LayerNorm::load(
                &seen.pp("post_layernorm"),
                vision.hidden_size,
                vision.layer_norm_eps,
                true,
            )?,
            text_projection: projection("text_projection", text.hidden_size)?,
            visual_projection: projection("visual_projection", vision.hidden_size)?,
            scale: f64::from(scale.to_scalar::<f32>()?).exp(),
            config: config.clone(),
        };
        let places = [TEXT, VISION].map(|part| format!("{part}.{PLACES}"));
        weights.finish(&places.each_ref().map(String::as_str))?;
        Ok(model)
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &ClipModelConfig {
        &self.config
    }

    /// Texts of `tokens` ids each to rows `[B,E]` of length 1, as [`ClipText::encode`] takes them.
    ///
    /// # Errors
    /// Those of [`ClipText::encode`].
    pub fn embed_texts(
        &self,
        ids: &[u32],
        tokens: usize,
        mask: Option<Vec<Vec<bool>>>,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let below = &mut trace.within("text_model");
        let pooled = self.text.encode(ids, tokens, mask, below)?.pooled;
        unit(&self.text_projection.forward(&pooled)?)
    }

    /// Pictures `[P,N,N,3]`, normalised, to rows `[P,E]` of length 1.
    ///
    /// # Errors
    /// Those of [`ClipVision::forward`].
    pub fn embed_pictures(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let below = &mut trace.within("vision_model");
        let states = self.vision.forward(pictures, below)?;
        let whole = states.narrow(1, 0, 1)?.squeeze(1)?;
        unit(
            &self
                .visual_projection
                .forward(&self.norm.forward(&whole)?)?,
        )
    }

    /// Rows of texts `[B,E]` beside those of pictures `[P,E]`.
    ///
    /// # Errors
    /// Other shapes.
    pub fn compare(&self, texts: Tensor, pictures: Tensor) -> Result<Similarity> {
        let logits = pictures.matmul(&texts.transpose(0, 1)?)?;
        Ok(Similarity {
            logits: logits.affine(self.scale, 0.0)?,
            texts,
            pictures,
        })
    }
}

/// Rows made as long as 1.
fn unit(rows: &Tensor) -> Result<Tensor> {
    let lengths = rows.sqr()?.sum_keepdim(1)?.sqrt()?;
    let lengths_are_good = lengths.flatten_all()?.to_vec1::<f32>()?;
    match lengths_are_good.iter().all(|length| *length > 0.0) {
        true => Ok(rows.broadcast_div(&lengths)?),
        false => Err(Error::Shape(
            "a text or picture became nothing but zeros, which cannot be compared".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_model_has_the_published_size() {
        let config = ClipModelConfig::from_json(
            br#"{"model_type": "clip", "projection_dim": 768,
                "text_config": {"hidden_size": 1, "intermediate_size": 3072, "num_attention_heads": 12},
                "text_config_dict": {"hidden_size": 768},
                "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                    "num_attention_heads": 16, "patch_size": 14}, "vision_config_dict": null}"#,
            "config.json",
        )
        .unwrap();
        // openai/clip-vit-large-patch14
        assert_eq!(config.parameters(), 427_616_513);
        assert_eq!(config.text.hidden_size, 768);
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, word) in [
            (r#"{"projection_dim": 0}"#, "`projection_dim` is 0"),
            (r#"{"text_config": {"hidden_act": "relu"}}"#, "`hidden_act`"),
            (
                r#"{"vision_config": {"patch_size": "a"}}"#,
                "`vision_config`",
            ),
        ] {
            let error = ClipModelConfig::from_json(text.as_bytes(), "config.json").unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
