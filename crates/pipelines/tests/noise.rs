//! The generator against draws of torch.

use brisk_pipelines::diffusion::noise::TorchGenerator;
use brisk_testkit::{fixtures_dir, load_tensors, values};

const TOLERANCE: f32 = 2e-6;

fn assert_near(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= TOLERANCE,
            "{name}[{index}]: found {a}, expected {b}"
        );
    }
}

#[test]
fn single_draws_match_torch() {
    let folder = fixtures_dir().join("noise/cpu_generator");
    let golden = load_tensors(folder.join("golden.safetensors"));
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let cases = index.as_array().unwrap();
    assert!(cases.len() >= 28);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let count: u64 = case["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|size| size.as_u64().unwrap())
            .product();
        let found = TorchGenerator::new(case["seed"].as_u64().unwrap()).randn(count as usize);
        match golden.get(name) {
            Some(expected) => assert_near(name, &found, &values(expected)),
            None => {
                assert_near(
                    name,
                    &found[..64],
                    &values(&golden[&format!("{name}.first64")]),
                );
                assert_near(
                    name,
                    &found[found.len() - 64..],
                    &values(&golden[&format!("{name}.last64")]),
                );
            }
        }
    }
}

#[test]
fn draws_in_sequence_match_torch() {
    let golden = load_tensors(fixtures_dir().join("noise/cpu_generator/golden.safetensors"));
    for seed in [0u64, 1, 42, (1 << 32) + 5] {
        let mut generator = TorchGenerator::new(seed);
        for (draw, count) in [16, 5, 64, 17].into_iter().enumerate() {
            let name = format!("seed{seed}.sequence.{draw}");
            assert_near(&name, &generator.randn(count), &values(&golden[&name]));
        }
    }
}
