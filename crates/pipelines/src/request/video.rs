//! Clips: what is asked for, what was decided, and what comes back.

use std::sync::Arc;

use brisk_media::Clip;
use serde_json::{Map, Value};

use super::{Decisions, StageCost, StageMemory, WeightBytes, check_length};
use crate::error::{Error, Result};
use crate::events::Control;
use crate::options::{ClipLatents, Key, OptionValue, Options, Support};
use crate::quantize::Quantizable;

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct VideoRequest {
    /// What happens in the clip.
    pub prompt: String,
    /// Everything else; the first frame too.
    pub options: Options,
}

impl VideoRequest {
    /// A request for a prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            options: Options::new(),
        }
    }

    /// Gives an option.
    pub fn with<T: OptionValue>(mut self, key: &'static Key<T>, value: T) -> Self {
        self.options.set(key, value);
        self
    }

    /// Checks what every model needs.
    pub(crate) fn check(&self) -> Result<()> {
        check_length("prompt", &self.prompt)
    }
}

/// A request with everything decided.
#[derive(Debug, Clone)]
pub struct VideoPlan {
    /// Name of the model.
    pub model: String,
    /// What was asked for.
    pub request: VideoRequest,
    /// What the model was opened with.
    pub opened: Options,
    /// Seed of the noise.
    pub seed: u64,
    /// Width of the frames.
    pub width: usize,
    /// Height of the frames.
    pub height: usize,
    /// Frames of the result.
    pub frames: usize,
    /// Of those, frames at the beginning that are the given picture.
    pub given_frames: usize,
    /// Frames a second.
    pub rate: f64,
    /// Evaluations of the sampler.
    pub steps: usize,
    /// Effective values, by the JSON field of their option; also what no option gives.
    pub settings: Map<String, Value>,
    /// Estimated need of every stage.
    pub memory: Vec<StageMemory>,
    /// What a user should know of the request before it runs.
    pub warnings: Vec<String>,
    pub(crate) decisions: Arc<Decisions>,
}

impl VideoPlan {
    /// Everything that made the clip, as JSON: what the plan decided, and what was given besides.
    pub fn describe(&self) -> Map<String, Value> {
        let mut document = self.opened.to_json();
        document.extend(self.request.options.to_json());
        document.extend(self.settings.clone());
        let facts = [
            ("prompt", self.request.prompt.clone().into()),
            ("seed", self.seed.into()),
            ("width", self.width.into()),
            ("height", self.height.into()),
            ("fps", self.rate.into()),
            ("steps", self.steps.into()),
        ];
        document.extend(facts.map(|(name, value)| (name.to_owned(), value)));
        document.retain(|_, value| !value.is_null());
        document.sort_keys();
        document
    }

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

/// A result.
#[derive(Debug, Clone)]
pub struct GeneratedClip {
    /// The clip.
    pub clip: Clip,
    /// What was decoded, scaled as the network that made it sees it.
    pub latents: ClipLatents,
    /// Seconds by stage.
    pub seconds: Vec<(&'static str, f64)>,
}

/// How a first frame is drawn that a request leaves to a model of pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstFrame {
    /// What the picture shows.
    pub prompt: String,
    /// Where the picture goes; the whole frame if nowhere else.
    pub place: Option<FramePlace>,
}

/// A place for a picture in a frame whose other pixels go on as the picture's edge does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FramePlace {
    /// Centre from the left upper corner, in shares of the frame's width and height.
    pub centre: [f64; 2],
    /// Longer side, in shares of the frame's shorter one: above 0 and at most 1.
    pub side: f64,
}

/// A model that makes clips.
pub trait VideoModel: Send {
    /// Name for messages: the folder or hub id.
    fn label(&self) -> &str;

    /// The options that it honours.
    fn support(&self) -> &'static Support;

    /// Whether a clip begins with a picture that a request has to give.
    fn needs_image(&self) -> bool;

    /// Width and height of a clip where a request names none, in pixels.
    fn usual_size(&self) -> (usize, usize);

    /// The first frame for a prompt where a request gives none: the prompt's own words over the whole frame, if the
    /// model was not trained on something narrower.
    fn first_frame(&self, prompt: &str) -> FirstFrame {
        FirstFrame {
            prompt: prompt.to_owned(),
            place: None,
        }
    }

    /// Checks a request and decides everything that it leaves open.
    ///
    /// # Errors
    /// An option that this model does not honour or a value that it cannot serve, by the option's name;
    /// a request that does not fit into memory.
    fn plan(&self, request: &VideoRequest) -> Result<VideoPlan>;

    /// What the stages of a plan compute, each by its name in [`GeneratedClip::seconds`].
    ///
    /// # Errors
    /// A plan of another model.
    fn cost(&self, plan: &VideoPlan) -> Result<Vec<StageCost>>;

    /// Makes the clip of a plan.
    ///
    /// # Errors
    /// A plan of another model, unfit weights, values that are not finite, or [`Error::Cancelled`].
    fn generate(&mut self, plan: &VideoPlan, control: &Control) -> Result<GeneratedClip>;

    /// The model as one that can be quantized, where its family has 4-bit files.
    fn quantizable(&mut self) -> Option<&mut dyn Quantizable> {
        None
    }

    /// Bytes of the weights of all its networks, as they are kept in memory.
    fn weight_bytes(&self) -> WeightBytes;

    /// Drops every network that is in memory.
    fn release(&mut self);
}
