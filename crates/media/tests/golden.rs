//! Resizing and metrics against Pillow, torch and scikit-image (`reference/media.py`).

use brisk_media::{Filter, Picture, interpolate_bilinear, psnr, resize_pil, ssim};
use safetensors::SafeTensors;

fn golden() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/media/golden/golden.safetensors"
    );
    std::fs::read(path).expect("the committed golden file")
}

fn picture(file: &SafeTensors<'_>, name: &str) -> Picture {
    let view = file.tensor(name).unwrap();
    let &[height, width, 3] = view.shape() else {
        panic!("{name} has the shape {:?}", view.shape())
    };
    Picture::new(width, height, view.data().to_vec()).unwrap()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

/// `(name, width, height)` of every tensor named PREFIX.WxH.
fn sized(file: &SafeTensors<'_>, prefix: &str) -> Vec<(String, usize, usize)> {
    let size = |name: &&str| {
        let (width, height) = name
            .strip_prefix(prefix)?
            .strip_prefix('.')?
            .split_once('x')?;
        Some((
            (*name).to_owned(),
            width.parse().ok()?,
            height.parse().ok()?,
        ))
    };
    file.names().iter().filter_map(size).collect()
}

#[test]
fn resize_has_the_bytes_of_pillow() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let source = picture(&file, "resize.input");
    for (filter, prefix) in [
        (Filter::Box, "resize.box"),
        (Filter::Bilinear, "resize.bilinear"),
        (Filter::Bicubic, "resize.bicubic"),
        (Filter::Lanczos, "resize.lanczos"),
    ] {
        let cases = sized(&file, prefix);
        assert_eq!(cases.len(), 8);
        for (name, width, height) in cases {
            assert_eq!(
                resize_pil(&source, width, height, filter).unwrap(),
                picture(&file, &name),
                "{name}"
            );
        }
    }
}

#[test]
fn interpolation_agrees_with_torch() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let source = floats(&file, "interpolate.input");
    let cases = sized(&file, "interpolate");
    assert_eq!(cases.len(), 6);
    for (name, width, height) in cases {
        let found = interpolate_bilinear(&source, 2, 9, 14, height, width);
        let wanted = floats(&file, &name);
        assert_eq!(found.len(), wanted.len(), "{name}");
        let worst = found
            .iter()
            .zip(&wanted)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 2e-6, "{name} is off by {worst}");
    }
}

#[test]
fn metrics_agree_with_scikit_image() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (a, b) = (picture(&file, "metrics.a"), picture(&file, "metrics.b"));
    let data = file.tensor("metrics.expected").unwrap().data().to_vec();
    let wanted: Vec<f64> = data
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert!((psnr(&a, &b).unwrap() - wanted[0]).abs() < 1e-9);
    assert!((ssim(&a, &b).unwrap() - wanted[1]).abs() < 1e-9);
}
