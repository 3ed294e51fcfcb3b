//! VILA-U against the goldens of its reference, and against itself.

#[path = "common/components.rs"]
mod components;

use std::cell::RefCell;
use std::collections::BTreeMap;

use brisk_models::component::{Component, ComponentWeights, NamedTensors};
use brisk_models::language_model::{LanguageModel, LanguageModelConfig, Place, Rows, Span};
use brisk_models::vila_u::{
    Generator, Greedy, LANGUAGE_MODEL, PROJECTOR, Request, TOWER, projector, tower,
};
use brisk_nn::{KeyValueCache, Tensor, Trace, Weights, ops};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, assert_close, fixtures_dir, values};

const CASES: [&str; 4] = ["base", "wide", "least", "deep_mlp"];
const TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> ModelFolder {
    ModelFolder::Disk(fixtures_dir().join("vila_u").join(case))
}

/// Runs an entry on a golden's tensors below `prefix`.
fn run_with(
    component: &Component,
    case: &str,
    entry: &str,
    (golden, prefix): (&str, &str),
    see: &mut dyn FnMut(&str, &Tensor),
) -> NamedTensors {
    let source = components::inputs(&format!("vila_u/{case}/{golden}.safetensors"), prefix);
    components::run(component, &folder(case), entry, source, see)
}

fn run(
    component: &Component,
    case: &str,
    entry: &str,
    golden: &str,
    see: &mut dyn FnMut(&str, &Tensor),
) -> NamedTensors {
    run_with(component, case, entry, (golden, "inputs."), see)
}

#[track_caller]
fn equal_codes(found: &NamedTensors, golden: &Golden, label: &str) {
    let (found, wanted) = (
        found.required("codes").unwrap(),
        golden.get("outputs.codes"),
    );
    assert_eq!(found.dims(), wanted.dims(), "{label}");
    assert_eq!(values(found), values(&wanted), "{label}");
}

#[test]
fn the_tower_agrees_block_by_block() {
    for case in CASES {
        let mut golden = Golden::open(&format!("vila_u/{case}/golden_tower.safetensors"));
        let mut compared = 0;
        for entry in ["vision_tower.encode", "vision_tower.decode"] {
            let mut see = |name: &str, x: &Tensor| {
                let map = name.starts_with("decoder.") || name == "post_quant_conv";
                let x = if map {
                    ops::to_nchw(x).unwrap()
                } else {
                    x.clone()
                };
                if name != "quantizer" {
                    let name = format!("blocks.{name}");
                    assert!(golden.compare(&name, &x, TOLERANCE), "{name}");
                    compared += 1;
                }
            };
            let outputs = run(&TOWER, case, entry, "golden_tower", &mut see);
            if entry == "vision_tower.encode" {
                equal_codes(&outputs, &golden, case);
                let found = outputs.required("features").unwrap();
                assert!(golden.compare("outputs.features", found, TOLERANCE));
            } else {
                let found = outputs.required("sample").unwrap();
                assert!(golden.compare("outputs.sample", found, TOLERANCE));
            }
        }
        let residuals = golden.names("blocks.residual.").len();
        assert_eq!(
            golden.names("blocks.").len() - residuals,
            compared,
            "{case}"
        );
        golden.report();
    }
}

#[test]
fn what_each_depth_leaves_agrees() {
    for case in CASES {
        let mut golden = Golden::open(&format!("vila_u/{case}/golden_tower.safetensors"));
        let tower = tower_of(case, tower::Parts::ALL);
        let pictures = ops::to_nhwc(&golden.get("inputs.pixel_values")).unwrap();
        let encoded = tower.encode(&pictures, &mut Trace::none()).unwrap();
        let config = tower.config();
        let shape = (pictures.dim(0).unwrap(), config.grid, config.grid);
        for (depth, left) in encoded.residuals.into_iter().enumerate() {
            let left = Tensor::from_vec(left, shape).unwrap();
            let name = format!("blocks.residual.{depth}");
            assert!(golden.compare(&name, &left, TOLERANCE), "{name}");
        }
        // Understanding and drawing make the same of the same codes.
        let sums = tower.quantizer().sum(&encoded.codes).unwrap();
        assert_eq!(values(&sums), values(&encoded.sum), "{case}");
    }
}

