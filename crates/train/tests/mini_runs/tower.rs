//! The vision tower on 8×8 pictures.

use brisk_models::vila_u::tower::{Parts, Tower, TowerConfig};
use brisk_nn::{Trace, Weights};
use brisk_pipelines::Control;
use brisk_pipelines::families::similarity::Scorer;
use brisk_pipelines::families::vila_u::tower_config;
use brisk_pipelines::folder::ComponentFolder;
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};
use brisk_train::log::read_log;
use brisk_train::recipe::Recipe;
use brisk_train::{TowerRecipe, checkpoint, open_tower, train_tower};
use serde_json::{Value, json};

use super::{assert_same_checkpoint, assert_stopped, data, stopping_at, training};

pub fn document(steps: u64) -> Value {
    json!({
        "kind": "tower", "name": "tiny", "training": training("adamw", steps),
        "config": {
            "model_type": "rqvaesigliptransformer_model",
            "rqvaesiglip": {
                "embed_dim": 32, "n_embed": 24, "latent_shape": [2, 2, 32], "code_shape": [2, 2, 3],
                "shared_codebook": true, "decay": 0.9, "pretrained_model": "siglip",
                "ddconfig": {
                    "ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "resolution": 8,
                    "z_channels": 8
                }
            },
            "rqtransformer": {
                "block_size": [2, 2, 3], "embed_dim": 32, "head": {"block": {"n_head": 2}, "n_layer": 1},
                "input_embed_dim_1": 32, "input_embed_dim_2": 32, "vocab_size": 24
            }
        },
        "siglip": {
            "text_config": {
                "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
                "max_position_embeddings": 8, "vocab_size": 300
            },
            "vision_config": {
                "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 8, "patch_size": 4
            }
        },
        "loss": { "l1": 1.0, "mse": 2.0 }, "contrastive": 0.5, "alignment_share": 0.4,
        "text_encoder_learns": false, "name_probability": 1.0,
        "augmentation": {
            "flip": true, "shift": 0, "hue_probability": 0.0, "brightness_probability": 0.0, "brightness_min": 1.0
        },
        "eval_every": 10, "eval_pictures": 4, "retrieval_batch": 4, "sample_every": 50
    })
}

pub fn parse(document: &Value) -> brisk_train::Result<TowerRecipe> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Tower(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

/// Logged values of a measure, in their order.
fn logged(out: &std::path::Path, key: &str) -> Vec<f64> {
    let log = read_log(&out.join("training_log.jsonl")).unwrap();
    let values = log.iter().filter_map(|entry| entry.measured.get(key));
    values.copied().collect()
}

/// Parameters of the latest checkpoint.
fn parameters(out: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let found = checkpoint::latest(&out.join("checkpoints"))
        .unwrap()
        .unwrap();
    super::stored(&found.path.join("weights.safetensors"))
}

fn assert_changed(
    before: &[(String, Vec<u8>)],
    after: &[(String, Vec<u8>)],
    learns: impl Fn(&str) -> bool,
) {
    for ((name, old), (_, new)) in before.iter().zip(after) {
        assert_eq!(old != new, learns(name), "{name}");
    }
}

const SIGLIP: &str = "rqvaesiglip.siglip_model.";

/// A trained tower is a judge: of the captions of all colours most pictures are likest to their own.
fn compares_pictures_with_captions(folder: &std::path::Path) {
    let scorer = Scorer::open(&ModelFolder::Disk(folder.to_owned()), &Default::default()).unwrap();
    let data = data();
    let names: Vec<&str> = data
        .entries()
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    let pictures: Vec<_> = (0..data.len())
        .map(|index| data.picture(index).unwrap())
        .collect();
    let scores = scorer
        .scores(&pictures, &names, &Control::silent())
        .unwrap();
    let best = |row: &Vec<f32>| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let right = scores
        .iter()
        .enumerate()
        .filter(|(index, row)| best(row) == Some(*index));
    let right = right.count();
    assert!(
        right * 2 > data.len(),
        "{right} of {}: {scores:?}",
        data.len()
    );

    let bare = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("config.json"), bare.path().join("config.json")).unwrap();
    let refused = Scorer::open(
        &ModelFolder::Disk(bare.path().to_owned()),
        &Default::default(),
    );
    assert!(refused.is_err());
}

