//! Which of a repository's files a model needs.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::is_index;

/// Extensions of small files: configurations, tokenizers, chat templates.
const SMALL: [&str; 4] = [".json", ".txt", ".model", ".jinja"];
/// PyTorch checkpoints, taken only where there is nothing safer.
const PICKLES: [&str; 3] = [".pth", ".pt", ".bin"];

/// A weights file's name, taken apart.
#[derive(Debug, PartialEq)]
struct WeightName<'a> {
    /// `diffusion_pytorch_model`, `model`, or whatever the author chose.
    stem: &'a str,
    variant: Option<&'a str>,
}

/// A weights file and its variant.
type Member<'a> = (&'a String, Option<&'a str>);

/// Needed files of a repository, sorted: everything small, and for each folder one set of weights.
pub(super) fn needed(files: &[String], variant: Option<&str>) -> Vec<String> {
    let is_weights = |file: &&String| file.ends_with(".safetensors") || is_index(file);
    let pipeline = files.iter().any(|file| file == "model_index.json");
    // In a pipeline, weights beside model_index.json are the same model once more, in one file.
    let at_home = |file: &&String| !pipeline || file.contains('/');
    let mut chosen: BTreeSet<String> = files
        .iter()
        .filter(|file| SMALL.iter().any(|ending| file.ends_with(ending)) && !is_index(file))
        .cloned()
        .collect();
    let mut with_safetensors = BTreeSet::new();
    let mut groups: BTreeMap<(&str, &str), Vec<Member<'_>>> = BTreeMap::new();
    for file in files.iter().filter(is_weights).filter(at_home) {
        let (folder, name) = split(file);
        let Some(parts) = take_apart(name) else {
            continue;
        };
        if name.contains(".safetensors") {
            with_safetensors.insert(folder);
            groups
                .entry((folder, parts.stem))
                .or_default()
                .push((file, parts.variant));
        }
    }
    for group in groups.values() {
        let has = |wanted: Option<&str>| group.iter().any(|(_, found)| *found == wanted);
        let wanted = if has(variant) {
            variant
        } else if has(None) {
            None
        } else {
            group.first().and_then(|(_, found)| *found)
        };
        let members = group.iter().filter(|(_, found)| *found == wanted);
        chosen.extend(members.map(|(file, _)| (*file).clone()));
    }
    let pickles = files.iter().filter(at_home).filter(|file| {
        let (folder, name) = split(file);
        let index = is_index(file) && !name.contains(".safetensors");
        (index || PICKLES.iter().any(|ending| name.ends_with(ending)))
            && name != "training_args.bin"
            && !with_safetensors.contains(folder)
    });
    chosen.extend(pickles.cloned());
    chosen.into_iter().collect()
}

fn split(file: &str) -> (&str, &str) {
    file.rsplit_once('/').unwrap_or(("", file))
}

/// `stem[.variant][-00001-of-00002].safetensors` and `stem[.variant].safetensors.index[.variant].json`.
fn take_apart(name: &str) -> Option<WeightName<'_>> {
    let (base, rest) = name.split_once(".safetensors")?;
    let index_variant = rest
        .strip_prefix(".index.")
        .and_then(|rest| rest.strip_suffix("json"))
        .and_then(|variant| variant.strip_suffix('.'));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let shard = base
        .rsplit_once("-of-")
        .filter(|(_, count)| is_number(count));
    let base = shard
        .and_then(|(before, _)| before.rsplit_once('-'))
        .filter(|(_, number)| is_number(number))
        .map_or(base, |(before, _)| before);
    // Only short endings are variants: authors' own names have dots in version numbers ("sana1.6b").
    let known = |variant: &str| ["fp16", "bf16", "fp32", "non_ema", "ema"].contains(&variant);
    let (stem, variant) = match base.rsplit_once('.') {
        Some((stem, variant)) if known(variant) || stem.ends_with("_model") || stem == "model" => {
            (stem, Some(variant))
        }
        _ => (base, None),
    };
    Some(WeightName {
        stem,
        variant: variant.or(index_variant),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], variant: Option<&str>) -> Vec<String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        needed(&files, variant)
    }

    const PIPELINE: [&str; 14] = [
        "README.md",
        "model_index.json",
        "single_file.safetensors",
        "text_encoder/config.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.fp16-00001-of-00001.safetensors",
        "text_encoder/model.safetensors.index.fp16.json",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/pytorch_model.bin",
        "tokenizer/tokenizer.model",
        "transformer/diffusion_pytorch_model.safetensors",
        "transformer/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ];

    #[test]
    fn a_pipeline_needs_one_variant_of_each_component() {
        assert_eq!(
            chosen(&PIPELINE, None),
            [
                "model_index.json",
                "text_encoder/config.json",
                "text_encoder/model-00001-of-00002.safetensors",
                "text_encoder/model-00002-of-00002.safetensors",
                "text_encoder/model.safetensors.index.json",
                "tokenizer/tokenizer.model",
                "transformer/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.bin",
            ]
        );
        assert_eq!(
            chosen(&PIPELINE, Some("fp16")),
            [
                "model_index.json",
                "text_encoder/config.json",
                "text_encoder/model.fp16-00001-of-00001.safetensors",
                "text_encoder/model.safetensors.index.fp16.json",
                "tokenizer/tokenizer.model",
                "transformer/diffusion_pytorch_model.fp16.safetensors",
                "vae/diffusion_pytorch_model.bin",
            ]
        );
        assert_eq!(chosen(&PIPELINE, Some("bf16")), chosen(&PIPELINE, None));
    }

    #[test]
    fn other_repositories() {
        assert_eq!(
            chosen(&["checkpoints/Sana.pth", "x.onnx"], None),
            ["checkpoints/Sana.pth"]
        );
        assert_eq!(
            chosen(
                &["a.safetensors", "sana1.6b.safetensors", "pytorch_model.bin"],
                None
            ),
            ["a.safetensors", "sana1.6b.safetensors"]
        );
        assert_eq!(
            chosen(&["model.fp16.safetensors"], None),
            ["model.fp16.safetensors"]
        );
    }

    #[test]
    fn names_are_taken_apart() {
        let part = |name| {
            take_apart(name)
                .map(|name| (name.stem, name.variant))
                .unwrap()
        };
        assert_eq!(part("model.safetensors"), ("model", None));
        assert_eq!(
            part("model.fp16-00001-of-00002.safetensors"),
            ("model", Some("fp16"))
        );
        assert_eq!(
            part("model.safetensors.index.fp16.json"),
            ("model", Some("fp16"))
        );
        assert_eq!(
            part("model.fp16.safetensors.index.json"),
            ("model", Some("fp16"))
        );
        assert_eq!(
            part("svdq-int4_r32-sana1.6b.safetensors"),
            ("svdq-int4_r32-sana1.6b", None)
        );
    }
}
