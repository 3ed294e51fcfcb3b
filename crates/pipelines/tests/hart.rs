//! HART from prompts to pictures, against its reference and against itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_pipelines::families::hart::options as own;
use brisk_pipelines::options::{CodeTensor, Codes, Latents, Options, keys};
use brisk_pipelines::{
    Control, Event, GeneratedImage, ImageModel, ImageRequest, OpenSettings, Result, registry,
};
use brisk_store::ModelFolder;
use brisk_testkit::{fixtures_dir, load_tensors, relative_l2, values};

const PROMPTS: [&str; 2] = [
    "a red heart",
    "two green apples on a wooden table, warm light from the left, and much more than fits",
];

fn folder() -> PathBuf {
    fixtures_dir().join("hart_pipeline/model")
}

fn open_with(folder: &Path, options: Options) -> Result<Box<dyn ImageModel>> {
    let folder = ModelFolder::Disk(folder.to_owned());
    registry::open_image(&folder, &OpenSettings::new(options))
}

fn open() -> Box<dyn ImageModel> {
    open_with(&folder(), Options::new()).unwrap()
}

fn request() -> ImageRequest {
    ImageRequest {
        prompts: PROMPTS.map(str::to_owned).to_vec(),
        options: Options::new(),
    }
}

fn draw(model: &mut dyn ImageModel, request: &ImageRequest) -> Vec<GeneratedImage> {
    model.draw(request, &Control::silent()).unwrap()
}

fn refused(model: &mut dyn ImageModel, request: &ImageRequest, words: &[&str]) {
    let error = model.draw(request, &Control::silent()).unwrap_err();
    let error = error.to_string();
    for word in words {
        assert!(error.contains(word), "{word}: {error}");
    }
}

fn codes(image: &GeneratedImage) -> &Codes {
    image.codes.as_ref().unwrap()
}

/// A copy of the model's folder that a test may change.
fn copied(place: &Path) -> PathBuf {
    for name in ModelFolder::Disk(folder()).list() {
        let path = place.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(folder().join(&name), path).unwrap();
    }
    place.to_owned()
}

/// Prompts of unequal length, one cut off, padded in front; with the folder's system prompt and without one.
#[test]
fn prompts_become_the_references_pictures() {
    let golden = load_tensors(folder().join("golden.safetensors"));
    for (label, greedy) in [
        ("system", request()),
        ("plain", request().with(&own::SYSTEM_PROMPT, String::new())),
    ] {
        let images = draw(&mut *open(), &greedy.with(&keys::GREEDY, true));
        assert_eq!(images.len(), 2);
        for (row, image) in images.iter().enumerate() {
            for scale in 0..4 {
                let name = format!("{label}.codes.{scale}");
                let wanted = values(&golden[&name].narrow(0, row, 1).unwrap());
                let found = &codes(image).0[&format!("codes.{scale}")].values;
                let found: Vec<f32> = found.iter().map(|code| *code as f32).collect();
                assert_eq!(found, wanted, "{name} of picture {row}");
            }
            let wanted = values(
                &golden[&format!("{label}.latent")]
                    .narrow(0, row, 1)
                    .unwrap(),
            );
            let found = &image.latents.as_ref().unwrap().values;
            let off = relative_l2(found, &wanted);
            assert!(off < 1e-4, "{label} {row}: {off}");
            let wanted = values(
                &golden[&format!("{label}.pixels")]
                    .narrow(0, row, 1)
                    .unwrap(),
            );
            assert_eq!((image.picture.width, image.picture.height), (10, 10));
            for (found, wanted) in image.picture.pixels.iter().zip(wanted) {
                assert!((f32::from(*found) - wanted).abs() <= 1.0, "{label} {row}");
            }
        }
    }
}

/// Several pictures and prompts at once are what each is alone, by the seed that its plan states.
#[test]
fn a_picture_is_drawn_by_its_own_seed() {
    let mut model = open();
    let many = request().with(&keys::IMAGES, 2).with(&keys::SEED, 40);
    let plan = model.plan(&many).unwrap();
    let together = model.generate(&plan, &Control::silent()).unwrap();
    let seeds: Vec<u64> = together.iter().map(|image| image.seed).collect();
    assert_eq!(seeds, [40, 41, 42, 43]);
    for (index, image) in together.iter().enumerate() {
        let alone = ImageRequest::new(&image.prompt).with(&keys::SEED, image.seed);
        let alone = draw(&mut *model, &alone);
        assert_eq!(codes(&alone[0]), codes(image), "{index}");
        // Products of more rows round differently in their last bits.
        let pairs = alone[0].picture.pixels.iter().zip(&image.picture.pixels);
        assert!(
            pairs.map(|(a, b)| a.abs_diff(*b)).max() <= Some(1),
            "{index}"
        );
        // Its description draws it alone.
        let described = plan.describe(index);
        assert_eq!(described["seed"], image.seed);
        assert_eq!(
            (&described["index"], &described["images"]),
            (&0.into(), &1.into())
        );
    }
    assert_ne!(codes(&together[0]), codes(&together[1]));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let drawn = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| draw(&mut *open(), &request().with(&keys::SEED, 3)))
    };
    let (one, three) = (drawn(1), drawn(3));
    for (one, three) in one.iter().zip(&three) {
        assert_eq!(codes(one), codes(three));
        assert_eq!(one.picture.pixels, three.picture.pixels);
    }
}

