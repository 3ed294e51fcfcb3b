//! A class-conditional transformer's `config.json`: the name of a published checkpoint, or the settings of the authors'
//! classes `UViTConfig` and `DiTConfig`.

use serde::Deserialize;

use super::config::{Architecture, ClassConditionalConfig, FeedForwardActivation, Scheduler};
use super::published::named_config;
use crate::config::parse;
use crate::{Error, Result};

/// Names that a configuration gives the network: with noise to predict, and with flow.
const CLASSES: [(&str, Architecture, bool); 4] = [
    ("UViT", Architecture::UVit, false),
    ("USiT", Architecture::UVit, true),
    ("DiT", Architecture::Dit, false),
    ("SiT", Architecture::Dit, true),
];

/// Keys of the file; where one is missing, the checkpoint of that name or the authors' class decides.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    model_name: Option<String>,
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    model_type: Option<String>,
    name: Option<String>,
    input_size: Option<usize>,
    patch_size: Option<usize>,
    in_channels: Option<usize>,
    hidden_size: Option<usize>,
    depth: Option<usize>,
    num_heads: Option<usize>,
    mlp_ratio: Option<f64>,
    num_classes: Option<usize>,
    class_dropout_prob: Option<f64>,
    qkv_bias: Option<bool>,
    mlp_time_embed: Option<bool>,
    act_layer: Option<String>,
    learn_sigma: Option<bool>,
    cfg_channels: Option<usize>,
    train_scheduler: Option<String>,
    eval_scheduler: Option<String>,
    num_inference_steps: Option<usize>,
    unconditional: Option<bool>,
    post_norm: Option<bool>,
    reverse_time: Option<bool>,
    use_guidance_interval: Option<bool>,
    head_only: Option<bool>,
    cfg_schedule: Option<String>,
    patch_ffn_depth: Option<usize>,
    patch_kernel_size: Option<usize>,
}

impl ClassConditionalConfig {
    /// Values of `_class_name`, `model_type` and `name`.
    pub const CLASSES: [&'static str; 8] =
        ["UViT", "USiT", "DiT", "SiT", "uvit", "usit", "dit", "sit"];

    /// Keys that are read, here or (`id2label`) by who knows prompts, or that change nothing at inference.
    pub const KEYS: [&'static str; 42] = [
        "act_layer",
        "adaptive_channel",
        "adaptive_channel_share_weights",
        "attn_mode",
        "cfg_channels",
        "cfg_schedule",
        "cfg_schedule_cosine_pow",
        "class_dropout_prob",
        "count_nfe",
        "depth",
        "eval_scheduler",
        "flow_shift",
        "freeze_backbone",
        "guidance_t_max",
        "guidance_t_min",
        "head_only",
        "hidden_size",
        "id2label",
        "in_channels",
        "input_size",
        "learn_sigma",
        "mlp_ratio",
        "mlp_time_embed",
        "model_name",
        "name",
        "num_classes",
        "num_heads",
        "num_inference_steps",
        "patch_ffn_depth",
        "patch_kernel_size",
        "patch_size",
        "post_norm",
        "pretrained_path",
        "pretrained_source",
        "qkv_bias",
        "reverse_time",
        "train_scheduler",
        "uni_sampler",
        "uni_train_scheduler",
        "unconditional",
        "use_checkpoint",
        "use_guidance_interval",
    ];

    /// Reads a `config.json`; `label` names it in messages. Sizes that stand beside a `model_name` go before its own.
    ///
    /// # Errors
    /// Another model's file, an unknown name, values of a wrong type or of what is not implemented, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let keys: Keys = parse(bytes, label)?;
        let read = || {
            let mut config = keys.named()?;
            keys.apply(&mut config)?;
            config.validate()?;
            Ok(config)
        };
        let read: Result<Self> = read();
        read.map_err(|error| Error::Config(format!("{label}: {error}")))
    }
}

impl Keys {
    /// What the name of a checkpoint or of a class says.
    fn named(&self) -> Result<ClassConditionalConfig> {
        if let Some(name) = &self.model_name {
            return checked_name(named_config(name));
        }
        let given = [
            ("_class_name", &self.class_name),
            ("model_type", &self.model_type),
            ("name", &self.name),
        ];
        let given = given
            .into_iter()
            .find_map(|(key, value)| Some((key, value.as_deref()?)));
        let Some((key, class)) = given else {
            return Err(Error::Config(
                "there is no `model_name` of a checkpoint and no `_class_name`; expected one of them, such as \"UViT\""
                    .into(),
            ));
        };
        let Some((_, architecture, flow)) = CLASSES
            .iter()
            .find(|(known, ..)| known.eq_ignore_ascii_case(class))
        else {
            return Err(Error::Config(format!(
                "`{key}` is {class:?}; expected one of {}, this file belongs to another model",
                CLASSES.map(|(known, ..)| known).join(", ")
            )));
        };
        // The authors have one class for both, and tell them apart by how they are trained.
        let trained = self.train_scheduler.as_deref() == Some("SiTSampler");
        Ok(ClassConditionalConfig::of(*architecture, *flow || trained))
    }