#[test]
fn projector_and_depth_transformer_agree() {
    for case in CASES {
        let mut golden = Golden::open(&format!("vila_u/{case}/golden_projector.safetensors"));
        let outputs = run(
            &PROJECTOR,
            case,
            "projector",
            "golden_projector",
            &mut |_, _| (),
        );
        let found = outputs.required("embeddings").unwrap();
        assert!(golden.compare("outputs.embeddings", found, TOLERANCE));

        let mut golden = Golden::open(&format!("vila_u/{case}/golden_depth.safetensors"));
        let mut blocks = 0;
        let mut see = |name: &str, x: &Tensor| {
            if name.starts_with("blocks.") {
                assert!(
                    golden.compare(&format!("blocks.{name}"), x, TOLERANCE),
                    "{name}"
                );
                blocks += 1;
            }
        };
        let outputs = run(&TOWER, case, "depth", "golden_depth", &mut see);
        assert_eq!(blocks, golden.names("blocks.").len(), "{case}");
        let found = outputs.required("logits").unwrap();
        assert!(golden.compare("outputs.logits", found, TOLERANCE));
        golden.report();
    }
}

#[test]
fn the_language_model_agrees_layer_by_layer() {
    for case in CASES {
        let path = format!("vila_u/{case}/golden_language_model.safetensors");
        let mut golden = Golden::open(&path);
        let seen: RefCell<BTreeMap<String, Tensor>> = RefCell::default();
        let mut see = |name: &str, x: &Tensor| {
            seen.borrow_mut().insert(name.to_owned(), x.clone());
        };
        let name = "golden_language_model";
        let outputs = run(&LANGUAGE_MODEL, case, "language_model", name, &mut see);
        for name in ["logits", "hidden_states"] {
            let found = outputs.required(name).unwrap();
            assert!(golden.compare(&format!("outputs.{name}"), found, TOLERANCE));
        }
        // A row without hidden tokens stands first in a pass.
        let layers = golden.names("blocks.layers.");
        assert!(!layers.is_empty());
        for name in layers.iter().filter(|name| !name.contains(".every")) {
            let name = name.trim_end_matches(".shape");
            let Some(wanted) = golden.find(name) else {
                continue;
            };
            let tokens = wanted.dim(1).unwrap();
            let first = |x: &Tensor| x.narrow(0, 0, 1).unwrap().narrow(1, 0, tokens).unwrap();
            let found = &seen.borrow()[name.strip_prefix("blocks.").unwrap()];
            assert_close(name, &first(found), &first(&wanted), TOLERANCE);
        }
        let embeds = (name, "embeds.");
        let outputs = run_with(
            &LANGUAGE_MODEL,
            case,
            "language_model",
            embeds,
            &mut |_, _| (),
        );
        let found = outputs.required("logits").unwrap();
        assert!(golden.compare("embeds.logits", found, TOLERANCE));
        golden.report();
    }
}

#[test]
fn greedy_generation_draws_what_the_reference_draws() {
    for case in CASES {
        let mut golden = Golden::open(&format!("vila_u/{case}/golden_generate.safetensors"));
        let guided: RefCell<Vec<Tensor>> = RefCell::default();
        let mut see = |name: &str, x: &Tensor| {
            if name == "guided" {
                guided.borrow_mut().push(x.clone());
            }
        };
        let name = "golden_generate";
        let outputs = run(&LANGUAGE_MODEL, case, "generate", name, &mut see);
        equal_codes(&outputs, &golden, case);
        let guided = guided.into_inner();
        let depth = outputs.required("codes").unwrap().dims()[2];
        for (place, logits) in guided.chunks(depth).take(2).enumerate() {
            let logits: Vec<Tensor> = logits.iter().map(|x| x.unsqueeze(0).unwrap()).collect();
            let logits = Tensor::cat(&logits, 0).unwrap();
            let name = format!("blocks.logits.{place}");
            assert!(golden.compare(&name, &logits, TOLERANCE), "{name}");
        }
        for name in ["features", "image"] {
            let found = outputs.required(name).unwrap();
            assert!(golden.compare(&format!("outputs.{name}"), found, TOLERANCE));
        }
        golden.report();
    }
}

fn tower_of(case: &str, parts: tower::Parts) -> tower::Tower {
    let folder = folder(case);
    let read = |file: &str| folder.read(file).unwrap();
    let mut config = tower::TowerConfig::from_json(&read("vision_tower/config.json"), "t").unwrap();
    let siglip = read("vision_tower/siglip/config.json");
    let siglip = tower::SiglipConfig::from_json(&siglip, "s").unwrap();
    config.set_siglip(siglip, "t", "s").unwrap();
    let source = folder.open_component("vision_tower", None).unwrap();
    tower::Tower::load(&config, &Weights::from_source(source), parts).unwrap()
}

