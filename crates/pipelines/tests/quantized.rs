//! Language models with quantized weights, and the file that keeps them.

use std::path::{Path, PathBuf};

use brisk_nn::Quantization;
use brisk_pipelines::families::language::{CacheMode, Decoding, LoadOptions, TextPipeline};
use brisk_pipelines::{Control, Result};
use brisk_store::ModelFolder;
use brisk_testkit::fixtures_dir;

fn load(case: &str, how: Quantization, kept: Option<PathBuf>) -> Result<TextPipeline> {
    let folder = ModelFolder::Disk(fixtures_dir().join("language_models").join(case));
    let options = LoadOptions {
        without_tokenizer: true,
        quantization: how,
        quantized_weights: kept,
        ..LoadOptions::default()
    };
    TextPipeline::load(&folder, &options)
}

fn logits(pipeline: &TextPipeline) -> Vec<f32> {
    let ids: Vec<u32> = (0..40).map(|i| i * 7 % 60).collect();
    let logits = pipeline.model().forward(&[&ids]).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn error(found: &[f32], wanted: &[f32]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    let lost = square(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
    (lost / square(&mut wanted.iter().copied())).sqrt()
}

#[test]
fn every_family_stays_near_its_own_logits() {
    for case in [
        "llada_0",
        "dream_0",
        "a2d_qwen3_0",
        "fast_dllm_v2_0",
        "illada_0",
        "llada_moe_0",
        "llada2_0",
    ] {
        let wanted = logits(&load(case, Quantization::None, None).unwrap());
        for (how, bound) in [(Quantization::EightBit, 0.05), (Quantization::FourBit, 0.5)] {
            let lost = error(&logits(&load(case, how, None).unwrap()), &wanted);
            // Where routers choose experts, small differences may choose others.
            let bound = if case == "llada2_0" { 0.8 } else { bound };
            assert!(lost > 1e-4 && lost < bound, "{case} {how:?}: {lost}");
        }
    }
}

#[test]
fn a_batch_decodes_as_its_rows_do_alone() {
    let pipeline = load("llada_0", Quantization::FourBit, None).unwrap();
    let request = Decoding {
        cache: CacheMode::Dual,
        gen_length: 16,
        block_length: Some(8),
        early_stop: false,
        ..Decoding::default()
    };
    let decode = |prompts: &[Vec<u32>]| {
        let found = pipeline.generate(prompts, &request, &Control::silent(), &mut |_, _| {});
        found
            .unwrap()
            .into_iter()
            .map(|row| row.ids)
            .collect::<Vec<_>>()
    };
    let prompts = [vec![3, 4, 5], vec![9; 11], vec![1]];
    let together = decode(&prompts);
    for (prompt, ids) in prompts.iter().zip(together) {
        assert_eq!(decode(std::slice::from_ref(prompt)), [ids]);
    }
}

fn refused(case: &str, how: Quantization, path: &Path) -> String {
    match load(case, how, Some(path.to_owned())) {
        Ok(_) => panic!("{case} {how:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn kept_weights_belong_to_one_model_and_one_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    for case in ["llada_0", "a2d_qwen3_0", "illada_0"] {
        let kept = Some(path.clone());
        let first = load(case, Quantization::FourBit, kept.clone()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let again = load(case, Quantization::FourBit, kept).unwrap();
        assert_eq!(logits(&first), logits(&again));
        assert_eq!(bytes, std::fs::read(&path).unwrap(), "written once");

        let other = refused("llada_1", Quantization::FourBit, &path);
        assert!(
            other.contains("kept.safetensors") && other.contains("weights"),
            "{other}"
        );
        let other = refused(case, Quantization::EightBit, &path);
        assert!(other.contains("4bit") && other.contains("8bit"), "{other}");
        let other = refused(case, Quantization::None, &path);
        assert!(other.contains("--quantize"), "{other}");
        assert_eq!(bytes, std::fs::read(&path).unwrap(), "left alone");

        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        refused(case, Quantization::FourBit, &path);
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