    fn apply(&self, config: &mut ClassConditionalConfig) -> Result<()> {
        self.refuse_others()?;
        for (value, place) in [
            (self.input_size, &mut config.input_size),
            (self.patch_size, &mut config.patch_size),
            (self.in_channels, &mut config.in_channels),
            (self.hidden_size, &mut config.hidden_size),
            (self.depth, &mut config.depth),
            (self.num_heads, &mut config.num_heads),
            (self.num_classes, &mut config.num_classes),
        ] {
            *place = value.unwrap_or(*place);
        }
        for (value, place) in [
            (self.mlp_ratio, &mut config.mlp_ratio),
            (self.class_dropout_prob, &mut config.class_dropout_prob),
        ] {
            *place = value.unwrap_or(*place);
        }
        config.cfg_channels = self.cfg_channels.or(config.cfg_channels);
        config.learn_sigma = self.learn_sigma.unwrap_or(config.learn_sigma);
        if !config.is_dit() {
            config.qkv_bias = self.qkv_bias.unwrap_or(config.qkv_bias);
            config.mlp_time_embed = self.mlp_time_embed.unwrap_or(config.mlp_time_embed);
            config.activation = match self.act_layer.as_deref() {
                None | Some("gelu") => FeedForwardActivation::Gelu,
                Some("silu") => FeedForwardActivation::Silu,
                Some(other) => return wrong("act_layer", other, "\"gelu\" or \"silu\""),
            };
        }
        self.apply_scheduler(config)
    }

    fn apply_scheduler(&self, config: &mut ClassConditionalConfig) -> Result<()> {
        let flow = config.eval_scheduler.is_flow();
        if let Some(name) = self.eval_scheduler.as_deref() {
            let found = Scheduler::ALL
                .into_iter()
                .find(|known| known.name() == name);
            let Some(found) = found else {
                let known = Scheduler::ALL.map(|known| format!("{:?}", known.name()));
                let known = format!("one of {}", known.join(", "));
                return wrong("eval_scheduler", name, &known);
            };
            config.eval_scheduler = found;
            config.num_inference_steps = found.usual_steps();
        }
        if let Some(steps) = self.num_inference_steps {
            config.num_inference_steps = steps;
        }
        let Some(trained) = self.train_scheduler.as_deref() else {
            // Without a word of training the way from noise says what is predicted.
            if config.eval_scheduler.is_flow() && !flow && self.learn_sigma.is_none() {
                config.learn_sigma = false;
            }
            return Ok(());
        };
        let expected = match (config.eval_scheduler.is_flow(), config.architecture) {
            (true, _) => "SiTSampler",
            (false, Architecture::UVit) => "DPM_Solver",
            (false, Architecture::Dit) => "GaussianDiffusion",
        };
        match trained == expected {
            true => Ok(()),
            false => wrong(
                "train_scheduler",
                trained,
                &format!(
                    "{expected:?} with `eval_scheduler` {:?}",
                    config.eval_scheduler.name()
                ),
            ),
        }
    }

    /// What the authors' classes can do besides, and no published checkpoint does.
    fn refuse_others(&self) -> Result<()> {
        for (key, value) in [
            ("unconditional", self.unconditional),
            ("post_norm", self.post_norm),
            ("reverse_time", self.reverse_time),
            ("use_guidance_interval", self.use_guidance_interval),
        ] {
            if value == Some(true) {
                return wrong(key, "true", "false, nothing else is implemented");
            }
        }
        if let Some(schedule) = self.cfg_schedule.as_deref()
            && schedule != "constant"
        {
            return wrong(
                "cfg_schedule",
                schedule,
                "\"constant\", nothing else is implemented",
            );
        }
        if let Some(depth @ 1..) = self.patch_ffn_depth {
            return wrong(
                "patch_ffn_depth",
                &depth.to_string(),
                "0, nothing else is implemented",
            );
        }
        match self.patch_kernel_size {
            Some(size) => wrong(
                "patch_kernel_size",
                &size.to_string(),
                "none, nothing else is implemented",
            ),
            None => Ok(()),
        }
    }
}

/// Puts the key before what was said of a name.
fn checked_name(found: Result<ClassConditionalConfig>) -> Result<ClassConditionalConfig> {
    found.map_err(|error| Error::Config(format!("`model_name`: {error}")))
}