fn language_of(case: &str) -> LanguageModel {
    let folder = folder(case);
    let config = folder.read("llm/config.json").unwrap();
    let config = LanguageModelConfig::llama(&config, "llm").unwrap();
    let source = folder.open_component("llm", None).unwrap();
    LanguageModel::load(&config, &Weights::from_source(source)).unwrap()
}

fn generator(case: &str) -> Generator {
    let parts = tower::Parts {
        encoder: false,
        ..tower::Parts::ALL
    };
    let (language, tower) = (language_of(case), tower_of(case, parts));
    let folder = folder(case);
    let config = folder.read("mm_projector/config.json").unwrap();
    let config = projector::ProjectorConfig::from_json(&config, "p").unwrap();
    let widths = projector::Widths {
        codeword: tower.config().embed_dim,
        hidden: language.config().hidden_size,
    };
    let weights = match config {
        projector::ProjectorConfig::Identity => Weights::random(0, brisk_nn::Storage::F32),
        _ => Weights::from_source(folder.open_component("mm_projector", None).unwrap()),
    };
    let projector = projector::Projector::load(config, widths, &weights).unwrap();
    Generator::new(language, tower, projector).unwrap()
}

/// Chunks of any length over a cache give what one pass over all gives.
#[test]
fn cached_chunks_equal_a_whole_pass() {
    for case in CASES {
        let model = language_of(case);
        let ids: Vec<u32> = (0..23).map(|i| (i * 7919 + 5) % 400).collect();
        let whole = model
            .hidden(&[Span::whole(&ids)], &mut [None], Rows::All)
            .unwrap();
        for lengths in [vec![23], vec![1; 23], vec![5, 1, 9, 8], vec![2, 21]] {
            let mut cache = model.cache(ids.len()).unwrap();
            let (mut start, mut parts) = (0, Vec::new());
            for length in lengths {
                let place = Place {
                    tokens: length,
                    start,
                    pad: 0,
                };
                let rows = model.embed(&ids[start..start + length]).unwrap();
                let caches = &mut [Some(&mut cache)];
                let trace = &mut Trace::none();
                let found = model.hidden_of(&rows, &[place], caches, Rows::All, trace);
                parts.push(found.unwrap());
                start += length;
            }
            let found = Tensor::cat(&parts, 0).unwrap();
            assert_close(case, &found, &whole, 1e-5);
        }
        // Embeddings of another width, and more positions than there are.
        let rows = Tensor::zeros((1, 3), brisk_nn::DType::F32).unwrap();
        let place = Place {
            tokens: 1,
            start: 0,
            pad: 0,
        };
        let mut none: [Option<&mut KeyValueCache>; 1] = [None];
        let refused = model.hidden_of(&rows, &[place], &mut none, Rows::All, &mut Trace::none());
        assert!(refused.unwrap_err().to_string().contains("hidden_size"));
        assert!(model.cache(model.config().context + 1).is_err());
    }
}

/// One depth after another over the cache gives what all at once give.
#[test]
fn depths_one_by_one_equal_all_at_once() {
    for case in CASES {
        let golden = Golden::open(&format!("vila_u/{case}/golden_depth.safetensors"));
        let tower = tower_of(
            case,
            tower::Parts {
                depth: true,
                ..tower::Parts::default()
            },
        );
        let hidden = golden.get("inputs.hidden_states");
        let (batch, places, width) = hidden.dims3().unwrap();
        let hidden = hidden.reshape((batch * places, width)).unwrap();
        let codes: Vec<u32> = values(&golden.get("inputs.codes"))
            .into_iter()
            .map(|code| code as u32)
            .collect();
        let sums = tower.quantizer().sums(&codes).unwrap();
        let head = tower.depth().unwrap();
        let wanted = head.taught(&hidden, &sums, &mut Trace::none()).unwrap();
        let mut cache = head.cache();
        for depth in 0..tower.quantizer().depth() {
            let input = match depth {
                0 => &hidden,
                _ => &sums[depth - 1],
            };
            let found = head.next(&mut cache, input, &mut Trace::none()).unwrap();
            let wanted = wanted.narrow(1, depth, 1).unwrap().squeeze(1).unwrap();
            assert_close(case, &found, &wanted, 1e-5);
        }
        let beyond = head.next(&mut cache, &sums[0], &mut Trace::none());
        assert!(beyond.is_err(), "{case}: a depth too many");
    }
}

