//! VILA-U on the codes of a tower of 8×8 pictures.

use std::path::Path;
use std::sync::Arc;

use brisk_pipelines::families::vila_u::exam::Exam;
use brisk_pipelines::families::vila_u::options::PICTURE;
use brisk_pipelines::options::{keys, text_keys};
use brisk_pipelines::{Control, ImageRequest, OpenSettings, TextRequest, registry};
use brisk_store::ModelFolder;
use brisk_train::log::read_log;
use brisk_train::recipe::Recipe;
use brisk_train::{JointRecipe, TowerFiles, open_joint_start, train_joint, train_tower};
use serde_json::{Value, json};

use super::{assert_same_checkpoint, assert_stopped, data, losses, stopping_at, training};

fn document(steps: u64) -> Value {
    json!({
        "kind": "joint", "name": "tiny", "training": training("adamw", steps),
        "llm": {
            "model_type": "llama", "vocab_size": 420, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5
        },
        "projector": "mlp2x_gelu", "depth": {"embed_dim": 32, "n_head": 2, "n_layer": 1},
        "question_share": 0.5, "framed_share": 0.2, "text_dropout": 0.1, "name_probability": 1.0, "eval_every": 40,
        "eval_pictures": 4, "sample_every": 1000, "sample_prompts": ["red square", "blue bar"], "guidance": 3.0
    })
}

fn parse(document: &Value) -> brisk_train::Result<JointRecipe> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Joint(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

fn tower(folder: &Path, seed: u64) -> TowerFiles {
    let mut document = super::tower::document(40);
    document["training"]["seed"] = seed.into();
    document["alignment_share"] = 0.2.into();
    let recipe = super::tower::parse(&document).unwrap();
    let out = folder.join(format!("tower-{seed}"));
    train_tower(&recipe, &data(), None, &out, &Control::silent()).unwrap();
    TowerFiles::open(&ModelFolder::Disk(out.join("vision_tower")), None).unwrap()
}

#[test]
fn it_learns_resumes_exactly_draws_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let (data, files) = (data(), tower(folder.path(), 1));
    let recipe = parse(&document(120)).unwrap();
    let (whole, parted) = (out("whole"), out("parted"));
    let report = train_joint(&recipe, &data, &files, None, &whole, &Control::silent()).unwrap();
    let all = losses(&whole);
    assert!(all[all.len() - 1] < 0.6 * all[0], "{all:?}");
    let log = read_log(&whole.join("training_log.jsonl")).unwrap();
    for key in ["text_loss", "code_loss"] {
        let values: Vec<f64> = log
            .iter()
            .filter_map(|entry| entry.measured.get(key).copied())
            .collect();
        assert!(
            values[values.len() - 1] < 0.7 * values[0],
            "{key}: {values:?}"
        );
    }
    let measured = log.iter().filter(|entry| {
        ["answers_right", "held_out_code_loss_3"]
            .iter()
            .all(|key| entry.measured.contains_key(*key))
    });
    assert_eq!(measured.count(), 3);
    assert_eq!((report.pictures, report.held_out_questions), (11, 1));
    assert_eq!(report.held_out_code_loss.len(), 3);

    let stopped = train_joint(&recipe, &data, &files, None, &parted, &stopping_at(35));
    assert_stopped(&stopped.unwrap_err(), &parted, 35);
    train_joint(&recipe, &data, &files, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // The tower is in the written folder as it was.
    let model = ModelFolder::Disk(whole.join("model"));
    let within = TowerFiles::open(&model, None).unwrap();
    train_joint(&recipe, &data, &within, None, &whole, &Control::silent()).unwrap();

    // It draws, and its codes are a file's.
    let mut opened = registry::open_image(&model, &OpenSettings::default()).unwrap();
    let mut draw = |request: ImageRequest| {
        let plan = opened.plan(&request).unwrap();
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
        assert_eq!((plan.width, plan.height), (8, 8));
        opened
            .generate(&plan, &Control::silent())
            .unwrap()
            .remove(0)
    };
    let greedy = |prompt: &str| ImageRequest::new(prompt).with(&keys::GREEDY, true);
    let red = draw(greedy("red square"));
    assert_ne!(red.picture, draw(greedy("blue bar")).picture);
    let codes = red.codes.clone().unwrap();
    let again = draw(ImageRequest::new("red square").with(&keys::CODES, Arc::new(codes)));
    assert_eq!(again.picture, red.picture);
    draw(ImageRequest::new("red square").with(&keys::SEED, 3));

    // It answers about what it has seen.
    let writer = registry::open_text(&model, &OpenSettings::default()).unwrap();
    let mut right = 0;
    for (index, entry) in data.entries().iter().enumerate() {
        let request = TextRequest::new("what is this?")
            .with(&PICTURE, vec![Arc::new(data.picture(index).unwrap())])
            .with(&text_keys::GEN_LENGTH, 12);
        let plan = writer.plan(&request).unwrap();
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
        let texts = writer.generate(&plan, &Control::silent()).unwrap();
        right += usize::from(texts[0].text.trim() == entry.name);
    }
    assert!(right >= 3, "{right} of {}", data.entries().len());
    let (exam, pictures) = Exam::read(&model).unwrap();
    assert_eq!((exam.size, pictures.len()), (8, 1));
    assert_eq!(exam.pictures[0].questions[0].answer, "purple bar");
    assert_eq!(Some(&pictures[0]), data.picture(9).as_ref());

    // From the finished model it goes on where that ended.
    let start = open_joint_start(&model, None).unwrap();
    let (further, short) = (out("further"), parse(&document(5)).unwrap());
    train_joint(
        &short,
        &data,
        &files,
        Some(&start),
        &further,
        &Control::silent(),
    )
    .unwrap();
    assert!(losses(&further)[0] < 0.8 * all[0]);

    // Another tower is another run.
    let other = tower(folder.path(), 7);
    let refused = train_joint(&recipe, &data, &other, None, &whole, &Control::silent());
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("the tokenizer is another one"),
        "{message}"
    );
}

#[test]
fn unfit_recipes_are_refused_by_key() {
    for (place, value, found) in [
        ("/question_share", json!(1.5), "question_share is 1.5"),
        ("/text_dropout", json!(2.0), "text_dropout is 2"),
        ("/guidance", json!(-1.0), "guidance is -1"),
        ("/eval_every", json!(0), "eval_every is 0"),
        ("/llm", json!([]), "llm is []"),
    ] {
        let mut document = document(2);
        *document.pointer_mut(place).unwrap() = value;
        let message = parse(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (data, files) = (data(), tower(folder.path(), 1));
    for (place, value, found) in [
        ("/projector", json!("mlp"), "mm_projector_type"),
        ("/depth/n_head", json!(5), "rqtransformer.head.block.n_head"),
        ("/llm/vocab_size", json!(200), "a vocabulary of 196 pieces"),
        ("/llm/num_hidden_layers", json!(0), "num_hidden_layers"),
    ] {
        let mut document = document(2);
        *document.pointer_mut(place).unwrap() = value;
        let recipe = parse(&document).unwrap();
        let out = folder.path().join("run");
        let refused = train_joint(&recipe, &data, &files, None, &out, &Control::silent());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
}
