//! Class-conditional transformers on latents of 8×8 pictures.

use std::path::Path;

use brisk_models::dcae::AutoencoderConfig;
use brisk_pipelines::folder::Opened;
use brisk_pipelines::options::keys;
use brisk_pipelines::{Control, Event, ImageRequest, OpenSettings, registry};
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};
use brisk_train::recipe::Recipe;
use brisk_train::{ClassRecipe, train_class};
use serde_json::{Value, json};

use super::{
    assert_same_checkpoint, assert_stopped, autoencoder, data, losses, stopping_at,
    train_tiny_autoencoder, training,
};

/// Of a network with these keys beside its sizes.
fn document(steps: u64, network: Value) -> Value {
    let mut document = json!({
        "kind": "class", "name": "tiny", "training": training("adamw", steps),
        "network": {
            "input_size": 2, "patch_size": 1, "in_channels": 4, "hidden_size": 16, "depth": 2, "num_heads": 2,
            "class_dropout_prob": 0.2
        },
        "sample_every": 1000, "sample_classes": ["red square", "blue bar"], "guidance": 2.0
    });
    for (key, value) in network.as_object().unwrap() {
        document["network"][key] = value.clone();
    }
    document
}

fn parse(document: &Value) -> brisk_train::Result<ClassRecipe> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Class(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

fn vae(folder: &Path) -> Opened<AutoencoderConfig> {
    let out = folder.join("autoencoder");
    train_tiny_autoencoder(&out, 20);
    autoencoder(&out.join("vae"))
}

fn parameter(run: &Path, name: &str) -> Vec<f32> {
    let file = SafetensorsFile::open(&run.join("model/model.safetensors")).unwrap();
    let view = file.view(name).unwrap();
    view.unwrap().to_f32().unwrap()
}

/// All three objectives: the noise, the noise with its variance, and the velocity.
#[test]
fn they_learn_resume_exactly_and_draw() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vae) = (data(), vae(folder.path()));
    for (name, network, steps) in [
        (
            "noise",
            json!({"_class_name": "UViT", "num_inference_steps": 4}),
            Some(6),
        ),
        (
            "variance",
            json!({"_class_name": "DiT", "num_inference_steps": 5}),
            Some(4),
        ),
        (
            "flow",
            json!({"_class_name": "UViT", "train_scheduler": "SiTSampler", "eval_scheduler": "ODE_dopri5"}),
            None,
        ),
    ] {
        let out = |part: &str| folder.path().join(format!("{name}-{part}"));
        let recipe = parse(&document(120, network)).unwrap();
        let (whole, parted) = (out("whole"), out("parted"));
        let report = train_class(&recipe, &data, &vae, &whole, &Control::silent()).unwrap();
        assert_eq!((report.pictures, report.classes), (11, 11), "{name}");
        let all = losses(&whole);
        let last = all[all.len() - 6..].iter().sum::<f64>() / 6.0;
        assert!(last < 0.9 * all[0], "{name}: {all:?}");
        assert!(whole.join("samples/step-00000120.png").exists());

        let stopped = train_class(&recipe, &data, &vae, &parted, &stopping_at(35));
        assert_stopped(&stopped.unwrap_err(), &parted, 35);
        // Latents are not encoded again.
        let (sender, receiver) = std::sync::mpsc::channel();
        let listening = Control::new(move |event| drop(sender.send(event)));
        train_class(&recipe, &data, &vae, &parted, &listening).unwrap();
        let stages: Vec<&str> = receiver
            .try_iter()
            .filter_map(|event| match event {
                Event::Stage { name, .. } => Some(name),
                _ => None,
            })
            .collect();
        assert!(!stages.contains(&"encoding the pictures"), "{stages:?}");
        assert_same_checkpoint(&whole, &parted);

        // The written folder is a model that draws its classes by their names, with the recipe's guidance.
        let model = ModelFolder::Disk(whole.join("model"));
        let mut opened = registry::open_image(&model, &OpenSettings::default()).unwrap();
        let request = ImageRequest {
            prompts: vec!["Red square".to_owned(), "blue bar".to_owned()],
            options: Default::default(),
        };
        let request = request.with_some(&keys::STEPS, steps);
        let plan = opened.plan(&request).unwrap();
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
        assert_eq!((plan.width, plan.height), (8, 8));
        assert_eq!(plan.settings["guidance"], json!(2.0));
        let drawn = opened.generate(&plan, &Control::silent()).unwrap();
        assert!(drawn[0].picture != drawn[1].picture, "{name}");
        let known = brisk_pipelines::EvaluationPictures::read(&model)
            .unwrap()
            .unwrap();
        assert_eq!(known.trained.len(), 11);
        assert_eq!(known.trained[0].prompt, "red square");
    }
    // Positions of a DiT stay what they are: the first place has sines of nothing, then cosines of it.
    let positions = parameter(&folder.path().join("variance-whole"), "pos_embed");
    assert_eq!(positions.len(), 4 * 16);
    assert_eq!(positions[..8], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn unfit_recipes_and_data_are_refused_by_name() {
    let u_vit = || json!({"_class_name": "UViT"});
    for (place, value, found) in [
        ("/network/depth", json!(3), "`depth` is 3"),
        ("/network/_class_name", json!("Other"), "another model"),
        ("/guidance", json!(-1.0), "guidance is -1"),
        ("/least_pictures", json!(0), "least_pictures is 0"),
        ("/classes", json!("colour"), "colour"),
        ("/sample_every", json!(0), "sample_every is 0"),
        (
            "/network/class_dropout_prob",
            json!(0.0),
            "class_dropout_prob is 0",
        ),
    ] {
        let mut document = document(2, u_vit());
        document["classes"] = "name".into();
        document["least_pictures"] = 1.into();
        *document.pointer_mut(place).unwrap() = value;
        let message = parse(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
    let mut finds = document(2, json!({"_class_name": "USiT"}));
    finds["sample_steps"] = 4.into();
    let message = parse(&finds).unwrap_err().to_string();
    assert!(
        message.contains("sample_steps") && message.contains("dopri5"),
        "{message}"
    );

    let folder = tempfile::tempdir().unwrap();
    let (data, vae) = (data(), vae(folder.path()));
    let out = folder.path().join("run");
    for (place, value, found) in [
        ("/network/in_channels", json!(8), "network.in_channels is 8"),
        ("/network/input_size", json!(4), "needs 16"),
        ("/sample_classes", json!(["green bear"]), "\"green bear\""),
        ("/classes", json!("object"), "has a class"),
        ("/least_pictures", json!(2), "least_pictures"),
        ("/network/hidden_size", json!(65536), "MiB are available"),
    ] {
        let mut document = document(2, u_vit());
        document["classes"] = "name".into();
        document["least_pictures"] = 1.into();
        *document.pointer_mut(place).unwrap() = value;
        let recipe = parse(&document).unwrap();
        let refused = train_class(&recipe, &data, &vae, &out, &Control::silent());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
        assert!(!out.join("model").exists());
    }
}
