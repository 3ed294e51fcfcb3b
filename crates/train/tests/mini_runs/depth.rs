//! Deeper and shallower models: what they draw before they are trained on, and that they are.

use brisk_pipelines::{BlockImportance, ImageRequest, OpenSettings, registry};
use brisk_store::TensorSource;
use brisk_train::{DepthSource, GrowOptions, PruneTarget, Strategy, grow, prune, recipe_of};

use super::*;

fn disk(path: &Path) -> ModelFolder {
    ModelFolder::Disk(path.to_owned())
}

/// A model of two blocks, a few updates old.
fn model(folder: &Path) -> std::path::PathBuf {
    let (autoencoder_run, run) = (folder.join("autoencoder"), folder.join("run"));
    train_tiny_autoencoder(&autoencoder_run, 5);
    let vae = autoencoder(&autoencoder_run.join("vae"));
    let recipe = image_recipe("came", 20);
    train_image(&recipe, &data(), &vae, None, &run, &Control::silent()).unwrap();
    run.join("model")
}

/// The latents of two prompts.
fn drawn(model: &Path) -> Vec<f32> {
    let mut model = registry::open_image(&disk(model), &OpenSettings::default()).unwrap();
    let prompts = ["red square", "blue bar"].map(ImageRequest::new);
    let images = prompts.map(|request| model.draw(&request, &Control::silent()).unwrap());
    let latents = images
        .iter()
        .flatten()
        .map(|image| image.latents.clone().unwrap());
    latents.flat_map(|latents| latents.values).collect()
}

fn importance(model: &Path) -> Vec<f64> {
    let mut model = registry::open_image(&disk(model), &OpenSettings::default()).unwrap();
    let watcher = BlockImportance::new();
    assert!(model.watch_blocks(watcher.clone()));
    model
        .draw(&ImageRequest::new("red square"), &Control::silent())
        .unwrap();
    BlockImportance::of_blocks(&watcher)
}

fn weights(model: &Path) -> SafetensorsFile {
    SafetensorsFile::open(&model.join("transformer/diffusion_pytorch_model.safetensors")).unwrap()
}

#[test]
fn a_grown_model_draws_as_its_source_and_is_trained_on_and_pruned_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = model(folder);
    let source = DepthSource::open(&disk(&model), None).unwrap();
    let wanted = drawn(&model);
    let options = |layers: usize, strategy: Strategy| GrowOptions {
        drop: Some(0),
        ..GrowOptions::new(layers, strategy)
    };

    // The paper's way, and copies behind shut gates.
    let grown = folder.join("constant");
    let report = grow(&source, &options(5, Strategy::Constant), None, &grown).unwrap();
    assert_eq!((report.kept_layers, report.layers), (2, 5));
    assert!(report.parameters > 2 * report.source_parameters - 20_000);
    assert!(drawn(&grown) == wanted, "new blocks are not the identity");
    for (name, strategy) in [
        ("cyclic", Strategy::Cyclic),
        ("expand", Strategy::BlockExpand),
    ] {
        let gated = GrowOptions {
            zero_gate: true,
            ..options(4, strategy)
        };
        let out = folder.join(name);
        grow(&source, &gated, None, &out).unwrap();
        assert!(drawn(&out) == wanted, "{name}");
        let open = folder.join(format!("{name}-open"));
        grow(&source, &options(4, strategy), None, &open).unwrap();
        assert!(drawn(&open) != wanted, "{name}: copies do nothing");
    }
    for strategy in [
        Strategy::Random,
        Strategy::Progressive,
        Strategy::Interpolation,
    ] {
        let out = folder.join(strategy.name());
        grow(&source, &options(4, strategy), None, &out).unwrap();
        assert!(
            drawn(&out).iter().all(|value| value.is_finite()),
            "{strategy:?}"
        );
    }

    // New blocks change nothing of what passes through, and are what is left out.
    let seen = importance(&grown);
    assert!(
        seen[..2].iter().all(|value| *value > 1e-4) && seen[2..] == [0.0; 3],
        "{seen:?}"
    );
    let pruned = folder.join("pruned");
    let grown_source = DepthSource::open(&disk(&grown), None).unwrap();
    let report = prune(
        &grown_source,
        PruneTarget::Share(0.4),
        &seen,
        1,
        None,
        &pruned,
    )
    .unwrap();
    let kept: Vec<_> = report.blocks.iter().map(|block| block.kept_as).collect();
    assert_eq!(kept, [Some(0), Some(1), None, None, None]);
    assert!(drawn(&pruned) == wanted);
    // The others move up.
    let last = folder.join("last");
    prune(
        &grown_source,
        PruneTarget::Blocks(2),
        &[0.1, 0.0, 0.3, 0.05, 0.0],
        1,
        None,
        &last,
    )
    .unwrap();
    let name = "attn1.to_q.weight";
    let stored = |file: &SafetensorsFile, block: usize| {
        let name = format!("transformer_blocks.{block}.{name}");
        file.view(&name).unwrap().unwrap().data.to_vec()
    };
    let (before, after) = (weights(&grown), weights(&last));
    assert!(stored(&after, 0) == stored(&before, 0) && stored(&after, 1) == stored(&before, 2));
    assert!(
        after
            .info(&format!("transformer_blocks.2.{name}"))
            .is_none()
    );

    // It is trained on by the recipe that it brings.
    let mut recipe = recipe_of(&disk(&grown)).unwrap().unwrap();
    assert_eq!(recipe.transformer["num_layers"], 5);
    recipe.training = image_recipe("came8bit", 3).training;
    recipe.sample_steps = 2;
    recipe.sample_prompts.truncate(1);
    recipe.pictures = Selection::default();
    let start = Start::open(&disk(&grown), None).unwrap();
    let vae = autoencoder(&grown);
    let out = folder.join("further");
    train_image(
        &recipe,
        &data(),
        &vae,
        Some(&start),
        &out,
        &Control::silent(),
    )
    .unwrap();
    let seen = importance(&out.join("model"));
    assert!(
        seen[4] > 0.0,
        "training leaves new blocks as they were: {seen:?}"
    );
}

