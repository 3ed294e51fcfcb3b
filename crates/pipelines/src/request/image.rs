//! Pictures: what is asked for, what was decided, and what comes back.

use std::sync::Arc;

use brisk_media::Picture;
use serde_json::{Map, Value};

use super::{Decisions, StageCost, StageMemory, WeightBytes};
use crate::block_importance::BlockWatcher;
use crate::error::{Error, Result};
use crate::events::Control;
use crate::known_prompts::KnownPrompts;
use crate::options::keys::{IMAGES, MAX_IMAGES, SEED};
use crate::options::{Codes, Key, Latents, OptionValue, Options, Support};
use crate::quantize::Quantizable;

/// Longest prompt that is accepted, in bytes.
pub const MAX_PROMPT_BYTES: usize = 1 << 20;

/// The stage of a plan's costs that its previews are.
pub const PREVIEWS: &str = "previews";

/// What to draw.
#[derive(Debug, Clone, Default)]
pub struct ImageRequest {
    /// At least one prompt.
    pub prompts: Vec<String>,
    /// Everything else.
    pub options: Options,
}

impl ImageRequest {
    /// A request for one prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompts: vec![prompt.into()],
            options: Options::new(),
        }
    }

    /// Gives an option.
    pub fn with<T: OptionValue>(mut self, key: &'static Key<T>, value: T) -> Self {
        self.options.set(key, value);
        self
    }

    /// Gives an option where there is a value for it.
    pub fn with_some<T: OptionValue>(self, key: &'static Key<T>, value: Option<T>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Pictures of each prompt.
    pub fn images_per_prompt(&self) -> usize {
        self.options.get(&IMAGES).unwrap_or(1)
    }

    /// Every picture, prompt after prompt: its prompt, and its seed, one more than that of the one before.
    pub fn planned_images(&self) -> Vec<PlannedImage> {
        let first = self.options.get(&SEED).unwrap_or(0);
        let each = self.images_per_prompt();
        let prompts = self.prompts.iter();
        let prompts = prompts.flat_map(|prompt| std::iter::repeat_n(prompt, each));
        let planned = prompts.zip(0..).map(|(prompt, index)| PlannedImage {
            prompt: prompt.clone(),
            seed: first.wrapping_add(index),
        });
        planned.collect()
    }

    /// Checks what every model needs: prompts of a bearable number and length.
    pub(crate) fn check(&self) -> Result<()> {
        if self.prompts.is_empty() {
            return Err(Error::request("prompt", "no prompt was given"));
        }
        for prompt in &self.prompts {
            check_length("prompt", prompt)?;
        }
        let images = self.prompts.len().saturating_mul(self.images_per_prompt());
        if !(1..=MAX_IMAGES as usize).contains(&images) {
            return Err(Error::request(
                "images",
                format!(
                    "{} prompts × {} pictures is outside 1..={MAX_IMAGES}",
                    self.prompts.len(),
                    self.images_per_prompt()
                ),
            ));
        }
        Ok(())
    }
}

/// Refuses a text that nobody can mean, or that no picture's file can hold.
pub(crate) fn check_length(option: &'static str, text: &str) -> Result<()> {
    if text.len() > MAX_PROMPT_BYTES {
        return Err(Error::request(
            option,
            format!(
                "is {} bytes long; at most {MAX_PROMPT_BYTES} are accepted",
                text.len()
            ),
        ));
    }
    if text.contains('\0') {
        return Err(Error::request(option, "holds a NUL character; take it out"));
    }
    Ok(())
}

/// One picture of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedImage {
    /// Its prompt, as given.
    pub prompt: String,
    /// Seed of the noise.
    pub seed: u64,
}

/// A request with everything decided: what runs, what metadata and JSON say, what a server reserves.
#[derive(Debug, Clone)]
pub struct ImagePlan {
    /// Name of the model.
    pub model: String,
    /// What was asked for.
    pub request: ImageRequest,
    /// What the model was opened with.
    pub opened: Options,
    /// The pictures, all of the first prompt before those of the next.
    pub images: Vec<PlannedImage>,
    /// Whether each picture is drawn by its own seed alone, whichever others are drawn beside it.
    pub independent: bool,
    /// Width of the results.
    pub width: usize,
    /// Height of the results.
    pub height: usize,
    /// Width that is generated, before it is scaled to the result's.
    pub generated_width: usize,
    /// Height that is generated.
    pub generated_height: usize,
    /// Evaluations of the sampler; 0 where it finds its steps on the way.
    pub steps: usize,
    /// Effective values, by the JSON field of their option; also what no option gives.
    pub settings: Map<String, Value>,
    /// Estimated need of every stage.
    pub memory: Vec<StageMemory>,
    /// What a user should know of the request before it runs.
    pub warnings: Vec<String>,
    pub(crate) decisions: Arc<Decisions>,
}

impl ImagePlan {
    /// Evaluations of the sampler; none where it finds its steps on the way.
    pub fn known_steps(&self) -> Option<usize> {
        (self.steps > 0).then_some(self.steps)
    }

