//! VILA-U from requests to pictures and texts, against its reference and against itself.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::vila_u::tower::{Parts, SiglipConfig, Tower, TowerConfig};
use brisk_nn::{Tensor, Trace, Weights, ops};
use brisk_pipelines::families::vila_u::options::{PICTURE, RECONSTRUCT, TEMPERATURE};
use brisk_pipelines::options::{CodeTensor, Codes, Options, keys, text_keys};
use brisk_pipelines::request::{
    GeneratedImage, GeneratedText, ImageModel, ImageRequest, OpenSettings, TextModel, TextPrompt,
    TextRequest,
};
use brisk_pipelines::{Control, Event, registry};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, fixtures_dir, values};
use brisk_text::ChatMessage;

const CASES: [&str; 4] = ["base", "wide", "least", "deep_mlp"];

fn path(case: &str) -> PathBuf {
    fixtures_dir().join("vila_u").join(case)
}

fn drawer(case: &str) -> Box<dyn ImageModel> {
    registry::open_image(&ModelFolder::Disk(path(case)), &OpenSettings::default()).unwrap()
}

fn writer(case: &str) -> Box<dyn TextModel> {
    registry::open_text(&ModelFolder::Disk(path(case)), &OpenSettings::default()).unwrap()
}

fn golden(case: &str, name: &str) -> Golden {
    Golden::open(&format!("vila_u/{case}/golden_{name}.safetensors"))
}

fn draw(model: &mut dyn ImageModel, request: &ImageRequest) -> Vec<GeneratedImage> {
    model.draw(request, &Control::silent()).unwrap()
}

fn codes(image: &GeneratedImage) -> &CodeTensor {
    &image.codes.as_ref().unwrap().0["codes"]
}

fn ids(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(|id| id as u32).collect()
}

#[test]
fn greedy_pictures_are_those_of_the_reference() {
    for case in CASES {
        let mut golden = golden(case, "generate");
        let guidance = values(&golden.get("inputs.guidance"))[0];
        let request = ImageRequest {
            prompts: vec!["a red heart".into(), " two dogs play in the snow\n".into()],
            ..ImageRequest::default()
        };
        let request = request
            .with(&keys::GREEDY, true)
            .with(&keys::GUIDANCE, guidance);
        let images = draw(&mut *drawer(case), &request);
        let wanted = golden.get("outputs.codes");
        let mut shown = Vec::new();
        for (row, image) in images.iter().enumerate() {
            let own = |x: &Tensor| x.narrow(0, row, 1).unwrap().contiguous().unwrap();
            let found = codes(image);
            assert_eq!(found.shape, own(&wanted).dims(), "{case}");
            assert_eq!(found.values, ids(&own(&wanted)), "{case}");
            let pixels = image.picture.pixels.iter();
            // Values are cut down to bytes: off by half of one on average.
            let pixels = pixels
                .map(|byte| (f32::from(*byte) + 0.5) / 255.0)
                .collect();
            let shape = (1, image.picture.height, image.picture.width, 3);
            shown.push(Tensor::from_vec(pixels, shape).unwrap());
        }
        let shown = ops::to_nchw(&Tensor::cat(&shown, 0).unwrap()).unwrap();
        assert!(golden.compare("outputs.image", &shown, 0.01));
    }
}

