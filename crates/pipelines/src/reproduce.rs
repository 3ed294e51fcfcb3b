//! A paper's claim beside the effect that is measured here, on a model small enough for any machine.
//!
//! Families register their reproductions; whoever runs them brings a [`Laboratory`].

use std::path::PathBuf;

use brisk_media::Picture;
use brisk_store::ModelFolder;

use crate::error::Result;
use crate::evaluation_clips::EvaluationClips;
use crate::events::Control;
use crate::options::Options;
use crate::request::{MaskModel, VideoModel};

/// One question with a way to tell right answers.
pub struct Problem {
    /// The question.
    pub question: String,
    /// Whether a text answers it rightly.
    pub right: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

/// Held-out problems: `count` of them, the same for the same seed.
pub type Problems = dyn Fn(u64, usize) -> Vec<Problem> + Send + Sync;

/// How well masks of text agree with the truth, over many pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MaskFigures {
    /// Intersection over union of all text pixels.
    pub fg_iou: f64,
    /// Harmonic mean of their precision and recall.
    pub f_score: f64,
    /// Share of the pixels in letters' holes that no mask covers.
    pub hole_recall: f64,
    /// How much of the borders agrees, within 2 pixels.
    pub boundary_f: f64,
    /// Share of characters that are worse than with the setting before by 5 points or more.
    pub worse_than_before: Option<f64>,
}

/// Judges a model on scenes of words that are known pixel by pixel, with each of several options.
pub type JudgeMasks = dyn Fn(&mut dyn MaskModel, &[Options], &Control) -> Result<Vec<MaskFigures>>;

/// How clips move and how they are distributed, over many of known motion.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ClipFigures {
    /// Share that shows the motion asked for.
    pub motion_right: f64,
    /// Share in which anything moves.
    pub moving: f64,
    /// Mean PSNR of first frames against those that were given, dB.
    pub first_frame_psnr: f64,
    /// Mean absolute difference of a frame's values from the frame before, 0 to 255.
    pub change: f64,
    /// The same of true clips.
    pub truth_change: f64,
    /// Fréchet distance from true clips in a fixed space of features.
    pub frechet_distance: f64,
}

/// Judges a model by clips of known motion, once with each of several options.
pub type JudgeClips =
    dyn Fn(&mut dyn VideoModel, &EvaluationClips, &[Options], &Control) -> Result<Vec<ClipFigures>>;

/// Finds another model by its name.
pub type Find<'a> = dyn Fn(&str) -> Result<ModelFolder> + 'a;

/// Prompts for scenes that no training has shown, so many of each kind.
pub type ScenePrompts = dyn Fn(usize) -> Vec<String>;

/// How far two samples of pictures lie apart: the Fréchet distance of features of a fixed network.
pub type Distance = dyn Fn(&[Picture], &[Picture]) -> Result<f64>;

/// How far each picture lies from the one at its place among others, by the features of a fixed network at every place of
/// both (LPIPS).
pub type PairDistance = dyn Fn(&[Picture], &[Picture]) -> Result<Vec<f64>>;

/// Whether pictures, one for each of the prompts, show what their prompts ask for.
pub type Shows = dyn Fn(&[String], &[Picture]) -> Result<Vec<bool>>;

/// What a reproduction works with.
pub struct Laboratory<'a> {
    /// The model that the claim is measured on.
    pub model: ModelFolder,
    /// Models that are shown beside it.
    pub find: &'a Find<'a>,
    /// Arithmetic word problems.
    pub problems: &'a Problems,
    /// Scenes of words, with the truth about them.
    pub judge_masks: &'a JudgeMasks,
    /// The judge of clips.
    pub judge_clips: &'a JudgeClips,
    /// Prompts for held-out scenes.
    pub scene_prompts: &'a ScenePrompts,
    /// The judge of pictures of scenes.
    pub shows: &'a Shows,
    /// The measure of samples of pictures.
    pub distance: &'a Distance,
    /// The measure of pairs of pictures.
    pub pair_distance: &'a PairDistance,
    /// A folder for files on the way, removed afterwards.
    pub scratch: PathBuf,
    /// Progress and the wish to stop.
    pub control: &'a Control,
}

/// One line of evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What was varied.
    pub what: String,
    /// What the paper reports of it, on its own model and machine; empty where it reports nothing.
    pub paper: String,
    /// What was measured here.
    pub here: String,
}

/// The outcome of a reproduction.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Model, data and sizes.
    pub setting: String,
    /// The lines.
    pub rows: Vec<Measured>,
    /// The effect that must appear, with its bounds.
    pub effect: String,
    /// Whether it does.
    pub appears: bool,
}

/// What a paper reports of one way to decode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reported {
    /// The cache, as its option spells it.
    pub cache: &'static str,
    /// How many tokens a step decides, in words.
    pub rule: &'static str,
    /// Tokens of an answer.
    pub length: usize,
    /// Right answers in %.
    pub accuracy: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
}

/// One paper's claim.
pub struct Reproduction {
    /// Name on the command line.
    pub paper: &'static str,
    /// Title of the paper.
    pub title: &'static str,
    /// Its number on arXiv.
    pub arxiv: &'static str,
    /// What it claims.
    pub claim: &'static str,
    /// Decoding figures that the paper reports, on the model and machine of `reported_on`.
    pub reported: &'static [Reported],
    /// What the paper measured on.
    pub reported_on: &'static str,
    /// The model that the claim is measured on.
    pub model: &'static str,
    /// The one that it is compared with, where there is one.
    pub beside: Option<&'static str>,
    /// Measures.
    pub run: fn(&Laboratory) -> Result<Evidence>,
}

impl Measured {
    /// A line.
    pub fn new(what: impl Into<String>, paper: impl Into<String>, here: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            paper: paper.into(),
            here: here.into(),
        }
    }
}
