//! From a SANA model to one of two steps.

use std::path::Path;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_pipelines::families::sana::options as own;
use brisk_pipelines::options::{Options, keys};
use brisk_pipelines::{Control, ImageRequest, OpenSettings, registry};
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};
use brisk_train::log::read_log;
use brisk_train::recipe::Recipe;
use brisk_train::{
    ControlNetOptions, Error, SprintControl, SprintRecipe, SprintReport, SprintTeacher, Start,
    distill_sprint, train_controlnet, train_image,
};
use serde_json::{Value, json};

use super::{
    assert_same_checkpoint, assert_stopped, autoencoder, data, image_recipe, stopping_at,
    train_tiny_autoencoder, training,
};

fn document(steps: u64) -> Value {
    json!({
        "kind": "sprint", "name": "tiny", "training": training("came", steps),
        "angle_law": [0.2, 1.6], "discriminator_angle_law": [-0.6, 1.0], "guidance_scales": [1.0, 2.0],
        "tangent_warm_up_steps": 20, "consistency_weight": 1.0, "adversarial_weight": 0.5, "max_time_share": 0.5,
        "misaligned_pairs": true, "head_blocks": [0, 1], "name_probability": 0.7, "max_tokens": 16,
        "sample_every": 1000, "sample_prompts": ["red square", "blue bar"], "sample_steps": 2, "guidance": 2.0
    })
}

fn parse(document: &Value) -> Result<SprintRecipe, Error> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Sprint(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

/// A tiny model, and the same after some training with times of 0 to 1.
fn teachers(folder: &Path) -> [ModelFolder; 2] {
    let data = data();
    let quiet = Control::silent();
    train_tiny_autoencoder(&folder.join("autoencoder"), 40);
    let vae = autoencoder(&folder.join("autoencoder/vae"));
    let recipe = image_recipe("came", 40);
    train_image(&recipe, &data, &vae, None, &folder.join("image"), &quiet).unwrap();
    let plain = ModelFolder::Disk(folder.join("image/model"));
    let mut dense = image_recipe("came", 10);
    dense.transformer["timestep_scale"] = 0.001.into();
    let start = Start::open(&plain, None).unwrap();
    let out = folder.join("dense");
    train_image(&dense, &data, &vae, Some(&start), &out, &quiet).unwrap();
    [plain, ModelFolder::Disk(out.join("model"))]
}

fn run(
    recipe: &SprintRecipe,
    teacher: &ModelFolder,
    out: &Path,
    control: &Control,
) -> Result<SprintReport, Error> {
    let ModelFolder::Disk(path) = teacher else {
        unreachable!()
    };
    let opened = SprintTeacher::open(teacher, None)?;
    distill_sprint(
        recipe,
        &data(),
        &opened,
        None,
        &autoencoder(path),
        out,
        control,
    )
}

#[test]
fn a_controlnet_is_distilled_for_the_student() {
    let folder = tempfile::tempdir().unwrap();
    let [_, dense] = teachers(folder.path());
    let ModelFolder::Disk(path) = &dense else {
        unreachable!()
    };
    let (vae, quiet) = (autoencoder(path), Control::silent());
    let place = |name: &str| folder.path().join(name);
    run(
        &parse(&document(4)).unwrap(),
        &dense,
        &place("sprint"),
        &quiet,
    )
    .unwrap();
    let student = ModelFolder::Disk(place("sprint/model"));
    let mut taught = image_recipe("came", 10);
    taught.transformer["timestep_scale"] = 0.001.into();
    taught.control = Some(ControlNetOptions::new(1));
    let start = Start::open(&dense, None).unwrap();
    train_controlnet(&taught, &data(), &vae, &start, &place("control"), &quiet).unwrap();
    let controlnet = ModelFolder::Disk(place("control"));
    let teacher = SprintTeacher::open(&dense, None).unwrap();
    let refused = SprintControl::open(&controlnet, &dense, None)
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("guidance_embeds is false"),
        "{refused}"
    );
    let steering = SprintControl::open(&controlnet, &student, None).unwrap();
    let recipe = parse(&document(24)).unwrap();
    let run = |out: &Path, control: &Control| {
        distill_sprint(
            &recipe,
            &data(),
            &teacher,
            Some(&steering),
            &vae,
            out,
            control,
        )
    };
    let (whole, parted) = (place("whole"), place("parted"));
    let report = run(&whole, &quiet).unwrap();
    assert_eq!((report.steps, report.pictures), (24, 11));
    assert_stopped(&run(&parted, &stopping_at(10)).unwrap_err(), &parted, 10);
    run(&parted, &quiet).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // It alone was trained, guidance too, and it steers the student.
    let stored = whole.join("controlnet/diffusion_pytorch_model.safetensors");
    let stored = SafetensorsFile::open(&stored).unwrap();
    let guidance = stored
        .view("time_embed.guidance_embedder.linear_2.weight")
        .unwrap()
        .unwrap();
    assert!(
        guidance.data.iter().any(|byte| *byte != 0),
        "guidance is learned"
    );
    assert!(!whole.join("model").exists());
    let options = Options::new().with(
        &own::CONTROLNET,
        whole.join("controlnet").display().to_string(),
    );
    let settings = OpenSettings {
        options,
        ..OpenSettings::default()
    };
    let mut opened = registry::open_image(&student, &settings).unwrap();
    let mut draw = |shade: u8| {
        let picture = Arc::new(Picture::filled(8, 8, [shade; 3]));
        let request = ImageRequest::new("red square").with(&own::CONTROL_IMAGE, picture);
        let drawn = opened.draw(&request, &Control::silent()).unwrap();
        drawn[0].latents.clone().unwrap().values
    };
    let (black, white) = (draw(0), draw(255));
    assert!(black != white && white.iter().all(|value| value.is_finite()));
}