fn wrong<T>(key: &str, found: &str, expected: &str) -> Result<T> {
    Err(Error::Config(format!(
        "`{key}` is {found}; expected {expected}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClassConditionalConfig> {
        ClassConditionalConfig::from_json(text.as_bytes(), "transformer/config.json")
    }

    #[test]
    fn names_classes_and_training_say_what_it_is() {
        for (text, title, scheduler, steps) in [
            (
                r#"{"_class_name": "UViT"}"#,
                "UViT",
                Scheduler::DpmSolver,
                30,
            ),
            (r#"{"_class_name": "USiT"}"#, "USiT", Scheduler::Dopri5, 250),
            (r#"{"model_type": "usit"}"#, "USiT", Scheduler::Dopri5, 250),
            (
                r#"{"name": "UViT", "train_scheduler": "SiTSampler", "num_inference_steps": 20}"#,
                "USiT",
                Scheduler::Dopri5,
                20,
            ),
            (
                r#"{"model_type": "DiT", "cfg_channels": null}"#,
                "DiT",
                Scheduler::GaussianDiffusion,
                250,
            ),
            (
                r#"{"_class_name": "DiT", "eval_scheduler": "SDE"}"#,
                "SiT",
                Scheduler::Stochastic,
                250,
            ),
            (
                r#"{"model_name": "mit-han-lab/dc-ae-f32c32-in-1.0-usit-h-in-512px"}"#,
                "USiT",
                Scheduler::Dopri5,
                250,
            ),
        ] {
            let config = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(config.title(), title, "{text}");
            assert_eq!(config.eval_scheduler, scheduler, "{text}");
            assert_eq!(config.num_inference_steps, steps, "{text}");
        }
    }

    /// A small network of a published kind.
    #[test]
    fn sizes_go_before_those_of_the_name() {
        let text = r#"{"model_name": "dc-ae-f32c32-in-1.0-uvit-s-in-512px", "hidden_size": 64, "depth": 4}"#;
        let config = read(text).unwrap();
        assert_eq!((config.hidden_size, config.depth), (64, 4));
        assert_eq!((config.num_heads, config.tokens()), (8, 258));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, words) in [
            (r#"{}"#, "`model_name`"),
            (
                r#"{"model_name": "uvit"}"#,
                "`model_name`: no class-conditional",
            ),
            (r#"{"_class_name": "Other"}"#, "another model"),
            (r#"{"_class_name": "UViT", "depth": 5}"#, "`depth` is 5"),
            (r#"{"_class_name": "UViT", "depth": 0}"#, "`depth` is 0"),
            (r#"{"_class_name": "UViT", "depth": -1}"#, "`depth`"),
            (
                r#"{"_class_name": "UViT", "num_heads": 7}"#,
                "`num_heads`, 7",
            ),
            (
                r#"{"_class_name": "UViT", "act_layer": "relu"}"#,
                "`act_layer` is relu",
            ),
            (
                r#"{"_class_name": "UViT", "mlp_ratio": 0.0}"#,
                "`mlp_ratio` is 0",
            ),
            (
                r#"{"_class_name": "UViT", "patch_size": 3}"#,
                "`patch_size`, 3",
            ),
            (
                r#"{"_class_name": "UViT", "num_classes": 0}"#,
                "`num_classes` is 0",
            ),
            (
                r#"{"_class_name": "UViT", "learn_sigma": true}"#,
                "`learn_sigma` is true",
            ),
            (
                r#"{"_class_name": "UViT", "eval_scheduler": "UniPC"}"#,
                "`eval_scheduler` is UniPC",
            ),
            (
                r#"{"_class_name": "UViT", "eval_scheduler": "GaussianDiffusion"}"#,
                "does not go with a UViT",
            ),
            (
                r#"{"_class_name": "UViT", "train_scheduler": "SiTSampler", "eval_scheduler": "DPM_Solver"}"#,
                "`train_scheduler` is SiTSampler",
            ),
            (
                r#"{"_class_name": "SiT", "learn_sigma": true}"#,
                "`learn_sigma` is true",
            ),
            (
                r#"{"_class_name": "DiT", "hidden_size": 1154, "num_heads": 2}"#,
                "multiple of 4",
            ),
            (
                r#"{"_class_name": "DiT", "cfg_channels": 5}"#,
                "`cfg_channels` is 5",
            ),
            (
                r#"{"_class_name": "DiT", "post_norm": true}"#,
                "`post_norm` is true",
            ),
            (
                r#"{"_class_name": "DiT", "unconditional": true}"#,
                "`unconditional` is true",
            ),
            (
                r#"{"_class_name": "DiT", "patch_kernel_size": 3}"#,
                "`patch_kernel_size` is 3",
            ),
            (
                r#"{"_class_name": "DiT", "class_dropout_prob": 2}"#,
                "`class_dropout_prob` is 2",
            ),
            (r#"[1]"#, "config.json"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
            assert!(error.starts_with("transformer/config.json"), "{error}");
        }
    }
}
