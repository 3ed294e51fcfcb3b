//! Both loops on 8x8 pictures: the loss falls, and a run that was stopped ends with the weights of one that wasn't.

mod adapter;
mod classes;
mod codes;
mod controlnet;
mod depth;
mod eight_bit;
mod joint;
mod masks;
mod own_pictures;
mod phases;
mod prolong;
mod readers;
mod sprint;
mod tokenizer;
mod tower;
mod video;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brisk_media::Picture;
use brisk_models::dcae::AutoencoderConfig;
use brisk_pipelines::folder::{ComponentFolder, Opened};
use brisk_pipelines::{Control, Event};
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};
use brisk_train::data::pictures::{PictureData, PictureEntry, PictureSet};
use brisk_train::eval::{
    Generated, ImageEvaluation, evaluate_image_model, load_autoencoder, mean_psnr, open_autoencoder,
};
use brisk_train::log::read_log;
use brisk_train::recipe::{AutoencoderRecipe, ImageRecipe, Recipe, TextRecipe};
use brisk_train::{
    Error, Selection, Start, checkpoint, train_autoencoder, train_image, train_text,
};
use serde_json::json;

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [220, 30, 30]),
    ("green", [20, 160, 60]),
    ("blue", [30, 60, 220]),
    ("yellow", [240, 210, 40]),
    ("purple", [130, 40, 170]),
    ("black", [20, 20, 20]),
];

/// Squares and bars in six colours on white.
fn data() -> PictureData {
    let size = 8;
    let mut data = PictureData::new();
    for (number, (colour, rgb)) in COLOURS.iter().enumerate() {
        for shape in ["square", "bar"] {
            let columns = if shape == "bar" { 3..5 } else { 1..7 };
            let pixel = |at: usize| {
                let inside = (1..7).contains(&(at / size)) && columns.contains(&(at % size));
                if inside { *rgb } else { [255; 3] }
            };
            let picture = Picture {
                width: size,
                height: size,
                pixels: (0..size * size).flat_map(pixel).collect(),
            };
            let entry = PictureEntry {
                captions: Vec::new(),
                name: format!("{colour} {shape}"),
                tags: vec![shape.to_owned(), "Shape".to_owned()],
                hexcode: format!("{number}"),
                set: PictureSet::Noto,
                group: "symbols".to_owned(),
                held_out: number == 4 && shape == "bar",
            };
            data.push(entry, &picture);
        }
    }
    data
}

/// The same with other entries or pictures.
fn changed(change: impl Fn(usize, &mut PictureEntry, &mut Picture)) -> PictureData {
    let (before, mut after) = (data(), PictureData::new());
    for (index, entry) in before.entries().iter().enumerate() {
        let (mut entry, mut picture) = (entry.clone(), before.picture(index).unwrap());
        change(index, &mut entry, &mut picture);
        after.push(entry, &picture);
    }
    after
}

fn training(optimiser: &str, steps: u64) -> serde_json::Value {
    json!({
        "seed": 1, "batch": 8, "steps": steps, "max_minutes": null, "optimiser": optimiser,
        "learning_rate": 4e-3, "warm_up_steps": 5, "decay": "cosine", "weight_decay": 0.0, "clip": 1.0,
        "ema_decay": 0.9, "log_every": 5, "checkpoint_every": 1000
    })
}

fn autoencoder_recipe(optimiser: &str, steps: u64) -> AutoencoderRecipe {
    let recipe = json!({
        "kind": "autoencoder", "name": "tiny", "picture_size": 8, "training": training(optimiser, steps),
        "config": {
            "latent_channels": 4, "attention_head_dim": 8,
            "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
            "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
            "encoder_block_out_channels": [8, 16, 16], "decoder_block_out_channels": [8, 16, 16],
            "encoder_layers_per_block": [0, 1, 1], "decoder_layers_per_block": [0, 1, 1],
            "encoder_qkv_multiscales": [[], [], [5]], "decoder_qkv_multiscales": [[], [], [5]],
        },
        "loss": { "l1": 1.0, "mse": 2.0, "gradient": 0.1 },
        "augmentation": {
            "flip": true, "shift": 1, "hue_probability": 0.2, "brightness_probability": 0.2, "brightness_min": 0.7
        },
        "eval_every": 20, "eval_pictures": 4, "sample_every": 20
    });
    match Recipe::parse(recipe.to_string().as_bytes(), "tiny").unwrap() {
        Recipe::Autoencoder(recipe) => recipe,
        _ => unreachable!(),
    }
}

