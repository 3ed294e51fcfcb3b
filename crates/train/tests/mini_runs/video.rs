//! From nothing to a model of clips: its autoencoder, of text alone, and with a first frame.

use std::path::Path;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_pipelines::options::video_keys;
use brisk_pipelines::{Control, EvaluationClips, OpenSettings, VideoRequest, registry};
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};
use brisk_train::data::motion::MotionScene;
use brisk_train::data::scenes::{Drawings, Split, all_objects};
use brisk_train::log::read_log;
use brisk_train::recipe::Recipe;
use brisk_train::{
    DmdReport, Error, VideoAutoencoderFiles, VideoAutoencoderRecipe, VideoAutoencoderReport,
    VideoRecipe, VideoReport, VideoStart, distill_video, train_video, train_video_autoencoder,
};
use serde_json::{Map, Value, json};

use super::{assert_same_checkpoint, assert_stopped, losses, stopping_at, training};

/// Packages in which every object is a red corner.
fn drawings() -> Drawings {
    let folder = tempfile::tempdir().unwrap();
    let (mut icons, mut characters) = (Map::new(), Map::new());
    for object in all_objects() {
        let body = r##"<path fill="#c33" d="M2 2h12v5H7v7H2z"/>"##;
        icons.insert(object.word.to_owned(), json!({ "body": body }));
        characters.insert(object.hexcode.to_lowercase(), object.word.into());
    }
    for name in ["noto", "fluent-emoji-flat", "twemoji"] {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        let write = |file: &str, value: Value| std::fs::write(place.join(file), value.to_string());
        write("icons.json", json!({"prefix": name, "icons": icons})).unwrap();
        write("chars.json", Value::Object(characters.clone())).unwrap();
    }
    Drawings::open(folder.path()).unwrap()
}

fn autoencoder_document(steps: u64) -> Value {
    let mut training = training("adamw", steps);
    training["batch"] = 4.into();
    json!({
        "kind": "video_autoencoder", "name": "tiny", "training": training,
        "config": {
            "latent_channels": 4, "block_out_channels": [4, 8, 8], "layers_per_block": 1, "norm_num_groups": 2,
            "spatial_compression_ratio": 4,
            "down_block_types": ["HunyuanVideoDownBlock3D", "HunyuanVideoDownBlock3D", "HunyuanVideoDownBlock3D"],
            "up_block_types": ["HunyuanVideoUpBlock3D", "HunyuanVideoUpBlock3D", "HunyuanVideoUpBlock3D"]
        },
        "clip_size": 16, "lengths": [[1, 0.5], [5, 0.5]],
        "single_frame_updates": 3,
        "loss": {"l1": 1.0, "mse": 4.0, "gradient": 0.1}, "divergence_weight": 1e-4,
        "eval_every": 20, "eval_clips": 3, "final_clips": 4, "sample_every": 20
    })
}

