//! `brisk probe` against the goldens.

use std::collections::HashMap;

use brisk_nn::Tensor;
use brisk_testkit::{Golden, load_tensors};

use crate::harness::{Place, fixture, fixture_path};

const TOLERANCE: f64 = 1e-4;

/// Runs a component on a golden's inputs and compares each output.
fn check(model: &str, component: &str, golden: &str, inputs: &[&str], outputs: &[&str]) {
    let place = Place::new();
    let tensors = load_tensors(fixture_path(golden));
    let given: HashMap<String, Tensor> = inputs
        .iter()
        .map(|name| {
            let tensor = tensors
                .get(&format!("inputs.{name}"))
                .or_else(|| tensors.get(*name));
            let tensor = tensor.unwrap_or_else(|| panic!("{golden}: no input {name}"));
            (
                name.strip_prefix("outputs.").unwrap_or(name).to_string(),
                tensor.clone(),
            )
        })
        .collect();
    brisk_testkit::save_tensors(place.path("in.safetensors"), &given);
    let outcome = place.ok(&[
        "probe",
        "--model",
        &fixture(model),
        "--component",
        component,
        "--inputs",
        "in.safetensors",
        "--outputs",
        "out.safetensors",
    ]);
    assert_eq!(outcome.stdout, "");
    let found = load_tensors(place.path("out.safetensors"));
    assert_eq!(
        found.len(),
        outputs.len(),
        "{model} {component}: {:?}",
        found.keys()
    );
    let mut golden = Golden::open(golden);
    for name in outputs {
        assert!(
            golden.compare(&format!("outputs.{name}"), &found[*name], TOLERANCE),
            "no golden for {name}"
        );
    }
}

const TRANSFORMER: [&str; 4] = [
    "hidden_states",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "timestep",
];

#[test]
fn transformers() {
    for name in [
        "t1_base",
        "t2_qk_norm",
        "t3_sprint",
        "t4_position",
        "t5_patch2",
        "t7_learned_sigma",
    ] {
        let model = format!("sana_transformer/{name}");
        let mut inputs = TRANSFORMER.to_vec();
        if name == "t3_sprint" {
            inputs.push("guidance");
        }
        check(
            &model,
            "transformer",
            &format!("{model}/golden.safetensors"),
            &inputs,
            &["sample"],
        );
    }
}

/// One evaluation, and the whole way from noise.
#[test]
fn class_conditional_transformers() {
    let model = |case: &str| format!("class_conditional/{case}");
    for case in ["u_vit", "dit", "sit"] {
        check(
            &model(case),
            "transformer",
            &format!("{}/golden_transformer.safetensors", model(case)),
            &["hidden_states", "timestep", "class_labels"],
            &["sample"],
        );
    }
    let inputs = ["latents", "steps", "guidance", "class_labels"];
    for (case, draws) in [("u_vit", 0), ("dit", 12), ("sit", 0)] {
        let noise: Vec<String> = (0..draws).map(|draw| format!("noise.{draw}")).collect();
        let noise = noise.iter().map(String::as_str);
        check(
            &model(case),
            "sampler",
            &format!("{}/golden_sampler.safetensors", model(case)),
            &inputs.into_iter().chain(noise).collect::<Vec<_>>(),
            &["sample"],
        );
    }
}

#[test]
fn text_encoders() {
    for name in ["softcap50", "softcap2", "sliding", "narrow"] {
        let model = format!("gemma2/{name}");
        let golden = format!("{model}/golden.safetensors");
        check(
            &model,
            "text_encoder",
            &golden,
            &["input_ids", "attention_mask"],
            &["last_hidden_state"],
        );
    }
}

#[test]
fn autoencoders() {
    for name in ["a", "b", "c", "d"] {
        let model = format!("dcae/{name}");
        let golden = format!("{model}/golden.safetensors");
        check(&model, "vae.encode", &golden, &["sample"], &["latent"]);
        check(&model, "vae.decode", &golden, &["latent"], &["sample"]);
    }
}

/// What distillation minimises runs a student and the teacher beside it.
#[test]
fn consistency_objective() {
    let golden = "sana_sprint/distillation/scm.safetensors";
    let tensors = load_tensors(fixture_path(golden));
    let names = |prefix: &str| -> Vec<String> {
        let named = tensors.keys().filter_map(|name| name.strip_prefix(prefix));
        let mut names: Vec<String> = named
            .filter(|name| !name.ends_with(".shape"))
            .map(|name| {
                name.split_once(".every")
                    .map_or(name, |(plain, _)| plain)
                    .to_owned()
            })
            .collect();
        names.sort();
        names
    };
    let (inputs, outputs) = (names("inputs."), names("outputs."));
    let [inputs, outputs] =
        [&inputs, &outputs].map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(outputs.contains(&"F_dot") && outputs.contains(&"grad.proj_out.weight"));
    let model = "sana_sprint/distillation";
    check(model, "objective.scm", golden, &inputs, &outputs);
    let place = Place::new();
    let probe = |model: &str, more: &[&'static str]| {
        let mut all = vec!["probe", "--model", model, "--component", "objective.scm"];
        all.extend(["--inputs", "in.safetensors", "--outputs", "out.safetensors"]);
        all.extend(more);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let fails = |code: i32, words: &[&str], arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        place.fails(code, words, &arguments);
    };
    brisk_testkit::save_tensors::<String>(place.path("in.safetensors"), &HashMap::new());
    fails(1, &["latents"], &probe(&fixture(model), &[]));
    fails(2, &["--exact"], &probe(&fixture(model), &["--exact"]));
    fails(
        1,
        &["transformer/config.json"],
        &probe(&fixture("sana_transformer/t3_sprint"), &[]),
    );
    assert!(!place.path("out.safetensors").exists());
}

