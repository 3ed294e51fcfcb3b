//! What a run is.

use brisk_pipelines::diffusion::schedulers::NUMBERS;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::families::video_autoencoder::clips::require_frames;
use crate::recipe::{
    MAX_MEASURED, MAX_SAMPLES, MAX_STEPS, TrainingOptions, require, require_count, require_object,
    require_share,
};

/// What of a prediction is held to the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowTarget {
    /// The velocity.
    Velocity,
    /// The clip that it leads to, which weighs velocities by the square of the noise level.
    Clean,
}

/// What a model that is shown the first frame begins with, where it goes on from one of text alone: the weights of the
/// channels that are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewChannels {
    /// Zeros: it begins as the model that it comes from.
    Zero,
    /// Normal numbers with mean and deviation of the weights that are there.
    Normal,
}

/// Noise on the pixels of the frame that the transformer is shown, so that it learns to go on from frames that are not quite
/// right, as those that it drew itself are: normal numbers times one whose logarithm is normal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstFrameNoise {
    /// Mean of that logarithm; pixels go from −1 to 1.
    pub log_mean: f64,
    /// Its deviation.
    pub log_deviation: f64,
    /// How often each clip's frame is encoded, each time with other noise; a sample takes one of them.
    pub versions: usize,
}

impl FirstFrameNoise {
    fn validate(self) -> Result<()> {
        require(
            self.log_mean.abs() <= 20.0 && (0.0..=20.0).contains(&self.log_deviation),
            "first_frame_noise",
            format!("[{}, {}]", self.log_mean, self.log_deviation),
            "a mean of -20 to 20 and a deviation of 0 to 20",
        )?;
        require_count("first_frame_noise.versions", self.versions, MAX_SAMPLES)
    }
}

/// Trains a HunyuanVideo transformer and small text encoders together, on clips of motion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the transformer's `config.json`.
    pub transformer: Value,
    /// The keys of the text encoder's `config.json`: LLaVA's where the transformer is shown a first frame, else Llama's
    /// or LLaVA's; vocabulary and image token are those of the trained tokenizer. Its last two layers are not used.
    pub text_encoder: Value,
    /// The keys of the CLIP text encoder's `config.json`.
    pub text_encoder_2: Value,
    /// Tokens of the vocabulary at most, those of the texts around prompts apart.
    pub vocabulary: usize,
    /// Width and height of the clips in pixels.
    pub clip_size: usize,
    /// Frames of the clips.
    pub frames: usize,
    /// Clips that are drawn and encoded before training, and trained on again and again.
    pub clips: usize,
    /// Training.
    pub training: TrainingOptions,
    /// Shift of the noise levels, in training and in sampling.
    pub flow_shift: f64,
    /// Mean and deviation of the normal law whose logistic picks the noise level.
    pub noise_law: (f64, f64),
    /// What predictions are held to.
    pub target: FlowTarget,
    /// Share of samples that see the empty prompt.
    pub text_dropout: f64,
    /// Share of those whose text encoder also sees a black picture, as guidance leads away from.
    pub black_share: f64,
    /// What new channels begin with.
    pub new_channels: NewChannels,
    /// Noise on the first frame; none when left out. For models that are shown one.
    #[serde(default)]
    pub first_frame_noise: Option<FirstFrameNoise>,
    /// Updates between evaluations and sample sheets.
    pub eval_every: u64,
    /// Held-out clips of an evaluation.
    pub eval_clips: usize,
    /// The same in the last one.
    pub final_clips: usize,
    /// Steps of evaluations, and the finished model's default.
    pub sample_steps: usize,
    /// The same of the guidance.
    pub guidance: f64,
}

impl VideoRecipe {
    /// Refuses values that cannot be trained with.
    ///
    /// # Errors
    /// The first of them, by its key.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("transformer", &self.transformer)?;
        require_object("text_encoder", &self.text_encoder)?;
        require_object("text_encoder_2", &self.text_encoder_2)?;
        require_frames("frames", self.frames)?;
        require_share("text_dropout", self.text_dropout)?;
        require_share("black_share", self.black_share)?;
        require_flow(self.flow_shift, self.noise_law, self.guidance)?;
        if let Some(noise) = self.first_frame_noise {
            noise.validate()?;
            require(
                !self.transformer["image_condition_type"].is_null(),
                "first_frame_noise",
                "given",
                "left out: transformer.image_condition_type shows it no frame",
            )?;
        }
        let smallest = brisk_text::MIN_VOCABULARY;
        require(
            (smallest..=1 << 20).contains(&self.vocabulary),
            "vocabulary",
            self.vocabulary,
            &format!("{smallest} to {}", 1 << 20),
        )?;
        for (key, value, most) in [
            ("clips", self.clips, MAX_MEASURED),
            ("eval_every", self.eval_every as usize, MAX_STEPS as usize),
            ("sample_steps", self.sample_steps, MAX_SAMPLES),
        ] {
            require_count(key, value, most)?;
        }
        require_compared(self.eval_clips, self.final_clips)
    }
}

/// Refuses evaluations of so few clips that there is no distance between them and true ones.
pub(crate) fn require_compared(eval_clips: usize, final_clips: usize) -> Result<()> {
    for (key, count) in [("eval_clips", eval_clips), ("final_clips", final_clips)] {
        require(
            (2..=MAX_MEASURED).contains(&count),
            key,
            count,
            &format!("2 to {MAX_MEASURED}"),
        )?;
    }
    Ok(())
}

/// Refuses laws of noise and strengths of guidance that nothing can be trained with.
pub(crate) fn require_flow(shift: f64, (mean, deviation): (f64, f64), guidance: f64) -> Result<()> {
    require(
        NUMBERS.contains(&shift),
        "flow_shift",
        shift,
        &format!("{} to {}", NUMBERS.start(), NUMBERS.end()),
    )?;
    require(
        mean.abs() <= 20.0 && deviation > 0.0 && deviation <= 20.0,
        "noise_law",
        format!("[{mean}, {deviation}]"),
        "a mean of -20 to 20 and a positive deviation up to 20",
    )?;
    require(
        (0.0..=100.0).contains(&guidance),
        "guidance",
        guidance,
        "0 to 100",
    )
}
