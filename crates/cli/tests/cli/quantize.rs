//! `brisk quantize`, and what is done with its result.

use brisk_store::{OutTensor, SafetensorsFile, TensorSource, write_safetensors};

use crate::harness::{Place, replace};

/// The fastest run there is.
const QUICK: [&str; 8] = [
    "--method",
    "rtn",
    "--rows",
    "32",
    "--steps",
    "1",
    "--prompts",
    "prompts.txt",
];

fn prompts(place: &Place) {
    std::fs::write(place.path("prompts.txt"), "red heart\n\npizza\n").unwrap();
}

/// The claim of the paper is measured on the model in the box, method by method.
#[test]
fn the_papers_effect_appears() {
    let place = Place::new();
    let json = place.ok(&["reproduce", "svdquant", "--json"]).json();
    assert_eq!(
        (&json["appears"], &json["arxiv"]),
        (&true.into(), &"2411.05007".into())
    );
    let rows = json["rows"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["what"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["rtn", "smooth", "svd", "svdquant", "svdquant+gptq"]);
    let decibels = |row: usize| -> f64 {
        let here = rows[row]["here"].as_str().unwrap();
        here.split(' ').next().unwrap().parse().unwrap()
    };
    assert!((15.0..30.0).contains(&decibels(0)) && decibels(3) > decibels(0) + 3.0);
    assert!(
        place.files().is_empty(),
        "what it needed on the way is gone"
    );
    place.fails(2, &["svdquan", "svdquant"], &["reproduce", "svdquan"]);
}

#[test]
fn the_model_in_the_box_is_quantized_drawn_with_compared_and_unpacked() {
    let place = Place::new();
    prompts(&place);
    let report = place
        .ok(&[
            &["quantize", "sana-emoji", "-o", "small", "--json"][..],
            &QUICK,
        ]
        .concat())
        .json();
    assert_eq!(report["layers"].as_object().unwrap().len(), 36);
    let (before, after) = (
        report["bytes_before"].as_f64(),
        report["bytes_after"].as_f64(),
    );
    assert!(after.unwrap() < 0.5 * before.unwrap(), "{report}");
    assert!(!place.path("small.parts").exists());
    assert!(place.path("small/transformer/quantization.json").is_file());

    let draw = ["image", "red heart", "--steps", "2", "-o"];
    place.ok(&[&draw[..], &["full.png"]].concat());
    let model = ["--model", "small"];
    place.ok(&[&draw[..], &["eight.png"], &model].concat());
    place.ok(&[&draw[..], &["four.png"], &model, &["--activations", "4"]].concat());
    let likeness = |a: &str, b: &str| {
        let json = place.ok(&["compare", a, b, "--json"]).json();
        json["psnr_db"].as_f64().unwrap()
    };
    let (eight, four) = (
        likeness("full.png", "eight.png"),
        likeness("full.png", "four.png"),
    );
    assert!(eight > 15.0 && four > 8.0 && eight > four, "{eight} {four}");

    let both = place
        .ok(&[
            "compare",
            "sana-emoji",
            "small",
            "--images",
            "2",
            "--steps",
            "2",
            "--json",
            "--sheet",
            "sheet.png",
        ])
        .json();
    assert!(both["psnr_db"].as_f64().unwrap() > 15.0, "{both}");
    assert_eq!(
        both["latent_relative_error_per_step"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(place.path("sheet.png").is_file());

    // Unpacked, it is a plain transformer that draws nearly the same.
    let file = "small/transformer/diffusion_pytorch_model.safetensors";
    place.ok(&["convert", file, "-o", "plain.safetensors"]);
    std::fs::rename(place.path("plain.safetensors"), place.path(file)).unwrap();
    place.ok(&[&draw[..], &["plain.png"], &model].concat());
    let plain = likeness("plain.png", "eight.png");
    assert!(plain > eight && plain > 20.0, "{plain} {eight}");
    place.fails(
        2,
        &["--activations", "4-bit"],
        &[&draw[..], &["no.png"], &model, &["--activations", "4"]].concat(),
    );
}

#[test]
fn the_text_encoder_is_quantized_while_it_is_loaded() {
    let place = Place::new();
    let draw = |name: &str, kind: &str| {
        let kind = ["--quantize-text-encoder", kind];
        place.ok(&[
            &["image", "red heart", "--steps", "2", "-o", name][..],
            &kind,
        ]
        .concat());
    };
    draw("full.png", "none");
    draw("eight.png", "8bit");
    draw("four.png", "4bit");
    let likeness = |name: &str| {
        let json = place.ok(&["compare", "full.png", name, "--json"]).json();
        json["psnr_db"].as_f64().unwrap()
    };
    let (eight, four) = (likeness("eight.png"), likeness("four.png"));
    assert!(
        eight > 40.0 && four > 30.0 && eight > four,
        "{eight} {four}"
    );
    place.fails(
        2,
        &["--quantize-text-encoder", "3bit", "none, 8bit or 4bit"],
        &[
            "image",
            "x",
            "--quantize-text-encoder",
            "3bit",
            "-o",
            "no.png",
        ],
    );
}

#[test]
fn a_transformer_alone_goes_to_one_file_that_says_what_it_is() {
    let place = Place::new();
    prompts(&place);
    let all = [
        &[
            "quantize",
            "sana-emoji",
            "-o",
            "small.safetensors",
            "--extra",
        ][..],
        &QUICK,
    ]
    .concat();
    place.ok(&all);
    let image = [
        "image",
        "pizza",
        "--steps",
        "1",
        "--model",
        "sana-emoji",
        "-o",
        "pizza.png",
    ];
    place.ok(&[&image[..], &["--transformer", "small.safetensors"]].concat());
    // A quantized model is not quantized again.
    place.ok(&[&["quantize", "sana-emoji", "-o", "small"][..], &QUICK].concat());
    let again = place.run(&[&["quantize", "small", "-o", "again"][..], &QUICK].concat());
    assert_eq!(again.code, Some(1));
    assert!(
        again.stderr.contains("quantized already"),
        "{}",
        again.stderr
    );
}

#[test]
fn what_cannot_be_done_is_said_before_it_is_begun() {
    let place = Place::new();
    prompts(&place);
    let fails = |words: &[&str], more: &[&str]| {
        let all = [
            &[
                "quantize",
                "sana-emoji",
                "-o",
                "small",
                "--prompts",
                "prompts.txt",
            ],
            more,
        ]
        .concat();
        place.fails(2, words, &all);
    };
    fails(&["--rank 20", "multiple of 16"], &["--rank", "20"]);
    fails(&["--rows 1"], &["--rows", "1"]);
    fails(&["--activations 5"], &["--activations", "5"]);
    std::fs::write(place.path("empty.txt"), "\n\n").unwrap();
    place.fails(
        2,
        &["empty.txt"],
        &[
            "quantize",
            "sana-emoji",
            "-o",
            "x",
            "--prompts",
            "empty.txt",
        ],
    );
    place.fails(
        1,
        &["nothing.txt"],
        &[
            "quantize",
            "sana-emoji",
            "-o",
            "x",
            "--prompts",
            "nothing.txt",
        ],
    );
    place.fails(
        2,
        &["--sheet", "two models"],
        &["compare", "prompts.txt", "empty.txt", "--sheet", "s.png"],
    );

    // Parts of another run are not taken for this one's.
    std::fs::create_dir(place.path("small.parts")).unwrap();
    std::fs::write(place.path("small.parts/run.json"), "{}").unwrap();
    place.fails(
        1,
        &["small.parts", "other options"],
        &[&["quantize", "sana-emoji", "-o", "small"][..], &QUICK].concat(),
    );
}

#[test]
fn damaged_files_are_refused_by_the_name_of_the_tensor() {
    let place = Place::new();
    prompts(&place);
    place.ok(&[&["quantize", "sana-emoji", "-o", "small"][..], &QUICK].concat());
    let file = place.path("small/transformer/diffusion_pytorch_model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    let draw = [
        "image",
        "pizza",
        "--steps",
        "1",
        "--model",
        "small",
        "-o",
        "pizza.png",
    ];
    let broken = |words: &[&str], bytes: Vec<u8>| {
        std::fs::write(&file, bytes).unwrap();
        place.fails(1, words, &draw);
    };
    broken(&["truncated"], whole[..whole.len() / 2].to_vec());
    // The name of one tensor of the first block, changed in place.
    let renamed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    broken(
        &["attn.qkv_proj.wscales", "missing"],
        renamed("0.attn.qkv_proj.wscales", "0.attn.qkv_proj.wscalez"),
    );
    broken(
        &["attn.out_proj.smooth"],
        renamed("0.attn.out_proj.smooth", "0.attn.out_proj.smoozh"),
    );
    std::fs::write(&file, &whole).unwrap();
    replace(
        &place.path("small/transformer/config.json"),
        "\"mlp_ratio\": 2.25",
        "\"mlp_ratio\": 4.5",
    );
    place.fails(1, &["another model"], &draw);
}

#[test]
fn the_text_encoder_is_quantized_in_the_same_run() {
    let place = Place::new();
    prompts(&place);
    let all = [
        &["quantize", "sana-emoji", "-o", "small", "--text-encoder"][..],
        &QUICK,
        &["--json"],
    ]
    .concat();
    let report = place.ok(&all).json();
    let encoder = &report["text_encoder"];
    let bytes = |key: &str| encoder[key].as_f64().unwrap();
    assert!(
        bytes("bytes_after") < 0.6 * bytes("bytes_before"),
        "{encoder}"
    );
    let inputs = encoder["inputs"].as_object().unwrap();
    for input in inputs.values() {
        assert!(
            input["relative_error"].as_f64().unwrap() < 0.15,
            "{encoder}"
        );
    }
    let config = std::fs::read_to_string(place.path("small/text_encoder/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let targets = &config["quantization_config"]["awq_w4a16"]["targets"];
    let targets = targets.as_array().map_or(0, Vec::len);
    assert_eq!(targets * 4, inputs.len() * 7, "{config}");

    // The text encoder alone, beside the full transformer.
    let draw = ["image", "red heart", "--steps", "4", "-o"];
    place.ok(&[&draw[..], &["full.png"]].concat());
    let alone = ["--text-encoder", "small"];
    place.ok(&[&draw[..], &["awq.png"], &alone].concat());
    let rounded = ["--quantize-text-encoder", "4bit"];
    place.ok(&[&draw[..], &["rounded.png"], &rounded].concat());
    let likeness = |name: &str| {
        let json = place.ok(&["compare", "full.png", name, "--json"]).json();
        json["psnr_db"].as_f64().unwrap()
    };
    assert!(likeness("awq.png") > 30.0, "{}", likeness("awq.png"));
    place.ok(&[&draw[..], &["both.png", "--model", "small"]].concat());

    place.fails(
        2,
        &["--quantize-text-encoder", "4-bit weights already"],
        &[&draw[..], &["no.png", "--model", "small"], &rounded].concat(),
    );
    place.fails(
        2,
        &["--text-encoder", "transformer alone"],
        &[
            &[
                "quantize",
                "sana-emoji",
                "-o",
                "x.safetensors",
                "--text-encoder",
            ][..],
            &QUICK,
        ]
        .concat(),
    );
    // One tensor's name, changed in place.
    let file = place.path("small/text_encoder/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let name = b"self_attn.o_proj.wzeros";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[at + name.len() - 1] = b'z';
    std::fs::write(&file, bytes).unwrap();
    place.fails(
        1,
        &["self_attn.o_proj.wzeros", "missing"],
        &[&draw[..], &["no.png", "--model", "small"]].concat(),
    );
}

#[test]
fn a_killed_run_goes_on_and_gives_the_same_files() {
    let place = Place::new();
    prompts(&place);
    let arguments = |output: &'static str| {
        [
            &["quantize", "sana-emoji", "-o", output, "--text-encoder"][..],
            &["--threads", "2"],
            &QUICK,
        ]
        .concat()
    };
    place.ok(&arguments("whole"));
    let mut child = place.command(&arguments("parts")).spawn().unwrap();
    let begun = place.path("parts.parts/text_encoder0.safetensors");
    for _ in 0..6000 {
        if begun.is_file() || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let again = place.ok(&arguments("parts"));
    assert!(again.stderr.contains("going on with"), "{}", again.stderr);
    assert!(again.stderr.contains("(done before)"), "{}", again.stderr);
    for file in [
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
    ] {
        let read = |folder: &str| std::fs::read(place.path(folder).join(file)).unwrap();
        assert!(read("whole") == read("parts"), "{file} differs");
    }
}

/// Settings under which the small model of the fixtures is quantized at once.
const SMALL: [&str; 4] = ["--size", "64", "--iterations", "1"];

#[test]
fn an_output_on_the_source_is_refused_before_any_work() {
    let place = Place::new();
    prompts(&place);
    place.copy("pipelines/sana", "model");
    place.copy("pipelines/sana", "work.parts");
    let refused = |words: &[&str], model: &str, output: &str| {
        let all = [&["quantize", model, "-o", output][..], &QUICK, &SMALL].concat();
        place.fails(1, &[words, &["choose another place"]].concat(), &all);
    };
    refused(&["is the input"], "model", "model");
    refused(
        &["lies in the input"],
        "model",
        "model/transformer/x.safetensors",
    );
    refused(&["holds the input"], "model/../model", ".");
    // Where parts are kept is removed in the end.
    refused(&["work.parts", "is the input"], "work.parts", "work");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("model", place.path("other")).unwrap();
        refused(&["is the input"], "model", "other");
        refused(&["is the input"], "other", "model");
    }
}

#[test]
fn a_result_shares_nothing_with_its_source_that_somebody_edits() {
    let place = Place::new();
    prompts(&place);
    let model = place.copy("pipelines/sana", "model");
    let settings = r#"{"guidance_scale": 9.0}"#;
    std::fs::write(model.join("generation_config.json"), settings).unwrap();
    let large = vec![7; 2 << 20];
    std::fs::write(model.join("vae/more.bin"), &large).unwrap();
    let all = [&["quantize", "model", "-o", "small"][..], &QUICK, &SMALL].concat();
    // The second run replaces what the first one left.
    for guidance in ["1.0", "2.0"] {
        place.ok(&all);
        let text = format!(r#"{{"guidance_scale": {guidance}}}"#);
        std::fs::write(place.path("small/generation_config.json"), text).unwrap();
    }
    let kept = std::fs::read_to_string(model.join("generation_config.json")).unwrap();
    assert_eq!(kept, settings);
    assert_eq!(
        std::fs::read(place.path("small/vae/more.bin")).unwrap(),
        large
    );
    let left: Vec<_> = place
        .files()
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let shared = place.files().into_iter().filter(|file| {
            file.starts_with(place.path("small")) && std::fs::metadata(file).unwrap().nlink() > 1
        });
        let shared: Vec<_> = shared.collect();
        assert_eq!(shared, [place.path("small/vae/more.bin")]);
    }
}

#[test]
fn a_quantized_transformers_own_folder_is_unpacked() {
    let place = Place::new();
    prompts(&place);
    place.ok(&[&["quantize", "sana-emoji", "-o", "small"][..], &QUICK].concat());
    place.ok(&["convert", "small/transformer", "-o", "plain.safetensors"]);
    let file = "small/transformer/diffusion_pytorch_model.safetensors";
    place.ok(&["convert", file, "-o", "same.safetensors"]);
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(read("plain.safetensors") == read("same.safetensors"));
    // A folder without weights tells which files it was searched for.
    let words = [
        "transformer_blocks.safetensors",
        "diffusion_pytorch_model",
        "tokenizer/",
    ];
    place.fails(1, &words, &["convert", "small", "-o", "no.safetensors"]);
    let own = [
        "convert",
        "small/transformer",
        "-o",
        "small/transformer/x.safetensors",
    ];
    place.fails(1, &["lies in the input"], &own);
    place.fails(1, &["is the input"], &["convert", file, "-o", file]);
}

#[test]
fn the_older_folder_of_two_files_draws_as_the_one_file() {
    let place = Place::new();
    prompts(&place);
    place.ok(&[&["quantize", "sana-emoji", "-o", "small"][..], &QUICK].concat());
    let draw = |name: &str, more: &[&str]| {
        place.ok(&[&["image", "pizza", "--steps", "1", "-o", name][..], more].concat());
    };
    draw("one.png", &["--model", "small"]);
    let folder = place.path("small/transformer");
    let file = folder.join("diffusion_pytorch_model.safetensors");
    {
        let whole = SafetensorsFile::open(&file).unwrap();
        let tensors = whole.names().into_iter().map(|name| {
            let view = whole.view(&name).unwrap().unwrap();
            OutTensor {
                name,
                dtype: view.dtype,
                shape: view.shape,
                data: view.data,
            }
        });
        let (blocks, rest): (Vec<_>, Vec<_>) =
            tensors.partition(|tensor| tensor.name.starts_with("transformer_blocks."));
        let write = |name: &str, tensors: &[OutTensor]| {
            write_safetensors(&folder.join(name), tensors, &Default::default()).unwrap();
        };
        write("transformer_blocks.safetensors", &blocks);
        write("unquantized_layers.safetensors", &rest);
    }
    std::fs::remove_file(&file).unwrap();
    draw("inside.png", &["--model", "small"]);
    let given = [
        "--model",
        "sana-emoji",
        "--transformer",
        "small/transformer",
    ];
    draw("given.png", &given);
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert!(read("one.png") == read("inside.png"));
    assert!(read("one.png") == read("given.png"));
    std::fs::remove_file(folder.join("unquantized_layers.safetensors")).unwrap();
    let all = [&["image", "pizza", "-o", "no.png"][..], &given].concat();
    place.fails(1, &["unquantized_layers.safetensors"], &all);
}

#[test]
fn parts_that_another_run_works_at_are_left_alone() {
    let place = Place::new();
    prompts(&place);
    let parts = place.path("small.parts");
    std::fs::create_dir(&parts).unwrap();
    let lock = brisk_store::output::FolderLock::take(&parts).unwrap();
    let all = [&["quantize", "sana-emoji", "-o", "small"][..], &QUICK].concat();
    place.fails(1, &["small.parts"], &all);
    drop(lock);
    place.ok(&all);
}
