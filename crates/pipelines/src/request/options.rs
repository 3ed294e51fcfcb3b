//! The table of options, and which of them a request gives.

use super::{DecodeMode, ImageRequest};

/// One option of [`ImageRequest`]: the single source for flags, HTTP fields and documentation.
#[derive(Debug, Clone, Copy)]
pub struct OptionInfo {
    /// Flag without its dashes; HTTP fields have `_` for `-`.
    pub name: &'static str,
    /// Placeholder of its value.
    pub value: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Whether SANA and SANA-1.5 honour it.
    pub sana: bool,
    /// Whether SANA-Sprint honours it.
    pub sprint: bool,
    /// What to do where it is refused.
    pub instead: &'static str,
}

const fn option(name: &'static str, value: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo {
        name,
        value,
        help,
        sana: true,
        sprint: true,
        instead: "",
    }
}

const fn sana_only(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    instead: &'static str,
) -> OptionInfo {
    OptionInfo {
        name,
        value,
        help,
        sana: true,
        sprint: false,
        instead,
    }
}

/// Every option of an image request.
pub const OPTIONS: &[OptionInfo] = &[
    option(
        "prompt",
        "TEXT",
        "what the picture shows; several prompts give several pictures",
    ),
    sana_only(
        "negative-prompt",
        "TEXT",
        "what the picture should not show",
        "SANA-Sprint has no second evaluation to steer away from; leave it out",
    ),
    option("width", "PIXELS", "width of the picture"),
    option("height", "PIXELS", "height of the picture"),
    option(
        "steps",
        "N",
        "denoising steps, 1 to 1000 (default 20; SANA-Sprint 2)",
    ),
    option(
        "guidance",
        "W",
        "how closely to follow the prompt (default 4.5, or the model's own)",
    ),
    option(
        "seed",
        "N",
        "seed of the noise; the same as a CPU torch.Generator's",
    ),
    option("images", "N", "pictures per prompt"),
    sana_only(
        "scheduler",
        "NAME",
        "dpm, dpm-native or euler",
        "SANA-Sprint always uses scm; leave it out",
    ),
    sana_only(
        "shift",
        "X",
        "shift of the time grid towards noise",
        "SANA-Sprint has angles instead; use --scm-timesteps",
    ),
    sana_only(
        "pag-scale",
        "P",
        "weight of perturbed-attention guidance (2 to 3 is usual)",
        "SANA-Sprint has no second evaluation; leave it out",
    ),
    sana_only(
        "pag-layers",
        "LIST",
        "blocks that are perturbed (default 8, or the middle)",
        "needs --pag-scale",
    ),
    sana_only(
        "pag-adaptive",
        "X",
        "how fast the perturbed-attention weight falls with time",
        "needs --pag-scale",
    ),
    sana_only(
        "control-image",
        "FILE",
        "picture whose edges steer the result",
        "there is no SANA-Sprint ControlNet",
    ),
    sana_only(
        "control-scale",
        "X",
        "weight of the control image (default 1)",
        "there is no SANA-Sprint ControlNet",
    ),
    option("init-image", "FILE", "picture to start from"),
    option(
        "strength",
        "X",
        "how much of the initial picture is replaced, above 0 up to 1 (default 0.6)",
    ),
    OptionInfo {
        name: "strength-on-grid",
        value: "",
        help: "round the strength up to whole steps, as diffusers does",
        sana: false,
        sprint: true,
        instead: "SANA always uses whole steps; leave it out",
    },
    OptionInfo {
        name: "scm-timesteps",
        value: "LIST",
        help: "falling angles in radians, replaces --steps",
        sana: false,
        sprint: true,
        instead: "only SANA-Sprint has angles; use --steps and --shift",
    },
    option(
        "max-sequence-length",
        "N",
        "prompt tokens that are kept (default 300)",
    ),
    option("instruction", "FILE|none", "text put before every prompt"),
    option(
        "no-binning",
        "",
        "generate at the exact size, not at the nearest trained one",
    ),
    option(
        "latents",
        "FILE",
        "initial noise, before scaling by the first sigma",
    ),
    option(
        "decode",
        "MODE",
        "auto, whole, strips (exact, little memory) or tiled (as diffusers)",
    ),
    option(
        "preview-interval",
        "N",
        "show an intermediate picture every N steps",
    ),
];

impl ImageRequest {
    /// Names of the options that differ from their default.
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("prompt", !self.prompts.is_empty()),
            (
                "negative-prompt",
                self.negative_prompt
                    .as_deref()
                    .is_some_and(|text| !text.is_empty()),
            ),
            ("width", self.width.is_some()),
            ("height", self.height.is_some()),
            ("steps", self.steps.is_some()),
            ("guidance", self.guidance.is_some()),
            ("seed", self.seed != 0),
            ("images", self.images_per_prompt != 1),
            ("scheduler", self.scheduler.is_some()),
            ("shift", self.shift.is_some()),
            ("pag-scale", self.pag_scale.is_some()),
            ("pag-layers", self.pag_layers.is_some()),
            ("pag-adaptive", self.pag_adaptive.is_some()),
            ("control-image", self.control.is_some()),
            (
                "control-scale",
                self.control
                    .as_ref()
                    .is_some_and(|control| control.scale != 1.0),
            ),
            ("init-image", self.init.is_some()),
            (
                "strength",
                self.init
                    .as_ref()
                    .is_some_and(|init| init.strength.is_some()),
            ),
            (
                "strength-on-grid",
                self.init.as_ref().is_some_and(|init| init.on_grid),
            ),
            ("scm-timesteps", self.scm_timesteps.is_some()),
            (
                "max-sequence-length",
                self.max_sequence_length != brisk_text::sana_prompt::MAX_TOKENS,
            ),
            ("instruction", self.instruction.is_some()),
            ("no-binning", self.binning.is_some()),
            ("latents", self.latents.is_some()),
            ("decode", self.decode != DecodeMode::Auto),
            ("preview-interval", self.preview_interval.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}