struct Collecting(Vec<Tensor>);

impl brisk_models::vila_u::Chooser for Collecting {
    fn choose(
        &mut self,
        place: usize,
        depth: usize,
        logits: &Tensor,
    ) -> brisk_models::Result<Vec<u32>> {
        self.0.push(logits.clone());
        Greedy.choose(place, depth, logits)
    }
}

/// What is drawn place by place is what one pass over prompt and places predicts, whichever prompts are drawn
/// with.
#[test]
fn drawing_equals_a_taught_pass_and_needs_no_company() {
    for case in CASES {
        let generator = generator(case);
        let config = generator.tower().config().clone();
        let prompts = [
            vec![1, 259, 264, 350, 400],
            vec![1, 300, 301, 302, 303, 304, 305, 400],
        ];
        let places = config.places();
        let draw = |prompts: &[Vec<u32>], given: &[Vec<u32>]| {
            let mut chooser = Collecting(Vec::new());
            let request = Request {
                prompts,
                unconditional: None,
                guidance: 1.0,
                places,
                given,
            };
            let mut done = 0;
            let mut count = |_| {
                done += 1;
                Ok(())
            };
            let drawn = generator
                .draw(&request, &mut chooser, &mut count, &mut Trace::none())
                .unwrap();
            assert_eq!(done, places);
            (drawn, chooser.0)
        };
        let (both, logits) = draw(&prompts, &[]);
        assert_eq!(logits.len(), places * config.depth);
        let (alone, apart) = draw(&prompts[1..], &[]);
        assert_eq!(both.codes[1], alone.codes[0], "{case}");
        for (together, apart) in logits.iter().zip(&apart) {
            let row = together.narrow(0, 1, 1).unwrap();
            assert_close(case, &row, apart, 1e-5);
        }
        // Given codes are taken, and what follows them is what followed before.
        let first: Vec<Vec<u32>> = (0..2)
            .map(|place| {
                let codes = both.codes.iter();
                let at = place * config.depth;
                codes
                    .flat_map(|codes| codes[at..at + config.depth].iter().copied())
                    .collect()
            })
            .collect();
        let (again, _) = draw(&prompts, &first);
        assert_eq!(again.codes, both.codes, "{case}");

        let trace = &mut Trace::none();
        let sums = alone.sums.squeeze(0).unwrap();
        let embedded = generator.projector().forward(&sums, trace).unwrap();
        let language = generator.language();
        let prompt = &prompts[1];
        let rows = language.embed(prompt).unwrap();
        let rows = match places {
            1 => rows,
            _ => {
                let seen = embedded.narrow(0, 0, places - 1).unwrap();
                Tensor::cat(&[&rows, &seen], 0).unwrap()
            }
        };
        let place = Place {
            tokens: prompt.len() + places - 1,
            start: 0,
            pad: 0,
        };
        let hidden = language
            .hidden_of(&rows, &[place], &mut [None], Rows::All, trace)
            .unwrap();
        let hidden = hidden.narrow(0, prompt.len() - 1, places).unwrap();
        let quantizer = generator.tower().quantizer();
        let sums = quantizer.sums(&alone.codes[0]).unwrap();
        let head = generator.tower().depth().unwrap();
        let taught = head.taught(&hidden, &sums, trace).unwrap();
        for (step, found) in apart.iter().enumerate() {
            let (place, depth) = (step / config.depth, step % config.depth);
            let wanted = taught
                .narrow(0, place, 1)
                .unwrap()
                .narrow(1, depth, 1)
                .unwrap();
            assert_close(case, found, &wanted.squeeze(1).unwrap(), 1e-4);
        }
    }
}

#[test]
fn a_run_may_be_stopped_at_any_place() {
    let generator = generator("least");
    let prompts = [vec![1, 259, 400]];
    let request = Request {
        prompts: &prompts,
        unconditional: None,
        guidance: 1.0,
        places: 4,
        given: &[],
    };
    let mut stop = |place| match place {
        1 => Err(brisk_models::Error::Config("stopped".into())),
        _ => Ok(()),
    };
    let error = generator
        .draw(&request, &mut Greedy, &mut stop, &mut Trace::none())
        .unwrap_err();
    assert!(error.to_string().contains("stopped"));
}