/// Codes come out as integers, and the transformer finds the tokenizer beside it.
#[test]
fn scale_wise_networks() {
    let golden = |name: &str| format!("hart/base/golden_{name}.safetensors");
    let codes = ["codes.0", "codes.1", "codes.2", "codes.3", "codes.4"];
    let with = |more: &[&'static str]| [&codes[..], more].concat();
    let check = |component: &str, name: &str, inputs: &[&str], outputs: &[&str]| {
        check("hart/base", component, &golden(name), inputs, outputs);
    };
    let encoded = with(&["latent", "f_hat"]);
    check("tokenizer.encode", "tokenizer", &["sample"], &encoded);
    let text = ["context", "context_mask"];
    let taught = [&text[..], &codes].concat();
    check("transformer", "transformer", &taught, &["logits", "hidden"]);
    let noisy = ["noisy", "timestep", "condition"];
    check("diffusion_head", "diffusion_head", &noisy, &["sample"]);
    let steps: Vec<String> = (0..7).map(|step| format!("noise.{step}")).collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let drawn = with(&["latent", "image"]);
    for (name, more) in [("generate", &[][..]), ("generate_smooth", &["more_smooth"])] {
        let inputs = [&text[..], &["guidance", "latents"], &steps, more].concat();
        check("generate", name, &inputs, &drawn);
    }
    // The transformer's folder alone has no codewords.
    let place = Place::new();
    let tensors = load_tensors(fixture_path(&golden("transformer")));
    let given = taught
        .iter()
        .map(|name| (*name, tensors[&format!("inputs.{name}")].clone()));
    brisk_testkit::save_tensors(place.path("in.safetensors"), &given.collect());
    let arguments = [
        "probe",
        "--model",
        &fixture("hart/base/llm"),
        "--component",
        "transformer",
        "--inputs",
        "in.safetensors",
        "--outputs",
        "out.safetensors",
    ];
    place.fails(1, &["tokenizer/config.json", "whole folder"], &arguments);
}

#[test]
fn controlnet_and_its_transformer() {
    let golden = "sana_controlnet/diffusers/golden.safetensors";
    let mut inputs = TRANSFORMER.to_vec();
    inputs.extend(["controlnet_cond", "conditioning_scale"]);
    // The pipeline's folder finds the component below it.
    check(
        "sana_controlnet/diffusers",
        "controlnet",
        golden,
        &inputs,
        &["block_samples.0", "block_samples.1"],
    );

    let place = Place::new();
    let tensors = load_tensors(fixture_path(golden));
    let mut given: HashMap<String, Tensor> = TRANSFORMER
        .iter()
        .map(|name| (name.to_string(), tensors[&format!("inputs.{name}")].clone()))
        .collect();
    for index in 0..2 {
        let sample = tensors[&format!("outputs.block_samples.{index}")].clone();
        given.insert(format!("controlnet_block_samples.{index}"), sample);
    }
    brisk_testkit::save_tensors(place.path("in.safetensors"), &given);
    let model = fixture("sana_controlnet/diffusers");
    let arguments = [
        "probe",
        "--model",
        &model,
        "--component",
        "transformer",
        "--inputs",
        "in.safetensors",
    ];
    place.ok(&[&arguments[..], &["--outputs", "out.safetensors"]].concat());
    let found = load_tensors(place.path("out.safetensors"));
    assert!(Golden::open(golden).compare("outputs.sample", &found["sample"], TOLERANCE));
}

#[test]
fn what_is_wrong_is_named() {
    let place = Place::new();
    let tensors = load_tensors(fixture_path("sana_transformer/t1_base/golden.safetensors"));
    let inputs: HashMap<String, Tensor> = TRANSFORMER
        .iter()
        .map(|name| (name.to_string(), tensors[&format!("inputs.{name}")].clone()))
        .collect();
    let save = |name: &str, change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut changed = inputs.clone();
        change(&mut changed);
        brisk_testkit::save_tensors(place.path(name), &changed);
    };
    save("good", &|_| ());
    save("extra", &|inputs| {
        drop(inputs.insert("hidden".into(), tensors["inputs.timestep"].clone()))
    });
    save("lacking", &|inputs| drop(inputs.remove("timestep")));
    save("rank", &|inputs| {
        drop(inputs.insert("hidden_states".into(), tensors["inputs.timestep"].clone()))
    });
    save("nan", &|inputs| {
        let nan = (tensors["inputs.timestep"].clone() * f64::NAN).unwrap();
        drop(inputs.insert("timestep".into(), nan));
    });
    let model = fixture("sana_transformer/t1_base");
    let run = |component: &'static str, inputs: &str, code: i32, words: &[&str]| {
        place.fails(
            code,
            words,
            &[
                "probe",
                "--model",
                &model,
                "--component",
                component,
                "--inputs",
                inputs,
                "--outputs",
                "out.safetensors",
            ],
        );
    };
    run("transformer", "extra", 1, &["hidden", "does not take"]);
    run("transformer", "lacking", 1, &["timestep", "lacking"]);
    run("transformer", "rank", 1, &["hidden_states", "4 dimensions"]);
    run("transformer", "nan", 1, &["timestep", "finite"]);
    run("transformer", "absent", 1, &["absent"]);
    run(
        "language_model",
        "good",
        1,
        &["config.json", "SANA transformer", "language_model"],
    );
    run("nonsense", "good", 2, &["nonsense", "text_encoder"]);
    place.fails(
        1,
        &["nowhere"],
        &[
            "probe",
            "--model",
            &model,
            "--component",
            "transformer",
            "--inputs",
            "good",
            "--outputs",
            "nowhere/out",
        ],
    );
}