fn image_recipe(optimiser: &str, steps: u64) -> ImageRecipe {
    let recipe = json!({
        "kind": "image", "name": "tiny", "training": training(optimiser, steps),
        "transformer": {
            "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2,
            "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
            "caption_channels": 16, "mlp_ratio": 2.0, "sample_size": 2, "patch_size": 1,
            "qk_norm": "rms_norm_across_heads"
        },
        "text_encoder": {
            "vocab_size": 320, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8
        },
        "flow_shift": 1.0, "noise_law": [0.0, 1.0], "text_dropout": 0.1, "name_probability": 0.7, "max_tokens": 16,
        "sample_every": 1000, "sample_prompts": ["red square", "blue bar"], "sample_steps": 4, "guidance": 2.0
    });
    match Recipe::parse(recipe.to_string().as_bytes(), "tiny").unwrap() {
        Recipe::Image(recipe) => recipe,
        _ => unreachable!(),
    }
}

fn text_recipe(steps: u64) -> TextRecipe {
    let mut training = training("muon", steps);
    training["learning_rate"] = 0.01.into();
    let recipe = json!({
        "kind": "text", "name": "tiny", "training": training,
        "model": {
            "d_model": 32, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 64, "max_sequence_length": 512,
            "rope_theta": 10000.0, "activation_type": "silu"
        },
        "drill_share": 0.1, "result_share": 0.1, "line_share": 0.1, "pretraining_share": 0.2, "short_share": 0.5, "block_length": 32,
        "block_share": 0.5, "lengths": [[128, 0.1]], "eval_every": 1000, "eval_problems": 2
    });
    match Recipe::parse(recipe.to_string().as_bytes(), "tiny").unwrap() {
        Recipe::Text(recipe) => recipe,
        _ => unreachable!(),
    }
}

/// A control that asks to stop once the log reaches `step`.
fn stopping_at(step: u64) -> Control {
    let flag: Arc<AtomicBool> = Arc::default();
    let listener_flag = Arc::clone(&flag);
    Control::new(move |event| {
        if let Event::Progress { step: done, .. } = event
            && done >= step
        {
            listener_flag.store(true, Ordering::Relaxed);
        }
    })
    .with_cancel(flag)
}

/// The run ended because it was asked to, with the checkpoint of that step.
fn assert_stopped(error: &Error, out: &Path, step: u64) {
    assert!(error.is_cancelled(), "{error}");
    let found = checkpoint::latest(&out.join("checkpoints")).unwrap();
    assert_eq!(found.unwrap().state.step, step);
}

fn stored(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = SafetensorsFile::open(path).unwrap();
    file.names()
        .into_iter()
        .map(|name| {
            let bytes = file.view(&name).unwrap().unwrap().data.to_vec();
            (name, bytes)
        })
        .collect()
}

fn assert_same_checkpoint(a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|out| {
        checkpoint::latest(&out.join("checkpoints"))
            .unwrap()
            .unwrap()
    });
    assert!(a.state.finished && b.state.finished);
    assert_eq!((a.state.step, a.state.rng), (b.state.step, b.state.rng));
    for file in ["weights", "average", "optimiser"] {
        let file = format!("{file}.safetensors");
        let [x, y] = [&a.path, &b.path].map(|folder| stored(&folder.join(&file)));
        assert_eq!(x.len(), y.len());
        for (x, y) in x.iter().zip(&y) {
            assert!(x == y, "{file}: {} differs after resuming", x.0);
        }
    }
}

fn losses(out: &Path) -> Vec<f64> {
    read_log(&out.join("training_log.jsonl"))
        .unwrap()
        .iter()
        .filter_map(|entry| entry.loss)
        .collect()
}

fn train_tiny_autoencoder(out: &Path, steps: u64) {
    let recipe = autoencoder_recipe("adamw", steps);
    train_autoencoder(&recipe, &data(), None, None, out, &Control::silent()).unwrap();
}

