//! What the tensors of an adapter file are, in the namings that trainers write.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// One tensor's part in a layer's adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// `[rank, inputs]`
    Down,
    /// `[outputs, rank]`
    Up,
    /// The number that the product is multiplied with, before it is divided by the rank.
    Alpha,
    /// Added to the layer's bias, `[outputs]`.
    Bias,
    /// Length of every row of the adapted weight (DoRA), `[outputs]`.
    Magnitude,
}

/// A layer as the file names it, with the names of its tensors.
pub(super) type Layers = BTreeMap<String, BTreeMap<Part, String>>;

/// Before the name of a part; PEFT may put the adapter's own name behind it.
const MARKERS: [(&str, Part); 7] = [
    (".lora_A.", Part::Down),
    (".lora_B.", Part::Up),
    (".lora_down.", Part::Down),
    (".lora_up.", Part::Up),
    (".lora.down.", Part::Down),
    (".lora.up.", Part::Up),
    (".lora_magnitude_vector.", Part::Magnitude),
];

/// Kinds of adapters that are no plain low-rank pairs, by what stands in their names, followed by a dot.
const OTHER_KINDS: [(&str, &str); 13] = [
    (".dora_scale.", "DoRA in LyCORIS' form"),
    (".lokr_", "LoKr"),
    (".hada_", "LoHa"),
    (".oft_", "OFT"),
    (".boft_", "BOFT"),
    (".ia3_", "IA3"),
    (".lora_mid.", "LoCon in Tucker's form"),
    (".lora_embedding_", "adapters of embeddings"),
    (".token_adapter.", "trained tokens"),
    (".reshape_weight.", "weights of another shape"),
    (".diff.", "full differences"),
    (".diff_b.", "full differences"),
    ("_norm.scale.", "replaced norms"),
];

/// How names of tensors for a text encoder begin.
const TEXT_ENCODERS: [&str; 7] = [
    "text_encoder.",
    "text_encoder_2.",
    "text_encoder_3.",
    "text_encoders.",
    "lora_te",
    "clip_l.",
    "t5xxl.",
];

/// What trainers put before a model's own names, in any order.
const PREFIXES: [&str; 5] = [
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
];

/// What kohya's trainers put before a layer's name, whose dots they write as underscores.
const UNDERSCORED: [&str; 2] = ["lora_unet_", "lora_transformer_"];

/// PEFT's own, which tells that an `adapter_config.json` belongs to the file.
pub(super) const PEFT: &str = "base_model.model.";

/// Layer and part of a tensor; none for what is no part of a low-rank pair.
fn part(name: &str) -> Option<(&str, Part)> {
    for (marker, part) in MARKERS {
        if let Some((layer, rest)) = name.rsplit_once(marker) {
            // `weight`, or `default.weight` with an adapter's name.
            let kind = rest.rsplit_once('.').map_or(rest, |(_, kind)| kind);
            return match (part, kind) {
                (Part::Up, "bias") => Some((layer, Part::Bias)),
                (Part::Magnitude, _) | (_, "weight") => Some((layer, part)),
                _ => None,
            };
        }
    }
    let plain = [
        (".alpha", Part::Alpha),
        (".lora_magnitude_vector", Part::Magnitude),
    ];
    plain
        .into_iter()
        .find_map(|(end, part)| Some((name.strip_suffix(end)?, part)))
}

