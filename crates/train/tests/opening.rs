//! What training takes from other models is opened as `brisk image` opens it.

use std::path::{Path, PathBuf};

use brisk_nn::Tensor;
use brisk_store::ModelFolder;
use brisk_testkit::fixtures_dir;
use brisk_train::eval::{load_autoencoder, open_autoencoder};

const PLAIN: &str = "diffusion_pytorch_model.safetensors";

/// A folder of fixture `dcae/c` with its weights `stored` under the name `file`.
fn place(root: &Path, name: &str, stored: &str, file: &str) -> PathBuf {
    let published = fixtures_dir().join("dcae/c");
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (from, to) in [("config.json", "config.json"), (stored, file)] {
        std::fs::copy(published.join(from), folder.join(to)).unwrap();
    }
    folder
}

fn latent(folder: &Path, variant: Option<&str>) -> Vec<f32> {
    let opened = open_autoencoder(&ModelFolder::Disk(folder.to_owned()), variant).unwrap();
    let model = load_autoencoder(&opened).unwrap();
    let picture = Tensor::from_vec(vec![0.25f32; 32 * 32 * 3], (1, 32, 32, 3)).unwrap();
    let latent = model.encode(&picture).unwrap();
    latent.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

#[test]
fn an_autoencoder_is_taken_however_it_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    place(root, "pipeline/vae", PLAIN, PLAIN);
    let expected = latent(&root.join("pipeline"), None);
    assert_eq!(latent(&root.join("pipeline/vae"), None), expected);
    let authors = place(root, "authors", "original.safetensors", "dc-ae.safetensors");
    assert_eq!(latent(&authors, None), expected);
    let variant = place(
        root,
        "variant",
        PLAIN,
        "diffusion_pytorch_model.fp16.safetensors",
    );
    std::fs::write(variant.join(PLAIN), b"not what is asked for").unwrap();
    assert_eq!(latent(&variant, Some("fp16")), expected);
}

#[test]
fn what_is_no_autoencoder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let open = |folder: &Path| open_autoencoder(&ModelFolder::Disk(folder.to_owned()), None).err();
    let message = open(folder.path()).unwrap().to_string();
    assert!(message.contains("expected vae/config.json"), "{message}");
    let message = open(&fixtures_dir().join("gemma2")).unwrap().to_string();
    assert!(message.contains("there is no vae"), "{message}");
    let transformer = fixtures_dir().join("pipelines/sana/transformer");
    let message = open(&transformer).unwrap().to_string();
    assert!(message.contains("expected \"AutoencoderDC\""), "{message}");
}