#[test]
fn the_student_learns_resumes_exactly_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, dense] = teachers(folder.path());
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let recipe = parse(&document(24)).unwrap();
    let report = run(&recipe, &dense, &whole, &Control::silent()).unwrap();
    assert_eq!((report.steps, report.pictures), (24, 11));
    let stopped = run(&recipe, &dense, &parted, &stopping_at(10)).unwrap_err();
    assert_stopped(&stopped, &parted, 10);
    run(&recipe, &dense, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);
    let logs = [&whole, &parted].map(|out| read_log(&out.join("training_log.jsonl")).unwrap());
    for (a, b) in logs[0].iter().zip(&logs[1]) {
        assert_eq!((a.step, a.loss, &a.measured), (b.step, b.loss, &b.measured));
        for key in [
            "consistency_loss",
            "tangent_norm",
            "adversarial_loss",
            "discriminator_loss",
        ] {
            assert!(a.measured[key].is_finite(), "{key}");
        }
    }

    // What changed, and what is the teacher's.
    let ModelFolder::Disk(teacher) = &dense else {
        unreachable!()
    };
    let model = whole.join("model");
    let weights = |folder: &Path| {
        let file = "transformer/diffusion_pytorch_model.safetensors";
        SafetensorsFile::open(&folder.join(file)).unwrap()
    };
    let values =
        |folder: &Path, name: &str| weights(folder).view(name).unwrap().unwrap().data.to_vec();
    assert!(values(&model, "proj_out.weight") != values(teacher, "proj_out.weight"));
    let guidance = values(&model, "time_embed.guidance_embedder.linear_2.weight");
    assert!(
        guidance.iter().any(|byte| *byte != 0),
        "guidance is learned"
    );
    for file in [
        "text_encoder/model.safetensors",
        "vae/config.json",
        "tokenizer/tokenizer.json",
    ] {
        let [a, b] = [&model, teacher].map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert!(a == b, "{file}");
    }

    // It draws by the request that any SANA-Sprint takes.
    let opened = ModelFolder::Disk(model);
    let mut opened = registry::open_image(&opened, &OpenSettings::default()).unwrap();
    let mut draw = |guidance: f32| {
        let request = ImageRequest::new("red square").with(&keys::GUIDANCE, guidance);
        let plan = opened.plan(&request).unwrap();
        assert_eq!((plan.width, plan.height), (8, 8));
        let mut drawn = opened.generate(&plan, &Control::silent()).unwrap();
        drawn.remove(0).picture.pixels
    };
    assert!(draw(1.0).len() == 3 * 64);

    // Refusals.
    let refused = run(
        &recipe,
        &plain,
        &folder.path().join("other"),
        &Control::silent(),
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("timestep_scale is 1"), "{message}");
    let again = SprintTeacher::open(&ModelFolder::Disk(whole.join("model")), None);
    let message = again.err().unwrap().to_string();
    assert!(message.contains("guidance_embeds is true"), "{message}");
    let mut other = document(24);
    other["head_blocks"] = json!([0, 2]);
    let refused = run(
        &parse(&other).unwrap(),
        &dense,
        &folder.path().join("heads"),
        &Control::silent(),
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("head_blocks has 2"), "{message}");
}

#[test]
fn each_loss_trains_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [_, dense] = teachers(folder.path());
    for (key, absent) in [
        ("consistency_weight", "consistency_loss"),
        ("adversarial_weight", "discriminator_loss"),
    ] {
        let mut alone = document(6);
        alone[key] = 0.0.into();
        alone["max_time_share"] = 0.0.into();
        alone["training"]["log_every"] = 2.into();
        let out = folder.path().join(key);
        run(&parse(&alone).unwrap(), &dense, &out, &Control::silent()).unwrap();
        let log = read_log(&out.join("training_log.jsonl")).unwrap();
        assert!(
            log.iter().all(|entry| !entry.measured.contains_key(absent)),
            "{key}"
        );
        assert!(log.iter().all(|entry| entry.loss.is_some()));
    }
}

#[test]
fn unfit_recipes_are_refused_by_key() {
    for (key, value, found) in [
        ("angle_law", json!([0.2, -1.0]), "angle_law is [0.2, -1]"),
        ("guidance_scales", json!([]), "guidance_scales (count) is 0"),
        (
            "guidance_scales",
            json!([1.0, -3.0]),
            "guidance_scales is -3",
        ),
        ("max_time_share", json!(1.5), "max_time_share is 1.5"),
        ("head_blocks", json!([]), "head_blocks (count) is 0"),
        ("head_blocks", json!([1, 1]), "rising indices"),
        ("max_tokens", json!(1), "max_tokens is 1"),
        ("sample_steps", json!(0), "sample_steps is 0"),
        (
            "adversarial_weight",
            json!(-1.0),
            "adversarial_weight is -1",
        ),
    ] {
        let mut document = document(2);
        document[key] = value;
        let message = parse(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
    let mut nothing = document(2);
    nothing["consistency_weight"] = 0.0.into();
    nothing["adversarial_weight"] = 0.0.into();
    assert!(
        parse(&nothing)
            .unwrap_err()
            .to_string()
            .contains("at least one")
    );
}