    /// Everything that made picture `index`, as JSON: what the plan decided, and what was given besides.
    pub fn describe(&self, index: usize) -> Map<String, Value> {
        let mut document = self.opened.to_json();
        document.extend(self.request.options.to_json());
        for (name, value) in &self.settings {
            document.insert(name.clone(), value.clone());
        }
        let image = &self.images[index];
        // Its own seed draws it alone, the first one all of them.
        let (seed, index, images) = match self.independent {
            true => (image.seed, 0, 1),
            false => (self.images[0].seed, index, self.images.len()),
        };
        let facts = [
            ("prompt", image.prompt.clone().into()),
            ("seed", seed.into()),
            ("index", index.into()),
            ("images", images.into()),
            ("width", self.width.into()),
            ("height", self.height.into()),
            ("generated_width", self.generated_width.into()),
            ("generated_height", self.generated_height.into()),
            ("steps", self.known_steps().into()),
        ];
        for (name, value) in facts {
            document.insert(name.to_owned(), value);
        }
        document.retain(|_, value| !value.is_null());
        // The same, whatever of it was given and whatever was decided.
        document.sort_keys();
        document
    }
}

/// One result.
#[derive(Debug, Clone)]
pub struct GeneratedImage {
    /// The picture, at the size asked for.
    pub picture: Picture,
    /// What was decoded, `[1, C, h, w]`, scaled as the network that made it sees it; none where a model
    /// has no latents.
    pub latents: Option<Latents>,
    /// The codes that it was made of; none where a model has none.
    pub codes: Option<Codes>,
    /// Seed of its noise.
    pub seed: u64,
    /// Its prompt, as given.
    pub prompt: String,
    /// Seconds by stage: their sum over the pictures of a request is what the stage took. The first picture
    /// bears what all share.
    pub seconds: Vec<(&'static str, f64)>,
}

/// A model that draws.
pub trait ImageModel: Send {
    /// Name for messages: the folder or hub id.
    fn label(&self) -> &str;

    /// The options that it honours.
    fn support(&self) -> &'static Support;

    /// What its folder says of the prompts that it was trained on.
    fn known_prompts(&self) -> Option<&KnownPrompts> {
        None
    }

    /// A prompt that it draws, for who wants to know what a plan would be.
    fn example_prompt(&self) -> &str {
        let known = self
            .known_prompts()
            .and_then(|known| known.prompts().first());
        known.map_or("a picture", String::as_str)
    }

    /// What a user should know of its files, whatever is asked of it; every plan warns of it.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Width and height of a picture where a request names none, in pixels.
    fn usual_size(&self) -> (usize, usize);

    /// Checks a request and decides everything that it leaves open.
    ///
    /// # Errors
    /// An option that this model does not honour or a value that it cannot serve, by the option's name;
    /// a request that does not fit into memory.
    fn plan(&self, request: &ImageRequest) -> Result<ImagePlan>;

    /// Draws the pictures of a plan: all pictures of the first prompt, then those of the next.
    ///
    /// # Errors
    /// A plan of another model, unfit weights, values that are not finite, or [`Error::Cancelled`].
    fn generate(&mut self, plan: &ImagePlan, control: &Control) -> Result<Vec<GeneratedImage>>;

    /// What the stages of a plan compute and move, by the names under which results report seconds; what its
    /// previews take besides is the stage [`PREVIEWS`].
    ///
    /// # Errors
    /// A plan of another model.
    fn cost(&self, plan: &ImagePlan) -> Result<Vec<StageCost>>;

    /// Tokens of a plan's prompts, as its text encoder reads them; none of a model that reads no tokens.
    ///
    /// # Errors
    /// A plan of another model, or a prompt that cannot be tokenised.
    fn prompt_tokens(&self, _plan: &ImagePlan) -> Result<usize> {
        Ok(0)
    }

    /// Bytes of the weights of all its networks, as they are kept in memory.
    fn weight_bytes(&self) -> WeightBytes;

    /// Bytes of the weights of the network that takes the steps, as they are kept in memory.
    fn denoiser_bytes(&self) -> u64;

    /// Whether that network has low-bit layers.
    fn is_low_bit(&self) -> bool {
        false
    }

    /// The model as one whose layers can be quantized; none for families without such a layout.
    fn quantizable(&mut self) -> Option<&mut dyn Quantizable> {
        None
    }

    /// Lets `watcher` see what the blocks of the network that takes the steps are given and give from now on; false for
    /// a family whose networks have no blocks that could be left out.
    fn watch_blocks(&mut self, _watcher: BlockWatcher) -> bool {
        false
    }

    /// Drops every network that is in memory.
    fn release(&mut self);

    /// Plans and draws; the plan's warnings go to `control`.
    ///
    /// # Errors
    /// As [`ImageModel::plan`] and [`ImageModel::generate`].
    fn draw(&mut self, request: &ImageRequest, control: &Control) -> Result<Vec<GeneratedImage>> {
        let plan = self.plan(request)?;
        plan.warnings
            .iter()
            .for_each(|warning| control.warn(warning));
        self.generate(&plan, control)
    }
}
