//! UViT, USiT, DiT and SiT against the goldens of the authors' classes, and against themselves.

#[path = "common/components.rs"]
mod components;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use brisk_models::class_conditional::sampler::{Guided, Sampler, noise_factors};
use brisk_models::class_conditional::{
    COMPONENT, ClassConditionalConfig, ClassConditionalTransformer, plain_names,
};
use brisk_models::component::{
    ComponentWeights, LoadSettings, NamedTensors, PrepareError, Sizes, read_inputs,
};
use brisk_models::registry;
use brisk_nn::{DType, Storage, Tensor, Trace, Weights, WeightsBuilder, ops};
use brisk_store::{ModelFolder, TensorSource};
use brisk_testkit::{Golden, assert_close, fixtures_dir, values};

const CASES: [&str; 7] = [
    "u_vit",
    "u_vit_patches",
    "u_sit",
    "u_sit_stochastic",
    "dit",
    "dit_patches",
    "sit",
];
const TOLERANCE: f64 = 1e-4;
const SAMPLER_TOLERANCE: f64 = 1e-3;
/// Of the one that chooses its steps so that each is right to 1e-3: rounding, another on every processor, decides which.
const CHOSEN_STEPS_TOLERANCE: f64 = 3e-3;

fn tolerance(case: &str) -> f64 {
    match config(case).eval_scheduler.name() {
        "ODE_dopri5" => CHOSEN_STEPS_TOLERANCE,
        _ => SAMPLER_TOLERANCE,
    }
}

fn folder(case: &str) -> ModelFolder {
    ModelFolder::Disk(fixtures_dir().join("class_conditional").join(case))
}

fn golden_path(case: &str, name: &str) -> String {
    format!("class_conditional/{case}/golden_{name}.safetensors")
}

fn config(case: &str) -> ClassConditionalConfig {
    let bytes = folder(case).read("config.json").unwrap();
    ClassConditionalConfig::from_json(&bytes, case).unwrap()
}

fn load(case: &str) -> ClassConditionalTransformer {
    let source = folder(case).open_component("", None).unwrap();
    let weights = Weights::from_source(plain_names(source).unwrap());
    ClassConditionalTransformer::load(&config(case), &weights).unwrap()
}

/// Runs an entry on a file of inputs.
fn run(
    case: &str,
    entry: &str,
    inputs: &dyn TensorSource,
    see: &mut dyn FnMut(&str, &Tensor),
) -> Result<NamedTensors, String> {
    let folder = folder(case);
    let config = (COMPONENT.open)(&folder.read("config.json").unwrap(), case).unwrap();
    let entry = COMPONENT.entry(entry).unwrap();
    let dimension = |word: &str| config.dimension(word);
    let message = |error: brisk_models::Error| error.to_string();
    let inputs =
        read_inputs(&config.inputs(entry), &dimension, inputs, "inputs").map_err(message)?;
    let weights = ComponentWeights::Stored(folder.open_component("", None).unwrap());
    let model = config
        .load(entry, &weights, &LoadSettings::default())
        .map_err(message)?;
    let mut ready = model
        .prepare(&inputs, &Sizes::default())
        .map_err(|error| match error {
            PrepareError::Failed(error) => error.to_string(),
            PrepareError::Size(error) => error.to_string(),
        })?;
    ready.run(&mut Trace::details(see)).map_err(message)?;
    ready.outputs().map_err(message)
}

#[test]
fn networks_agree_block_by_block() {
    for case in CASES {
        let path = golden_path(case, "transformer");
        let mut golden = Golden::open(&path);
        let mut compared = BTreeSet::new();
        let inputs = components::inputs(&path, "inputs.");
        let mut see = |name: &str, x: &Tensor| {
            let name = format!("blocks.{name}");
            assert!(golden.compare(&name, x, TOLERANCE), "{case}: {name}");
            compared.insert(name);
        };
        let outputs = run(case, "transformer", &*inputs, &mut see);
        let outputs = outputs.unwrap_or_else(|error| panic!("{case}: {error}"));
        let sample = outputs.required("sample").unwrap();
        assert!(
            golden.compare("outputs.sample", sample, TOLERANCE),
            "{case}"
        );
        let blocks: BTreeSet<String> = golden.names("blocks.").into_iter().collect();
        assert_eq!(blocks, compared, "{case}");
        golden.report();
    }
}