#[test]
fn pictures_are_drawn_alike_alone_and_together_and_from_their_codes() {
    let mut model = drawer("base");
    let request = ImageRequest::new("a red heart").with(&keys::SEED, 5);
    let three = draw(&mut *model, &request.clone().with(&keys::IMAGES, 3));
    let seeds: Vec<u64> = three.iter().map(|image| image.seed).collect();
    assert_eq!(seeds, [5, 6, 7]);
    assert_ne!(codes(&three[0]).values, codes(&three[1]).values);
    // What all share is the first one's, so that a sum counts it once.
    let shared: Vec<f64> = three.iter().map(|image| image.seconds[0].1).collect();
    assert!(shared[0] > 0.0 && shared[1..] == [0.0, 0.0], "{shared:?}");
    assert!(three.iter().all(|image| image.seconds[1].1 > 0.0));
    let alone = draw(&mut *model, &request.clone().with(&keys::SEED, 6));
    assert_eq!(alone[0].codes, three[1].codes);
    assert_eq!(alone[0].picture, three[1].picture);
    // All codes: nothing is drawn. The first of them: the rest is drawn as it was.
    let all = alone[0].codes.clone().unwrap();
    let again = request.clone().with(&keys::CODES, Arc::new(all.clone()));
    let plan = model.plan(&again).unwrap();
    assert_eq!(plan.steps, 0);
    let again = draw(&mut *model, &again);
    assert_eq!(again[0].picture, alone[0].picture);
    let mut first = all.0["codes"].clone();
    first.shape[1] = 3;
    first.values.truncate(12);
    let first = Codes([("codes".to_owned(), first)].into_iter().collect());
    let rest = request
        .clone()
        .with(&keys::SEED, 6)
        .with(&keys::CODES, Arc::new(first));
    assert_eq!(model.plan(&rest).unwrap().steps, 13);
    assert_eq!(draw(&mut *model, &rest)[0].codes, alone[0].codes);
    // Each of these has its say.
    for other in [
        request.clone().with(&keys::GUIDANCE, 1.0),
        request.clone().with(&keys::TOP_K, 1),
        request.clone().with(&TEMPERATURE, 5.0),
        request.clone().with(&keys::TOP_P, 0.05),
        request.clone().with(&keys::GREEDY, true),
    ] {
        assert_ne!(
            draw(&mut *model, &other)[0].codes,
            three[0].codes,
            "{other:?}"
        );
    }
}

fn tower(case: &str) -> Tower {
    let folder = ModelFolder::Disk(path(case));
    let read = |file: &str| folder.read(file).unwrap();
    let mut config = TowerConfig::from_json(&read("vision_tower/config.json"), "t").unwrap();
    let siglip = SiglipConfig::from_json(&read("vision_tower/siglip/config.json"), "s").unwrap();
    config.set_siglip(siglip, "t", "s").unwrap();
    let source = folder.open_component("vision_tower", None).unwrap();
    Tower::load(&config, &Weights::from_source(source), Parts::ALL).unwrap()
}

/// The pictures that the reference was asked about: one, and the same upside down.
fn pictures(golden: &Golden) -> [Arc<Picture>; 2] {
    let pixels = golden.get("inputs.pixels");
    let (height, width, _) = pixels.dims3().unwrap();
    let bytes: Vec<u8> = values(&pixels).into_iter().map(|byte| byte as u8).collect();
    let turned = bytes.chunks(3 * width).rev().flatten().copied().collect();
    [bytes, turned].map(|pixels| {
        Arc::new(Picture {
            width,
            height,
            pixels,
        })
    })
}

#[test]
fn a_reconstruction_is_the_decoded_codes_of_a_picture() {
    for case in CASES {
        let golden = golden(case, "answers");
        let [picture, _] = pictures(&golden);
        let request = ImageRequest::new("").with(&RECONSTRUCT, picture);
        let found = draw(&mut *drawer(case), &request).remove(0);
        let tower = tower(case);
        let prepared = golden.get("outputs.pixel_values").narrow(0, 0, 1).unwrap();
        let trace = &mut Trace::none();
        let encoded = tower
            .encode(&ops::to_nhwc(&prepared).unwrap(), trace)
            .unwrap();
        assert_eq!(codes(&found).values, encoded.codes, "{case}");
        let maps = tower.maps(&encoded.sum).unwrap();
        let wanted = values(&tower.decode(&maps, trace).unwrap());
        let bytes: Vec<u8> = wanted.iter().map(|x| ((x + 1.0) * 127.5) as u8).collect();
        assert_eq!(found.picture.pixels, bytes, "{case}");
    }
}

