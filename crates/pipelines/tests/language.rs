//! Decoding against the reference generators: same tokens, same number of forward passes.

use brisk_nn::DType;
use brisk_pipelines::families::language::{
    Algorithm, CacheMode, Decoding, Generation, LoadOptions, Selection, TextPipeline,
};
use brisk_pipelines::{Control, Error};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, fixtures_dir};

const LENGTH: usize = 32;
const BLOCK: usize = 8;
const MASK: u32 = 63;
const CACHES: [(&str, CacheMode); 3] = [
    ("none", CacheMode::None),
    ("prefix", CacheMode::Prefix),
    ("dual", CacheMode::Dual),
];

fn load(case: &str) -> TextPipeline {
    let folder = ModelFolder::Disk(fixtures_dir().join("language_models").join(case));
    let options = LoadOptions {
        without_tokenizer: true,
        ..LoadOptions::default()
    };
    TextPipeline::load(&folder, &options).unwrap()
}

fn golden(case: &str) -> Golden {
    Golden::open(&format!("language_models/{case}/generation.safetensors"))
}

fn ids(golden: &Golden, name: &str) -> Vec<u32> {
    let ids = golden.get(name).to_dtype(DType::U32).unwrap();
    ids.flatten_all().unwrap().to_vec1().unwrap()
}

/// Decoded to the end, as the references do.
fn request(cache: CacheMode) -> Decoding {
    Decoding {
        cache,
        gen_length: LENGTH,
        block_length: Some(BLOCK),
        early_stop: false,
        ..Decoding::default()
    }
}

fn decode(pipeline: &TextPipeline, prompts: &[Vec<u32>], request: &Decoding) -> Vec<Generation> {
    pipeline
        .generate(prompts, request, &Control::silent(), &mut |_, _| {})
        .unwrap()
}

fn one(pipeline: &TextPipeline, prompt: &[u32], request: &Decoding) -> Generation {
    decode(pipeline, &[prompt.to_vec()], request).remove(0)
}

fn refused(pipeline: &TextPipeline, prompt: &[u32], request: &Decoding) -> String {
    pipeline
        .generate(
            &[prompt.to_vec()],
            request,
            &Control::silent(),
            &mut |_, _| {},
        )
        .unwrap_err()
        .to_string()
}

/// The golden of `name`: same tokens, same number of passes.
fn agrees(case: &str, name: &str, golden: &Golden, found: &Generation) {
    let wanted = ids(golden, &format!("{name}.ids"));
    let passes = ids(golden, &format!("{name}.nfe"))[0] as usize;
    assert_eq!(found.ids, wanted[..found.ids.len()], "{case} {name}");
    assert_eq!(found.forwards, passes, "{case} {name}: forward passes");
}

/// The rules that LLaDA's goldens cover.
fn rules() -> Vec<(&'static str, Option<usize>, Option<Selection>)> {
    vec![
        ("quota32", Some(32), None),
        ("quota8", Some(8), None),
        ("threshold0.9", None, Some(Selection::Threshold(0.9))),
        ("threshold0.3", None, Some(Selection::Threshold(0.3))),
        ("factor1", None, Some(Selection::Factor(1.0))),
        ("frechet1", None, Some(Selection::Frechet(1.0))),
    ]
}

#[test]
fn llada_decodes_as_the_reference() {
    for case in ["llada_0", "llada_1", "llada_2", "llada_one_layer_0"] {
        let (pipeline, golden) = (load(case), golden(case));
        let prompt = ids(&golden, "inputs.prompt");
        for (cache_name, cache) in CACHES {
            for (rule, steps, selection) in rules() {
                let request = Decoding {
                    steps,
                    selection,
                    ..request(cache)
                };
                let found = one(&pipeline, &prompt, &request);
                agrees(case, &format!("{cache_name}.{rule}"), &golden, &found);
            }
        }
        for (name, guidance) in [("none.guidance0.5", 0.5), ("none.guidance2", 2.0)] {
            let request = Decoding {
                guidance,
                steps: Some(32),
                ..request(CacheMode::None)
            };
            agrees(case, name, &golden, &one(&pipeline, &prompt, &request));
        }
    }
}