#[test]
fn it_learns_what_its_phases_say_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let recipe = parse(&document(100)).unwrap();
    let data = data();
    let report = train_tower(&recipe, &data, None, &whole, &Control::silent()).unwrap();
    for (key, share) in [("contrastive_loss", 0.8), ("reconstruction_loss", 0.6)] {
        let values = logged(&whole, key);
        assert!(
            values[values.len() - 1] < share * values[0],
            "{key}: {values:?}"
        );
    }
    // The second phase begins at 40; the sheets with it.
    assert_eq!(logged(&whole, "retrieval").len(), 10);
    assert_eq!(logged(&whole, "codebook_usage").len(), 6);
    assert!(whole.join("samples/step-00000100.png").exists());
    assert_eq!(report.held_out_psnr.len(), 3);
    assert!(
        report.held_out_error[2] < report.held_out_error[0],
        "{report:?}"
    );
    assert!(report.codebook_usage > 0.0 && report.codebook_usage <= 0.5);
    assert_eq!((report.held_out_pictures, report.retrieval), (1, 1.0));

    let mut stopped = Vec::new();
    for stop in [10, 30, 60, 80] {
        let refused = train_tower(&recipe, &data, None, &parted, &stopping_at(stop));
        assert_stopped(&refused.unwrap_err(), &parted, stop);
        stopped.push(parameters(&parted));
    }
    train_tower(&recipe, &data, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);
    // First only what compares pictures with texts, then all but the texts. Keys have no use for a bias.
    let still = |name: &str| name.ends_with("self_attn.k_proj.bias");
    let compares = |name: &str| name.starts_with(SIGLIP) && !still(name);
    let [a, b, c, d] = &stopped[..] else {
        unreachable!()
    };
    for (before, after) in [(a, b), (c, d)] {
        let second = before == c;
        let relevant =
            |(name, _): &&(String, Vec<u8>)| !still(name) && !name.contains("in_proj_bias");
        let before: Vec<_> = before.iter().filter(relevant).cloned().collect();
        let after: Vec<_> = after.iter().filter(relevant).cloned().collect();
        assert_changed(&before, &after, |name| match second {
            false => compares(name),
            true => !name.starts_with(&format!("{SIGLIP}text_model.")),
        });
    }

    compares_pictures_with_captions(&whole.join("vision_tower"));
    // What was written is a tower of the published layout, and a start.
    let written = ModelFolder::Disk(whole.join("vision_tower"));
    let place = ComponentFolder::new(&written, "");
    let config: TowerConfig = tower_config(&place).unwrap();
    assert_eq!(config.siglip().unwrap().image_size, 8);
    let parts = Parts {
        depth: false,
        ..Parts::ALL
    };
    let weights = Weights::from_source(place.weights(None).unwrap());
    let tower = Tower::load(&config, &weights, parts).unwrap();
    let pictures = brisk_nn::Tensor::zeros((1, 8, 8, 3), brisk_nn::DType::F32).unwrap();
    let encoded = tower.encode(&pictures, &mut Trace::none()).unwrap();
    assert_eq!(encoded.codes.len(), 12);
    let start = open_tower(&written).unwrap();
    let mut short = document(2);
    short["alignment_share"] = 0.0.into();
    let again = folder.path().join("again");
    let short = parse(&short).unwrap();
    let further = train_tower(&short, &data, Some(&start), &again, &Control::silent()).unwrap();
    assert!(
        further.held_out_psnr[2] > 0.8 * report.held_out_psnr[2],
        "{further:?}"
    );
    let file = SafetensorsFile::open(&again.join("vision_tower/model.safetensors")).unwrap();
    let kept = "rqvaesiglip.quantizer.codebooks.0.cluster_size_ema";
    assert!(file.info(kept).is_some());
}

#[test]
fn unfit_recipes_are_refused_by_key() {
    for (place, value, found) in [
        ("/alignment_share", json!(1.5), "alignment_share is 1.5"),
        ("/contrastive", json!(-1.0), "contrastive is -1"),
        ("/retrieval_batch", json!(0), "retrieval_batch is 0"),
        (
            "/config/rqvaesiglip/decay",
            json!(2.0),
            "config.rqvaesiglip.decay is 2",
        ),
        (
            "/config/rqvaesiglip/ddconfig/ch_mult",
            json!([1, 1]),
            "siglip.vision_config.image_size is 8, expected 4",
        ),
        (
            "/siglip/vision_config/hidden_size",
            json!(16),
            "`hidden_size` 16",
        ),
        (
            "/siglip/text_config/num_attention_heads",
            json!(5),
            "text_config.num_attention_heads",
        ),
    ] {
        let mut document = document(2);
        *document.pointer_mut(place).unwrap() = value;
        let message = parse(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
}