/// Unwatched, a block's last steps run in the same pass.
#[test]
fn watching_changes_nothing() {
    for case in CASES {
        let mut golden = Golden::open(&golden_path(case, "transformer"));
        let latents = ops::to_nhwc(&golden.get("inputs.hidden_states")).unwrap();
        let times = golden.get("inputs.timestep");
        let classes: Vec<u32> = values(&golden.get("inputs.class_labels"))
            .into_iter()
            .map(|class| class as u32)
            .collect();
        let model = load(case);
        let found = model.forward(&latents, &times, &classes).unwrap();
        let found = ops::to_nchw(&found).unwrap();
        assert!(
            golden.compare("outputs.sample", &found, TOLERANCE),
            "{case}"
        );
        // Rows depend on nothing but themselves.
        let last = latents.narrow(0, 2, 1).unwrap().contiguous().unwrap();
        let time = times.narrow(0, 2, 1).unwrap();
        let alone = model.forward(&last, &time, &classes[2..]).unwrap();
        let row = found.narrow(0, 2, 1).unwrap();
        assert_close(case, &ops::to_nchw(&alone).unwrap(), &row, 1e-5);
    }
}

/// A file of the authors' trainer, whose class is UViT with flow, and the first U-ViT's name of the classes.
#[test]
fn a_trainers_file_is_the_same_network() {
    let path = golden_path("u_sit", "transformer");
    let mut golden = Golden::open(&path);
    let inputs = components::inputs(&path, "inputs.");
    let outputs = run("u_sit_trained", "transformer", &*inputs, &mut |_, _| ()).unwrap();
    let sample = outputs.required("sample").unwrap();
    assert!(golden.compare("outputs.sample", sample, TOLERANCE));
}

#[test]
fn samplers_reach_what_the_authors_reach() {
    let mut seen = BTreeMap::new();
    for case in CASES {
        for name in ["sampler", "sampler_unguided"] {
            let path = golden_path(case, name);
            if !fixtures_dir().join(&path).exists() {
                continue;
            }
            let mut golden = Golden::open(&path);
            let inputs = components::inputs(&path, "inputs.");
            let outputs = run(case, "sampler", &*inputs, &mut |_, _| ());
            let outputs = outputs.unwrap_or_else(|error| panic!("{case} {name}: {error}"));
            let sample = outputs.required("sample").unwrap();
            assert!(golden.compare("outputs.sample", sample, tolerance(case)));
            golden.report();
            let scheduler = config(case).eval_scheduler.name();
            *seen.entry(scheduler).or_insert(0) += 1;
        }
    }
    let wanted = [
        ("DPM_Solver", 3),
        ("GaussianDiffusion", 3),
        ("ODE_dopri5", 2),
        ("ODE_heun2", 1),
        ("SDE", 1),
    ];
    assert_eq!(seen, wanted.into_iter().collect());
}

/// The state after every step; where the sampler steps as it likes, the authors show the last one alone.
#[test]
fn every_step_is_the_authors() {
    for case in CASES {
        let mut golden = Golden::open(&golden_path(case, "sampler"));
        let config = config(case);
        let model = load(case);
        let number = |name: &str| values(&golden.get(name))[0];
        let classes: Vec<u32> = values(&golden.get("inputs.class_labels"))
            .into_iter()
            .map(|class| class as u32)
            .collect();
        let steps = number("inputs.steps") as usize;
        let sampler = Sampler::new(&config, Some(steps)).unwrap();
        let guided = Guided::new(&model, &classes, number("inputs.guidance")).unwrap();
        let latents = ops::to_nhwc(&golden.get("inputs.latents")).unwrap();
        let noise: Vec<Tensor> = (0..sampler.draws())
            .map(|index| ops::to_nhwc(&golden.get(&format!("inputs.noise.{index}"))).unwrap())
            .collect();
        let states = RefCell::new(Vec::new());
        let evaluations = RefCell::new(0);
        let mut see = |name: &str, _: &Tensor| {
            if ["decoder_pred", "final_layer"].contains(&name) {
                *evaluations.borrow_mut() += 1;
            }
        };
        let found = sampler
            .run(
                &guided,
                &latents,
                &mut |index| Ok(noise[index].clone()),
                &mut |step, x| {
                    assert_eq!(step, states.borrow().len());
                    states.borrow_mut().push(x.clone());
                    Ok(())
                },
                &mut Trace::parts(&mut see),
            )
            .unwrap();
        if let Some(wanted) = sampler.evaluations() {
            assert_eq!(*evaluations.borrow(), wanted, "{case}");
            let states = states.borrow();
            assert_eq!(states.len(), golden.names("latents.").len(), "{case}");
            for (step, state) in states.iter().enumerate() {
                let state = ops::to_nchw(state).unwrap();
                let name = format!("latents.{step}");
                assert!(golden.compare(&name, &state, SAMPLER_TOLERANCE), "{case}");
            }
        }
        let found = ops::to_nchw(&found).unwrap();
        assert!(golden.compare("outputs.sample", &found, tolerance(case)));
        golden.report();
    }
}

