//! The configurations of a model, as they are written and as its networks read them.

use brisk_models::clip::ClipTextConfig;
use brisk_models::hunyuan_video::autoencoder::VideoAutoencoderConfig;
use brisk_models::hunyuan_video::transformer::{ImageCondition, VideoTransformerConfig};
use brisk_models::llava::LlavaConfig;
use brisk_pipelines::families::hunyuan_video::text::SKIPPED;
use serde_json::{Value, json};

use super::VideoRecipe;
use super::texts::Tokenizers;
use crate::error::{Error, JsonContext, Result};
use crate::families::autoencoder::config_with;

/// Of all three networks.
pub(super) struct Configs {
    pub documents: Documents,
    pub transformer: VideoTransformerConfig,
    pub text: LlavaConfig,
    pub pooled: ClipTextConfig,
}

/// As they are written.
pub(super) struct Documents {
    pub transformer: Value,
    pub text: Value,
    pub pooled: Value,
}

impl Configs {
    pub fn new(recipe: &VideoRecipe, tokenizers: &Tokenizers) -> Result<Self> {
        let transformer = config_with(
            &recipe.transformer,
            Some(VideoTransformerConfig::CLASS),
            &[],
        )?;
        let rows = Value::from(tokenizers.text.vocabulary_size());
        let text = match recipe.text_encoder.get("text_config") {
            Some(body) => {
                let body = config_with(body, None, &[("vocab_size", rows)])?;
                let image = Value::from(tokenizers.image);
                let keys = [
                    ("architectures", json!(["LlavaForConditionalGeneration"])),
                    ("model_type", "llava".into()),
                    ("text_config", body),
                    ("image_token_index", image),
                ];
                config_with(&recipe.text_encoder, None, &keys)?
            }
            None => {
                let keys = [
                    ("architectures", json!(["LlamaModel"])),
                    ("model_type", "llama".into()),
                    ("vocab_size", rows),
                ];
                config_with(&recipe.text_encoder, None, &keys)?
            }
        };
        let keys = [
            ("architectures", json!(["CLIPTextModel"])),
            ("model_type", "clip_text_model".into()),
            ("vocab_size", tokenizers.pooled.vocabulary_size().into()),
            ("eos_token_id", tokenizers.end.into()),
        ];
        let pooled = config_with(&recipe.text_encoder_2, None, &keys)?;
        let bytes = |value: &Value| serde_json::to_vec(value).in_document("recipe");
        let configs = Self {
            transformer: VideoTransformerConfig::from_json(
                &bytes(&transformer)?,
                "recipe, transformer",
            )?,
            text: LlavaConfig::from_json(&bytes(&text)?, "recipe, text_encoder")?,
            pooled: ClipTextConfig::from_json(&bytes(&pooled)?, "recipe, text_encoder_2")?,
            documents: Documents {
                transformer,
                text,
                pooled,
            },
        };
        configs.check()?;
        Ok(configs)
    }

    fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(message));
        let transformer = &self.transformer;
        for (key, wants, of, has) in [
            (
                "text_embed_dim",
                transformer.text_embed_dim,
                "text_encoder.hidden_size",
                self.text.text.hidden_size,
            ),
            (
                "pooled_projection_dim",
                transformer.pooled_projection_dim,
                "text_encoder_2.hidden_size",
                self.pooled.hidden_size,
            ),
        ] {
            if wants != has {
                return fail(format!(
                    "transformer.{key} is {wants}, {of} {has}; they must agree"
                ));
            }
        }
        if transformer.guidance_embeds {
            return fail(
                "transformer.guidance_embeds is for distilled models; expected false".to_owned(),
            );
        }
        let is_shown = match transformer.image_condition_type {
            None => false,
            Some(ImageCondition::LatentConcat) => true,
            Some(ImageCondition::TokenReplace) => {
                return fail(
                    "transformer.image_condition_type is \"token_replace\", which is not trained; expected \
                     \"latent_concat\" or null"
                        .to_owned(),
                );
            }
        };
        if is_shown && self.text.vision.is_none() {
            return fail(
                "text_encoder has no vision_config, and a transformer with an image_condition_type needs one that \
                 reads the first frame"
                    .to_owned(),
            );
        }
        if self.text.text.num_layers <= SKIPPED {
            return fail(format!(
                "text_encoder has {} layers, of which the last {SKIPPED} are not used; expected at least {}",
                self.text.text.num_layers,
                SKIPPED + 1
            ));
        }
        Ok(())
    }

    /// Parameters of all networks.
    pub fn parameters(&self) -> u64 {
        self.transformer.parameters() + self.text.parameters() + self.pooled.parameters()
    }
}

/// Refuses an autoencoder whose latents of clips of `size` pixels a transformer does not fit.
pub(super) fn check_autoencoder(
    transformer: &VideoTransformerConfig,
    vae: &VideoAutoencoderConfig,
    size: usize,
) -> Result<()> {
    let ratio = vae.spatial_compression_ratio;
    let fits = vae.latent_channels == transformer.out_channels
        && size.is_multiple_of(ratio * transformer.patch_size)
        && transformer.patch_size_t == 1;
    match fits {
        true => Ok(()),
        false => Err(Error::Data(format!(
            "clips of {size} px and an autoencoder of ratio {ratio} with {} channels do not fit a transformer of {} \
             channels and patches of {} by {} frames",
            vae.latent_channels,
            transformer.out_channels,
            transformer.patch_size,
            transformer.patch_size_t
        ))),
    }
}
