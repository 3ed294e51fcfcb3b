//! Masks: what is asked for, what was decided, and what comes back.

use std::sync::Arc;

use brisk_media::mask::Runs;
use brisk_media::{Mask, Picture};
use serde_json::{Map, Value};

use super::{Decisions, FoundWord, MaskPrompt, PictureEmbedding, StageMemory, Word};
use crate::error::{Error, Result};
use crate::events::Control;
use crate::options::{Key, OptionValue, Options, Support};

/// What to find, and where.
#[derive(Debug, Clone)]
pub struct MaskRequest {
    /// The picture.
    pub picture: Arc<Picture>,
    /// Prompts besides those that options give.
    pub prompts: Vec<MaskPrompt>,
    /// Words whose characters are looked for, in place of the file that the option `words` names.
    pub words: Option<Vec<Word>>,
    /// Everything else.
    pub options: Options,
}

impl MaskRequest {
    /// A request about a picture, which needs a prompt or an option that says what to find.
    pub fn new(picture: Arc<Picture>) -> Self {
        Self {
            picture,
            prompts: Vec::new(),
            words: None,
            options: Options::new(),
        }
    }

    /// Gives an option.
    pub fn with<T: OptionValue>(mut self, key: &'static Key<T>, value: T) -> Self {
        self.options.set(key, value);
        self
    }

    /// Width and height of the picture.
    pub fn size(&self) -> [usize; 2] {
        [self.picture.width, self.picture.height]
    }
}

/// A request with everything decided.
#[derive(Debug, Clone)]
pub struct MaskPlan {
    /// Name of the model.
    pub model: String,
    /// What was asked for.
    pub request: MaskRequest,
    /// What the model was opened with.
    pub opened: Options,
    /// What shows what to find, those of the request first; empty where everything is looked for.
    pub prompts: Vec<MaskPrompt>,
    /// Effective values, by the JSON field of their option.
    pub settings: Map<String, Value>,
    /// Estimated need of every stage.
    pub memory: Vec<StageMemory>,
    /// What a user should know of the request before it runs.
    pub warnings: Vec<String>,
    pub(crate) decisions: Arc<Decisions>,
}

/// One mask.
#[derive(Debug, Clone)]
pub struct GeneratedMask {
    /// Its pixels, in the size of the picture.
    pub runs: Runs,
    /// Left, top, right and bottom of its pixels, the last ones included; none of an empty mask.
    pub bounds: Option<[usize; 4]>,
    /// Intersection over union with what was meant, as the model expects it.
    pub quality: f32,
    /// Share of it that stays when its threshold moves by one; not a number of a mask that has no pixels then.
    pub stability: f32,
    /// Number of its prompt among the plan's; none where everything is looked for.
    pub prompt: Option<usize>,
    /// Name of what it is.
    pub name: Option<String>,
    /// The point that showed it, where everything is looked for.
    pub point: Option<[f64; 2]>,
}

impl GeneratedMask {
    /// Its pixels one by one.
    pub fn mask(&self) -> Mask {
        Mask::from(&self.runs)
    }
}

/// All results of a request.
#[derive(Debug, Clone)]
pub struct GeneratedMasks {
    /// In the order of prompts; where everything is looked for, best first.
    pub masks: Vec<GeneratedMask>,
    /// The words that were looked for, where a request was about words.
    pub words: Option<Vec<FoundWord>>,
    /// The picture's embedding; none where parts of it were looked at one by one.
    pub embedding: Option<PictureEmbedding>,
    /// Seconds by stage.
    pub seconds: Vec<(&'static str, f64)>,
}

/// A model that finds pixels.
pub trait MaskModel: Send {
    /// Name for messages: the folder, file or hub id.
    fn label(&self) -> &str;

    /// The options that it honours.
    fn support(&self) -> &'static Support;

    /// Side of the frame that it sees pictures in, in pixels.
    fn frame(&self) -> usize;

    /// Checks a request and decides everything that it leaves open.
    ///
    /// # Errors
    /// An option that this model does not honour or a value that it cannot serve, by the option's name; nothing
    /// that says what to find; a request that does not fit into memory.
    fn plan(&self, request: &MaskRequest) -> Result<MaskPlan>;

    /// Finds the masks of a plan.
    ///
    /// # Errors
    /// A plan of another model, unfit weights, values that are not finite, or [`Error::Cancelled`].
    fn generate(&mut self, plan: &MaskPlan, control: &Control) -> Result<GeneratedMasks>;

    /// The same model for another thread: both use the networks that are in memory.
    ///
    /// # Errors
    /// Weights that cannot be read.
    fn another(&mut self) -> Result<Box<dyn MaskModel>>;

    /// Drops every network that is in memory.
    fn release(&mut self);

    /// Plans and finds; the plan's warnings go to `control`.
    ///
    /// # Errors
    /// As [`MaskModel::plan`] and [`MaskModel::generate`].
    fn find(&mut self, request: &MaskRequest, control: &Control) -> Result<GeneratedMasks> {
        let plan = self.plan(request)?;
        plan.warnings
            .iter()
            .for_each(|warning| control.warn(warning));
        self.generate(&plan, control)
    }
}

impl MaskPlan {
    /// The decisions, if `model` made the plan.
    pub(crate) fn decided<T: 'static>(&self, model: &str) -> Result<&T> {
        if self.model != model {
            return Err(Error::ForeignPlan {
                model: model.to_owned(),
            });
        }
        self.decisions.of(model)
    }
}
