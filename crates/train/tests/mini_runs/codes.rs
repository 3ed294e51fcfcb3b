//! HART's transformer on the codes of a tokenizer of 8×8 pictures.

use std::path::Path;

use brisk_pipelines::options::keys;
use brisk_pipelines::{Control, ImageRequest, OpenSettings, registry};
use brisk_store::ModelFolder;
use brisk_train::recipe::Recipe;
use brisk_train::{
    CodesRecipe, DropLaw, TokenizerFiles, open_codes_start, train_codes, train_tokenizer,
};
use serde_json::{Value, json};

use super::{assert_same_checkpoint, assert_stopped, data, losses, stopping_at, training};

fn document(steps: u64) -> Value {
    json!({
        "kind": "codes", "name": "tiny", "training": training("adamw", steps),
        "transformer": {
            "model_type": "hart_transformer_t2i", "attn_type": "llama", "mlp_type": "llama", "disable_aln": true,
            "use_timestep_embed": true, "use_context_norm": true, "context_token": 8, "context_dim": 16, "depth": 2,
            "embed_dim": 32, "num_heads": 2, "patch_nums": [1, 2, 4], "diff_width": 32, "diff_depth": 1,
            "num_sampling_steps": "4"
        },
        "text_encoder": {
            "model_type": "qwen2", "vocab_size": 320, "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu",
            "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0
        },
        "text_dropout": 0.1, "name_probability": 0.7,
        "last_scale": {"mean": 1.0, "deviation": 0.25, "least": 0.25, "fewest": 4},
        "diffusion": {"weight": 1.0, "repeats": 2}, "sample_every": 1000,
        "sample_prompts": ["red square", "blue bar"], "guidance": 2.0
    })
}

fn parse(document: &Value) -> brisk_train::Result<CodesRecipe> {
    match Recipe::parse(document.to_string().as_bytes(), "tiny")? {
        Recipe::Codes(recipe) => Ok(recipe),
        _ => unreachable!(),
    }
}

fn tokenizer(folder: &Path) -> TokenizerFiles {
    let recipe = super::tokenizer::parse(&super::tokenizer::document(20)).unwrap();
    let out = folder.join("tokenizer");
    train_tokenizer(&recipe, &data(), None, &out, &Control::silent()).unwrap();
    TokenizerFiles::open(&ModelFolder::Disk(out.join("tokenizer")), None).unwrap()
}

#[test]
fn it_learns_resumes_exactly_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let (data, files) = (data(), tokenizer(folder.path()));
    let recipe = parse(&document(80)).unwrap();
    let (whole, parted) = (out("whole"), out("parted"));
    let report = train_codes(&recipe, &data, &files, None, &whole, &Control::silent()).unwrap();
    let all = losses(&whole);
    let last = all[all.len() - 4..].iter().sum::<f64>() / 4.0;
    assert!(last < 0.8 * all[0], "{all:?}");
    assert!(whole.join("samples/step-00000080.png").exists());
    assert_eq!(report.pictures, 11);

    let stopped = train_codes(&recipe, &data, &files, None, &parted, &stopping_at(35));
    assert_stopped(&stopped.unwrap_err(), &parted, 35);
    train_codes(&recipe, &data, &files, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // The written folder is a model that draws, its own guidance being the recipe's, whatever the case of a prompt.
    let model = ModelFolder::Disk(whole.join("model"));
    let mut opened = registry::open_image(&model, &OpenSettings::default()).unwrap();
    let mut draw = |prompt: &str| {
        let request = ImageRequest::new(prompt).with(&keys::GREEDY, true);
        let plan = opened.plan(&request).unwrap();
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
        assert_eq!((plan.width, plan.height), (8, 8));
        assert_eq!(plan.settings["guidance"], json!(2.0));
        let mut drawn = opened.generate(&plan, &Control::silent()).unwrap();
        drawn.remove(0).picture.pixels
    };
    let [red, loud, blue] = ["red square", "Red SQUARE", "blue bar"].map(&mut draw);
    assert!(red == loud && red != blue);

    // From the finished model it goes on where that ended.
    let mut other = document(5);
    other["text_dropout_law"] = "normal".into();
    let other = parse(&other).unwrap();
    assert_eq!(other.text_dropout_law, DropLaw::Normal);
    let start = open_codes_start(&model, None).unwrap();
    let further = out("further");
    train_codes(
        &other,
        &data,
        &files,
        Some(&start),
        &further,
        &Control::silent(),
    )
    .unwrap();
    assert!(losses(&further)[0] < 0.9 * all[0]);

    // Another tokenizer is another run.
    let mut changed = super::tokenizer::document(5);
    changed["training"]["seed"] = 7.into();
    let changed = super::tokenizer::parse(&changed).unwrap();
    train_tokenizer(&changed, &data, None, &out("t2"), &Control::silent()).unwrap();
    let files = TokenizerFiles::open(&ModelFolder::Disk(out("t2/tokenizer")), None).unwrap();
    let refused = train_codes(&recipe, &data, &files, None, &whole, &Control::silent());
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("the tokenizer is another one"),
        "{message}"
    );
}

#[test]
fn unfit_recipes_are_refused_by_key() {
    for (place, value, found) in [
        (
            "/last_scale/fewest",
            json!(17),
            "last_scale.fewest is 17, expected at most 16",
        ),
        ("/last_scale/mean", json!(1.5), "last_scale.mean is 1.5"),
        ("/diffusion/repeats", json!(0), "diffusion.repeats is 0"),
        ("/text_dropout", json!(2.0), "text_dropout is 2"),
        ("/guidance", json!(-1.0), "guidance is -1"),
        ("/transformer/depth", json!(0), "`depth` is 0"),
    ] {
        let mut document = document(2);
        *document.pointer_mut(place).unwrap() = value;
        let message = parse(&document).unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (data, files) = (data(), tokenizer(folder.path()));
    for (place, value, found) in [
        ("/transformer/patch_nums", json!([1, 2, 8]), "make 16"),
        (
            "/text_encoder/hidden_size",
            json!(32),
            "text_encoder.hidden_size 32",
        ),
    ] {
        let mut document = document(2);
        *document.pointer_mut(place).unwrap() = value;
        let recipe = parse(&document).unwrap();
        let out = folder.path().join("run");
        let refused = train_codes(&recipe, &data, &files, None, &out, &Control::silent());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    }
}