#[test]
fn the_autoencoder_learns_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let recipe = autoencoder_recipe("adamw", 60);
    let data = data();
    let report = train_autoencoder(&recipe, &data, None, None, &whole, &Control::silent()).unwrap();
    let losses = losses(&whole);
    assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{losses:?}");
    assert!(whole.join("samples/step-00000060.png").exists());

    let stopped =
        train_autoencoder(&recipe, &data, None, None, &parted, &stopping_at(25)).unwrap_err();
    assert_stopped(&stopped, &parted, 25);
    assert!(!parted.join("vae").exists());
    train_autoencoder(&recipe, &data, None, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // What was reported is what the written files do.
    let model = load_autoencoder(&autoencoder(&whole)).unwrap();
    let held_out = Selection::default().of(&data, true);
    assert_eq!(held_out.len(), report.held_out_pictures);
    let psnr = mean_psnr(&model, &data, &held_out).unwrap();
    assert_eq!(Some(psnr), report.held_out_psnr);
    assert_eq!(model.scaling_factor(), report.scaling_factor);

    let other = autoencoder_recipe("came", 60);
    let refused = train_autoencoder(&other, &data, None, None, &whole, &Control::silent());
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("optimiser was \"adamw\", is \"came\""),
        "{message}"
    );
}

#[test]
fn the_image_model_learns_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let data = data();
    train_tiny_autoencoder(&out("autoencoder"), 40);
    let vae = autoencoder(&out("autoencoder").join("vae"));
    let recipe = image_recipe("came", 80);
    let (whole, parted) = (out("whole"), out("parted"));
    train_image(&recipe, &data, &vae, None, &whole, &Control::silent()).unwrap();
    let losses = losses(&whole);
    let last = losses[losses.len() - 4..].iter().sum::<f64>() / 4.0;
    assert!(last < 0.8 * losses[0], "{losses:?}");

    let stopped = train_image(&recipe, &data, &vae, None, &parted, &stopping_at(35)).unwrap_err();
    assert_stopped(&stopped, &parted, 35);
    train_image(&recipe, &data, &vae, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);
    for file in [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "complex_human_instruction.txt",
        "generation_config.json",
        "training_log.jsonl",
    ] {
        assert!(whole.join("model").join(file).exists(), "{file}");
    }
    let transformer =
        SafetensorsFile::open(&whole.join("model/transformer/diffusion_pytorch_model.safetensors"))
            .unwrap();
    let (_, shape) = transformer.info("patch_embed.proj.weight").unwrap();
    assert_eq!(shape, [16, 4, 1, 1]);

    // From the finished model it goes on where that ended, with its tokenizer and autoencoder.
    let (model, further) = (whole.join("model"), out("further"));
    let mut other = recipe.clone();
    other.training.steps = 5;
    let start = |recipe: &ImageRecipe, out: &Path| {
        let start = Start::open(&ModelFolder::Disk(model.clone()), None)?;
        let vae = autoencoder(&model);
        train_image(recipe, &data, &vae, Some(&start), out, &Control::silent())
    };
    start(&other, &further).unwrap();
    let first = self::losses(&further)[0];
    assert!(first < 0.9 * losses[0], "{first} after {losses:?}");
    let tokenizer = |out: &Path| std::fs::read(out.join("model/tokenizer/tokenizer.json")).unwrap();
    assert!(tokenizer(&whole) == tokenizer(&further));
    other.transformer["num_layers"] = 3.into();
    let message = start(&other, &out("deeper")).unwrap_err().to_string();
    assert!(
        message.contains("missing") && message.contains("transformer_blocks.2"),
        "{message}"
    );
    other.transformer["num_layers"] = 2.into();
    other.text_encoder["intermediate_size"] = 48.into();
    let message = start(&other, &out("wider")).unwrap_err().to_string();
    assert!(message.contains("wrong shape"), "{message}");
}

/// The autoencoder of a folder: its own or a pipeline's.
fn autoencoder(folder: &Path) -> Opened<AutoencoderConfig> {
    open_autoencoder(&ModelFolder::Disk(folder.to_owned()), None).unwrap()
}

/// An autoencoder and a model of a few updates, for a part to be trained beside it.
fn base(folder: &Path, data: &PictureData) -> (Opened<AutoencoderConfig>, PathBuf) {
    let place = folder.join("autoencoder");
    train_tiny_autoencoder(&place, 5);
    let vae = autoencoder(&place.join("vae"));
    let (recipe, out) = (image_recipe("adamw", 10), folder.join("base"));
    train_image(&recipe, data, &vae, None, &out, &Control::silent()).unwrap();
    (vae, out.join("model"))
}

/// Of such a part.
fn recipe_beside_it() -> ImageRecipe {
    let mut recipe = image_recipe("adamw", 40);
    recipe.training.decay = brisk_train::schedule::Decay::Constant;
    recipe.training.learning_rate = 2e-2;
    recipe
}

