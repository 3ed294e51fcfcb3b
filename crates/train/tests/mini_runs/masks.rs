//! A Segment Anything of 48 pixels on scenes of text.

use brisk_media::Picture;
use brisk_models::sam::{SamConfig, plain_names};
use brisk_nn::Weights;
use brisk_pipelines::families::sam::{PicturePrompt, Segmenter};
use brisk_pipelines::{Control, OpenSettings, registry};
use brisk_store::ModelFolder;
use brisk_train::data::scene_text::Fonts;
use brisk_train::recipe::Recipe;
use brisk_train::{MasksRecipe, train_masks};
use serde_json::{Value, json};

use super::{assert_same_checkpoint, assert_stopped, losses, stopping_at, training};

fn document(steps: u64) -> Value {
    let mut training = training("adamw", steps);
    training["batch"] = 4.into();
    json!({
        "kind": "masks", "name": "tiny", "training": training,
        "config": {
            "vision_config": {
                "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 48,
                "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "output_channels": 16,
                "num_pos_feats": 8, "mlp_dim": 32
            },
            "prompt_encoder_config": {
                "hidden_size": 16, "image_size": 48, "patch_size": 8, "mask_input_channels": 4
            },
            "mask_decoder_config": {
                "hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16
            }
        },
        "boxes": 3, "boxes_with_points": 1, "points": 1, "filled_share": 0.3, "window_share": 0.5, "eval_every": 20,
        "eval_scenes": 2, "final_scenes": 3
    })
}

fn parse(document: &Value) -> brisk_train::Result<MasksRecipe> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Masks(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

#[test]
fn it_learns_resumes_exactly_and_finds_masks() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let recipe = parse(&document(40)).unwrap();
    let fonts = Fonts::built_in();
    let report = train_masks(&recipe, &fonts, None, &whole, &Control::silent()).unwrap();
    let losses = losses(&whole);
    assert!(losses[losses.len() - 1] < 0.8 * losses[0], "{losses:?}");
    assert!((0.0..=1.0).contains(&report.letters.fg_iou) && report.scenes == 3);

    let stopped = train_masks(&recipe, &fonts, None, &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    train_masks(&recipe, &fonts, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // What was written is a model of masks.
    let written = ModelFolder::Disk(whole.join("model"));
    let start = written.open_component("", None).unwrap();
    let further = folder.path().join("further");
    train_masks(
        &parse(&document(10)).unwrap(),
        &fonts,
        Some(&start),
        &further,
        &Control::silent(),
    )
    .unwrap();
    assert!(self::losses(&further)[0] < 0.8 * losses[0]);
    let opened = registry::open_masks(&written, &OpenSettings::default()).unwrap();
    assert_eq!(opened.frame(), 48);
    let config =
        SamConfig::from_json(&written.read("config.json").unwrap(), "config.json").unwrap();
    let source = plain_names(written.open_component("", None).unwrap()).unwrap();
    let mut segmenter = Segmenter::load(&config, &Weights::from_source(source)).unwrap();
    segmenter.look(&Picture::filled(40, 48, [90; 3])).unwrap();
    let prompt = PicturePrompt {
        bounds: Some([4.0, 4.0, 30.0, 40.0]),
        ..PicturePrompt::default()
    };
    let found = segmenter.predict(&prompt).unwrap();
    assert_eq!(found.qualities.len(), 4);
    assert_eq!(found.logits(3).unwrap().len(), 40 * 48);
}

#[test]
fn unfit_recipes_are_refused_by_key() {
    for (key, value, found) in [
        ("boxes", json!(0), "boxes is 0"),
        ("filled_share", json!(1.5), "filled_share is 1.5"),
        (
            "config",
            json!({"vision_config": {"image_size": 64}}),
            "image_size",
        ),
        ("eval_scenes", json!(0), "eval_scenes"),
    ] {
        let mut document = document(1);
        document[key] = value;
        let message = parse(&document).unwrap_err().to_string();
        assert!(message.contains(found), "no {found:?} in {message}");
    }
}
