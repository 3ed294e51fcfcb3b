//! What an update learns from: pictures as latents, with captions tokenised as inference tokenises prompts.

use std::path::Path;
use std::sync::Arc;

use brisk_models::dcae::{Autoencoder, AutoencoderConfig};
use brisk_pipelines::Control;
use brisk_pipelines::families::sana::prompt;
use brisk_pipelines::folder::Opened;
use brisk_store::TensorSource;
use brisk_text::Tokenizer;

use super::{Configs, Noised, largest_latent, noise};
use crate::captions::caption;
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::eval;
use crate::inputs::Inputs;
use crate::latents::Latents;
use crate::pictures::Order;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;
use crate::session::{self, Session};

/// Bytes of a value of a latent that an update takes, about.
const VALUE: u64 = 16;

/// The parts that a run is made of, before its pictures are encoded.
pub(super) struct Setting<'a> {
    run: Run<'a>,
    training: Vec<usize>,
    autoencoder: Autoencoder,
    tokenizer: Tokenizer,
    pub configs: Configs,
    inputs: Inputs,
}

/// A run's lessons, and the parts that it is made of.
pub(super) struct Lessons<'a> {
    pub recipe: &'a ImageRecipe,
    pub data: &'a PictureData,
    /// The pictures that are trained on.
    pub training: Vec<usize>,
    pub autoencoder: Autoencoder,
    pub tokenizer: Tokenizer,
    pub configs: Configs,
    pub inputs: Inputs,
    pub latents: Latents,
    /// The tokens of no caption.
    empty: Vec<u32>,
}

/// What belongs to a run: its recipe, its data, its autoencoder and its folder.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub recipe: &'a ImageRecipe,
    pub data: &'a PictureData,
    pub vae: &'a Opened<AutoencoderConfig>,
    pub out: &'a Path,
}

/// An update's batch.
pub(super) struct Batch {
    /// Places of its pictures among those that are trained on.
    pub slots: Vec<usize>,
    pub prompts: Vec<Vec<u32>>,
    pub noised: Noised,
}

impl<'a> Setting<'a> {
    /// That of the pictures at `training`, for a model that starts from `sources` and reads captions by `tokenizer`.
    ///
    /// # Errors
    /// Pictures, an autoencoder or a tokenizer that do not fit the recipe.
    pub fn of(
        run: &Run<'a>,
        training: Vec<usize>,
        tokenizer: &[u8],
        sources: &[Arc<dyn TensorSource>],
    ) -> Result<Self> {
        let Run {
            recipe, data, vae, ..
        } = *run;
        let tokenizer = Tokenizer::from_bytes(tokenizer, "the model's tokenizer")?;
        Ok(Self {
            run: *run,
            training,
            autoencoder: eval::load_autoencoder(vae)?,
            configs: Configs::new(recipe, tokenizer.vocabulary_size())?,
            tokenizer,
            inputs: Inputs::default()
                .data(data)?
                .autoencoder(vae)?
                .start(sources)?,
        })
    }

    /// Refuses what the machine has no room for: the model, `further` parameters beside it, and a batch.
    ///
    /// # Errors
    /// There is less memory; pictures that do not fit the transformer.
    pub fn check_memory(&self, further: u64) -> Result<()> {
        let Configs {
            text_model,
            transformer_model,
            ..
        } = &self.configs;
        let Run { recipe, data, .. } = self.run;
        let each = largest_latent(data, &self.autoencoder, transformer_model)? as u64 * VALUE;
        let parameters = text_model.parameters() + transformer_model.parameters() + further;
        session::check_memory(parameters, recipe.training.batch, each)
    }

    /// Encodes the pictures, or takes what the run's folder has of them.
    ///
    /// # Errors
    /// Pictures that do not fit the autoencoder; latents that cannot be written.
    pub fn encoded(self, control: &Control) -> Result<Lessons<'a>> {
        let Self {
            run,
            training,
            autoencoder,
            tokenizer,
            configs,
            inputs,
        } = self;
        let latents = Latents::of(run.data, &training, &autoencoder, &inputs, run.out, control)?;
        Ok(Lessons {
            recipe: run.recipe,
            data: run.data,
            training,
            empty: tokens(&tokenizer, "", run.recipe.max_tokens)?,
            autoencoder,
            tokenizer,
            configs,
            inputs,
            latents,
        })
    }
}

impl Lessons<'_> {
    /// In which pictures are taken.
    ///
    /// # Errors
    /// There is none.
    pub fn order(&self) -> Result<Order> {
        self.latents.order(self.recipe.training.seed)
    }

    /// The batch of the session's next update.
    ///
    /// # Errors
    /// A caption that cannot be tokenised.
    pub fn batch(&self, order: &mut Order, session: &mut Session) -> Result<Batch> {
        let slots = order.batch(session.step, self.recipe.training.batch);
        let rng = &mut session.rng;
        let prompts = slots.iter().map(|slot| self.prompt(*slot, rng));
        let prompts = prompts.collect::<Result<_>>()?;
        let scale = self.configs.transformer_model.timestep_scale;
        let noised = noise(&self.latents, &slots, self.recipe, scale, rng);
        Ok(Batch {
            slots,
            prompts,
            noised,
        })
    }

    /// The tokens of a caption that is drawn for the picture at `slot`.
    fn prompt(&self, slot: usize, rng: &mut Rng) -> Result<Vec<u32>> {
        let recipe = self.recipe;
        if rng.chance(recipe.text_dropout) {
            return Ok(self.empty.clone());
        }
        let entry = &self.data.entries()[self.training[slot]];
        let caption = caption(entry, recipe.name_probability, &recipe.caption_scores, rng);
        tokens(&self.tokenizer, &caption, recipe.max_tokens)
    }
}

/// Tokens of a prompt without instruction: made lower case and trimmed, `<bos>` in front.
pub(super) fn tokens(tokenizer: &Tokenizer, text: &str, limit: usize) -> Result<Vec<u32>> {
    Ok(prompt::encode(tokenizer, text, None, limit)?.ids)
}