#[test]
fn blocks_come_from_where_their_strategy_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = model(folder);
    let source = DepthSource::open(&disk(&model), None).unwrap();
    let values = |path: &Path, block: usize, name: &str| {
        let name = format!("transformer_blocks.{block}.{name}");
        weights(path)
            .view(&name)
            .unwrap()
            .unwrap()
            .to_f32()
            .unwrap()
    };
    let name = "attn2.to_v.weight";
    let own = [0, 1].map(|block| values(&model, block, name));
    let grown = |layers: usize, strategy: Strategy| {
        let out = folder.join(format!("{}-{layers}", strategy.name()));
        let options = GrowOptions {
            drop: Some(0),
            ..GrowOptions::new(layers, strategy)
        };
        grow(&source, &options, None, &out).unwrap();
        (0..layers)
            .map(|block| values(&out, block, name))
            .collect::<Vec<_>>()
    };
    let cyclic = grown(5, Strategy::Cyclic);
    assert!((0..5).all(|block| cyclic[block] == own[block % 2]));
    let expand = grown(4, Strategy::BlockExpand);
    assert!((0..4).all(|block| expand[block] == own[block / 2]));
    let between = grown(4, Strategy::Interpolation);
    assert!(between[0] == own[0] && between[2] == own[1] && between[3] == own[1]);
    for (index, value) in between[1].iter().enumerate() {
        let wanted = (own[0][index] + own[1][index]) / 2.0;
        assert!((value - wanted).abs() < 0.01 * wanted.abs() + 1e-4);
    }
    let next = grown(4, Strategy::Progressive);
    assert!(next[1] == own[1]);
    let apart = |a: &[f32], b: &[f32]| {
        let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        (squares / a.len() as f32).sqrt()
    };
    let steps = [apart(&next[2], &own[1]), apart(&next[3], &next[2])];
    assert!(
        steps.iter().all(|step| (0.007..0.013).contains(step)),
        "{steps:?}"
    );
    // As in a model trained from nothing: uniform within ±√(6 / (16 + 16)).
    let random = grown(3, Strategy::Random);
    let largest = random[2]
        .iter()
        .fold(0f32, |most, value| most.max(value.abs()));
    assert!((0.35..0.436).contains(&largest), "{largest}");

    // Numbers that do not go together are refused, and leave nothing.
    let taken = folder.join("cyclic-5");
    for (options, word) in [
        (GrowOptions::new(2, Strategy::Cyclic), "more than the 2"),
        (GrowOptions::new(5, Strategy::BlockExpand), "expected 6"),
        (
            GrowOptions {
                drop: Some(2),
                ..GrowOptions::new(5, Strategy::Constant)
            },
            "keeps none",
        ),
        (
            GrowOptions {
                zero_gate: true,
                ..GrowOptions::new(5, Strategy::Random)
            },
            "zero gates",
        ),
        (
            GrowOptions {
                other_scale: 0.5,
                ..GrowOptions::new(5, Strategy::Cyclic)
            },
            "scales",
        ),
    ] {
        let message = grow(&source, &options, None, &folder.join("none")).unwrap_err();
        assert!(message.to_string().contains(word), "{message}");
    }
    let again = grow(
        &source,
        &GrowOptions::new(5, Strategy::Cyclic),
        None,
        &taken,
    );
    assert!(again.unwrap_err().to_string().contains("there already"));
    for target in [
        PruneTarget::Blocks(0),
        PruneTarget::Blocks(2),
        PruneTarget::Share(1.5),
    ] {
        assert!(prune(&source, target, &[0.1, 0.2], 1, None, &folder.join("none")).is_err());
    }
    assert!(!folder.join("none").exists());
}

#[test]
fn norms_of_queries_and_keys_are_added_where_there_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = brisk_testkit::fixtures_dir().join("pipelines/sana");
    let source = DepthSource::open(&disk(&fixture), None).unwrap();
    let layers = source.layers() + 2;
    let out = folder.path().join("normed");
    let options = GrowOptions {
        qk_norm: true,
        drop: Some(0),
        ..GrowOptions::new(layers, Strategy::Constant)
    };
    grow(&source, &options, None, &out).unwrap();
    let file = weights(&out);
    for block in 0..layers {
        let name = format!("transformer_blocks.{block}.attn2.norm_k.weight");
        let norm = file.view(&name).unwrap().unwrap().to_f32().unwrap();
        assert!(norm.iter().all(|value| *value == 1.0));
    }
    let opened = registry::open_image(&disk(&out), &OpenSettings::default());
    opened
        .unwrap()
        .draw(&ImageRequest::new("a cat"), &Control::silent())
        .unwrap();
}
