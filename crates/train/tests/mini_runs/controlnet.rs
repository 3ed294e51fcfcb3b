//! Training a ControlNet.

use std::sync::Arc;

use brisk_media::Picture;
use brisk_pipelines::families::sana::options as own;
use brisk_pipelines::options::{Options, keys};
use brisk_pipelines::{ImageRequest, OpenSettings, registry};
use brisk_train::{ControlNetOptions, train_controlnet};

use super::*;

/// The latent of a picture that is drawn by a ControlNet and what it is shown.
fn drawn(model: &Path, shown: Option<(&Path, [u8; 3])>) -> Vec<f32> {
    let folder = shown.map(|(folder, _)| folder.display().to_string());
    let settings = OpenSettings {
        options: Options::new().with_some(&own::CONTROLNET, folder),
        ..OpenSettings::default()
    };
    let folder = ModelFolder::Disk(model.to_owned());
    let mut model = registry::open_image(&folder, &settings).unwrap();
    let mut request = ImageRequest::new("red square").with(&keys::GUIDANCE, 1.0);
    if let Some((_, colour)) = shown {
        let picture = Arc::new(Picture::filled(8, 8, colour));
        request = request.with(&own::CONTROL_IMAGE, picture);
    }
    let images = model.draw(&request, &Control::silent()).unwrap();
    images[0].latents.clone().unwrap().values
}

#[test]
fn a_controlnet_learns_alone_resumes_exactly_and_is_drawn_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let data = data();
    let (vae, model) = base(folder.path(), &data);
    let start = Start::open(&ModelFolder::Disk(model.clone()), None).unwrap();
    let mut recipe = recipe_beside_it();
    let run = |recipe: &ImageRecipe, out: &Path, control: &Control| {
        train_controlnet(recipe, &data, &vae, &start, out, control)
    };
    let refused = |recipe: &ImageRecipe, words: &str| {
        let message = run(recipe, &out("none"), &Control::silent()).unwrap_err();
        assert!(message.to_string().contains(words), "{message}");
    };
    refused(&recipe, "control is not given");
    recipe.control = Some(ControlNetOptions::new(2));
    refused(&recipe, "control.blocks is 2; the transformer has 2 blocks");
    recipe.control = Some(ControlNetOptions {
        sketches: 3,
        ..ControlNetOptions::new(1)
    });
    let refusal = train_image(&recipe, &data, &vae, None, &out("none"), &Control::silent());
    assert!(
        refusal
            .unwrap_err()
            .to_string()
            .contains("control is given")
    );
    let (whole, parted) = (out("whole"), out("parted"));
    let report = run(&recipe, &whole, &Control::silent()).unwrap();
    assert_eq!((report.steps, report.blocks), (40, 1));
    let losses = losses(&whole);
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    let stopped = run(&recipe, &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    run(&recipe, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);

    // It is shown something: what is drawn depends on that, and on nothing of it where its projections are zero.
    let trained = whole.join("controlnet");
    let plain = drawn(&model, None);
    let black = drawn(&model, Some((&trained, [0; 3])));
    let white = drawn(&model, Some((&trained, [255; 3])));
    assert!(plain != black && black != white && white.iter().all(|value| value.is_finite()));
    recipe.training.learning_rate = 1e-30;
    recipe.training.steps = 1;
    let fresh = out("fresh");
    let report = run(&recipe, &fresh, &Control::silent()).unwrap();
    let stored =
        SafetensorsFile::open(&fresh.join("controlnet/diffusion_pytorch_model.safetensors"));
    let count: usize = stored
        .unwrap()
        .names()
        .iter()
        .filter(|name| name.starts_with("input_block.") || name.starts_with("controlnet_blocks.0."))
        .count();
    assert_eq!(count, 4);
    assert!(report.parameters > 0);
    let shown = drawn(&model, Some((&fresh.join("controlnet"), [255; 3])));
    assert_eq!(shown, plain);
}