/// Every refusal names both numbers.
#[test]
fn networks_that_do_not_belong_together_are_refused() {
    let base = folder("base");
    let read = |file: &str| -> serde_json::Value { base.read_json(file).unwrap() };
    let config = |value: &serde_json::Value| {
        tower::TowerConfig::from_json(value.to_string().as_bytes(), "tower.json")
    };
    let tower = read("vision_tower/config.json");
    for (at, value, words) in [
        ("/rqvaesiglip/embed_dim", 65, ["64", "65"]),
        ("/rqvaesiglip/code_shape/0", 5, ["5", "4"]),
        ("/rqvaesiglip/code_shape/2", 5, ["5", "4"]),
        ("/rqtransformer/vocab_size", 401, ["401", "400"]),
        ("/rqtransformer/input_embed_dim_1", 63, ["63", "64"]),
        ("/rqtransformer/head/block/n_head", 5, ["5", "48"]),
        ("/rqvaesiglip/ddconfig/ch", 33, ["33", "32"]),
        ("/hidden_size", 1152, ["1152", "64"]),
    ] {
        let mut damaged = tower.clone();
        *damaged.pointer_mut(at).unwrap() = value.into();
        let message = config(&damaged).unwrap_err().to_string();
        assert!(message.starts_with("tower.json: "), "{message}");
        for word in words {
            assert!(message.contains(word), "no {word} in {message}");
        }
    }
    // A tower of one size with the settings of another.
    let mut other = tower.clone();
    other["rqvaesiglip"]["pretrained_model"] = "google/siglip-so400m-patch14-384".into();
    let message = config(&other).unwrap_err().to_string();
    assert!(
        message.contains("1152") && message.contains("64"),
        "{message}"
    );
    let mut siglip = read("vision_tower/siglip/config.json");
    siglip["vision_config"]["image_size"] = 24.into();
    let siglip = tower::SiglipConfig::from_json(siglip.to_string().as_bytes(), "s").unwrap();
    let message = config(&tower)
        .unwrap()
        .set_siglip(siglip, "tower.json", "siglip.json")
        .unwrap_err()
        .to_string();
    for word in ["4×4", "3×3", "24", "tower.json", "siglip.json"] {
        assert!(message.contains(word), "no {word} in {message}");
    }
    // Without sizes of SigLIP pictures are not read; decoding needs none.
    let bytes = tower.to_string();
    let lonely = (TOWER.open)(bytes.as_bytes(), "tower.json").unwrap();
    let weights = ComponentWeights::Stored(base.open_component("vision_tower", None).unwrap());
    let load = |entry: &str| {
        let entry = TOWER.entry(entry).unwrap();
        lonely.load(entry, &weights, &Default::default()).err()
    };
    let message = load("vision_tower.encode").unwrap().to_string();
    assert!(
        message.contains("pretrained_model") && message.contains("siglip-large-patch16-256"),
        "{message}"
    );
    assert!(load("vision_tower.decode").is_none());
    // A language model beside a tower that was made for another.
    let mut llm = read("llm/config.json");
    llm["hidden_size"] = 48.into();
    let bytes = llm.to_string();
    let refused = components::configured(&LANGUAGE_MODEL, bytes.as_bytes(), &base, "llm");
    let message = refused.err().unwrap().to_string();
    assert!(
        message.contains("40") && message.contains("48"),
        "{message}"
    );
    llm["rope_scaling"] = serde_json::json!({"type": "dynamic", "factor": 2.0});
    let bytes = llm.to_string();
    let refused = LanguageModelConfig::llama(bytes.as_bytes(), "llm.json");
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("rope_scaling") && message.contains("linear"),
        "{message}"
    );
}

/// The published sizes, by their configurations.
#[test]
fn published_sizes_are_counted_as_the_paper_does() {
    let large = tower::SiglipConfig::published("google/siglip-large-patch16-256").unwrap();
    let other = tower::SiglipConfig::published("siglip-so400m-patch14-384").unwrap();
    assert_eq!([large.grid(), other.grid()], [16, 27]);
    // 23 of 24 layers, and 26 of 27, without the head that pools.
    assert_eq!(large.parameters() / 100_000, 2_907);
    assert_eq!(other.parameters() / 100_000, 3_977);
    assert!(tower::SiglipConfig::published("google/siglip-base-patch16-224").is_none());
}