fn answer(model: &dyn TextModel, request: &TextRequest) -> GeneratedText {
    model.write(request, &Control::silent()).unwrap().remove(0)
}

/// A greedy request of as many tokens as the reference wrote.
fn greedy(prompt: TextPrompt, length: usize) -> TextRequest {
    TextRequest::of(vec![prompt])
        .with(&text_keys::TEMPERATURE, 0.0)
        .with(&text_keys::GEN_LENGTH, length)
}

#[test]
fn answers_are_those_of_the_reference() {
    for case in CASES {
        let golden = golden(case, "answers");
        let model = writer(case);
        for (name, question, shown) in [
            ("pictures", "what is this?", 2),
            ("between", "Is <image> like <image>?", 2),
            ("text", " what is this?\n", 0),
        ] {
            let Some(wanted) = golden.find(&format!("outputs.{name}")) else {
                continue;
            };
            let wanted = ids(&wanted);
            let mut request = greedy(TextPrompt::Question(question.into()), wanted.len());
            if shown > 0 {
                request = request.with(&PICTURE, pictures(&golden).to_vec());
            }
            let found = answer(&*model, &request);
            assert_eq!(found.tokens[found.prompt_tokens..], wanted, "{case} {name}");
            assert_eq!(found.forward_passes, wanted.len());
        }
    }
}

/// Sequences share passes and nothing else.
#[test]
fn texts_are_written_alike_alone_and_together() {
    let model = writer("wide");
    let prompts = [
        "what is this?",
        "How many birds are there in the picture?",
        "a",
    ];
    let prompts: Vec<TextPrompt> = prompts
        .map(|text| TextPrompt::Question(text.into()))
        .to_vec();
    let drawn = |prompts: Vec<TextPrompt>, seed: u64| {
        let request = TextRequest::of(prompts)
            .with(&text_keys::TEMPERATURE, 1.5)
            .with(&text_keys::TOP_P, 0.9)
            .with(&text_keys::GEN_LENGTH, 9)
            .with(&keys::SEED, seed);
        model.write(&request, &Control::silent()).unwrap()
    };
    let together = drawn(prompts.clone(), 3);
    for (prompt, wanted) in prompts.iter().zip(&together) {
        assert_eq!(drawn(vec![prompt.clone()], 3)[0].tokens, wanted.tokens);
    }
    let other = drawn(prompts.clone(), 4);
    assert!(
        together
            .iter()
            .zip(&other)
            .any(|(a, b)| a.tokens != b.tokens)
    );
    // A token that ends a text, and what is shown on the way.
    let whole = answer(&*model, &greedy(prompts[0].clone(), 6));
    let end = whole.tokens[whole.prompt_tokens + 2];
    let request = greedy(prompts[0].clone(), 6).with(&text_keys::STOP_TOKEN, vec![end]);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = seen.clone();
    let control = Control::new(move |event| {
        if let Event::Canvas { tokens, start, .. } = event {
            sink.lock().unwrap().push(tokens[start..].to_vec());
        }
    });
    let control = control.with_canvas();
    let short = model.write(&request, &control).unwrap().remove(0);
    let answered = &whole.tokens[whole.prompt_tokens..];
    let wanted = answered.iter().position(|id| *id == end).unwrap();
    assert_eq!(short.answer_tokens, wanted);
    assert_eq!(short.tokens[short.prompt_tokens..], answered[..=wanted]);
    let shown = seen.lock().unwrap();
    assert_eq!(shown.len(), wanted + 1);
    assert_eq!(shown[wanted][..], answered[..=wanted]);
}

#[test]
fn long_conversations_are_cut_at_their_beginning() {
    let model = writer("base");
    let turn = |role: &str, content: String| ChatMessage {
        role: role.to_owned(),
        content,
    };
    let mut turns = Vec::new();
    for index in 0..60 {
        turns.push(turn(
            "user",
            format!("what is this? {}", "a red heart ".repeat(6)),
        ));
        turns.push(turn("assistant", format!("a house {index}")));
    }
    turns.push(turn("user", "and this?".into()));
    let request =
        TextRequest::of(vec![TextPrompt::Conversation(turns)]).with(&text_keys::GEN_LENGTH, 20);
    let plan = model.plan(&request).unwrap();
    assert!(plan.prompts[0].len() + 20 <= model.context());
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.contains("are forgotten"))
    );
}