#[test]
fn dream_decodes_as_the_reference() {
    for case in ["dream_0", "dream_1", "dream_2"] {
        let (pipeline, golden) = (load(case), golden(case));
        let prompt = ids(&golden, "inputs.prompt");
        let mut compared = 0;
        let mut check = |name: String, request: &Decoding| {
            agrees(case, &name, &golden, &one(&pipeline, &prompt, request));
            compared += 1;
        };
        let whole = |steps, algorithm| Decoding {
            block_length: None,
            steps: Some(steps),
            algorithm: Some(algorithm),
            ..request(CacheMode::None)
        };
        for (name, algorithm) in [
            ("maskgit_plus", Algorithm::MaskgitPlus),
            ("topk_margin", Algorithm::TopkMargin),
            ("entropy", Algorithm::Entropy),
        ] {
            for steps in [32, 16, 12] {
                check(format!("none.{name}{steps}"), &whole(steps, algorithm));
            }
        }
        for threshold in [0.9, 0.3] {
            for steps in [32, 8] {
                let request = Decoding {
                    selection: Some(Selection::Threshold(threshold)),
                    ..whole(steps, Algorithm::ConfidenceThreshold)
                };
                check(format!("none.threshold{threshold}.steps{steps}"), &request);
            }
        }
        for (cache_name, cache) in &CACHES[1..] {
            for steps in [32, 16] {
                let request = Decoding {
                    steps: Some(steps),
                    ..request(*cache)
                };
                check(format!("{cache_name}.entropy{steps}"), &request);
            }
            for (rule, _, selection) in rules().into_iter().skip(2) {
                let request = Decoding {
                    selection,
                    ..request(*cache)
                };
                check(format!("{cache_name}.{rule}"), &request);
            }
        }
        assert_eq!(
            compared,
            golden.names("").len() / 2,
            "{case}: goldens left over"
        );
    }
}

/// Exact caches give the tokens that the references compute without any, or with their own.
#[test]
fn block_causal_models_decode_as_their_references() {
    for case in ["sdar_0", "sdar_1"] {
        let (pipeline, golden) = (load(case), golden(case));
        let prompt = ids(&golden, "inputs.prompt");
        for (name, algorithm, selection, steps) in [
            ("dynamic0.85", None, Some(Selection::Threshold(0.85)), None),
            ("dynamic0.3", None, Some(Selection::Threshold(0.3)), None),
            (
                "static2",
                Some(Algorithm::LowConfidenceStatic),
                None,
                Some(16),
            ),
            ("sequential", Some(Algorithm::Sequential), None, None),
        ] {
            let request = Decoding {
                algorithm,
                selection,
                steps,
                block_length: None,
                ..request(CacheMode::Prefix)
            };
            // Where the quota is above one, no block may be partly known: the reference then
            // overwrites known tokens.
            let known = if name == "static2" { 8 } else { prompt.len() };
            agrees(
                case,
                name,
                &golden,
                &one(&pipeline, &prompt[..known], &request),
            );
        }
    }
    for case in ["fast_dllm_v2_0", "fast_dllm_v2_1"] {
        let (pipeline, golden) = (load(case), golden(case));
        for start in ["rest", "whole"] {
            let prompt = ids(&golden, &format!("{start}.prompt.ids"));
            for threshold in [0.9, 0.3] {
                let request = Decoding {
                    selection: Some(Selection::Threshold(threshold)),
                    gen_length: 48 - prompt.len(),
                    sub_block_length: 4,
                    ..request(CacheMode::Prefix)
                };
                let found = one(&pipeline, &prompt, &request);
                agrees(
                    case,
                    &format!("{start}.threshold{threshold}"),
                    &golden,
                    &found,
                );
            }
        }
    }
    for case in ["llada2_0", "llada2_1"] {
        let (pipeline, golden) = (load(case), golden(case));
        let prompt = ids(&golden, "inputs.prompt");
        for threshold in [0.95, 0.3] {
            let request = |cache| Decoding {
                selection: Some(Selection::Threshold(threshold)),
                ..request(cache)
            };
            let found = one(&pipeline, &prompt, &request(CacheMode::None));
            agrees(case, &format!("none.threshold{threshold}"), &golden, &found);
            // The cache costs a pass for the prompt and one between blocks.
            let cached = one(&pipeline, &prompt, &request(CacheMode::Prefix));
            assert_eq!(cached.ids, found.ids, "{case}");
            assert_eq!(cached.forwards, found.forwards + 1 + 4, "{case}");
        }
    }
}

/// A converted model told to decode by blocks: its prompt ends with a block, and the cache is exact.
#[test]
fn converted_models_decode_by_blocks_when_told_to() {
    let folder = ModelFolder::Disk(fixtures_dir().join("language_models/a2d_qwen3_0"));
    let options = LoadOptions {
        without_tokenizer: true,
        block_causal: Some(BLOCK),
        ..LoadOptions::default()
    };
    let pipeline = TextPipeline::load(&folder, &options).unwrap();
    let golden = golden("a2d_qwen3_0");
    let prompt = &ids(&golden, "inputs.prompt")[..BLOCK];
    for steps in [32, 8] {
        let request = Decoding {
            steps: Some(steps),
            ..request(CacheMode::Prefix)
        };
        let found = one(&pipeline, prompt, &request);
        agrees("a2d_qwen3_0", &format!("quota{steps}"), &golden, &found);
    }
    for length in [3, 8, 13] {
        let prompt: Vec<u32> = (0..length).map(|i| i * 5 % 60).collect();
        for steps in [None, Some(16)] {
            let request = |cache| Decoding {
                steps,
                ..request(cache)
            };
            let found = one(&pipeline, &prompt, &request(CacheMode::None));
            let cached = one(&pipeline, &prompt, &request(CacheMode::Prefix));
            assert_eq!(found.ids, cached.ids);
            assert!(!found.ids.contains(&MASK));
            if steps.is_some() {
                assert_eq!(
                    found.forwards, 16,
                    "the prompt's rest is no block of its own"
                );
            }
        }
    }
}