/// The first channels are led, the others are the class's own.
#[test]
fn guidance_may_move_some_channels_alone() {
    let source = folder("dit").open_component("", None).unwrap();
    let config = ClassConditionalConfig {
        cfg_channels: Some(3),
        ..config("dit")
    };
    let some = ClassConditionalTransformer::load(&config, &Weights::from_source(source)).unwrap();
    let golden = Golden::open(&golden_path("dit", "sampler"));
    let x = ops::to_nhwc(&golden.get("inputs.latents")).unwrap();
    let predict = |model: &ClassConditionalTransformer, guidance: f32| {
        let guided = Guided::new(model, &[4, 7], guidance).unwrap();
        guided.predict(&x, 500.0, &mut Trace::none()).unwrap()
    };
    let part = |x: &Tensor, from: usize, count: usize| {
        let part = x.narrow(3, from, count).unwrap();
        part.contiguous().unwrap()
    };
    let found = predict(&some, 2.0);
    let (all, own) = (predict(&load("dit"), 2.0), predict(&some, 1.0));
    assert_close("led", &part(&found, 0, 3), &part(&all, 0, 3), 1e-5);
    assert_close("own", &part(&found, 3, 5), &part(&own, 3, 5), 1e-5);
}

/// What guidance leads away from is the class that stands for none; at 1 it is not even computed.
#[test]
fn guidance_is_between_the_class_and_none() {
    let model = load("dit");
    let golden = Golden::open(&golden_path("dit", "sampler"));
    let x = ops::to_nhwc(&golden.get("inputs.latents")).unwrap();
    let predict = |classes: &[u32], guidance: f32| {
        let guided = Guided::new(&model, classes, guidance).unwrap();
        guided.predict(&x, 500.0, &mut Trace::none()).unwrap()
    };
    let none = model.config().null_class().unwrap();
    assert_eq!(none, 10);
    let (own, away) = (predict(&[4, 7], 1.0), predict(&[none, none], 1.0));
    let part = |x: &Tensor, from: usize| x.narrow(3, from, 4).unwrap().contiguous().unwrap();
    let guided = predict(&[4, 7], 3.0);
    let wanted = ((part(&own, 0) * 3.0).unwrap() - (part(&away, 0) * 2.0).unwrap()).unwrap();
    assert_close("noise", &part(&guided, 0), &wanted, 1e-5);
    // Variances are those of the class.
    assert_close("variance", &part(&guided, 4), &part(&own, 4), 1e-5);
    let zero = predict(&[4, 7], 0.0);
    assert_close("none", &part(&zero, 0), &part(&away, 0), 1e-5);
}

