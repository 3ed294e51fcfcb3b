//! What defines a class-conditional transformer apart from its weights; `keys.rs` reads it from a `config.json`.

use super::dit::sine_cosine_positions;
use super::sampler::MOST_STEPS;
use crate::config::check_count;
use crate::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 16;
const LARGEST_DEPTH: usize = 1 << 10;
const LARGEST_SIDE: usize = 1 << 10;
const LARGEST_COUNT: usize = 1 << 24;

/// Channels of the sinusoid of a time in a DiT.
pub(super) const FREQUENCY_CHANNELS: usize = 256;

/// Which network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Class and time are tokens; later blocks see the outputs of earlier ones.
    UVit,
    /// Class and time modulate every block.
    Dit,
}

/// Activation in the feed-forward layers of a UViT; a DiT has GELU by the tangent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForwardActivation {
    /// GELU by the error function.
    Gelu,
    /// `x·σ(x)`.
    Silu,
}

/// The way from noise to a latent, which goes with what the network was trained to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Noise, by the singlestep form of DPM-Solver++ (arXiv 2211.01095): a UViT.
    DpmSolver,
    /// Noise and its variance, by respaced ancestral steps (arXiv 2102.09672): a DiT.
    GaussianDiffusion,
    /// Velocity, by Dormand and Prince's steps of orders 5 and 4 whose size is found on the way.
    Dopri5,
    /// Velocity, by Heun's steps of order 2.
    Heun2,
    /// Velocity, with noise on the way (Euler and Maruyama).
    Stochastic,
}

impl Scheduler {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::DpmSolver,
        Self::GaussianDiffusion,
        Self::Dopri5,
        Self::Heun2,
        Self::Stochastic,
    ];

    /// As `eval_scheduler` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DpmSolver => "DPM_Solver",
            Self::GaussianDiffusion => "GaussianDiffusion",
            Self::Dopri5 => "ODE_dopri5",
            Self::Heun2 => "ODE_heun2",
            Self::Stochastic => "SDE",
        }
    }

    /// Whether the network predicts a velocity, from noise at time 0 to the latent at time 1.
    pub fn is_flow(self) -> bool {
        matches!(self, Self::Dopri5 | Self::Heun2 | Self::Stochastic)
    }

    /// Whether noise is drawn on the way.
    pub fn draws_noise(self) -> bool {
        matches!(self, Self::GaussianDiffusion | Self::Stochastic)
    }

    /// Steps that the authors' configurations take.
    pub fn usual_steps(self) -> usize {
        match self {
            Self::DpmSolver => 30,
            _ => 250,
        }
    }
}

/// Settings of a class-conditional transformer; names are the authors'.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassConditionalConfig {
    /// Which network it is.
    pub architecture: Architecture,
    /// Rows and columns of the latent.
    pub input_size: usize,
    /// Rows and columns of a patch.
    pub patch_size: usize,
    /// Channels of the latent.
    pub in_channels: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks; a UViT has one more in the middle.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Channels inside the feed-forward layers, in widths.
    pub mlp_ratio: f64,
    /// Classes, without that which stands for none.
    pub num_classes: usize,
    /// How often a class was left out in training; at 0 there is none that stands for none.
    pub class_dropout_prob: f64,
    /// UViT: whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// UViT: whether the time goes through two layers before it is a token.
    pub mlp_time_embed: bool,
    /// UViT: activation in the feed-forward layers.
    pub activation: FeedForwardActivation,
    /// DiT: whether it predicts variances beside the noise.
    pub learn_sigma: bool,
    /// Channels that guidance moves; none: all of the latent's.
    pub cfg_channels: Option<usize>,
    /// Its way from noise to a latent.
    pub eval_scheduler: Scheduler,
    /// Steps of that way.
    pub num_inference_steps: usize,
    /// Of a published model: the autoencoder that its latents are of, by name.
    pub autoencoder: Option<&'static str>,
}

