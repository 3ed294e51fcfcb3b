//! A whole layer against its definition in PyTorch, in every mode.

use std::path::Path;

use brisk_kernels::epilogue::Epilogue;
use brisk_kernels::int4::{Activations, Branch, HalfType, Int4Linear, Int4Weight, forward};
use brisk_store::{SafetensorsFile, TensorSource};

#[test]
fn every_mode_gives_what_pytorch_gives() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/svdquant/layer.safetensors");
    let file = SafetensorsFile::open(&path).unwrap();
    let get = |name: &str| {
        let view = file.view(name).unwrap();
        view.unwrap_or_else(|| panic!("{name}")).to_f32().unwrap()
    };
    let (outputs, inputs, rank) = (72, 192, 16);
    let codes: Vec<i8> = get("codes").iter().map(|c| *c as i8).collect();
    let layer = Int4Linear::new(&Int4Weight {
        outputs: vec![outputs],
        inputs,
        codes,
        scales: get("scales"),
        zeros: None,
        smooth: Some(get("smooth")),
        branch: Some(Branch {
            rank,
            down: get("down"),
            up: get("up"),
        }),
        bias: Some(get("bias")),
        half: HalfType::Bf16,
    });
    let x = get("x");
    for (name, mode) in [
        ("y.w4a16", Activations::Full),
        ("y.w4a8", Activations::Eight),
        ("y.w4a4", Activations::Four),
    ] {
        let want = get(name);
        let mut y = vec![0.0; want.len()];
        forward(&x, &layer, mode, &Epilogue::default(), &mut y);
        let square = |v: f32| f64::from(v).powi(2);
        let difference: f64 = y.iter().zip(&want).map(|(a, b)| square(a - b)).sum();
        let size: f64 = want.iter().map(|b| square(*b)).sum();
        let relative = (difference / size).sqrt();
        assert!(relative < 1e-5, "{name}: relative L2 {relative:.2e}");
    }
}
