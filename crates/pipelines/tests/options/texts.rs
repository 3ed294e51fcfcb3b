//! Options of texts.

use std::path::{Path, PathBuf};

use brisk_pipelines::options::Scope;
use brisk_pipelines::{
    Control, OpenSettings, Result, ResultKind, TextPrompt, TextRequest, registry,
};
use brisk_store::ModelFolder;

use super::{
    Case, GivenOptions, check, check_complete, copy, fixture, options, other_weights, picture_file,
    text,
};

/// Writes two texts and sums them up.
fn write(folder: &Path, given: &GivenOptions) -> Result<String> {
    let options = options(ResultKind::Text, given)?;
    let folder = ModelFolder::Disk(folder.to_owned());
    let settings = OpenSettings::new(options.of_scope(Scope::Open));
    let model = registry::open_text(&folder, &settings)?;
    let infill = given.iter().any(|(name, _)| *name == "infill");
    let request = TextRequest {
        prompts: vec![
            TextPrompt::Tokens(vec![3, 9, 27, 14]),
            // With a blank where blanks are filled in.
            TextPrompt::Tokens(vec![5, if infill { 63 } else { 8 }, 7]),
        ],
        options: options.of_scope(Scope::Request),
    };
    let plan = model.plan(&request)?;
    let texts = model.generate(&plan, &Control::silent())?;
    Ok(texts
        .iter()
        .map(|text| format!("{:?} {}\n", text.tokens, text.forward_passes))
        .collect())
}

fn text_cases(place: &Path) -> Vec<Case> {
    let model = |name: &str| fixture("language_models").join(name);
    let llada = model("llada_0");
    let variant = copy(&llada, &place.join("variant"));
    other_weights(
        &variant.join("model.safetensors"),
        &variant.join("model.bf16.safetensors"),
    );
    let few = |more: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        let mut with = vec![
            ("without-tokenizer", "true".to_owned()),
            ("gen-length", "16".to_owned()),
            ("infill", "true".to_owned()),
        ];
        for (name, value) in more {
            with.retain(|(known, _)| known != name);
            if !value.is_empty() {
                with.push((name, (*value).to_owned()));
            }
        }
        with
    };
    let case = |option, value: &str, name: &str, more: &[(&'static str, &str)]| Case {
        option,
        value: value.to_owned(),
        with: few(more),
        folder: model(name),
    };
    // Tokens have no places for pictures; the effect of these stands in the family's own tests.
    let about = |option| Case {
        folder: fixture("vila_u/base"),
        ..case(option, &picture_file(place), "llada_0", &[("infill", "")])
    };
    let on_llada = |option, value: &str| case(option, value, "llada_0", &[]);
    let steps: &[(&str, &str)] = &[("steps", "4"), ("infill", "")];
    let dream: &[(&str, &str)] = &[
        ("infill", ""),
        ("algorithm", "entropy"),
        ("cache", "none"),
        ("temperature", "1"),
    ];
    let kept = text(place.join("kept.safetensors"));
    vec![
        case("infill", "true", "llada_0", &[("infill", "")]),
        on_llada("cache", "none"),
        on_llada("gen-length", "32"),
        on_llada("block-length", "4"),
        on_llada("steps", "2"),
        on_llada("threshold", "0.01"),
        on_llada("factor", "1"),
        on_llada("factor-strict", "1"),
        on_llada("frechet", "0.9"),
        on_llada("algorithm", "random"),
        on_llada("temperature", "1"),
        case("top-p", "0.1", "dream_0", dream),
        case("top-k", "1", "dream_0", dream),
        on_llada("guidance", "2"),
        case("algorithm-temperature", "2", "dream_0", dream),
        // Token 6 is frequent in what this model writes.
        case("end-tokens", "last", "llada_0", &[("stop-token", "6")]),
        case(
            "entropy-bound",
            "100",
            "sdar_0",
            &[("infill", ""), ("algorithm", "entropy_bounded")],
        ),
        case(
            "sub-block-length",
            "2",
            "fast_dllm_v2_0",
            &[("infill", ""), ("cache", "dual")],
        ),
        case(
            "no-early-stop",
            "true",
            "llada_0",
            &[("stop-token", "6"), ("block-length", "4")],
        ),
        case("seed", "9", "llada_0", &[("temperature", "1")]),
        on_llada("stop-token", "999999"),
        case("mask-token", "62", "llada_0", steps),
        Case {
            folder: variant,
            ..on_llada("variant", "bf16")
        },
        on_llada("device", "cuda"), // Refused without a card.
        on_llada("precise", "true"),
        on_llada("quantize", "4bit"),
        case(
            "quantized-weights",
            &kept,
            "llada_0",
            &[("quantize", "4bit")],
        ),
        case("block-causal", "4", "a2d_qwen3_0", &[("infill", "")]),
        about("picture"),
        about("video"),
        // Without a tokenizer it is refused; its effect stands in the tests of templates.
        on_llada("chat-template", "tools"),
        case(
            "without-tokenizer",
            "true",
            "llada_0",
            &[("without-tokenizer", "")],
        ),
    ]
}

#[test]
fn every_option_changes_a_text_or_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let cases = text_cases(place.path());
    check_complete(ResultKind::Text, &cases);
    for case in &cases {
        if case.option == "quantized-weights" {
            // The answer is the same; the file is what it leaves.
            let file = PathBuf::from(&case.value);
            let mut given = case.with.clone();
            given.push((case.option, case.value.clone()));
            write(&case.folder, &given).unwrap();
            assert!(file.is_file());
            continue;
        }
        check(case, write);
    }
}
