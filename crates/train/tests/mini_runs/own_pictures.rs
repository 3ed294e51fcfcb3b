//! Training on pictures of one's own: of several shapes, and of no set of drawings. Latents are kept.

use std::sync::mpsc;

use brisk_media::Picture;
use brisk_train::{ControlNetOptions, LoraOptions, train_adapter, train_controlnet};

use super::*;

/// The squares and bars, and some of them again as strips of as many pixels.
fn shapes() -> PictureData {
    let (square, mut data) = (data(), data());
    for (index, (width, height)) in [(4, 16), (16, 4), (16, 4), (4, 16), (16, 4)]
        .into_iter()
        .enumerate()
    {
        let entry = square.entries()[index].clone();
        let pixels = square.picture(index).unwrap().pixels;
        data.push(
            entry,
            &Picture {
                width,
                height,
                pixels,
            },
        );
    }
    data
}

/// Stages of a run, by name.
fn stages(run: impl FnOnce(&Control)) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    let control = Control::new(move |event| {
        if let Event::Stage { name, .. } = event {
            sender.send(name.to_string()).unwrap();
        }
    });
    run(&control);
    drop(control);
    receiver.iter().collect()
}

#[test]
fn pictures_of_several_shapes_are_learned_and_their_latents_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let data = shapes();
    train_tiny_autoencoder(&out("autoencoder"), 5);
    let vae = autoencoder(&out("autoencoder").join("vae"));
    let recipe = image_recipe("adamw", 40);
    let (whole, parted) = (out("whole"), out("parted"));
    train_image(&recipe, &data, &vae, None, &whole, &Control::silent()).unwrap();
    let losses = losses(&whole);
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    let kept = SafetensorsFile::open(&whole.join("latents.safetensors")).unwrap();
    assert_eq!(kept.names(), ["latents.1x4", "latents.2x2", "latents.4x1"]);

    let stopped = train_image(&recipe, &data, &vae, None, &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    let went_on = stages(|control| {
        train_image(&recipe, &data, &vae, None, &parted, control).unwrap();
    });
    assert!(
        !went_on.contains(&"encoding the pictures".to_owned()),
        "{went_on:?}"
    );
    assert_same_checkpoint(&whole, &parted);
    let latents = |run: &Path| std::fs::read(run.join("latents.safetensors")).unwrap();
    assert!(latents(&whole) == latents(&parted));

    // A damaged file is made anew.
    std::fs::write(parted.join("latents.safetensors"), b"damaged").unwrap();
    let mut longer = recipe.clone();
    longer.training.steps = 41;
    let again = stages(|control| {
        train_image(&longer, &data, &vae, None, &parted, control).unwrap();
    });
    assert!(
        again.contains(&"encoding the pictures".to_owned()),
        "{again:?}"
    );
    assert!(latents(&whole) == latents(&parted));
}

#[test]
fn parts_beside_a_model_learn_from_several_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let data = shapes();
    let (vae, model) = base(folder.path(), &data);
    let start = Start::open(&ModelFolder::Disk(model), None).unwrap();
    let quiet = Control::silent();
    let mut recipe = recipe_beside_it();
    recipe.control = Some(ControlNetOptions::new(1));
    train_controlnet(&recipe, &data, &vae, &start, &out("control"), &quiet).unwrap();
    recipe.control = None;
    recipe.lora = Some(LoraOptions::new(2));
    train_adapter(&recipe, &data, &vae, &start, &out("lora"), &quiet).unwrap();
}

#[test]
fn trainings_of_squares_refuse_other_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = autoencoder_recipe("adamw", 5);
    let refused = train_autoencoder(
        &recipe,
        &shapes(),
        None,
        None,
        folder.path(),
        &Control::silent(),
    );
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("3 shapes (4x16, 8x8, 16x4") && message.contains("--aspect-buckets"),
        "{message}"
    );
}

#[test]
fn pictures_of_ones_own_are_no_set_of_drawings() {
    let mixed = changed(|index, entry, _| match index {
        0 => entry.set = PictureSet::Own,
        1 => entry.set = PictureSet::Fluent,
        _ => {}
    });
    let selection = Selection {
        sets: vec![PictureSet::Noto],
        ..Selection::default()
    };
    let chosen = selection.of(&mixed, false);
    assert!(chosen.contains(&0) && !chosen.contains(&1), "{chosen:?}");

    let folder = tempfile::tempdir().unwrap();
    let mut recipe = autoencoder_recipe("adamw", 2);
    recipe.pictures.without_groups = mixed.entries().iter().map(|e| e.group.clone()).collect();
    let error = train_autoencoder(
        &recipe,
        &mixed,
        None,
        None,
        folder.path(),
        &Control::silent(),
    );
    let message = error.unwrap_err().to_string();
    assert!(message.contains("left out by the recipe"), "{message}");
}