fn changed(case: &str, tensors: &[(&str, Tensor)], left_out: &[&str]) -> Result<(), String> {
    let path = golden_path(case, "sampler");
    let source = components::inputs(&path, "inputs.");
    let named = source
        .names()
        .into_iter()
        .filter(|name| !left_out.contains(&name.as_str()));
    let mut all: BTreeMap<String, Tensor> = named
        .map(|name| {
            let view = source.view(&name).unwrap().unwrap();
            (name, Tensor::from_view(&view).unwrap())
        })
        .collect();
    for (name, tensor) in tensors {
        all.insert((*name).to_owned(), tensor.clone());
    }
    let stored = all.into_iter().map(|(name, x)| {
        let shape = x.dims().to_vec();
        let flat = x.flatten_all().unwrap();
        let (dtype, data) = match x.dtype() {
            DType::I64 => {
                let values = flat.to_vec1::<i64>().unwrap();
                let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                (brisk_store::Dtype::I64, data)
            }
            _ => {
                let data = values(&x).iter().flat_map(|x| x.to_le_bytes()).collect();
                (brisk_store::Dtype::F32, data)
            }
        };
        (name, dtype, shape, data)
    });
    let source = brisk_store::MemorySource::new(stored.collect()).unwrap();
    run(case, "sampler", &source, &mut |_, _| ()).map(drop)
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let ids = |values: Vec<i64>| {
        let count = values.len();
        Tensor::from_vec(values, count).unwrap()
    };
    let latents = || Tensor::zeros(vec![2, 4, 4, 4], DType::F32).unwrap();
    for (case, name, tensor, left_out, words) in [
        (
            "dit",
            "class_labels",
            ids(vec![4, 11]),
            "",
            ["class_labels", "11"],
        ),
        (
            "dit",
            "class_labels",
            ids(vec![4]),
            "",
            ["class_labels", "[1]"],
        ),
        (
            "dit",
            "class_labels",
            ids(vec![4, -1]),
            "",
            ["class_labels", "-1"],
        ),
        ("dit", "steps", ids(vec![1]), "", ["\"steps\"", "2 to 1000"]),
        ("dit", "steps", ids(vec![0]), "", ["\"steps\"", "0 steps"]),
        (
            "dit",
            "steps",
            ids(vec![14]),
            "",
            ["noise.I", "14 steps draw 13"],
        ),
        (
            "u_vit",
            "steps",
            ids(vec![0]),
            "",
            ["\"steps\"", "DPM_Solver"],
        ),
        (
            "u_vit",
            "noise.0",
            latents(),
            "",
            ["noise.0", "does not take"],
        ),
        (
            "u_vit",
            "latents",
            Tensor::zeros(vec![2, 4, 6, 4], DType::F32).unwrap(),
            "",
            ["latents", "[2, 4, 6, 4]"],
        ),
        (
            "u_vit",
            "guidance",
            latents(),
            "",
            ["guidance", "one finite"],
        ),
        (
            "u_vit",
            "steps",
            ids(vec![3]),
            "guidance",
            ["guidance", "no tensor"],
        ),
        ("sit", "steps", ids(vec![1]), "", ["ODE_heun2", "2 to"]),
    ] {
        let refused = changed(case, &[(name, tensor)], &[left_out]);
        let refused = refused.expect_err(&format!("{case} {name} {words:?}"));
        for word in words {
            assert!(
                refused.contains(word),
                "{case} {name}: no {word:?} in {refused}"
            );
        }
    }
    changed("u_vit", &[], &[]).unwrap();
}

/// The last draw of an ancestral walk may be left out: the authors make it and use it nowhere.
#[test]
fn the_last_draw_is_not_needed() {
    changed("dit", &[], &["noise.11"]).unwrap();
    let refused = changed("dit", &[], &["noise.10", "noise.11"]).unwrap_err();
    assert!(refused.contains("noise.0"), "{refused}");
}

/// A network that always saw its class has no row for none.
#[test]
fn guidance_needs_a_class_of_none() {
    let config = ClassConditionalConfig {
        class_dropout_prob: 0.0,
        ..config("sit")
    };
    assert_eq!((config.null_class(), config.class_rows()), (None, 10));
    let weights = WeightsBuilder::random(3, Storage::F32).build().unwrap();
    let model = ClassConditionalTransformer::load(&config, &weights).unwrap();
    assert!(Guided::new(&model, &[1], 1.0).is_ok());
    for guidance in [1.5, f32::NAN] {
        let refused = Guided::new(&model, &[1], guidance).unwrap_err().to_string();
        assert!(refused.contains("guidance"), "{refused}");
    }
    let x = Tensor::zeros(vec![1, 4, 4, 4], DType::F32).unwrap();
    let time = Tensor::new(&[0.5f32]).unwrap();
    let refused = model.forward(&x, &time, &[10]).unwrap_err().to_string();
    assert!(
        refused.contains("class 10") && refused.contains("0 to 9"),
        "{refused}"
    );
    for (latents, classes) in [
        (vec![1, 4, 4, 3], vec![1]),
        (vec![1, 5, 4, 4], vec![1]),
        (vec![2, 4, 4, 4], vec![1, 2]),
        (vec![1, 4, 4, 4], vec![1, 2]),
        (vec![0, 4, 4, 4], vec![]),
    ] {
        let x = Tensor::zeros(latents.clone(), DType::F32).unwrap();
        assert!(model.forward(&x, &time, &classes).is_err(), "{latents:?}");
    }
}

