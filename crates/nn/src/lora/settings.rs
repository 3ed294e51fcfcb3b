//! What an adapter's file says about its strength, beside the tensors: PEFT's configuration, in
//! `adapter_config.json` or in the metadata of diffusers' files.

use crate::error::{Error, Result};
use brisk_store::shown;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Key of the metadata of diffusers' files: PEFT's keys, each after the network's name and a dot.
pub(super) const METADATA: &str = "lora_adapter_metadata";

/// Keys of PEFT's configuration that are honoured, or that say nothing of what a finished adapter adds.
const KNOWN: [&str; 34] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "target_parameters",
    "task_type",
    "use_dora",
    "use_rslora",
];

/// Ways of PEFT to compute by an adapter that are not read, with what each does.
const OTHER_WAYS: [(&str, &str); 3] = [
    (
        "alora_invocation_tokens",
        "adapts only what follows these tokens",
    ),
    ("use_qalora", "pools the inputs of a layer"),
    ("use_bdlora", "splits its matrices into blocks"),
];

/// Most layers that settings of their own are given for; each layer looks through all of them.
const MAX_PATTERNS: usize = 10_000;

/// PEFT's configuration of one network's adapter.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settings {
    /// `lora_alpha`
    alpha: Option<f32>,
    /// `alpha_pattern`: ends of layers' names, or whole names after `^`.
    patterns: Vec<(String, f32)>,
    /// `use_rslora`: divide by the root of the rank.
    pub root_of_rank: bool,
    /// `use_dora`
    pub dora: bool,
    /// `lora_bias`
    pub bias: bool,
    /// `r` and the values of `rank_pattern`; empty where neither is there.
    ranks: BTreeSet<u64>,
    /// Keys that say something which nothing reads.
    unread: Vec<String>,
}

/// Settings of each network that a file adapts; one without a name is for all.
#[derive(Debug, Default)]
pub(super) struct AllSettings(BTreeMap<String, Settings>);

impl AllSettings {
    /// From PEFT's `adapter_config.json`.
    pub fn from_config(bytes: &[u8], label: &str) -> Result<Self> {
        let value = brisk_store::parse_json(bytes, label)?;
        let Value::Object(keys) = value else {
            return Err(wrong(label, "expected an object".to_owned()));
        };
        let settings = Settings::read(&keys, label)?;
        Ok(Self(BTreeMap::from([(String::new(), settings)])))
    }

    /// From the text under [`METADATA`].
    pub fn from_metadata(text: &str, label: &str) -> Result<Self> {
        let label = format!("{label}: metadata {METADATA:?}");
        let value = brisk_store::parse_json(text.as_bytes(), &label)?;
        let Value::Object(all) = value else {
            return Err(wrong(&label, "expected an object".to_owned()));
        };
        let mut networks: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (key, value) in all {
            let Some((network, key)) = key.split_once('.') else {
                let found = format!("key {key:?} names no network; expected transformer.{key}");
                return Err(wrong(&label, found));
            };
            let keys = networks.entry(network.to_owned()).or_default();
            keys.insert(key.to_owned(), value);
        }
        let read = |(network, keys): (String, Map<String, Value>)| {
            let settings = Settings::read(&keys, &format!("{label}, {network}"))?;
            Ok((network, settings))
        };
        Ok(Self(networks.into_iter().map(read).collect::<Result<_>>()?))
    }

    /// Those for a layer as the file names it; none where the file has no settings at all.
    ///
    /// # Errors
    /// Settings of several networks, none of which is the layer's.
    pub fn of(&self, layer: &str, label: &str) -> Result<Option<&Settings>> {
        let network = layer.split('.').next().unwrap_or_default();
        let found = self.0.get(network).or_else(|| match self.0.len() {
            1 => self.0.values().next(),
            _ => None,
        });
        if found.is_none() && !self.0.is_empty() {
            let networks: Vec<&str> = self.0.keys().map(String::as_str).collect();
            return Err(Error::Config(format!(
                "{label}: the metadata describes adapters of {}, but layer {layer} is of none of them",
                networks.join(", ")
            )));
        }
        Ok(found)
    }

    /// Keys that say something which nothing reads.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        let all = self.0.values().flat_map(|settings| &settings.unread);
        all.map(String::as_str)
    }
}