/// Step and loss of every line.
fn lines(out: &Path) -> Vec<(u64, Option<f64>)> {
    let entries = read_log(&out.join("training_log.jsonl")).unwrap();
    entries
        .iter()
        .map(|entry| (entry.step, entry.loss))
        .collect()
}

#[test]
fn a_run_that_was_stopped_between_lines_writes_the_same_log_and_can_be_prolonged() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let mut recipe = text_recipe(12);
    recipe.training.checkpoint_every = 7;
    let run =
        |recipe: &TextRecipe, out: &Path, control: &Control| train_text(recipe, None, out, control);
    run(&recipe, &whole, &Control::silent()).unwrap();
    // Lines come every five updates; this one stops after eight.
    let flag: Arc<AtomicBool> = Arc::default();
    let listener_flag = Arc::clone(&flag);
    let stopping = Control::new(move |event| {
        if matches!(event, Event::Saved { .. }) {
            listener_flag.store(true, Ordering::Relaxed);
        }
    })
    .with_cancel(flag);
    let stopped = run(&recipe, &parted, &stopping).unwrap_err();
    assert_stopped(&stopped, &parted, 8);
    run(&recipe, &parted, &Control::silent()).unwrap();
    assert_eq!(lines(&whole), lines(&parted));

    recipe.training.steps = 20;
    let report = run(&recipe, &parted, &Control::silent()).unwrap();
    assert_eq!(report.steps, 20);
    let steps: Vec<u64> = lines(&parted)
        .into_iter()
        .filter(|line| line.1.is_some())
        .map(|line| line.0)
        .collect();
    assert_eq!(steps, [5, 10, 15, 20]);
    let kept = std::fs::read_dir(parted.join("checkpoints"))
        .unwrap()
        .count();
    assert_eq!(kept, 2);
}

#[test]
fn one_training_at_a_time_writes_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let held = brisk_store::output::FolderLock::take(folder.path()).unwrap();
    let refused = train_text(&text_recipe(5), None, folder.path(), &Control::silent());
    let message = refused.unwrap_err().to_string();
    let process = format!("in use by process {}", std::process::id());
    assert!(message.contains(&process), "{message}");
    assert!(!folder.path().join("training_log.jsonl").exists());
    drop(held);
    train_text(&text_recipe(5), None, folder.path(), &Control::silent()).unwrap();
}

#[test]
fn a_run_that_diverges_is_an_error_and_writes_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = autoencoder_recipe("adamw", 8);
    recipe.training.learning_rate = 1e38;
    recipe.training.warm_up_steps = 0;
    let outcome = train_autoencoder(
        &recipe,
        &data(),
        None,
        None,
        folder.path(),
        &Control::silent(),
    );
    outcome.unwrap_err();
    assert!(!folder.path().join("vae").exists());
}

#[test]
fn a_recipe_that_the_machine_has_no_room_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = text_recipe(5);
    recipe.model["mlp_hidden_size"] = (1u64 << 20).into();
    recipe.model["d_model"] = (1u64 << 16).into();
    recipe.model["n_heads"] = 16.into();
    let refused = train_text(&recipe, None, folder.path(), &Control::silent());
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("MiB are available"), "{message}");
}