fn refused_image(request: ImageRequest) -> String {
    drawer("base").plan(&request).unwrap_err().to_string()
}

fn refused_text(request: TextRequest) -> String {
    writer("base").plan(&request).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_served_is_refused_by_name_with_both_numbers() {
    let [picture, _] = pictures(&golden("base", "answers"));
    let heart = || ImageRequest::new("a red heart");
    let tensor = |shape: &[usize], code: u32| {
        let tensor = CodeTensor {
            shape: shape.to_vec(),
            values: vec![code; shape.iter().product()],
        };
        Arc::new(Codes([("codes".to_owned(), tensor)].into_iter().collect()))
    };
    for (request, words) in [
        (
            heart().with(&keys::WIDTH, 64),
            &["width", "64", "32×32"][..],
        ),
        (heart().with(&keys::STEPS, 4), &["steps", "place by place"]),
        (
            heart().with(&keys::NEGATIVE_PROMPT, "blue".into()),
            &["negative-prompt"],
        ),
        (
            heart().with(&keys::GREEDY, true).with(&keys::TOP_K, 3),
            &["top-k", "greedy"],
        ),
        (
            heart().with(&RECONSTRUCT, picture.clone()),
            &["reconstruct", "prompt"],
        ),
        (
            ImageRequest::new("")
                .with(&RECONSTRUCT, picture.clone())
                .with(&keys::GUIDANCE, 2.0),
            &["guidance", "reconstruct"],
        ),
        (
            heart().with(&keys::CODES, tensor(&[1, 17, 4], 0)),
            &["codes", "17", "16"],
        ),
        (
            heart().with(&keys::CODES, tensor(&[1, 16, 3], 0)),
            &["codes", "3", "4"],
        ),
        (
            heart().with(&keys::CODES, tensor(&[2, 16, 4], 0)),
            &["codes", "[2, 16, 4]", "1 pictures"],
        ),
        (
            heart().with(&keys::CODES, tensor(&[1, 16, 4], 400)),
            &["codes", "400 codewords"],
        ),
    ] {
        let message = refused_image(request);
        for word in words {
            assert!(message.contains(word), "no {word} in {message}");
        }
    }
    let asked = |text: &str| TextRequest::new(text).with(&text_keys::GEN_LENGTH, 4);
    let two = vec![picture.clone(), picture.clone()];
    for (request, words) in [
        (
            asked("Is <image> red?"),
            &["picture", "0 pictures", "1 place"][..],
        ),
        (
            asked("Is <image> red?").with(&PICTURE, two.clone()),
            &["2 pictures", "1 place"],
        ),
        (
            TextRequest::of(vec![TextPrompt::Continue("a".into())]).with(&PICTURE, two.clone()),
            &["2 pictures", "0 places"],
        ),
        (
            TextRequest::of(vec![TextPrompt::Tokens(vec![1, 2])]).with(&PICTURE, two),
            &["picture", "token ids"],
        ),
        (
            TextRequest::of(vec![TextPrompt::Tokens(vec![1, 404])]),
            &["404", "vocabulary of 404"],
        ),
        (
            TextRequest::new("a").with(&text_keys::GEN_LENGTH, 1200),
            &["gen-length", "1200 positions", "1200 tokens"],
        ),
        (
            asked("a")
                .with(&text_keys::TEMPERATURE, 0.0)
                .with(&text_keys::TOP_P, 0.5),
            &["top-p", "temperature"],
        ),
        (
            asked("a").with(&keys::GUIDANCE, 2.0),
            &["guidance", "VILA-U"],
        ),
    ] {
        let message = refused_text(request);
        for word in words {
            assert!(message.contains(word), "no {word} in {message}");
        }
    }
}

/// A copy of a model in which one file is changed.
fn damaged(file: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fn all(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            let target = to.join(entry.file_name());
            match entry.path().is_dir() {
                true => all(&entry.path(), &target),
                false => drop(std::fs::copy(entry.path(), target).unwrap()),
            }
        }
    }
    all(&path("base"), copy.path());
    let place = copy.path().join(file);
    match change(std::fs::read(&place).unwrap()) {
        Some(bytes) => std::fs::write(place, bytes).unwrap(),
        None => std::fs::remove_file(place).unwrap(),
    }
    copy
}