/// With one layer nothing that is cached depends on what changes, so the caches are exact: for
/// LLaDA, and for Dream in LLaDA's sampler.
#[test]
fn one_layer_makes_caches_exact() {
    for case in ["llada_one_layer_0", "dream_one_layer_0"] {
        let pipeline = load(case);
        for seed in 0..6u32 {
            let prompt: Vec<u32> = (0..9).map(|i| (i * 7 + seed * 11 + 3) % 60).collect();
            for (rule, steps, selection) in rules() {
                let found = CACHES.map(|(_, cache)| {
                    let request = Decoding {
                        steps,
                        selection,
                        algorithm: Some(Algorithm::LowConfidence),
                        ..request(cache)
                    };
                    one(&pipeline, &prompt, &request)
                });
                assert_eq!(found[0], found[1], "{case} {rule}, prefix");
                assert_eq!(found[0], found[2], "{case} {rule}, dual");
            }
        }
    }
}

#[test]
fn a_batch_of_unequal_prompts_is_its_single_runs() {
    for case in ["llada_0", "dream_0", "sdar_0", "fast_dllm_v2_0", "llada2_0"] {
        let pipeline = load(case);
        let blocks = !case.starts_with("llada_") && case != "dream_0";
        let prompts: Vec<Vec<u32>> = (0..8u32)
            .map(|row| {
                (0..3 + row * 5 % 17)
                    .map(|i| (i * 13 + row * 29 + 1) % 60)
                    .collect()
            })
            .collect();
        for (_, cache) in CACHES {
            if blocks && cache == CacheMode::Dual && case != "fast_dllm_v2_0" {
                continue;
            }
            for (rule, temperature) in [(0.9, 0.0), (0.3, 0.8)] {
                let algorithm =
                    (cache == CacheMode::None && !blocks).then_some(Algorithm::LowConfidence);
                let request = Decoding {
                    selection: Some(Selection::Threshold(rule)),
                    algorithm,
                    temperature,
                    early_stop: true,
                    block_length: (!blocks).then_some(BLOCK),
                    ..request(cache)
                };
                let together = decode(&pipeline, &prompts, &request);
                for (prompt, row) in prompts.iter().zip(together) {
                    assert_eq!(one(&pipeline, prompt, &request), row, "{case} {cache:?}");
                    assert!(!row.ids.contains(&MASK));
                }
            }
        }
    }
}

/// What stands before the first end token is the same with and without the early stop.
#[test]
fn early_stop_keeps_the_text_before_the_end() {
    let pipeline = load("llada_1");
    let prompt: Vec<u32> = (5..14).collect();
    for (_, cache) in CACHES {
        let full = one(&pipeline, &prompt, &request(cache));
        // Some token of the second block plays the end.
        let end = full.ids[prompt.len() + BLOCK + 3];
        let early = Decoding {
            early_stop: true,
            stop_tokens: vec![end],
            ..request(cache)
        };
        let stopped = one(&pipeline, &prompt, &early);
        let cut = prompt.len() + stopped.answer;
        assert_eq!(stopped.ids[..cut], full.ids[..cut]);
        assert!(
            [end, 62].contains(&full.ids[cut]),
            "the configured end, or ours"
        );
        assert!(stopped.forwards < full.forwards, "{cache:?}");
        assert!(!stopped.ids.contains(&MASK));
    }
}

#[test]
fn blanks_are_filled_and_the_rest_stays() {
    let prompt = [4, MASK, 6, 7, MASK, MASK, 9];
    let leading = [MASK, MASK, 6, 7];
    for case in ["llada_0", "dream_0"] {
        let pipeline = load(case);
        for (_, cache) in CACHES {
            for gen_length in [0, 16] {
                let request = Decoding {
                    infill: true,
                    gen_length,
                    algorithm: Some(Algorithm::LowConfidence),
                    ..request(cache)
                };
                let found = one(&pipeline, &prompt, &request);
                assert_eq!(found.ids.len(), prompt.len() + gen_length);
                assert!(!found.ids.contains(&MASK));
                for (position, &id) in prompt.iter().enumerate() {
                    assert!(id == MASK || found.ids[position] == id);
                }
                let found = one(&pipeline, &leading, &request);
                assert!(!found.ids.contains(&MASK) && found.ids[2..4] == [6, 7]);
            }
        }
        let message = refused(&pipeline, &prompt, &request(CacheMode::Dual));
        assert!(
            message.contains("3 of its 7") && message.contains("--infill"),
            "{message}"
        );
    }
}