/// The layers of a file's tensors `names`. `label` names the file.
///
/// # Errors
/// Tensors that are no low-rank pairs, are for a text encoder, or come twice: all are named, none is
/// left out.
pub(super) fn layers(names: &[String], label: &str) -> Result<Layers> {
    let mut layers = Layers::new();
    let (mut texts, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        if TEXT_ENCODERS.iter().any(|start| name.starts_with(start)) {
            texts.push(name.as_str());
            continue;
        }
        let Some((layer, part)) = part(name) else {
            unknown.push(name.as_str());
            continue;
        };
        let parts = layers.entry(layer.to_owned()).or_default();
        if let Some(first) = parts.insert(part, name.clone()) {
            return Err(Error::Config(format!(
                "{label} holds two adapters: both {first} and {name}; save each in a file of its own"
            )));
        }
    }
    let other = OTHER_KINDS.iter().find_map(|(mark, kind)| {
        let found = unknown
            .iter()
            .find(|name| format!("{name}.").contains(mark))?;
        Some((*kind, *found))
    });
    if let Some((kind, name)) = other {
        return Err(Error::Config(format!(
            "{label} holds {kind} ({name}), which is not read; only low-rank pairs (LoRA, PEFT's DoRA) are"
        )));
    }
    if layers.is_empty() && texts.is_empty() {
        return Err(Error::Config(format!(
            "{label} holds no LoRA tensors (names ending in .lora_A.weight or .lora_down.weight); expected \
             an adapter as diffusers, PEFT, ComfyUI or kohya's scripts write it"
        )));
    }
    if !unknown.is_empty() {
        return Err(Error::Config(format!(
            "{label} holds {} whole tensors beside its low-rank pairs, such as {} (modules_to_save, or \
             trained biases); merge the adapter into the model with its trainer and load that",
            unknown.len(),
            unknown[0]
        )));
    }
    if !texts.is_empty() {
        return Err(Error::Config(format!(
            "{label} holds {} tensors for a text encoder, such as {}; only the main network is adapted: \
             save the adapter without them",
            texts.len(),
            texts[0]
        )));
    }
    Ok(layers)
}

/// What a model may call a layer that a file names so: the name itself, and without what trainers
/// put before it.
pub(super) fn plain(layer: &str) -> Vec<&str> {
    let mut names = vec![layer];
    let mut rest = layer;
    while let Some(inner) = PREFIXES.iter().find_map(|p| rest.strip_prefix(p)) {
        names.push(inner);
        rest = inner;
    }
    names
}

/// A layer's name with underscores for its dots, where the file names it so.
pub(super) fn underscored(layer: &str) -> Option<&str> {
    UNDERSCORED.iter().find_map(|p| layer.strip_prefix(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<Layers> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        layers(&names, "file")
    }

    #[test]
    fn every_naming_gives_layer_and_part() {
        let cases = [
            (
                "transformer.a.to_q.lora_A.weight",
                "transformer.a.to_q",
                Part::Down,
            ),
            (
                "base_model.model.a.lora_B.default.weight",
                "base_model.model.a",
                Part::Up,
            ),
            (
                "base_model.model.a.lora_B.bias",
                "base_model.model.a",
                Part::Bias,
            ),
            (
                "lora_unet_a_to_q.lora_down.weight",
                "lora_unet_a_to_q",
                Part::Down,
            ),
            ("lora_unet_a_to_q.alpha", "lora_unet_a_to_q", Part::Alpha),
            ("unet.a.lora.up.weight", "unet.a", Part::Up),
            ("a.lora_magnitude_vector", "a", Part::Magnitude),
            ("a.lora_magnitude_vector.weight", "a", Part::Magnitude),
        ];
        for (name, layer, part) in cases {
            let found = read(&[name]).unwrap();
            assert_eq!(found[layer][&part], name);
        }
        assert_eq!(
            plain("base_model.model.transformer.transformer_blocks.0"),
            [
                "base_model.model.transformer.transformer_blocks.0",
                "transformer.transformer_blocks.0",
                "transformer_blocks.0"
            ]
        );
        assert_eq!(underscored("lora_unet_a_b_0"), Some("a_b_0"));
    }

    #[test]
    fn what_is_not_read_is_named() {
        let pair = ["a.lora_A.weight", "a.lora_B.weight"];
        let cases = [
            ("a.dora_scale", "LyCORIS"),
            ("a.lokr_w1", "LoKr"),
            ("a.hada_w1_a", "LoHa"),
            ("a.lora_mid.weight", "Tucker"),
            ("a.lora_embedding_A", "embeddings"),
            ("head.weight", "modules_to_save"),
            ("text_encoder.a.lora_A.weight", "text encoder"),
            ("lora_te1_a.lora_down.weight", "text encoder"),
            ("a.lora_A.second.weight", "two adapters"),
        ];
        for (name, told) in cases {
            let error = read(&[&pair[..], &[name]].concat()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(told) && error.contains(name), "{error}");
        }
        assert!(
            read(&[])
                .unwrap_err()
                .to_string()
                .contains("no LoRA tensors")
        );
    }
}