/// Every layout is found by its tensors, and by what its configuration says.
#[test]
fn files_are_recognised() {
    for (case, words) in [
        ("u_vit", "UViT or USiT, as published"),
        ("u_sit", "UViT or USiT)"),
        ("u_sit_trained", "as its trainer writes it"),
        ("dit", "DiT or SiT"),
        ("sit", "DiT or SiT"),
    ] {
        let source = folder(case).open_component("", None).unwrap();
        let (component, found) = registry::recognise(&*source, &BTreeMap::new())
            .unwrap()
            .unwrap();
        assert_eq!(component.name, COMPONENT.name, "{case}");
        assert!(found.name.contains(words), "{case}: {}", found.name);
        assert_eq!(found.details["latent channels"], 4, "{case}");
    }
    let published = serde_json::json!({"model_name": "dc-ae-f32c32-in-1.0-dit-xl-in-512px"});
    let found = registry::of_config(&published).unwrap();
    assert_eq!(found.name, COMPONENT.name);
    assert!(registry::of_config(&serde_json::json!({"model_name": "other"})).is_none());
}

/// What a trainer needs: a gradient for every parameter of a network that starts as the authors' does.
#[test]
fn gradients_reach_every_parameter() {
    for case in ["u_vit", "dit"] {
        let source = plain_names(folder(case).open_component("", None).unwrap()).unwrap();
        let weights = Weights::trainable(Some(source), 1);
        let model = ClassConditionalTransformer::load(&config(case), &weights).unwrap();
        let golden = Golden::open(&golden_path(case, "transformer"));
        let latents = ops::to_nhwc(&golden.get("inputs.hidden_states")).unwrap();
        let times = golden.get("inputs.timestep");
        let found = model.forward(&latents, &times, &[3, 9, 10]).unwrap();
        let gradients = found
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .host()
            .unwrap()
            .backward()
            .unwrap();
        let variables = weights.variables();
        assert!(variables.len() > 30, "{case}");
        for (name, variable) in variables {
            let gradient = gradients.get(&variable);
            let gradient = gradient.unwrap_or_else(|| panic!("{case}: no gradient of {name}"));
            let sum = gradient.abs().unwrap().sum_all().unwrap();
            assert!(sum.to_scalar::<f32>().unwrap() > 0.0, "{case}: {name}");
        }
    }
}

/// The fixtures' positions are those of the authors' class, in bf16.
#[test]
fn positions_of_a_dit_are_waves() {
    for case in ["dit", "dit_patches", "sit"] {
        let source = folder(case).open_component("", None).unwrap();
        let stored = source.view("pos_embed").unwrap().unwrap();
        let found = config(case).fixed_positions().unwrap();
        assert_eq!(found.len(), stored.shape.iter().product::<usize>());
        for (found, stored) in found.iter().zip(stored.to_f32().unwrap()) {
            assert!((found - stored).abs() < 4e-3, "{case}: {found} {stored}");
        }
    }
    assert!(config("u_vit").fixed_positions().is_none());
}

/// The process that a UViT reverses keeps the variance, from next to no noise to next to nothing else.
#[test]
fn noise_grows_from_time_to_time() {
    let factors = noise_factors();
    assert_eq!(factors.len(), 1000);
    assert!(factors.windows(2).all(|pair| pair[1][1] > pair[0][1]));
    for [alpha, sigma] in &factors {
        assert!((alpha * alpha + sigma * sigma - 1.0).abs() < 1e-12);
    }
    // The first beta is 0.00085; of the last time 0.0047 of the variance are left.
    assert!((factors[0][1].powi(2) - 0.00085).abs() < 1e-9);
    assert!((factors[999][0].powi(2) - 0.004_66).abs() < 1e-4);
}