fn edited(file: &str, at: &str, value: serde_json::Value) -> tempfile::TempDir {
    damaged(file, |bytes| {
        let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        *json.pointer_mut(at).unwrap() = value;
        Some(json.to_string().into_bytes())
    })
}

fn opened(folder: &tempfile::TempDir) -> [String; 2] {
    let folder = ModelFolder::Disk(folder.path().to_owned());
    let settings = OpenSettings::default();
    let text = registry::open_text(&folder, &settings).err();
    let image = registry::open_image(&folder, &settings).err();
    [text, image].map(|error| error.map_or_else(String::new, |error| error.to_string()))
}

#[test]
fn parts_that_do_not_belong_together_are_refused_with_both_numbers() {
    let number = |value: u64| serde_json::json!(value);
    for (folder, words) in [
        (
            edited(
                "vision_tower/preprocessor_config.json",
                "/size/height",
                number(384),
            ),
            &["preprocessor_config.json", "384", "32 pixels"][..],
        ),
        (
            edited(
                "vision_tower/siglip/config.json",
                "/vision_config/image_size",
                number(48),
            ),
            &["4×4", "6×6", "48"],
        ),
        (
            edited("config.json", "/mm_hidden_size", number(1152)),
            &["mm_hidden_size", "1152", "64"],
        ),
        (
            edited("config.json", "/hidden_size", number(41)),
            &["hidden_size", "41", "40"],
        ),
        (
            edited(
                "vision_tower/config.json",
                "/rqtransformer/input_embed_dim_2",
                number(44),
            ),
            &["input_embed_dim_2", "44", "40"],
        ),
        (
            edited("llm/config.json", "/vocab_size", number(405)),
            &["404 tokens", "vocab_size", "405"],
        ),
        (
            damaged("llm/tokenizer.model", |_| None),
            &["llm/tokenizer.model", "incomplete"],
        ),
    ] {
        for message in opened(&folder) {
            for word in words {
                assert!(message.contains(word), "no {word} in {message}");
            }
        }
    }
    // Without the four tokens that frame pictures.
    let lacking = edited(
        "llm/tokenizer_config.json",
        "/added_tokens_decoder",
        serde_json::json!({}),
    );
    std::fs::write(lacking.path().join("llm/added_tokens.json"), "{}").unwrap();
    for message in opened(&lacking) {
        for word in ["<im_start>", "400 tokens", "404", "added_tokens.json"] {
            assert!(message.contains(word), "no {word} in {message}");
        }
    }
}

#[test]
fn a_folder_of_training_and_a_plan_without_weights_are_opened() {
    let outer = tempfile::tempdir().unwrap();
    let inner = damaged("config.json", Some);
    std::fs::rename(inner.path(), outer.path().join("model")).unwrap();
    let folder = ModelFolder::Disk(outer.path().to_owned());
    let model = registry::open_image(&folder, &OpenSettings::default()).unwrap();
    assert_eq!(model.usual_size(), (32, 32));
    let settings = OpenSettings {
        plan_only: true,
        ..OpenSettings::new(Options::new())
    };
    let model = registry::open_text(&folder, &settings).unwrap();
    let plan = model.plan(&TextRequest::new("a")).unwrap();
    let error = model.generate(&plan, &Control::silent()).unwrap_err();
    assert!(error.to_string().contains("plan only"), "{error}");
}