#[test]
fn extreme_rules_have_the_counts_of_the_theory() {
    let pipeline = load("llada_2");
    let prompt: Vec<u32> = (20..30).collect();
    for (_, cache) in CACHES {
        let passes = |selection| {
            let request = Decoding {
                selection: Some(selection),
                ..request(cache)
            };
            one(&pipeline, &prompt, &request).forwards
        };
        assert_eq!(
            passes(Selection::Threshold(1.1)),
            LENGTH,
            "one token a step"
        );
        assert_eq!(
            passes(Selection::Threshold(0.0)),
            LENGTH / BLOCK,
            "one step a block"
        );
        for rule in [Selection::Factor(1.0), Selection::FactorStrict(1.0)] {
            assert!((LENGTH / BLOCK..=LENGTH).contains(&passes(rule)));
        }
    }
}

#[test]
fn seeds_decide_random_runs() {
    for (case, algorithm) in [
        ("llada_0", Algorithm::Random),
        ("llada_0", Algorithm::LowConfidence),
        ("dream_0", Algorithm::Origin),
        ("dream_0", Algorithm::MaskgitPlus),
    ] {
        let pipeline = load(case);
        let prompt: Vec<u32> = (1..8).collect();
        let run = |seed| {
            let request = Decoding {
                algorithm: Some(algorithm),
                temperature: 0.9,
                steps: Some(16),
                block_length: None,
                seed,
                ..request(CacheMode::None)
            };
            one(&pipeline, &prompt, &request)
        };
        assert_eq!(run(1), run(1), "{case} {algorithm:?}");
        assert_ne!(run(1).ids, run(2).ids, "{case} {algorithm:?}");
        assert!(!run(1).ids.contains(&MASK));
    }
}

#[test]
fn requests_that_do_not_fit_name_the_numbers() {
    let (llada, dream) = (load("llada_0"), load("dream_0"));
    let prompt = [1, 2, 3];
    let base = request(CacheMode::Prefix);
    let check = |pipeline: &TextPipeline, request: Decoding, words: &[&str]| {
        let message = refused(pipeline, &prompt, &request);
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    };
    let with = |change: fn(&mut Decoding)| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    check(
        &llada,
        with(|r| r.block_length = Some(7)),
        &["7", "32", "divide"],
    );
    check(
        &llada,
        with(|r| r.steps = Some(3)),
        &["3 steps", "4 blocks", "at least 4"],
    );
    check(&llada, with(|r| r.steps = Some(6)), &["6", "4 blocks"]);
    check(
        &llada,
        with(|r| (r.gen_length, r.block_length) = (128, Some(128))),
        &["3 tokens", "128 to generate", "131 positions", "knows 128"],
    );
    check(&llada, with(|r| r.gen_length = 0), &["gen-length", "0"]);
    check(
        &llada,
        with(|r| r.temperature = -1.0),
        &["temperature", "-1"],
    );
    check(&llada, with(|r| r.top_p = Some(0.9)), &["top-p", "LLaDA"]);
    check(
        &llada,
        with(|r| r.mask_token = Some(64)),
        &["mask-token", "64"],
    );
    check(
        &llada,
        with(|r| r.stop_tokens = vec![99]),
        &["99", "64 rows"],
    );
    check(
        &llada,
        with(|r| r.algorithm = Some(Algorithm::Entropy)),
        &["entropy", "LLaDA"],
    );
    check(&dream, with(|r| r.guidance = 1.0), &["guidance", "Dream"]);
    check(
        &dream,
        with(|r| r.steps = Some(4)),
        &["4 steps", "at least 8"],
    );
    check(
        &dream,
        with(|r| r.algorithm = Some(Algorithm::Origin)),
        &["--cache none"],
    );
    let message = Algorithm::from_name("greedy").unwrap_err().to_string();
    assert!(message.contains("greedy") && message.contains("maskgit_plus"));
    assert!(
        CacheMode::from_name("all")
            .unwrap_err()
            .to_string()
            .contains("dual")
    );
    assert!(refused(&llada, &[], &base).contains("no tokens"));
    assert!(refused(&llada, &[64], &base).contains("token id 64"));
    let error = llada.generate(&[vec![]], &base, &Control::silent(), &mut |_, _| {});
    assert!(matches!(error, Err(Error::Request { .. })), "exit code 2");
}
