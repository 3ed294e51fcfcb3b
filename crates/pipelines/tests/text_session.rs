//! Sequences that join and leave a session decode as they would alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brisk_nn::Checkpoint;
use brisk_pipelines::families::language::options as language;
use brisk_pipelines::options::{Options, keys, text_keys};
use brisk_pipelines::request::{RandomWeights, TextPlan};
use brisk_pipelines::{
    Control, Error, GeneratedText, OpenSettings, TextModel, TextPrompt, TextRequest, registry,
};
use brisk_store::ModelFolder;
use brisk_testkit::fixtures_dir;

fn open(folder: std::path::PathBuf, random: Option<RandomWeights>) -> Box<dyn TextModel> {
    let settings = OpenSettings {
        random,
        ..OpenSettings::new(Options::new().with(&text_keys::WITHOUT_TOKENIZER, true))
    };
    registry::open_text(&ModelFolder::Disk(folder), &settings).unwrap()
}

fn fixture(case: &str) -> Box<dyn TextModel> {
    open(fixtures_dir().join("language_models").join(case), None)
}

fn request(prompt: std::ops::Range<u32>, cache: &str, block: usize) -> TextRequest {
    whole(prompt, cache, 4 * block).with(&language::BLOCK_LENGTH, block)
}

/// A request without blocks.
fn whole(prompt: std::ops::Range<u32>, cache: &str, length: usize) -> TextRequest {
    TextRequest::of(vec![TextPrompt::Tokens(prompt.collect())])
        .with(&language::CACHE, cache.to_owned())
        .with(&text_keys::GEN_LENGTH, length)
}

fn alone(model: &dyn TextModel, plan: &TextPlan) -> GeneratedText {
    let mut texts = model.generate(plan, &Control::silent()).unwrap();
    texts.remove(0)
}

/// Stops work once, before an operation in the middle.
struct Once(AtomicUsize);

impl Checkpoint for Once {
    fn go_on(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) != 20
    }
}

/// Three sequences: the first is there from the start, the others join later, one leaves before it is done,
/// and a pass is stopped on the way.
fn check(model: &dyn TextModel, plans: &[TextPlan; 3], label: &str) {
    let control = Control::silent();
    let mut session = model.session().unwrap();
    let first = session.admit(&plans[0], 0).unwrap();
    assert_eq!(session.step(&control).unwrap(), [first], "{label}");
    assert_eq!(session.step(&control).unwrap(), [first], "{label}");
    let second = session.admit(&plans[1], 0).unwrap();
    let stopped = brisk_nn::with_checkpoint(Arc::new(Once(AtomicUsize::new(0))), || {
        session.step(&control)
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{label}");
    assert_eq!(session.step(&control).unwrap(), [first, second], "{label}");
    let third = session.admit(&plans[2], 0).unwrap();
    session.step(&control).unwrap();
    let canvas = session.canvas(second).unwrap();
    assert!(!canvas.done && canvas.tokens.contains(&canvas.mask));
    assert_eq!(session.remove(second).unwrap(), None, "{label}");
    assert!(session.canvas(second).is_none() && session.len() == 2);
    while !session.step(&control).unwrap().is_empty() {}
    for (sequence, plan) in [(first, &plans[0]), (third, &plans[2])] {
        assert!(session.canvas(sequence).unwrap().done);
        let found = session.remove(sequence).unwrap();
        assert_eq!(found, Some(alone(model, plan)), "{label}");
    }
    assert!(session.is_empty());
}

#[test]
fn newcomers_decode_as_alone_with_every_cache() {
    for (case, caches) in [
        ("llada_0", &["none", "prefix", "dual"][..]),
        ("llada_moe_0", &["none", "prefix", "dual"]),
        ("dream_0", &["none", "prefix", "dual"]),
        ("a2d_qwen3_0", &["none", "prefix", "dual"]),
        ("sdar_0", &["none", "prefix"]),
        ("llada2_0", &["none", "prefix"]),
        ("fast_dllm_v2_0", &["none", "prefix", "dual"]),
    ] {
        let model = fixture(case);
        for cache in caches {
            let plan = |prompt| {
                let request = match (case, *cache) {
                    // Decoded without blocks, or in those that the model was trained with.
                    ("dream_0", "none") | ("sdar_0" | "llada2_0" | "fast_dllm_v2_0", _) => {
                        whole(prompt, cache, 32)
                    }
                    _ => request(prompt, cache, 8),
                };
                model.plan(&request).unwrap()
            };
            let plans = [plan(1..8), plan(20..33), plan(3..6)];
            check(&*model, &plans, &format!("{case} {cache}"));
        }
    }
}

/// Rule, guidance and temperature belong to the sequence.
#[test]
fn requests_of_one_session_may_differ() {
    let model = fixture("llada_0");
    let plan = |request: TextRequest| model.plan(&request).unwrap();
    let plans = [
        plan(request(1..8, "none", 8).with(&language::CFG, 1.5)),
        plan(request(2..9, "dual", 4).with(&language::THRESHOLD, 0.3)),
        plan(
            request(5..9, "prefix", 16)
                .with(&text_keys::TEMPERATURE, 0.9)
                .with(&keys::SEED, 7),
        ),
    ];
    check(&*model, &plans, "mixed");
}

/// A model whose sequences share forward passes.
#[test]
fn large_models_pack_newcomers() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixtures_dir().join("language_models/llada_0/config.json");
    let text = std::fs::read_to_string(source).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("d_model", 512),
        ("n_heads", 8),
        ("n_kv_heads", 8),
        ("n_layers", 4),
        ("mlp_hidden_size", 1024),
    ] {
        config[key] = value.into();
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let random = RandomWeights {
        seed: 1,
        storage: brisk_nn::Storage::F32,
        low_bit: false,
    };
    let model = open(folder.path().to_owned(), Some(random));
    for cache in ["none", "dual"] {
        let plan = |prompt| model.plan(&request(prompt, cache, 4)).unwrap();
        let plans = [plan(1..8), plan(20..33), plan(3..6)];
        check(&*model, &plans, cache);
    }
}

#[test]
fn plans_of_others_are_refused() {
    let (llada, dream) = (fixture("llada_0"), fixture("dream_0"));
    let plan = llada.plan(&request(1..4, "none", 8)).unwrap();
    let refused = dream.session().unwrap().admit(&plan, 0);
    assert!(matches!(refused, Err(Error::ForeignPlan { .. })));
    let missing = llada.session().unwrap().admit(&plan, 1);
    assert!(matches!(missing, Err(Error::Request { .. })));
}