/// Codes that were drawn give the picture again; from a scale on they are drawn anew.
#[test]
fn codes_come_back() {
    let mut model = open();
    let whole = request().with(&own::NO_SMOOTH, true).with(&keys::SEED, 5);
    let first = draw(&mut *model, &whole);
    let all = Codes::stacked(first.iter().map(codes)).unwrap();
    assert_eq!(all.0["codes.3"].shape, [2, 25]);
    let given = |request: ImageRequest| request.with(&keys::CODES, Arc::new(all.clone()));
    let again = draw(&mut *model, &given(whole.clone()));
    let other = draw(
        &mut *model,
        &given(whole.clone().with(&keys::SEED, 6)).with(&own::FROM_SCALE, 2),
    );
    for ((first, again), other) in first.iter().zip(&again).zip(&other) {
        assert_eq!(first.picture.pixels, again.picture.pixels);
        for scale in 0..2 {
            let name = format!("codes.{scale}");
            assert_eq!(codes(other).0[&name], codes(first).0[&name]);
        }
        assert_ne!(codes(other), codes(first));
    }
    // Codes alone are decoded without the transformer, and without a text encoder.
    let plain = whole.clone().with(&own::NO_RESIDUAL, true);
    let drawn = draw(&mut *model, &plain);
    let all = Codes::stacked(drawn.iter().map(codes)).unwrap();
    let place = tempfile::tempdir().unwrap();
    let bare = copied(place.path());
    std::fs::remove_dir_all(bare.join("text_encoder")).unwrap();
    let mut bare = open_with(&bare, Options::new()).unwrap();
    refused(
        &mut *bare,
        &plain,
        &["text-encoder", "Qwen2-VL-1.5B-Instruct"],
    );
    let decoded = draw(&mut *bare, &plain.with(&keys::CODES, Arc::new(all)));
    for (drawn, decoded) in drawn.iter().zip(&decoded) {
        assert_eq!(drawn.picture.pixels, decoded.picture.pixels);
    }
}

