//! The order of the methods on random layers with outliers, and what a quantized layer says.

use brisk_kernels::reference::noise;
use brisk_quant::{Calibration, Codes, Method, Quantized, Settings, quantize};

/// A layer as transformers have them: a few channels of the inputs are many times larger, and the
/// weight has a few strong directions.
fn layer(rows: usize, width: usize, outputs: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut x = noise(rows * width, seed);
    for row in x.chunks_exact_mut(width) {
        for channel in (0..width).step_by(width / 5) {
            row[channel] *= 25.0;
        }
    }
    let mut w = noise(outputs * width, seed + 1);
    let (up, down) = (noise(outputs * 6, seed + 2), noise(6 * width, seed + 3));
    for (n, row) in w.chunks_exact_mut(width).enumerate() {
        for (k, value) in row.iter_mut().enumerate() {
            *value *= 0.1;
            *value += (0..6)
                .map(|r| up[n * 6 + r] * down[r * width + k])
                .sum::<f32>()
                * 0.3;
        }
    }
    (x, w)
}

fn run(method: Method, x: &[f32], w: &[f32], width: usize) -> Quantized {
    let settings = Settings {
        rank: 16,
        grids: 10,
        ..Settings::new(method)
    };
    let calibration = Calibration { inputs: x, width };
    quantize(&[w], &[w.len() / width], calibration, &settings).unwrap()
}

#[test]
fn each_method_is_better_than_the_one_before() {
    for (seed, width) in [(1, 128), (20, 192), (300, 256)] {
        let (x, w) = layer(256, width, 96, seed);
        let error = |method| run(method, &x, &w, width).error.relative();
        let (rtn, smooth) = (error(Method::Rtn), error(Method::Smooth));
        let (svd, svdquant) = (error(Method::Svd), error(Method::SvdQuant));
        let gptq = error(Method::SvdQuantGptq);
        assert!(smooth < 0.7 * rtn, "{seed}: smooth {smooth}, rtn {rtn}");
        assert!(
            svdquant < 0.9 * smooth,
            "{seed}: svdquant {svdquant}, smooth {smooth}"
        );
        assert!(svd < rtn && svdquant < svd, "{seed}: svd {svd}, rtn {rtn}");
        assert!(gptq <= svdquant, "{seed}: gptq {gptq}, svdquant {svdquant}");
    }
}

#[test]
fn layers_that_share_an_input_share_factors() {
    let (width, outputs) = (128, 32);
    let (x, w) = layer(100, width, 2 * outputs, 5);
    let (a, b) = w.split_at(outputs * width);
    let settings = Settings {
        rank: 16,
        grids: 2,
        ..Settings::new(Method::SvdQuant)
    };
    let calibration = Calibration { inputs: &x, width };
    let found = quantize(&[a, b], &[outputs, outputs], calibration, &settings).unwrap();
    assert_eq!(found.record.outputs, 2 * outputs);
    let branch = found.record.branch.as_ref().unwrap();
    assert_eq!(branch.down.len(), 16 * width);
    assert_eq!(branch.up.len(), 2 * outputs * 16);
    let whole = quantize(&[&w[..]], &[2 * outputs], calibration, &settings).unwrap();
    assert_eq!(whole.record, found.record);
}

#[test]
fn the_record_stands_for_the_weight() {
    let (width, outputs) = (100, 40); // padded to 128
    let (x, w) = layer(128, width, outputs, 9);
    let found = run(Method::SvdQuant, &x, &w, width);
    assert_eq!(found.record.inputs, 128);
    let weight = found.record.weight();
    let (mut difference, mut size) = (0.0f64, 0.0f64);
    for (row, plain) in weight.chunks_exact(128).zip(w.chunks_exact(width)) {
        assert!(row[width..].iter().all(|v| *v == 0.0));
        for (a, b) in row.iter().zip(plain) {
            difference += f64::from(a - b).powi(2);
            size += f64::from(*b).powi(2);
        }
    }
    assert!(
        (difference / size).sqrt() < 0.12,
        "{}",
        (difference / size).sqrt()
    );
    let Codes::Int4(integers) = &found.record.codes else {
        panic!("int4")
    };
    assert!(integers.codes.iter().all(|c| (-7..=7).contains(c)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let settings = Settings::new(Method::Rtn);
    let w = vec![0.5; 64];
    let bad = |w: &[f32], rows: usize, x: &[f32], width: usize| {
        let calibration = Calibration { inputs: x, width };
        quantize(&[w], &[rows], calibration, &settings)
            .unwrap_err()
            .to_string()
    };
    assert!(bad(&w, 2, &[1.0; 64], 64).contains("2"));
    assert!(bad(&w, 1, &[], 64).contains("at least one row"));
    assert!(bad(&w, 1, &[1.0; 63], 64).contains("63"));
    assert!(bad(&w, 1, &[f32::NAN; 64], 64).contains("NaN"));
    assert!(bad(&[], 0, &[1.0], 0).contains("without inputs"));
}