impl ClassConditionalConfig {
    /// The defaults of the authors' class, with a scheduler that fits it.
    pub(super) fn of(architecture: Architecture, flow: bool) -> Self {
        let eval_scheduler = match (flow, architecture) {
            (true, _) => Scheduler::Dopri5,
            (false, Architecture::UVit) => Scheduler::DpmSolver,
            (false, Architecture::Dit) => Scheduler::GaussianDiffusion,
        };
        Self {
            architecture,
            input_size: 32,
            patch_size: 2,
            in_channels: 4,
            hidden_size: 1152,
            depth: 28,
            num_heads: 16,
            mlp_ratio: 4.0,
            num_classes: 1000,
            class_dropout_prob: 0.1,
            qkv_bias: architecture == Architecture::Dit,
            mlp_time_embed: false,
            activation: FeedForwardActivation::Gelu,
            learn_sigma: architecture == Architecture::Dit && !flow,
            cfg_channels: None,
            eval_scheduler,
            num_inference_steps: eval_scheduler.usual_steps(),
            autoencoder: None,
        }
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured, with what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        for (key, value, limit) in [
            ("input_size", self.input_size, LARGEST_SIDE),
            ("patch_size", self.patch_size, LARGEST_SIDE),
            ("in_channels", self.in_channels, LARGEST_WIDTH),
            ("hidden_size", self.hidden_size, LARGEST_WIDTH),
            ("depth", self.depth, LARGEST_DEPTH),
            ("num_heads", self.num_heads, LARGEST_WIDTH),
            ("num_classes", self.num_classes, LARGEST_COUNT),
            ("num_inference_steps", self.num_inference_steps, MOST_STEPS),
        ] {
            check_count(key, value, limit)?;
        }
        let fail = |message: String| Err(Error::Config(message));
        if !self.input_size.is_multiple_of(self.patch_size) {
            return fail(format!(
                "`input_size` is {}; expected a multiple of `patch_size`, {}",
                self.input_size, self.patch_size
            ));
        }
        if !self.hidden_size.is_multiple_of(self.num_heads) {
            return fail(format!(
                "`hidden_size` is {}; expected a multiple of `num_heads`, {}",
                self.hidden_size, self.num_heads
            ));
        }
        // Sines and cosines of places stand by two in half of the channels, those of times in all.
        let unit = match self.architecture {
            Architecture::UVit => 2,
            Architecture::Dit => 4,
        };
        if !self.hidden_size.is_multiple_of(unit) {
            return fail(format!(
                "`hidden_size` is {}; expected a multiple of {unit}",
                self.hidden_size
            ));
        }
        if self.architecture == Architecture::UVit && !self.depth.is_multiple_of(2) {
            return fail(format!(
                "`depth` is {}; expected an even number: half of the blocks see what the others gave",
                self.depth
            ));
        }
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio <= 256.0) || self.inner() == 0 {
            return fail(format!(
                "`mlp_ratio` is {}; expected a number above 0, at most 256, that leaves a channel",
                self.mlp_ratio
            ));
        }
        if !(0.0..=1.0).contains(&self.class_dropout_prob) {
            return fail(format!(
                "`class_dropout_prob` is {}; expected 0 to 1",
                self.class_dropout_prob
            ));
        }
        if let Some(channels) = self.cfg_channels
            && !(1..=self.in_channels).contains(&channels)
        {
            return fail(format!(
                "`cfg_channels` is {channels}; expected 1 to `in_channels`, {}",
                self.in_channels
            ));
        }
        self.check_scheduler()
    }

    /// Checks that the way from noise is one for what the network predicts.
    fn check_scheduler(&self) -> Result<()> {
        let scheduler = self.eval_scheduler;
        let other = match (self.architecture, scheduler) {
            (Architecture::UVit, Scheduler::GaussianDiffusion) => Some("a UViT"),
            (Architecture::Dit, Scheduler::DpmSolver) => Some("a DiT"),
            _ => None,
        };
        if let Some(network) = other {
            return Err(Error::Config(format!(
                "`eval_scheduler` is {:?}, which does not go with {network}; expected {}",
                scheduler.name(),
                match self.architecture {
                    Architecture::UVit =>
                        "\"DPM_Solver\", or \"ODE_dopri5\" where it was trained with flow",
                    Architecture::Dit =>
                        "\"GaussianDiffusion\", or \"ODE_dopri5\" where it was trained with flow",
                }
            )));
        }
        let needed = scheduler == Scheduler::GaussianDiffusion;
        if self.learn_sigma != needed {
            return Err(Error::Config(format!(
                "`learn_sigma` is {} with `eval_scheduler` {:?}; expected {needed}",
                self.learn_sigma,
                scheduler.name(),
            )));
        }
        Ok(())
    }

    /// Whether it is a DiT.
    pub(super) fn is_dit(&self) -> bool {
        self.architecture == Architecture::Dit
    }

    /// Its name: by its network, and by what it was trained to predict.
    pub fn title(&self) -> &'static str {
        match (self.architecture, self.eval_scheduler.is_flow()) {
            (Architecture::UVit, false) => "UViT",
            (Architecture::UVit, true) => "USiT",
            (Architecture::Dit, false) => "DiT",
            (Architecture::Dit, true) => "SiT",
        }
    }

    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Channels inside a feed-forward layer.
    pub fn inner(&self) -> usize {
        (self.hidden_size as f64 * self.mlp_ratio) as usize
    }

    /// Patches along a side.
    pub fn grid(&self) -> usize {
        self.input_size / self.patch_size
    }

    /// Tokens of a sequence: patches, and in a UViT class and time.
    pub fn tokens(&self) -> usize {
        let others = if self.is_dit() { 0 } else { 2 };
        self.grid() * self.grid() + others
    }

    /// Channels that it predicts: those of the latent, and as many for variances.
    pub fn output_channels(&self) -> usize {
        let parts = if self.learn_sigma { 2 } else { 1 };
        parts * self.in_channels
    }

    /// The class that stands for none; none where the network was trained without one.
    pub fn null_class(&self) -> Option<u32> {
        (self.class_dropout_prob > 0.0).then_some(self.num_classes as u32)
    }

    /// Positions `[1,N,d]` of a DiT, which training leaves as they are; none where they are trained.
    pub fn fixed_positions(&self) -> Option<Vec<f32>> {
        self.is_dit().then(|| sine_cosine_positions(self))
    }

    /// Rows of the table of classes.
    pub fn class_rows(&self) -> usize {
        self.num_classes + usize::from(self.null_class().is_some())
    }
}