/// The published folder of the transformer serves as well as the one above it, and a text encoder from
/// elsewhere as one inside.
#[test]
fn parts_are_found_where_people_have_them() {
    let greedy = request().with(&keys::GREEDY, true);
    let wanted = draw(&mut *open(), &greedy);
    let place = tempfile::tempdir().unwrap();
    let model = copied(&place.path().join("model"));
    let (text, tokenizer) = (place.path().join("text"), place.path().join("vq"));
    std::fs::rename(model.join("text_encoder"), &text).unwrap();
    let options = Options::new().with(&keys::TEXT_ENCODER, text.display().to_string());
    let check = |folder: &Path, options: &Options| {
        let found = draw(&mut *open_with(folder, options.clone()).unwrap(), &greedy);
        assert_eq!(
            found[0].picture.pixels,
            wanted[0].picture.pixels,
            "{}",
            folder.display()
        );
    };
    check(&model, &options);
    check(&model.join("llm"), &options);
    std::fs::rename(model.join("tokenizer"), &tokenizer).unwrap();
    let given = options
        .clone()
        .with(&keys::VAE, tokenizer.display().to_string());
    check(&model, &given);
    // The path of training is gone; one that exists is taken.
    let error = open_with(&model, options.clone())
        .err()
        .unwrap()
        .to_string();
    for word in ["tokenizer/config.json", "/training/tokenizer", "vae"] {
        assert!(error.contains(word), "{error}");
    }
    let config = model.join("llm/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let there = tokenizer.display().to_string();
    std::fs::write(&config, text.replace("/training/tokenizer", &there)).unwrap();
    check(&model, &options);
    // Weights as they were trained last are others.
    let trained = options.with(&own::NO_EMA, true);
    let found = draw(&mut *open_with(&model, trained).unwrap(), &greedy);
    assert_ne!(codes(&found[0]), codes(&wanted[0]));
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let mut model = open();
    let mut model = |request: ImageRequest, words: &[&str]| refused(&mut *model, &request, words);
    model(
        request().with(&keys::WIDTH, 8),
        &["width", "8 pixels", "10×10", "[1, 2, 3, 5]"],
    );
    model(
        request().with(&keys::HEIGHT, 512),
        &["height", "512", "10×10"],
    );
    model(
        request().with(&keys::NEGATIVE_PROMPT, "blur".to_owned()),
        &["negative-prompt"],
    );
    model(
        request().with(&keys::STEPS, 1),
        &["steps", "is 1", "2 at least"],
    );
    model(
        request().with(&own::FROM_SCALE, 1),
        &["from-scale", "`codes`"],
    );
    let greedy = || request().with(&keys::GREEDY, true);
    model(greedy().with(&keys::TOP_K, 4), &["top-k", "`greedy`"]);
    model(greedy().with(&keys::TOP_P, 0.5), &["top-p", "`greedy`"]);
    let plain = || request().with(&own::NO_RESIDUAL, true);
    model(plain().with(&keys::STEPS, 4), &["steps", "`no-residual`"]);
    let latents = |shape: [usize; 4], value: f32| {
        Arc::new(Latents {
            shape,
            values: vec![value; shape.iter().product()],
        })
    };
    model(
        request().with(&keys::LATENTS, latents([1, 8, 5, 5], 0.0)),
        &["latents", "[1, 8, 5, 5]", "[2, 8, 5, 5]"],
    );
    model(
        request().with(&keys::LATENTS, latents([2, 8, 5, 5], f32::NAN)),
        &["latents", "not finite"],
    );
    let one = |shape: &[usize], values: Vec<u32>| {
        let shape = shape.to_vec();
        let tensors = [("codes.0".to_owned(), CodeTensor { shape, values })];
        request().with(&keys::CODES, Arc::new(Codes(tensors.into())))
    };
    model(
        one(&[1, 1], vec![640]),
        &["codes", "holds 640", "640 codewords"],
    );
    model(one(&[1, 4], vec![0; 4]), &["codes", "[1, 4]", "[2, 1]"]);

    // Parts that do not belong together.
    let place = tempfile::tempdir().unwrap();
    let copy = copied(place.path());
    let change = |file: &str, from: &str, to: &str, words: &[&str]| {
        let path = copy.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file}: {from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let error = match open_with(&copy, Options::new()) {
            Ok(mut model) => model.draw(&request(), &Control::silent()).unwrap_err(),
            Err(error) => error,
        };
        for word in words {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        std::fs::write(&path, text).unwrap();
    };
    let codebook = ["`vocab_size` is 639", "640"];
    change(
        "tokenizer/config.json",
        "\"vocab_size\": 640",
        "\"vocab_size\": 639",
        &codebook,
    );
    let width = ["`context_dim` is 40", "48"];
    change(
        "llm/config.json",
        "\"context_dim\": 48",
        "\"context_dim\": 40",
        &width,
    );
    change(
        "text_encoder/tokenizer_config.json",
        "\"pad_token\"",
        "\"pat_token\"",
        &["tokenizer_config.json", "`pad_token`"],
    );
    let positions = "\"max_position_embeddings\": 128";
    let few = "\"max_position_embeddings\": 20";
    change("text_encoder/config.json", positions, few, &["20"]);
    std::fs::remove_file(copy.join("text_encoder/tokenizer.json")).unwrap();
    let error = open_with(&copy, Options::new()).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}

#[test]
fn scales_are_shown_and_a_run_can_be_stopped() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let control = Control::new(move |event| drop(sender.send(event)));
    let mut model = open();
    let shown = ImageRequest::new(PROMPTS[0]).with(&keys::PREVIEW_INTERVAL, 2);
    let warned = model.draw(&shown, &control).unwrap();
    let events: Vec<Event> = receiver.try_iter().collect();
    let previews = events.iter().filter_map(|event| match event {
        Event::Preview { picture, .. } => Some(picture),
        _ => None,
    });
    let previews: Vec<_> = previews.collect();
    assert_eq!(previews.len(), 2, "after the second scale and the fourth");
    assert_eq!(previews[1].pixels, warned[0].picture.pixels);
    let steps = events
        .iter()
        .filter(|event| matches!(event, Event::Step { total: 39, .. }));
    assert_eq!(steps.count(), 4);
    // A prompt that is too long is said before anything runs.
    let plan = model.plan(&request()).unwrap();
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.contains("14 tokens"))
    );

    let control = Control::silent();
    control
        .cancel_flag()
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let error = model.draw(&request(), &control).unwrap_err();
    assert!(matches!(error, brisk_pipelines::Error::Cancelled));
}

/// Half the memory for keys and values, and weights of fewer bits, give nearly the same.
#[test]
fn what_takes_less_memory_draws_nearly_the_same() {
    let draw_with = |options: Options, asked: ImageRequest| {
        let image = &draw(&mut *open_with(&folder(), options).unwrap(), &asked)[0];
        image.latents.clone().unwrap().values
    };
    // Codes are given, so that only what follows from them is compared.
    let first = draw(&mut *open(), &request().with(&keys::GREEDY, true));
    let all = Arc::new(Codes::stacked(first.iter().map(codes)).unwrap());
    let asked = || {
        request()
            .with(&keys::CODES, all.clone())
            .with(&keys::SEED, 9)
    };
    let wanted = draw_with(Options::new(), asked());
    let off = |values: &[f32]| relative_l2(values, &wanted);
    let half = off(&draw_with(
        Options::new(),
        asked().with(&own::CACHE_TYPE, "f16".to_owned()),
    ));
    assert!(half > 0.0 && half < 5e-3, "{half}");
    let quantized = Options::new()
        .with(&keys::QUANTIZE_TRANSFORMER, "8bit".to_owned())
        .with(&keys::QUANTIZE_TEXT_ENCODER, "8bit".to_owned());
    let eight = off(&draw_with(quantized, asked()));
    assert!(eight > 0.0 && eight < 0.1, "{eight}");
}
