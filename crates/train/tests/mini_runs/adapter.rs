//! Training a LoRA.

use brisk_pipelines::options::{Options, keys};
use brisk_pipelines::{ImageRequest, OpenSettings, registry};
use brisk_store::TensorSource;
use brisk_train::{LoraOptions, train_adapter};

use super::prolong::copy;
use super::*;

fn drawn(model: &Path, lora: Option<PathBuf>) -> Vec<f32> {
    let options = Options::new().with_some(&keys::LORA, lora.map(|path| vec![path]));
    let settings = OpenSettings {
        options,
        ..OpenSettings::default()
    };
    let folder = ModelFolder::Disk(model.to_owned());
    let mut model = registry::open_image(&folder, &settings).unwrap();
    let request = ImageRequest::new("red square");
    let images = model.draw(&request, &Control::silent()).unwrap();
    images[0].latents.clone().unwrap().values
}

#[test]
fn a_lora_learns_resumes_exactly_and_is_drawn_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let data = data();
    let (vae, model) = base(folder.path(), &data);
    let start = Start::open(&ModelFolder::Disk(model.clone()), None).unwrap();
    let mut recipe = recipe_beside_it();
    let run = |recipe: &ImageRecipe, out: &Path, control: &Control| {
        train_adapter(recipe, &data, &vae, &start, out, control)
    };
    let message = run(&recipe, &out("none"), &Control::silent()).unwrap_err();
    assert!(
        message.to_string().contains("lora is not given"),
        "{message}"
    );
    recipe.lora = Some(LoraOptions {
        alpha: Some(4.0),
        ..LoraOptions::new(2)
    });
    let (whole, parted) = (out("whole"), out("parted"));
    let report = run(&recipe, &whole, &Control::silent()).unwrap();
    // Two blocks of two attentions of three layers, each 16×16.
    assert_eq!((report.layers, report.parameters), (12, 12 * 2 * 2 * 16));
    let losses = losses(&whole);
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    let stopped = run(&recipe, &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    run(&recipe, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);

    let file = whole.join("lora/pytorch_lora_weights.safetensors");
    let stored = SafetensorsFile::open(&file).unwrap();
    let (_, shape) = stored
        .info("transformer.transformer_blocks.1.attn2.to_v.lora_B.weight")
        .unwrap();
    assert_eq!(shape, [16, 2]);
    assert_eq!(stored.names().len(), 24);
    let (plain, adapted) = (drawn(&model, None), drawn(&model, Some(file)));
    assert!(plain != adapted && adapted.iter().all(|value| value.is_finite()));
    // A model whose weights are the sums draws the same.
    let base =
        SafetensorsFile::open(&model.join("transformer/diffusion_pytorch_model.safetensors"))
            .unwrap();
    let summed = out("summed");
    copy(&model, &summed);
    let values = |name: &str| stored.view(name).unwrap().unwrap().to_f32().unwrap();
    let tensors: Vec<_> = base
        .names()
        .into_iter()
        .map(|name| {
            let view = base.view(&name).unwrap().unwrap();
            let mut weight = view.to_f32().unwrap();
            let layer = format!("transformer.{}", name.trim_end_matches(".weight"));
            if stored.info(&format!("{layer}.lora_A.weight")).is_some() {
                let (a, b) = (
                    values(&format!("{layer}.lora_A.weight")),
                    values(&format!("{layer}.lora_B.weight")),
                );
                for (at, weight) in weight.iter_mut().enumerate() {
                    let (row, column) = (at / 16, at % 16);
                    let product: f32 = (0..2).map(|r| b[row * 2 + r] * a[r * 16 + column]).sum();
                    *weight += 2.0 * product;
                }
            }
            brisk_store::OutTensor {
                name,
                dtype: brisk_store::Dtype::F32,
                shape: view.shape,
                data: weight
                    .iter()
                    .flat_map(|v| v.to_le_bytes())
                    .collect::<Vec<u8>>()
                    .into(),
            }
        })
        .collect();
    let path = summed.join("transformer/diffusion_pytorch_model.safetensors");
    brisk_store::write_safetensors(&path, &tensors, &Default::default()).unwrap();
    let wanted = drawn(&summed, None);
    let error = brisk_testkit::relative_l2(&adapted, &wanted);
    assert!(error < 1e-4, "{error}");

    recipe.lora = Some(LoraOptions {
        targets: vec!["ff".to_owned()],
        ..LoraOptions::new(2)
    });
    let message = run(&recipe, &out("none"), &Control::silent()).unwrap_err();
    assert!(message.to_string().contains("lora.targets"), "{message}");
}