#[test]
fn token_ids_outside_the_vocabulary_are_refused() {
    let place = Place::new();
    for (file, id) in [("high", 1_000_000i64), ("negative", -1)] {
        let inputs = HashMap::from([
            ("input_ids".to_owned(), Tensor::new(&[[1i64, id]]).unwrap()),
            (
                "attention_mask".to_owned(),
                Tensor::new(&[[1i64, 1]]).unwrap(),
            ),
        ]);
        brisk_testkit::save_tensors(place.path(file), &inputs);
        place.fails(
            1,
            &["input_ids", &id.to_string(), "vocabulary"],
            &[
                "probe",
                "--model",
                &fixture("gemma2/narrow"),
                "--component",
                "text_encoder",
                "--inputs",
                file,
                "--outputs",
                "out",
            ],
        );
    }
}

#[test]
fn optimisers_follow_their_formulas() {
    let place = Place::new();
    let fixture =
        |case: &str| load_tensors(fixture_path(&format!("optimiser/came/{case}.safetensors")));
    for (component, case) in [
        ("optimiser.came", "came"),
        ("optimiser.came8bit", "came8bit_elements"),
        ("optimiser.came8bit", "came8bit_rows"),
    ] {
        let wanted = fixture(case);
        let given: HashMap<String, Tensor> = fixture("inputs")
            .into_iter()
            .chain(wanted.clone())
            .filter_map(|(name, tensor)| Some((name.strip_prefix("inputs.")?.to_owned(), tensor)))
            .collect();
        brisk_testkit::save_tensors(place.path("in.safetensors"), &given);
        let probe = |component: &str, more: &[&str]| {
            let files = ["--inputs", "in.safetensors", "--outputs", "out.safetensors"];
            [&["probe", "--component", component][..], &files, more]
                .concat()
                .join(" ")
        };
        let run = probe(component, &[]);
        place.ok(&run.split(' ').collect::<Vec<_>>());
        let found = load_tensors(place.path("out.safetensors"));
        for (name, wanted) in &wanted {
            let Some(name) = name.strip_prefix("outputs.") else {
                continue;
            };
            let found = &found[name];
            if name.ends_with(".data") {
                let codes =
                    |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<u8>().unwrap();
                let (found, wanted) = (codes(found), codes(wanted));
                // Sums of another order may move a value over the border between two codes.
                let pairs = found.iter().zip(&wanted);
                assert!(
                    pairs.clone().all(|(a, b)| a.abs_diff(*b) <= 1),
                    "{case}: {name}"
                );
                let other = pairs.filter(|(a, b)| a != b).count();
                assert!(
                    other * 50 <= wanted.len(),
                    "{case}: {name}: {other} codes differ"
                );
            } else {
                let tolerance = if case == "came" { 1e-5 } else { 1e-3 };
                brisk_testkit::assert_close(name, found, wanted, tolerance);
            }
        }
        let states = found.keys().filter(|name| name.starts_with("exp_avg"));
        assert_eq!(
            states.count(),
            wanted
                .keys()
                .filter(|name| name.contains(".exp_avg"))
                .count()
        );
        // Neither a model nor a card has to do with it.
        for more in [["--model", "sana-emoji"], ["--device", "cuda"]] {
            let run = probe(component, &more);
            place.fails(2, &[more[0]], &run.split(' ').collect::<Vec<_>>());
        }
    }
    let without_rate: HashMap<String, Tensor> = fixture("inputs")
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("inputs.")?.to_owned(), tensor)))
        .filter(|(name, _)| name != "lr")
        .collect();
    brisk_testkit::save_tensors(place.path("in.safetensors"), &without_rate);
    let run = "probe --component optimiser.came --inputs in.safetensors --outputs o.safetensors";
    place.fails(1, &["lr is missing"], &run.split(' ').collect::<Vec<_>>());
}
