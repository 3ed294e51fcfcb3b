//! Every option of every family does something: with it a result differs from the one without, or the request is refused
//! by the option's name. An option that nothing reads fails here, and so does one that has no case.

mod clips;
mod masks;
mod texts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use brisk_media::{Picture, encode_png};
use brisk_pipelines::options::{Options, Scope};
use brisk_pipelines::{Control, Event, ImageRequest, OpenSettings, Result, ResultKind, registry};
use brisk_store::{Dtype, ModelFolder, OutTensor, write_safetensors};
use brisk_testkit::{fixtures_dir, write_toy_model};

/// One option in a setting where it matters.
struct Case {
    option: &'static str,
    value: String,
    /// What both runs have.
    with: Vec<(&'static str, String)>,
    folder: PathBuf,
}

/// What pictures are asked for.
const PROMPT: &str = "two red circles on a green square beside a yellow ring";

/// Options by name, as they are given.
type GivenOptions = [(&'static str, String)];
/// Runs a request and sums up what it leaves.
type Run = fn(&Path, &GivenOptions) -> Result<String>;

/// What a run leaves, as text that two runs can be compared by.
fn outcome(result: Result<String>) -> String {
    result.unwrap_or_else(|error| format!("error: {error}"))
}

fn options(kind: ResultKind, given: &GivenOptions) -> Result<Options> {
    let mut options = Options::new();
    for (name, value) in given {
        registry::give(&mut options, kind, name, value)?;
    }
    Ok(options)
}

fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Draws twice and sums up pictures, latents, and what was loaded and shown.
fn draw(folder: &Path, given: &GivenOptions) -> Result<String> {
    let options = options(ResultKind::Pictures, given)?;
    let folder = ModelFolder::Disk(folder.to_owned());
    let settings = OpenSettings::new(options.of_scope(Scope::Open));
    let mut model = registry::open_image(&folder, &settings)?;
    let request = ImageRequest {
        prompts: vec![PROMPT.to_owned()],
        options: options.of_scope(Scope::Request),
    };
    let (sender, receiver) = mpsc::channel();
    let control = Control::new(move |event| drop(sender.send(event)));
    let mut summary = String::new();
    for _ in 0..2 {
        for image in model.draw(&request, &control)? {
            let latents = image.latents.map_or(Vec::new(), |latents| latents.values);
            summary += &format!(
                "{}x{} {:x} {:x}\n",
                image.picture.width,
                image.picture.height,
                hash(image.picture.pixels.iter().copied()),
                hash(latents.iter().flat_map(|value| value.to_le_bytes()))
            );
        }
    }
    for event in receiver.try_iter() {
        match event {
            Event::Stage { name, work, .. } => summary += &format!("{name} {work:?}\n"),
            Event::Preview { picture, .. } => {
                summary += &format!("{:x}\n", hash(picture.pixels.into_iter()))
            }
            _ => {}
        }
    }
    Ok(summary)
}

/// Runs a case with and without its option.
fn check(case: &Case, run: Run) {
    let without = outcome(run(&case.folder, &case.with));
    let mut given = case.with.clone();
    given.push((case.option, case.value.clone()));
    let with = outcome(run(&case.folder, &given));
    assert_ne!(
        without, with,
        "{} {}: nothing differs",
        case.option, case.value
    );
    if let Some(error) = with.strip_prefix("error: ") {
        assert!(
            error.contains(case.option),
            "{}: refused without its name: {error}",
            case.option
        );
    }
}

/// Every option that a family honours has a case, and every case is of an option.
fn check_complete(kind: ResultKind, cases: &[Case]) {
    let known: BTreeSet<&str> = registry::options(kind).iter().map(|o| o.name).collect();
    let tried: BTreeSet<&str> = cases.iter().map(|case| case.option).collect();
    assert_eq!(known, tried);
}

fn fixture(name: &str) -> PathBuf {
    fixtures_dir().join(name)
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

/// A copy of a folder that a test may change.
fn copy(source: &Path, target: &Path) -> PathBuf {
    for name in ModelFolder::Disk(source.to_owned()).list() {
        if name.starts_with("cases") {
            continue;
        }
        let path = target.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(source.join(&name), path).unwrap();
    }
    target.to_owned()
}

/// A copy of a weights file whose last values are others.
fn other_weights(source: &Path, target: &Path) {
    let mut bytes = std::fs::read(source).unwrap();
    let end = bytes.len();
    for value in bytes[end - 1024..].chunks_exact_mut(4) {
        value.copy_from_slice(&0.25f32.to_le_bytes());
    }
    std::fs::write(target, bytes).unwrap();
}

fn picture_file(folder: &Path) -> String {
    let pixels = (0..64 * 64 * 3)
        .map(|index| (index / 37 % 256) as u8)
        .collect();
    let picture = Picture {
        width: 64,
        height: 64,
        pixels,
    };
    let path = folder.join("picture.png");
    std::fs::write(&path, encode_png(&picture, &[]).unwrap()).unwrap();
    text(path)
}

fn latents_file(folder: &Path) -> String {
    let path = folder.join("latents.safetensors");
    let values: Vec<u8> = (0..256)
        .flat_map(|index| (((index * 37 % 101) as f32 - 50.0) / 25.0).to_le_bytes())
        .collect();
    let tensor = OutTensor {
        name: "latents".to_owned(),
        dtype: Dtype::F32,
        shape: vec![1, 4, 8, 8],
        data: values.into(),
    };
    write_safetensors(&path, &[tensor], &Default::default()).unwrap();
    text(path)
}

/// Four pixels a latent cell, all black.
fn preview_decoder(folder: &Path) -> String {
    let path = folder.join("preview_decoder.safetensors");
    let tensor = |name: &str, shape: Vec<usize>, value: f32| OutTensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        data: value.to_le_bytes().repeat(shape.iter().product()).into(),
        shape,
    };
    let tensors = [
        tensor("bias", vec![12], -1.0),
        tensor("weight", vec![12, 4, 3, 3], 0.0),
    ];
    write_safetensors(&path, &tensors, &Default::default()).unwrap();
    text(path)
}

fn codes_file(folder: &Path) -> String {
    let path = folder.join("codes.safetensors");
    let tensor = OutTensor {
        name: "codes.0".to_owned(),
        dtype: Dtype::I64,
        shape: vec![1, 1],
        data: 77i64.to_le_bytes().to_vec().into(),
    };
    write_safetensors(&path, &[tensor], &Default::default()).unwrap();
    text(path)
}

/// A class-conditional model with the names of its classes, the first of which is what everything is asked for here.
fn class_model(place: &Path, network: &str) -> PathBuf {
    let folder = copy(
        &fixture("class_conditional").join(network),
        &place.join(network),
    );
    copy(&fixture("pipelines/sana/vae"), &folder.join("vae"));
    let names = |class: usize| match class {
        0 => PROMPT.to_owned(),
        class => format!("thing {class}"),
    };
    let names: Vec<String> = (0..10).map(names).collect();
    let names = serde_json::to_vec(&names).unwrap();
    std::fs::write(folder.join("classes.json"), names).unwrap();
    folder
}

/// Of a model that draws place by place.
fn place_cases(place: &Path) -> Vec<Case> {
    let case = |option, value: &str| Case {
        option,
        value: value.to_owned(),
        with: Vec::new(),
        folder: fixture("vila_u/least"),
    };
    vec![
        case("greedy", "true"),
        case("top-k", "1"),
        case("top-p", "0.001"),
        case("temperature", "90"),
        case("guidance", "9"),
        // With a prompt it is refused; its effect stands in the family's own tests.
        case("reconstruct", &picture_file(place)),
        case("quantize-transformer", "4bit"),
    ]
}

fn image_cases(place: &Path) -> Vec<Case> {
    let sana = fixture("pipelines/sana");
    let sprint = fixture("pipelines/sprint");
    let picture = picture_file(place);
    let instruction = place.join("instruction.txt");
    std::fs::write(&instruction, "Describe the picture. User Prompt: ").unwrap();
    let binned = copy(&sana, &place.join("binned"));
    let config = binned.join("transformer/config.json");
    let changed = std::fs::read_to_string(&config)
        .unwrap()
        .replace("\"sample_size\": 8", "\"sample_size\": 16");
    std::fs::write(&config, changed).unwrap();
    let variant = copy(&sana, &place.join("variant"));
    let weights = |name: &str| variant.join("transformer").join(name);
    other_weights(
        &weights("diffusion_pytorch_model.safetensors"),
        &weights("diffusion_pytorch_model.fp16.safetensors"),
    );
    let nowhere = place.join("nowhere");
    std::fs::create_dir(&nowhere).unwrap();

    let few = |more: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        let mut with = vec![
            ("width", "64".to_owned()),
            ("height", "64".to_owned()),
            ("steps", "2".to_owned()),
            ("instruction", "none".to_owned()),
        ];
        for (name, value) in more {
            with.retain(|(known, _)| known != name);
            with.push((name, (*value).to_owned()));
        }
        with
    };
    let without = |name: &str| -> Vec<(&'static str, String)> {
        let mut with = few(&[]);
        with.retain(|(known, _)| *known != name);
        with
    };
    let alone = |option, value: &str| Case {
        option,
        value: value.to_owned(),
        with: few(&[]),
        folder: sana.clone(),
    };
    let beside = |option, value: &str, more: &[(&'static str, &str)]| Case {
        with: few(more),
        ..alone(option, value)
    };
    let on_hart = |option, value: &str| Case {
        with: Vec::new(),
        folder: fixture("hart_pipeline/model"),
        ..alone(option, value)
    };
    let flow = class_model(place, "u_sit");
    let codes = codes_file(place);
    let missing = |option, value: &str| Case {
        with: without(option),
        ..alone(option, value)
    };
    let init: &[(&str, &str)] = &[("init-image", &picture), ("steps", "10")];
    let net = text(sana.join("controlnet"));
    let controlled: &[(&str, &str)] = &[("controlnet", &net), ("control-image", &picture)];
    let base = text(fixture(
        "sana_transformer/t1_base/diffusion_pytorch_model.safetensors",
    ));
    let lora = text(fixture("lora/t1_base/pytorch_lora_weights.safetensors"));
    let (vae, encoder) = (text(sana.join("vae")), text(sana.clone()));
    let native = text(fixture("native/t1_base/model.pth"));
    let parts: &[(&str, &str)] = &[
        ("transformer", &native),
        ("vae", &vae),
        ("text-encoder", &encoder),
    ];
    vec![
        alone("negative-prompt", "blurry"),
        missing("width", "128"),
        missing("height", "128"),
        alone("images", "2"),
        beside("one-generator", "true", &[("images", "2")]),
        alone("seed", "5"),
        missing("steps", "3"),
        alone("guidance", "2.5"),
        alone("scheduler", "euler"),
        alone("shift", "6.5"),
        alone("pag-scale", "2"),
        beside("pag-layers", "0", &[("pag-scale", "2")]),
        beside("pag-adaptive", "0.004", &[("pag-scale", "2")]),
        missing("instruction", &text(instruction)),
        Case {
            folder: binned,
            ..beside(
                "no-binning",
                "true",
                &[("width", "512"), ("height", "400"), ("steps", "1")],
            )
        },
        alone("max-sequence-length", "4"),
        alone("init-image", &picture),
        beside("strength", "0.3", init),
        Case {
            folder: sprint.clone(),
            ..beside("strength-on-grid", "true", &[("init-image", &picture)])
        },
        Case {
            folder: sprint.clone(),
            with: without("steps"),
            ..alone("scm-timesteps", "1.5,0.9,0")
        },
        beside("controlnet", &net, &[("control-image", &picture)]),
        beside("control-image", &picture, &[("controlnet", &net)]),
        beside("control-scale", "0.5", controlled),
        beside("control-wiring", "native", controlled),
        Case {
            folder: variant,
            ..alone("variant", "fp16")
        },
        beside("lora", &lora, &[("transformer", &base)]),
        beside(
            "lora-scale",
            "0.5",
            &[("transformer", &base), ("lora", &lora)],
        ),
        alone("transformer", &base),
        alone("vae", &text(sprint.join("vae"))),
        alone("text-encoder", &text(sprint)),
        alone("native", "true"),
        // Only wide convolutions have another way than tap by tap.
        Case {
            folder: fixtures_dir().join("../assets/sana-emoji"),
            with: vec![
                ("init-image", picture.clone()),
                ("steps", "3".to_owned()),
                ("guidance", "1".to_owned()),
            ],
            ..alone("exact", "true")
        },
        Case {
            folder: nowhere,
            ..beside("heads", "3,2", parts)
        },
        // Without 4-bit layers it is refused; its effect on them stands in the tests of quantized files.
        alone("activations", "4"),
        // Refused without a card.
        alone("device", "cuda"),
        alone("precise", "true"),
        alone("quantize-text-encoder", "4bit"),
        alone("quantize-transformer", "4bit"),
        alone("residency", "one"),
        alone("latents", &latents_file(place)),
        beside("decode", "tiled", &[("height", "576")]),
        alone("preview-interval", "1"),
        alone("previews", "1"),
        beside(
            "preview-decoder",
            &preview_decoder(place),
            &[("previews", "1")],
        ),
        on_hart("system-prompt", "none"),
        on_hart("greedy", "true"),
        on_hart("top-k", "1"),
        on_hart("top-p", "0.05"),
        on_hart("no-smooth", "true"),
        on_hart("no-residual", "true"),
        on_hart("codes", &codes),
        Case {
            with: vec![("codes", codes.clone())],
            ..on_hart("from-scale", "0")
        },
        on_hart("no-ema", "true"),
        on_hart("cache-type", "f16"),
        Case {
            folder: flow,
            with: Vec::new(),
            ..alone("sampler", "sde")
        },
        Case {
            folder: write_toy_model(&place.join("toy"), 0.5),
            with: Vec::new(),
            ..alone("brightness", "0.25")
        },
    ]
}

#[test]
fn every_option_changes_a_picture_or_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut cases = image_cases(place.path());
    cases.extend(place_cases(place.path()));
    check_complete(ResultKind::Pictures, &cases);
    for case in &cases {
        check(case, draw);
    }
}

/// What a family does not honour is refused by name, whatever its value.
#[test]
fn what_is_not_honoured_is_refused() {
    let place = tempfile::tempdir().unwrap();
    for (kind, folder, run) in [
        (ResultKind::Pictures, fixture("pipelines/sana"), draw as Run),
        (ResultKind::Pictures, fixture("pipelines/sprint"), draw),
        (ResultKind::Pictures, fixture("hart_pipeline/model"), draw),
        (
            ResultKind::Pictures,
            class_model(place.path(), "u_vit"),
            draw,
        ),
        (
            ResultKind::Pictures,
            class_model(place.path(), "u_sit"),
            draw,
        ),
    ] {
        let model =
            registry::open_image(&ModelFolder::Disk(folder.clone()), &OpenSettings::default())
                .unwrap();
        for option in registry::options(kind) {
            if model.support().honours(option) {
                continue;
            }
            let value = match option.name {
                "scm-timesteps" => "1,0",
                "strength-on-grid" => "false",
                "scheduler" => "dpm",
                "sampler" => "sde",
                "control-wiring" => "native",
                "controlnet" => &text(fixture("pipelines/sana/controlnet")),
                "control-image" => &picture_file(tempfile::tempdir().unwrap().keep().as_path()),
                _ => "1",
            };
            let error = run(&folder, &[(option.name, value.to_owned())])
                .expect_err(option.name)
                .to_string();
            assert!(error.starts_with(option.name), "{}: {error}", option.name);
        }
    }
}
