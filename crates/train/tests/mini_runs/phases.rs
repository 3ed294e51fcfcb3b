//! The later phases of DC-AE: parts of an autoencoder that are trained alone, by features and against a discriminator.

use std::path::Path;

use brisk_nn::Tensor;
use brisk_pipelines::Control;
use brisk_train::eval::load_autoencoder;
use brisk_train::recipe::AutoencoderRecipe;
use brisk_train::{AdversarialOptions, FeatureNetwork, train_autoencoder};

use super::{
    assert_same_checkpoint, assert_stopped, autoencoder, autoencoder_recipe, data, losses,
    stopping_at, stored, train_tiny_autoencoder,
};

const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

fn of_phase(trained: &[&str], steps: u64) -> AutoencoderRecipe {
    AutoencoderRecipe {
        trained: trained.iter().map(|part| (*part).to_owned()).collect(),
        ..autoencoder_recipe("adamw", steps)
    }
}

/// Names of the tensors that differ.
fn changed(before: &Path, after: &Path) -> Vec<String> {
    let [before, after] = [before, after].map(|run| stored(&run.join(WEIGHTS)));
    assert_eq!(before.len(), after.len());
    let pairs = before.into_iter().zip(after);
    pairs
        .filter_map(|(before, after)| {
            assert_eq!(before.0, after.0);
            (before.1 != after.1).then_some(after.0)
        })
        .collect()
}

#[test]
fn phases_change_the_parts_that_they_name_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    train_tiny_autoencoder(&out("first"), 40);
    let first = autoencoder(&out("first"));
    let quiet = Control::silent();
    let data = data();

    let latents = ["encoder.conv_out", "decoder.conv_in"];
    let recipe = of_phase(&latents, 12);
    train_autoencoder(&recipe, &data, Some(&first), None, &out("second"), &quiet).unwrap();
    let names = changed(&out("first"), &out("second"));
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| latents.iter().any(|part| name.starts_with(part)))
    );

    // The last phase: of the decoder's end alone, by pixels, features and a discriminator.
    let second = autoencoder(&out("second"));
    let features = FeatureNetwork::in_the_box().unwrap();
    let end = ["decoder.norm_out", "decoder.conv_out"];
    let recipe = AutoencoderRecipe {
        perceptual_weight: 0.5,
        adversarial: Some(AdversarialOptions {
            weight: 0.05,
            channels: 8,
            layers: 1,
        }),
        ..of_phase(&end, 24)
    };
    let train = |run: &str, control: &Control| {
        let (second, features) = (Some(&second), Some(&features));
        train_autoencoder(&recipe, &data, second, features, &out(run), control)
    };
    let report = train("third", &quiet).unwrap();
    assert!(
        report
            .held_out_perceptual
            .is_some_and(|distance| distance > 0.0)
    );
    let names = changed(&out("second"), &out("third"));
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| end.iter().any(|part| name.starts_with(part)))
    );
    assert!(losses(&out("third")).iter().all(|loss| loss.is_finite()));
    let pictures: Vec<f32> = (0..8 * 8 * 3).map(|i| (i as f32 * 0.1).sin()).collect();
    let pictures = Tensor::from_vec(pictures, (1, 8, 8, 3)).unwrap();
    let [before, after] = ["second", "third"].map(|run| {
        let model = load_autoencoder(&autoencoder(&out(run))).unwrap();
        let latents = model.encode(&pictures).unwrap().flatten_all().unwrap();
        latents.to_vec1::<f32>().unwrap()
    });
    assert_eq!(before, after);

    let stopped = train("parted", &stopping_at(10)).unwrap_err();
    assert_stopped(&stopped, &out("parted"), 10);
    train("parted", &quiet).unwrap();
    assert_same_checkpoint(&out("third"), &out("parted"));
}

#[test]
fn what_a_phase_lacks_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    train_tiny_autoencoder(&out("first"), 2);
    let first = autoencoder(&out("first"));
    let quiet = Control::silent();
    let refused = |recipe: &AutoencoderRecipe, start, features| {
        let run = out("refused");
        let error = train_autoencoder(recipe, &data(), start, features, &run, &quiet).unwrap_err();
        assert!(!run.join("vae").exists());
        error.to_string()
    };
    let message = refused(&of_phase(&["decoder.conv_in"], 4), None, None);
    assert!(
        message.contains("decoder.conv_in") && message.contains("--from"),
        "{message}"
    );
    let message = refused(&of_phase(&["decoder.conv"], 4), Some(&first), None);
    assert!(message.contains("no part decoder.conv;"), "{message}");
    let message = refused(
        &AutoencoderRecipe {
            perceptual_weight: 1.0,
            ..of_phase(&[], 4)
        },
        None,
        None,
    );
    assert!(
        message.contains("no network compares features"),
        "{message}"
    );
}
