//! Training with CAME-8bit.

use brisk_pipelines::Control;
use brisk_store::SafetensorsFile;
use brisk_store::TensorSource;
use brisk_train::optimiser::{BlockRule, EightBit};
use brisk_train::{checkpoint, train_image};

use super::*;

#[test]
fn a_run_in_eight_bits_resumes_exactly_and_keeps_less() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let data = data();
    train_tiny_autoencoder(&out("autoencoder"), 5);
    let vae = autoencoder(&out("autoencoder").join("vae"));
    let run = |optimiser: &str, blocks: Option<BlockRule>, out: &Path, control: &Control| {
        let mut recipe = image_recipe(optimiser, 12);
        recipe.training.eight_bit = blocks.map(|blocks| EightBit {
            block_size: 24,
            blocks,
            min_8bit_size: 100,
        });
        train_image(&recipe, &data, &vae, None, out, control)
    };
    let full = run("came", None, &out("full"), &Control::silent()).unwrap();
    for (name, blocks) in [("elements", BlockRule::Elements), ("rows", BlockRule::Rows)] {
        let (whole, parted) = (out(name), out(&format!("{name}-parted")));
        let report = run("came8bit", Some(blocks), &whole, &Control::silent()).unwrap();
        assert!(
            report.optimiser_bytes * 5 < full.optimiser_bytes * 3,
            "{name}: {} of {}",
            report.optimiser_bytes,
            full.optimiser_bytes
        );
        let stopped = run("came8bit", Some(blocks), &parted, &stopping_at(5)).unwrap_err();
        assert_stopped(&stopped, &parted, 5);
        run("came8bit", Some(blocks), &parted, &Control::silent()).unwrap();
        assert_same_checkpoint(&whole, &parted);
        let found = checkpoint::latest(&whole.join("checkpoints"))
            .unwrap()
            .unwrap();
        let kept = SafetensorsFile::open(&found.path.join("optimiser.safetensors")).unwrap();
        let name = "exp_avg.transformer.transformer_blocks.0.attn1.to_q.weight.data";
        let (dtype, shape) = kept.info(name).unwrap();
        assert_eq!((dtype.name(), &shape[..]), ("U8", &[16, 16][..]));
    }
    let refused = run(
        "came",
        Some(BlockRule::Rows),
        &out("other"),
        &Control::silent(),
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("training.eight_bit is given"), "{message}");
}