impl Settings {
    fn read(keys: &Map<String, Value>, label: &str) -> Result<Self> {
        let text = |key: &str| keys.get(key).and_then(Value::as_str);
        let is_set = |key: &str| match keys.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(set)) => Ok(*set),
            Some(other) => {
                let other = shown(&other.to_string());
                let found = format!("{key} is {other}, expected true or false");
                Err(wrong(label, found))
            }
        };
        if let Some(kind) = text("peft_type").filter(|kind| *kind != "LORA") {
            return Err(wrong(
                label,
                format!("peft_type is {kind}, only LORA is read"),
            ));
        }
        if is_set("fan_in_fan_out")? {
            let found = "fan_in_fan_out is set: the adapter is for layers with transposed weights";
            return Err(wrong(label, found.to_owned()));
        }
        if keys.get("layer_replication").is_some_and(|v| !v.is_null()) {
            let found = "layer_replication repeats layers, which no model here does";
            return Err(wrong(label, found.to_owned()));
        }
        for (key, does) in OTHER_WAYS {
            if keys.get(key).is_some_and(says_something) {
                let found = format!("{key} is set: the adapter {does}, which is not read");
                return Err(wrong(label, found));
            }
        }
        if let Some(modules) = keys.get("modules_to_save").filter(|v| says_something(v)) {
            let modules = shown(&modules.to_string());
            return Err(wrong(
                label,
                format!(
                    "modules_to_save is {modules}: these were trained beside the adapter; merge it into \
                     the model with its trainer and load that"
                ),
            ));
        }
        const MOVED: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];
        if let Some(start) = text("init_lora_weights")
            && MOVED.iter().any(|moved| start.starts_with(moved))
        {
            return Err(wrong(
                label,
                format!(
                    "init_lora_weights is {start}: the adapter was trained on changed weights; save it \
                     with PEFT's path_initial_model_for_weight_conversion"
                ),
            ));
        }
        let settings = Self {
            alpha: number(keys.get("lora_alpha"), "lora_alpha", label)?,
            patterns: patterns(keys.get("alpha_pattern"), label)?,
            root_of_rank: is_set("use_rslora")?,
            dora: is_set("use_dora")?,
            bias: is_set("lora_bias")?,
            ranks: ranks(keys, label)?,
            unread: unread(keys),
        };
        if settings.root_of_rank && settings.alpha.is_none() {
            return Err(wrong(label, "use_rslora needs lora_alpha".to_owned()));
        }
        Ok(settings)
    }

    /// Whether a layer may have this rank by what is said of ranks; which layers a pattern means is not
    /// looked at.
    pub fn allows(&self, rank: usize) -> bool {
        self.ranks.is_empty() || self.ranks.contains(&(rank as u64))
    }

    /// The ranks that are said, for messages.
    pub fn ranks(&self) -> String {
        let ranks: Vec<String> = self.ranks.iter().map(u64::to_string).collect();
        shown(&ranks.join(", "))
    }

    /// The alpha of the layer that a model calls one of `names`.
    pub fn alpha(&self, names: &[&str]) -> Option<f32> {
        let fits = |pattern: &str| match pattern.strip_prefix('^') {
            Some(whole) => names.contains(&whole),
            None => names.iter().any(|name| {
                let before = name.strip_suffix(pattern);
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
        };
        let found = self.patterns.iter().find(|(pattern, _)| fits(pattern));
        found.map(|(_, alpha)| *alpha).or(self.alpha)
    }
}

/// Whether a value is not what stands for nothing.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(table) => !table.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn unread(keys: &Map<String, Value>) -> Vec<String> {
    let unread = keys
        .iter()
        .filter(|(key, value)| !KNOWN.contains(&key.as_str()) && says_something(value));
    unread.map(|(key, _)| shown(key)).collect()
}

fn ranks(keys: &Map<String, Value>, label: &str) -> Result<BTreeSet<u64>> {
    let rank = |key: String, value: &Value| {
        let found = value.as_u64().filter(|rank| *rank > 0);
        found.ok_or_else(|| {
            let value = shown(&value.to_string());
            wrong(
                label,
                format!("{key} is {value}, expected a whole number from 1"),
            )
        })
    };
    let mut ranks = BTreeSet::new();
    if let Some(value) = keys.get("r").filter(|value| !value.is_null()) {
        ranks.insert(rank("r".to_owned(), value)?);
    }
    match keys.get("rank_pattern") {
        None | Some(Value::Null) => {}
        Some(Value::Object(patterns)) => {
            for (name, value) in patterns {
                ranks.insert(rank(format!("rank_pattern {:?}", shown(name)), value)?);
            }
        }
        Some(other) => {
            let other = shown(&other.to_string());
            let found = format!("rank_pattern is {other}, expected an object");
            return Err(wrong(label, found));
        }
    }
    Ok(ranks)
}

fn number(value: Option<&Value>, key: &str, label: &str) -> Result<Option<f32>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) if (number as f32).is_finite() => Ok(Some(number as f32)),
            _ => Err(wrong(label, format!("{key} is {value}, expected a number"))),
        },
    }
}

fn patterns(value: Option<&Value>, label: &str) -> Result<Vec<(String, f32)>> {
    let pattern = |(name, value): (&String, &Value)| {
        let key = format!("alpha_pattern {name:?}");
        // A regular expression in general; what trainers write are names.
        let plain = name.replace("\\.", ".");
        let plain = plain.strip_suffix('$').unwrap_or(&plain);
        let inner = plain.strip_prefix('^').unwrap_or(plain);
        if inner.contains(|c: char| !(c.is_alphanumeric() || "._-".contains(c))) {
            let found = format!("{key} is a regular expression; expected the name of a layer");
            return Err(wrong(label, found));
        }
        let alpha = number(Some(value), &key, label)?;
        let alpha = alpha.ok_or_else(|| wrong(label, format!("{key} is null")))?;
        Ok((plain.to_owned(), alpha))
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(patterns)) if patterns.len() > MAX_PATTERNS => Err(wrong(
            label,
            format!(
                "alpha_pattern has {} names; no model has more than {MAX_PATTERNS} layers",
                patterns.len()
            ),
        )),
        Some(Value::Object(patterns)) => patterns.iter().map(pattern).collect(),
        Some(other) => Err(wrong(
            label,
            format!("alpha_pattern is {other}, expected an object"),
        )),
    }
}