fn autoencoder_recipe(document: &Value) -> Result<VideoAutoencoderRecipe, Error> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::VideoAutoencoder(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

fn train_autoencoder(
    document: &Value,
    start: Option<&VideoAutoencoderFiles>,
    out: &Path,
    control: &Control,
) -> Result<VideoAutoencoderReport, Error> {
    let recipe = autoencoder_recipe(document)?;
    train_video_autoencoder(&recipe, &drawings(), start, out, control)
}

#[test]
fn the_autoencoder_learns_resumes_exactly_and_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let document = autoencoder_document(40);
    let quiet = Control::silent();
    let report = train_autoencoder(&document, None, &whole, &quiet).unwrap();
    assert_eq!((report.steps, report.held_out_clips), (40, 4));
    let log = read_log(&whole.join("training_log.jsonl")).unwrap();
    let losses: Vec<f64> = log.iter().filter_map(|entry| entry.loss).collect();
    assert!(losses[losses.len() - 1] < 0.6 * losses[0], "{losses:?}");
    let psnr = |at: usize| {
        log.iter()
            .filter_map(|e| e.measured.get("psnr"))
            .nth(at)
            .copied()
    };
    // A corner on a plain ground is learnt by the first of them.
    assert!(psnr(0) > Some(15.0) && psnr(1) > Some(15.0), "{log:?}");
    assert!(
        report.held_out_psnr > 8.0 && report.first_frame_psnr > 8.0,
        "{report:?}"
    );

    let stopped = train_autoencoder(&document, None, &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    train_autoencoder(&document, None, &parted, &quiet).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // What was written is opened, and gone on from.
    let vae = ModelFolder::Disk(whole.join("vae"));
    let files = VideoAutoencoderFiles::open(&vae, None).unwrap();
    assert_eq!(files.config().scaling_factor, report.scaling_factor);
    let more = folder.path().join("more");
    let mut short = autoencoder_document(2);
    short["training"]["learning_rate"] = 1e-5.into();
    let again = train_autoencoder(&short, Some(&files), &more, &quiet).unwrap();
    assert!(
        (again.held_out_psnr - report.held_out_psnr).abs() < 1.0,
        "{again:?}"
    );
    short["config"]["latent_channels"] = 5.into();
    let other = folder.path().join("other");
    let message = train_autoencoder(&short, Some(&files), &other, &quiet).unwrap_err();
    assert!(message.to_string().contains("quant_conv"), "{message}");
}

#[test]
fn unfit_recipes_of_autoencoders_are_refused_by_key() {
    for (key, value, found) in [
        ("clip_size", json!(18), "clip_size is 18"),
        ("lengths", json!([[4, 1.0]]), "lengths is 4"),
        (
            "lengths",
            json!([[5, 0.5]]),
            "sum of the shares of lengths is 0.5",
        ),
        ("lengths", json!([]), "number of lengths"),
        ("divergence_weight", json!(-1.0), "divergence_weight is -1"),
        ("eval_clips", json!(0), "eval_clips is 0"),
    ] {
        let mut document = autoencoder_document(2);
        document[key] = value;
        let message = autoencoder_recipe(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
    let mut document = autoencoder_document(2);
    document["config"]["out_channels"] = 4.into();
    let message = autoencoder_recipe(&document).unwrap_err().to_string();
    assert!(message.contains("config.out_channels is 4"), "{message}");
}

#[test]
fn clips_are_the_same_wherever_they_are_drawn() {
    let drawings = drawings();
    let scene = MotionScene::draw(5, 17, Split::Training);
    let frames = scene.render(&drawings, 5, 16).unwrap();
    assert_eq!(frames, scene.render(&drawings, 5, 16).unwrap());
    assert_ne!(frames[0], frames[4]);
}

/// A recipe of a tiny model; of text alone, or one that is shown the first frame.
fn video_document(steps: u64, shown: bool) -> Value {
    let mut training = training("adamw", steps);
    training["batch"] = 4.into();
    let body = json!({
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 256, "rms_norm_eps": 1e-5
    });
    let text_encoder = match shown {
        false => body,
        true => json!({
            "text_config": body,
            "vision_config": {
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 16, "patch_size": 8
            }
        }),
    };
    let mut transformer = json!({
        "in_channels": if shown { 9 } else { 4 }, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
        "num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1, "mlp_ratio": 2.0, "guidance_embeds": false,
        "text_embed_dim": 16, "pooled_projection_dim": 8, "rope_axes_dim": [2, 2, 4]
    });
    let mut noise = Value::Null;
    if shown {
        transformer["image_condition_type"] = "latent_concat".into();
        noise = json!({"log_mean": -3.0, "log_deviation": 0.5, "versions": 2});
    }
    json!({
        "kind": "video", "name": "tiny", "training": training, "transformer": transformer,
        "text_encoder": text_encoder,
        "text_encoder_2": {
            "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": 24
        },
        "vocabulary": 320, "clip_size": 16, "frames": 5, "clips": 9, "flow_shift": 3.0, "noise_law": [0.0, 1.0],
        "target": "clean", "text_dropout": 0.2, "black_share": 0.5, "new_channels": "zero", "eval_every": 20,
        "first_frame_noise": noise,
        "eval_clips": 2, "final_clips": 3, "sample_steps": 2, "guidance": 1.5
    })
}

fn video_recipe(document: &Value) -> Result<VideoRecipe, Error> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Video(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

/// The folder of a tiny autoencoder.
fn tiny_vae(folder: &Path) -> ModelFolder {
    let out = folder.join("autoencoder");
    train_autoencoder(&autoencoder_document(20), None, &out, &Control::silent()).unwrap();
    ModelFolder::Disk(out.join("vae"))
}

fn train_model(
    document: &Value,
    vae: &ModelFolder,
    start: Option<&Path>,
    out: &Path,
    control: &Control,
) -> Result<VideoReport, Error> {
    let recipe = video_recipe(document)?;
    let vae = VideoAutoencoderFiles::open(vae, None)?;
    let open = |start: &Path| VideoStart::open(&ModelFolder::Disk(start.to_owned()), None);
    let start = start.map(open).transpose()?;
    train_video(&recipe, &drawings(), &vae, start.as_ref(), out, control)
}

/// Draws a clip by a request that says nothing but what it must.
fn request_clip(model: &Path, shown: bool) -> Vec<Vec<u8>> {
    let folder = ModelFolder::Disk(model.to_owned());
    let mut opened = registry::open_video(&folder, &OpenSettings::default()).unwrap();
    let mut request = VideoRequest::new("a red cat jumps");
    if shown {
        let picture = Picture::filled(40, 30, [250, 240, 230]);
        request = request.with(&video_keys::IMAGE, Arc::new(picture));
    }
    let plan = opened.plan(&request).unwrap();
    assert_eq!((plan.width, plan.height, plan.frames), (16, 16, 5));
    assert_eq!((plan.steps, plan.rate), (2, 8.0));
    assert_eq!(plan.given_frames, usize::from(shown));
    let made = opened.generate(&plan, &Control::silent()).unwrap();
    let frames = made.clip.frames().iter();
    frames.map(|frame| frame.pixels.clone()).collect()
}

#[test]
fn a_model_of_clips_learns_resumes_exactly_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let vae = tiny_vae(folder.path());
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let document = video_document(60, true);
    let quiet = Control::silent();
    let report = train_model(&document, &vae, None, &whole, &quiet).unwrap();
    assert_eq!(
        (report.steps, report.clips, report.held_out_clips),
        (60, 9, 3)
    );
    let losses = losses(&whole);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (early, late) = (mean(&losses[..3]), mean(&losses[losses.len() - 3..]));
    assert!(late < 0.9 * early, "{losses:?}");

    let stopped = train_model(&document, &vae, None, &parted, &stopping_at(25)).unwrap_err();
    assert_stopped(&stopped, &parted, 25);
    train_model(&document, &vae, None, &parted, &quiet).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // With noise on what is shown, another is learned.
    let mut clean = document.clone();
    clean["first_frame_noise"] = Value::Null;
    let other = folder.path().join("clean");
    train_model(&clean, &vae, None, &other, &quiet).unwrap();
    assert_ne!(self::losses(&other), losses);

    // Everything that is used is learned: of both text encoders, of what reads pictures, and of the transformer.
    let first = folder.path().join("first");
    let mut one = video_document(1, true);
    one["text_dropout"] = 0.0.into();
    one["training"]["ema_decay"] = 0.0.into();
    one["training"]["warm_up_steps"] = 0.into();
    one["training"]["decay"] = "constant".into();
    train_model(&one, &vae, None, &first, &quiet).unwrap();
    let changed = |part: &str, file: &str, name: &str| {
        let [a, b] = [&first, &whole].map(|out| {
            let file = SafetensorsFile::open(&out.join("model").join(part).join(file)).unwrap();
            file.view(name).unwrap().unwrap().data.to_vec()
        });
        a != b
    };
    let text = "model.safetensors";
    for (part, file, name) in [
        (
            "text_encoder",
            text,
            "language_model.model.embed_tokens.weight",
        ),
        (
            "text_encoder",
            text,
            "language_model.model.layers.0.self_attn.q_proj.weight",
        ),
        (
            "text_encoder",
            text,
            "vision_tower.vision_model.embeddings.patch_embedding.weight",
        ),
        (
            "text_encoder",
            text,
            "multi_modal_projector.linear_1.weight",
        ),
        ("text_encoder_2", text, "encoder.layers.0.mlp.fc1.weight"),
        (
            "transformer",
            "diffusion_pytorch_model.safetensors",
            "transformer_blocks.0.attn.add_q_proj.weight",
        ),
        (
            "transformer",
            "diffusion_pytorch_model.safetensors",
            "x_embedder.proj.weight",
        ),
    ] {
        assert!(changed(part, file, name), "{name}");
    }
    // The last two layers are not used.
    assert!(!changed(
        "text_encoder",
        text,
        "language_model.model.layers.2.mlp.up_proj.weight"
    ));

    let frames = request_clip(&whole.join("model"), true);
    assert_eq!(frames.len(), 5);
    assert_eq!(frames, request_clip(&parted.join("model"), true));
}

#[test]
fn what_makes_clips_of_text_learns_to_begin_with_a_frame() {
    let folder = tempfile::tempdir().unwrap();
    let vae = tiny_vae(folder.path());
    let quiet = Control::silent();
    let plain = folder.path().join("plain");
    train_model(&video_document(10, false), &vae, None, &plain, &quiet).unwrap();
    let from = plain.join("model");
    assert_eq!(request_clip(&from, false).len(), 5);
    let patches = |model: &Path| {
        let file = model.join("transformer/diffusion_pytorch_model.safetensors");
        let file = SafetensorsFile::open(&file).unwrap();
        let view = file.view("x_embedder.proj.weight").unwrap().unwrap();
        (view.shape.to_vec(), view.to_f32().unwrap())
    };
    for new in ["zero", "normal"] {
        let out = folder.path().join(new);
        let mut document = video_document(1, true);
        document["new_channels"] = new.into();
        document["training"]["learning_rate"] = 1e-9.into();
        train_model(&document, &vae, Some(&from), &out, &quiet).unwrap();
        let ((old_shape, old), (shape, values)) = (patches(&from), patches(&out.join("model")));
        assert_eq!((&old_shape[..2], &shape[..2]), (&[16, 4][..], &[16, 9][..]));
        for (old, row) in old.chunks(16).zip(values.chunks(36)) {
            assert_eq!(old, &row[..16]);
            let near = row[16..].iter().all(|value| value.abs() < 1e-6);
            assert_eq!(near, new == "zero", "{row:?}");
        }
        assert_eq!(request_clip(&out.join("model"), true).len(), 5);
    }
    // Patches of a quarter go on from what whole ones were.
    let out = folder.path().join("finer");
    let mut document = video_document(1, false);
    document["transformer"]["patch_size"] = 1.into();
    document["training"]["learning_rate"] = 1e-9.into();
    train_model(&document, &vae, Some(&from), &out, &quiet).unwrap();
    let ((_, old), (shape, values)) = (patches(&from), patches(&out.join("model")));
    assert_eq!(shape, [16, 4, 1, 1, 1]);
    for (old, value) in old.chunks(4).zip(values) {
        let sum: f32 = old.iter().sum();
        assert!((sum - value).abs() < 1e-2, "{sum} {value}");
    }
    assert_eq!(request_clip(&out.join("model"), false).len(), 5);
}

#[test]
fn unfit_recipes_of_models_of_clips_are_refused_by_key() {
    for (key, value, found) in [
        ("frames", json!(6), "frames is 6"),
        ("vocabulary", json!(100), "vocabulary is 100"),
        ("flow_shift", json!(0.0), "flow_shift is 0"),
        ("noise_law", json!([0.0, 0.0]), "noise_law is [0, 0]"),
        ("text_dropout", json!(1.5), "text_dropout is 1.5"),
        ("black_share", json!(-0.1), "black_share is -0.1"),
        ("guidance", json!(101.0), "guidance is 101"),
        ("clips", json!(0), "clips is 0"),
        ("transformer", json!(3), "transformer is 3"),
        ("target", json!("noise"), "noise"),
        ("final_clips", json!(1), "final_clips is 1"),
        (
            "first_frame_noise",
            json!({"log_mean": -3.0, "log_deviation": 0.5, "versions": 0}),
            "first_frame_noise.versions is 0",
        ),
    ] {
        let mut document = video_document(2, true);
        document[key] = value;
        let message = video_recipe(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
    let mut blind = video_document(2, false);
    blind["first_frame_noise"] = video_document(2, true)["first_frame_noise"].clone();
    let message = video_recipe(&blind).unwrap_err().to_string();
    assert!(message.contains("shows it no frame"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    let vae = tiny_vae(folder.path());
    let plain = video_document(2, false)["text_encoder"].clone();
    for (path, value, found) in [
        (
            "/transformer/guidance_embeds",
            json!(true),
            "guidance_embeds",
        ),
        (
            "/transformer/image_condition_type",
            json!("token_replace"),
            "token_replace",
        ),
        (
            "/transformer/text_embed_dim",
            json!(24),
            "text_embed_dim is 24",
        ),
        ("/transformer/out_channels", json!(5), "out_channels"),
        (
            "/text_encoder/text_config/num_hidden_layers",
            json!(2),
            "has 2 layers",
        ),
        ("/text_encoder", plain, "no vision_config"),
        ("/clip_size", json!(20), "clips of 20 px"),
    ] {
        let mut document = video_document(2, true);
        *document.pointer_mut(path).unwrap() = value;
        let out = folder.path().join("refused");
        let refused = train_model(&document, &vae, None, &out, &Control::silent());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(found), "{path}: {message}");
        assert!(!out.join("model").exists());
    }
}

fn dmd_document(steps: u64, heads: f64) -> Value {
    let mut training = training("adamw", steps);
    training["batch"] = 2.into();
    training["learning_rate"] = 1e-3.into();
    training["log_every"] = 4.into();
    json!({
        "kind": "dmd", "name": "tiny", "training": training, "clip_size": 16, "frames": 5, "clips": 6, "steps": 2,
        "flow_shift": 5.0, "guidance": 2.0, "guidance_updates": 2, "critic_first_updates": 1, "critic_updates": 2, "time_range": [0.02, 0.98],
        "critic": {"rank": 2, "strong": 1.0, "weak": 0.1}, "adversarial_weight": heads,
        "critic_adversarial_weight": 0.01, "head_blocks": [0], "eval_every": 8, "eval_clips": 2, "final_clips": 2
    })
}

fn distil(
    document: &Value,
    teacher: &Path,
    out: &Path,
    control: &Control,
) -> Result<DmdReport, Error> {
    let Recipe::Dmd(recipe) = Recipe::parse(document.to_string().as_bytes(), "tiny")? else {
        unreachable!()
    };
    let teacher = ModelFolder::Disk(teacher.to_owned());
    distill_video(&recipe, &drawings(), &teacher, None, out, control)
}

#[test]
fn a_student_of_few_steps_learns_resumes_exactly_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let vae = tiny_vae(folder.path());
    let quiet = Control::silent();
    for shown in [true, false] {
        let place = |name: &str| folder.path().join(format!("{name}-{shown}"));
        let taught = place("teacher");
        train_model(&video_document(20, shown), &vae, None, &taught, &quiet).unwrap();
        let teacher = taught.join("model");
        let (whole, parted) = (place("whole"), place("parted"));
        let document = dmd_document(16, if shown { 0.1 } else { 0.0 });
        let report = distil(&document, &teacher, &whole, &quiet).unwrap();
        assert_eq!(
            (report.steps, report.clips, report.held_out_clips),
            (16, 6, 2)
        );
        let stopped = distil(&document, &teacher, &parted, &stopping_at(8)).unwrap_err();
        assert_stopped(&stopped, &parted, 8);
        distil(&document, &teacher, &parted, &quiet).unwrap();
        assert_same_checkpoint(&whole, &parted);
        let log = read_log(&whole.join("training_log.jsonl")).unwrap();
        let has = |key: &str| log.iter().any(|entry| entry.measured.contains_key(key));
        for key in [
            "guidance_loss",
            "matching_loss",
            "critic_loss",
            "motion_right",
            "frechet_distance",
        ] {
            assert!(has(key), "{key}");
        }
        assert_eq!(has("adversarial_loss"), shown);
        assert_eq!(has("discriminator_loss"), shown);

        // The student changed; everything else is the teacher's.
        let model = whole.join("model");
        let same = |file: &str| {
            let [a, b] = [&model, &teacher].map(|place| std::fs::read(place.join(file)).unwrap());
            a == b
        };
        assert!(!same("transformer/diffusion_pytorch_model.safetensors"));
        for file in [
            "transformer/config.json",
            "text_encoder/model.safetensors",
            "text_encoder_2/config.json",
            "tokenizer_2/tokenizer.json",
            "vae/config.json",
            "model_index.json",
        ] {
            assert!(same(file), "{file}");
        }
        assert_eq!(request_clip(&model, shown).len(), 5);
        let known = EvaluationClips::read(&ModelFolder::Disk(model)).unwrap();
        assert_eq!(known.map(|clips| clips.0.len()), Some(80));
    }
}