#[test]
fn the_language_model_learns_resumes_exactly_and_is_written_as_published() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let recipe = text_recipe(40);
    let report = train_text(&recipe, None, &whole, &Control::silent()).unwrap();
    let losses = losses(&whole);
    // A uniform guess, and what logits of variance 1 add.
    assert!(
        (losses[0] - (report.vocabulary as f64).ln()).abs() < 2.0,
        "{losses:?}"
    );
    assert!(losses[losses.len() - 1] < 0.8 * losses[0], "{losses:?}");
    assert_eq!((report.steps, report.problems), (40, 320));

    let stopped = train_text(&recipe, None, &parted, &stopping_at(25)).unwrap_err();
    assert_stopped(&stopped, &parted, 25);
    train_text(&recipe, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);

    let model = SafetensorsFile::open(&whole.join("model/model.safetensors")).unwrap();
    for name in [
        "model.transformer.wte.weight",
        "model.transformer.blocks.0.attn_norm.weight",
        "model.transformer.blocks.0.q_proj.weight",
        "model.transformer.blocks.0.k_proj.weight",
        "model.transformer.blocks.0.v_proj.weight",
        "model.transformer.blocks.0.attn_out.weight",
        "model.transformer.blocks.0.ff_norm.weight",
        "model.transformer.blocks.0.ff_proj.weight",
        "model.transformer.blocks.0.up_proj.weight",
        "model.transformer.blocks.0.ff_out.weight",
        "model.transformer.ln_f.weight",
        "model.transformer.ff_out.weight",
    ] {
        assert!(model.info(name).is_some(), "{name}");
    }
    assert_eq!(model.names().len(), 12);
    let written = std::fs::read(whole.join("model/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(config["architectures"], json!(["LLaDAModelLM"]));
    assert_eq!(config["vocab_size"], report.vocabulary);
    for file in [
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        assert!(whole.join("model").join(file).exists(), "{file}");
    }

    let mut other = recipe;
    other.training.steps = 8;
    let (from, further) = (whole.join("model"), folder.path().join("further"));
    let from = ComponentFolder::new(&ModelFolder::Disk(from), "");
    let start = from.weights(None).unwrap();
    train_text(&other, Some(&start), &further, &Control::silent()).unwrap();
    let start = self::losses(&further)[0];
    assert!(
        start < 0.8 * losses[0],
        "it goes on where the other ended: {start}"
    );

    other.block_share = 0.1;
    let refused = train_text(&other, None, &whole, &Control::silent());
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("block_share was 0.5, is 0.1"), "{message}");
    other.lengths = vec![(512, 0.1)];
    let refused = train_text(
        &other,
        None,
        &folder.path().join("long"),
        &Control::silent(),
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("max_sequence_length is 512"), "{message}");
}

#[test]
fn retrieval_finds_what_was_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let data = data();
    train_tiny_autoencoder(folder.path(), 20);
    let autoencoder = load_autoencoder(&autoencoder(folder.path())).unwrap();
    let noto = Selection {
        sets: vec![PictureSet::Noto],
        ..Selection::default()
    };
    let evaluation = ImageEvaluation {
        data: &data,
        pictures: &noto,
        autoencoder: &autoencoder,
        prompts: 6,
        seed: 3,
        batch: 4,
    };
    let position = |name: &String| data.entries().iter().position(|e| e.name == *name).unwrap();
    let mut right = |prompts: &[String], _seed: u64| -> brisk_train::Result<Vec<Generated>> {
        let picture = |name| (data.picture(position(name)).unwrap(), None);
        Ok(prompts.iter().map(picture).collect())
    };
    let report = evaluate_image_model(&evaluation, &Control::silent(), &mut right).unwrap();
    assert_eq!((report.prompts, report.candidates), (6, 11));
    assert_eq!((report.pixel_hit_rate, report.latent_hit_rate), (1.0, 1.0));
    let mut wrong = |prompts: &[String], _seed: u64| -> brisk_train::Result<Vec<Generated>> {
        let next = |name| {
            let index = (position(name) + 2) % data.entries().len();
            (data.picture(index).unwrap(), None)
        };
        Ok(prompts.iter().map(next).collect())
    };
    let report = evaluate_image_model(&evaluation, &Control::silent(), &mut wrong).unwrap();
    assert_eq!(report.pixel_hit_rate, 0.0);
    let mut too_few = |_: &[String], _: u64| -> brisk_train::Result<Vec<Generated>> { Ok(vec![]) };
    assert!(evaluate_image_model(&evaluation, &Control::silent(), &mut too_few).is_err());
}

#[test]
fn a_run_goes_on_with_what_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    train_tiny_autoencoder(&out, 4);
    let other = changed(|index, _, picture| picture.pixels[0] ^= u8::from(index == 0));
    let recipe = autoencoder_recipe("adamw", 6);
    let error =
        train_autoencoder(&recipe, &other, None, None, &out, &Control::silent()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("the data set is another one"), "{message}");
    train_autoencoder(&recipe, &data(), None, None, &out, &Control::silent()).unwrap();

    let run = folder.path().join("text");
    train_text(&text_recipe(4), None, &run, &Control::silent()).unwrap();
    let other = folder.path().join("other");
    train_text(&text_recipe(3), None, &other, &Control::silent()).unwrap();
    let from = ModelFolder::Disk(other.join("model"));
    let from = from.open_component("", None).unwrap();
    let error = train_text(&text_recipe(6), Some(&from), &run, &Control::silent());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("model to start from"), "{message}");
}