fn wrong(label: &str, problem: String) -> Error {
    Error::Config(format!("{label}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<AllSettings> {
        AllSettings::from_config(text.as_bytes(), "adapter_config.json")
    }

    fn alpha(all: &AllSettings, layer: &str) -> Option<f32> {
        all.of(layer, "file").unwrap().unwrap().alpha(&[layer])
    }

    #[test]
    fn patterns_are_names_and_their_ends() {
        let all = config(
            r#"{"lora_alpha": 8, "alpha_pattern": {"0.to_q": 2.5, "^b.to_k": 3, "a\\.to_v$": 4}}"#,
        )
        .unwrap();
        assert_eq!(alpha(&all, "a.0.to_q"), Some(2.5));
        assert_eq!(alpha(&all, "a.10.to_q"), Some(8.0));
        assert_eq!(alpha(&all, "b.to_k"), Some(3.0));
        assert_eq!(alpha(&all, "a.b.to_k"), Some(8.0));
        assert_eq!(alpha(&all, "a.to_v"), Some(4.0));
    }

    #[test]
    fn ranks_are_those_that_are_said_and_unknown_keys_are_told() {
        let all = config(
            r#"{"r": 8, "rank_pattern": {".*to_q": 4}, "peft_version": "0.18", "use_qalora": false,
                "arrow_config": null, "later": 3, "trainable_token_indices": [1]}"#,
        )
        .unwrap();
        let settings = all.of("a", "file").unwrap().unwrap();
        assert!(settings.allows(8) && settings.allows(4) && !settings.allows(2));
        assert_eq!(settings.ranks(), "4, 8");
        let unread: Vec<&str> = all.unread().collect();
        assert_eq!(unread, ["later", "trainable_token_indices"]);
    }

    #[test]
    fn metadata_is_told_apart_by_network() {
        let text = r#"{"transformer.lora_alpha": 8.0, "transformer.use_rslora": true,
                       "text_encoder.lora_alpha": 2}"#;
        let all = AllSettings::from_metadata(text, "file").unwrap();
        let layer = all.of("transformer.a", "file").unwrap().unwrap();
        assert_eq!((layer.alpha(&["a"]), layer.root_of_rank), (Some(8.0), true));
        let refused = all.of("a", "file").unwrap_err().to_string();
        assert!(refused.contains("text_encoder, transformer"), "{refused}");
        let one = AllSettings::from_metadata(r#"{"transformer.lora_alpha": 3}"#, "file").unwrap();
        assert_eq!(alpha(&one, "diffusion_model.a"), Some(3.0));
        assert!(AllSettings::default().of("a", "file").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, told) in [
            (r#"{"peft_type": "LOHA"}"#, "LOHA"),
            (r#"{"fan_in_fan_out": true}"#, "fan_in_fan_out"),
            (r#"{"layer_replication": [[0, 2]]}"#, "layer_replication"),
            (
                r#"{"init_lora_weights": "pissa_niter_16"}"#,
                "pissa_niter_16",
            ),
            (r#"{"alpha_pattern": {"a.*b": 2}}"#, "a.*b"),
            (r#"{"alpha_pattern": 3}"#, "alpha_pattern"),
            (r#"{"lora_alpha": "8"}"#, "lora_alpha"),
            (r#"{"use_rslora": true}"#, "lora_alpha"),
            (r#"{"lora_alpha": 8, "use_rslora": 1}"#, "use_rslora is 1"),
            (r#"{"use_dora": "true"}"#, "true or false"),
            (r#"{"use_qalora": true}"#, "use_qalora"),
            (
                r#"{"alora_invocation_tokens": [1, 2]}"#,
                "alora_invocation_tokens",
            ),
            (r#"{"modules_to_save": ["proj_out"]}"#, "proj_out"),
            (r#"{"r": "4"}"#, "r is \"4\""),
            (r#"{"r": 0}"#, "r is 0"),
            (r#"{"rank_pattern": [4]}"#, "rank_pattern"),
            (r#"{"rank_pattern": {"a": -4}}"#, "rank_pattern \"a\" is -4"),
            ("[]", "object"),
        ] {
            let error = config(text).unwrap_err().to_string();
            assert!(
                error.contains(told) && error.contains("adapter_config"),
                "{error}"
            );
        }
        for text in [r#"{"r": 4}"#, "3", "{"] {
            assert!(AllSettings::from_metadata(text, "file").is_err());
        }
    }
}
