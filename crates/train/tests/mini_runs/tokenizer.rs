//! The tokenizer on 8×8 pictures.

use brisk_models::hart::tokenizer::{Parts, Tokenizer, TokenizerConfig};
use brisk_nn::{Trace, Weights};
use brisk_pipelines::Control;
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};
use brisk_train::log::read_log;
use brisk_train::recipe::Recipe;
use brisk_train::{TokenizerRecipe, checkpoint, open_tokenizer, train_tokenizer};
use serde_json::{Value, json};

use super::{assert_same_checkpoint, assert_stopped, data, losses, stopping_at, training};

pub fn document(steps: u64) -> Value {
    json!({
        "kind": "tokenizer", "name": "tiny", "picture_size": 8, "training": training("adamw", steps),
        "config": {
            "model_type": "hart_autoencoder_with_disc", "quantizer_type": "var_hybrid", "vocab_size": 24,
            "z_channels": 4, "ch": 32, "ch_mult": [1, 1], "v_patch_nums": [1, 2, 4]
        },
        "loss": { "l1": 1.0, "mse": 2.0 }, "quantization": { "weight": 1.0, "commitment": 0.25 },
        "joint_share": 0.6, "continuous_probability": 0.5, "revive_every": 10,
        "augmentation": {
            "flip": true, "shift": 1, "hue_probability": 0.2, "brightness_probability": 0.2, "brightness_min": 0.7
        },
        "eval_every": 10, "eval_pictures": 4, "sample_every": 30
    })
}

pub fn parse(document: &Value) -> brisk_train::Result<TokenizerRecipe> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Tokenizer(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

#[test]
fn it_learns_freezes_all_but_the_decoder_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let recipe = parse(&document(60)).unwrap();
    let data = data();
    let report = train_tokenizer(&recipe, &data, None, &whole, &Control::silent()).unwrap();
    let losses = losses(&whole);
    assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{losses:?}");
    assert!(whole.join("samples/step-00000060.png").exists());
    assert!(report.codewords_taken > 2 && report.codewords_taken <= 24);
    let log = read_log(&whole.join("training_log.jsonl")).unwrap();
    let measured = log
        .iter()
        .filter(|entry| entry.measured.contains_key("psnr_discrete"));
    assert_eq!(measured.count(), 6);

    // The second phase begins at 36; stopped in it, and again before it.
    for stop in [20, 45] {
        let stopped =
            train_tokenizer(&recipe, &data, None, &parted, &stopping_at(stop)).unwrap_err();
        assert_stopped(&stopped, &parted, stop);
        if stop == 45 {
            let found = checkpoint::latest(&parted.join("checkpoints")).unwrap();
            let before = found.unwrap().path.join("weights.safetensors");
            let before = SafetensorsFile::open(&before).unwrap();
            train_tokenizer(&recipe, &data, None, &parted, &Control::silent()).unwrap();
            let found = checkpoint::latest(&parted.join("checkpoints")).unwrap();
            let after = found.unwrap().path.join("weights.safetensors");
            let after = SafetensorsFile::open(&after).unwrap();
            for name in before.names() {
                let [a, b] =
                    [&before, &after].map(|file| file.view(&name).unwrap().unwrap().data.to_vec());
                let decodes = name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
                assert_eq!(a != b, decodes, "{name}");
            }
        }
    }
    assert_same_checkpoint(&whole, &parted);

    // Behind its end it stays in the second phase: what was trained on its codes still fits.
    let mut longer = recipe.clone();
    longer.training.prolong = Some(4);
    train_tokenizer(&longer, &data, None, &parted, &Control::silent()).unwrap();
    let [before, after] = [&whole, &parted].map(|run| {
        let found = checkpoint::latest(&run.join("checkpoints")).unwrap();
        SafetensorsFile::open(&found.unwrap().path.join("weights.safetensors")).unwrap()
    });
    for name in before.names() {
        let [a, b] = [&before, &after].map(|file| file.view(&name).unwrap().unwrap().data.to_vec());
        let decodes = name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
        assert_eq!(a != b, decodes, "{name}");
    }

    // What was written is a tokenizer of the published layout.
    let written = ModelFolder::Disk(whole.join("tokenizer"));
    let config = written.read("config.json").unwrap();
    let config = TokenizerConfig::from_json(&config, "config.json").unwrap();
    let source = open_tokenizer(&written).unwrap();
    let model =
        Tokenizer::load(&config, &Weights::from_source(source.clone()), Parts::All).unwrap();
    let pictures = brisk_nn::Tensor::zeros((1, 8, 8, 3), brisk_nn::DType::F32).unwrap();
    let latent = model.latent(&pictures, &mut Trace::none()).unwrap();
    let drawn = model.picture(&latent, &mut Trace::none()).unwrap();
    assert_eq!(drawn.dims(), [1, 8, 8, 3]);

    // And a start.
    let again = folder.path().join("again");
    let mut short = document(2);
    short["joint_share"] = 0.0.into();
    let short = parse(&short).unwrap();
    train_tokenizer(&short, &data, Some(&source), &again, &Control::silent()).unwrap();
}

#[test]
fn unfit_recipes_are_refused_by_key() {
    for (key, value, found) in [
        ("picture_size", json!(16), "picture_size is 16, expected 8"),
        ("joint_share", json!(1.5), "joint_share is 1.5"),
        ("revive_every", json!(0), "revive_every is 0"),
        (
            "quantization",
            json!({"weight": -1.0, "commitment": 0.25}),
            "quantization.weight is -1",
        ),
        ("config", json!([]), "config is []"),
    ] {
        let mut document = document(2);
        document[key] = value;
        let message = parse(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
}
