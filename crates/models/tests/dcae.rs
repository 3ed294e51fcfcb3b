//! The autoencoder against the goldens of its reference, and against itself.

// The figures, with --nocapture.
#![allow(clippy::print_stdout)]

#[path = "common/autoencoder.rs"]
mod autoencoder;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use autoencoder::{CASES, config, diffusers, source};
use brisk_models::dcae::{Autoencoder, Halves, Tiling, native};
use brisk_nn::{Error, Tensor, Trace, Weights, ops};
use brisk_store::{Dtype, TensorSource, TensorView};
use brisk_testkit::{fixtures_dir, load_tensors, pattern, relative_l2, values};

const TOLERANCE: f64 = 1e-4;
/// Values inside the shared gated convolution, which the trace doesn't see.
const UNSEEN: [&str; 4] = [".conv_inverted", ".conv_depth", ".gated", ".conv_out"];

fn model(case: &str) -> Autoencoder {
    let weights = Weights::from_source(diffusers(case));
    Autoencoder::load(&config(case), &weights, Halves::Both).unwrap()
}

/// A latent that is different everywhere.
fn some_latent(batch: usize, height: usize, width: usize, channels: usize) -> Tensor {
    let count = batch * height * width * channels;
    let data: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7391).sin()).collect();
    Tensor::from_vec(data, (batch, height, width, channels)).unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    values(a)
        .iter()
        .zip(values(b))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

struct Golden {
    label: String,
    tensors: HashMap<String, Tensor>,
    seen: BTreeSet<String>,
    worst: f64,
}

impl Golden {
    fn open(relative: &str) -> Self {
        let tensors = load_tensors(fixtures_dir().join("dcae").join(relative));
        Golden {
            label: relative.into(),
            tensors,
            seen: BTreeSet::new(),
            worst: 0.0,
        }
    }

    /// An input in NHWC.
    fn input(&self, name: &str) -> Tensor {
        ops::to_nhwc(&self.tensors[name]).unwrap()
    }

    /// Compares an NHWC tensor with the golden's, whole or thinned, where it has it.
    fn compare(&mut self, name: &str, found: &Tensor) {
        let thinned = format!("{name}.every");
        let entry = self.tensors.iter().find_map(|(key, wanted)| {
            if key == name {
                return Some((1, wanted));
            }
            Some((key.strip_prefix(&thinned)?.parse().unwrap(), wanted))
        });
        let Some((step, wanted)) = entry else { return };
        let channels_last = [".to_q", ".to_k", ".to_v", ".to_out", "norm_out"]
            .iter()
            .any(|s| name.ends_with(s));
        let found = if channels_last {
            found.clone()
        } else {
            ops::to_nchw(found).unwrap()
        };
        let shape: Vec<usize> = match self.tensors.get(&format!("{name}.shape")) {
            Some(shape) => values(shape).into_iter().map(|n| n as usize).collect(),
            None => wanted.dims().to_vec(),
        };
        assert_eq!(found.dims(), shape, "{}: {name}: shapes differ", self.label);
        let found: Vec<f32> = values(&found).into_iter().step_by(step).collect();
        let distance = relative_l2(&found, &values(wanted));
        assert!(
            distance < TOLERANCE,
            "{}: first to diverge is {name}, relative L2 {distance:.2e}",
            self.label
        );
        self.worst = self.worst.max(distance);
        self.seen.insert(name.into());
    }

    /// That nothing was left out.
    fn finish(&self) {
        for key in self.tensors.keys() {
            let name = key.split(".every").next().unwrap();
            let inner = name.starts_with("blocks.") && name.contains("_blocks.");
            if name.ends_with(".shape")
                || name.starts_with("inputs.")
                || (inner && UNSEEN.iter().any(|suffix| name.ends_with(suffix)))
            {
                continue;
            }
            assert!(
                self.seen.contains(name),
                "{}: {name} was never computed",
                self.label
            );
        }
    }
}

#[test]
fn every_block_matches_the_reference() {
    for case in CASES {
        let model = model(case);
        let mut golden = Golden::open(&format!("{case}/golden.safetensors"));
        let (picture, latent) = (golden.input("inputs.sample"), golden.input("inputs.latent"));
        let mut blocks = Vec::new();
        let keep = &mut |name: &str, x: &Tensor| blocks.push((name.to_string(), x.clone()));
        let encoded = model.encode_traced(&picture, &mut Trace::details(keep));
        let keep = &mut |name: &str, x: &Tensor| blocks.push((name.to_string(), x.clone()));
        let decoded = model.decode_traced(&latent, &mut Trace::details(keep));
        for (name, x) in blocks {
            golden.compare(&format!("blocks.{name}"), &x);
        }
        golden.compare("outputs.latent", &encoded.unwrap());
        golden.compare("outputs.sample", &decoded.unwrap());
        golden.finish();
        println!(
            "{case}: {} tensors, worst relative L2 {:.2e}",
            golden.seen.len(),
            golden.worst
        );
    }
}

#[test]
fn larger_and_not_square_in_both_layouts() {
    for case in CASES {
        let original = source(case, "original.safetensors");
        assert!(native::is_native(&*original) && !native::is_native(&*diffusers(case)));
        let mapped = native::map(original).unwrap();
        assert!(
            mapped.unmapped().is_empty(),
            "{case}: {:?}",
            mapped.unmapped()
        );
        let weights = Weights::from_source(Arc::new(mapped));
        let native = Autoencoder::load(&config(case), &weights, Halves::Both).unwrap();
        for (layout, model) in [("diffusers", model(case)), ("original", native)] {
            let mut golden = Golden::open(&format!("{case}/golden_192x256.safetensors"));
            let batch = golden.tensors["inputs.latent"].dim(0).unwrap();
            golden.compare(
                "outputs.latent",
                &model.encode(&pattern(batch, 192, 256)).unwrap(),
            );
            let latent = golden.input("inputs.latent");
            golden.compare("outputs.sample", &model.decode(&latent).unwrap());
            golden.finish();
            println!(
                "{case}, {layout} names: worst relative L2 {:.2e}",
                golden.worst
            );
        }
    }
}

#[test]
fn tiles_match_the_reference() {
    let model = model("a");
    let tiling = Tiling {
        min_height: 256,
        min_width: 256,
        stride_height: 192,
        stride_width: 192,
    };
    let mut golden = Golden::open("a/golden_tiled.safetensors");
    let (picture, latent) = (pattern(1, 768, 640), golden.input("inputs.latent"));
    golden.compare("untiled.latent", &model.encode(&picture).unwrap());
    golden.compare("untiled.sample", &model.decode(&latent).unwrap());
    golden.compare(
        "tiled.latent",
        &model.encode_tiled(&picture, &tiling).unwrap(),
    );
    golden.compare(
        "tiled.sample",
        &model.decode_tiled(&latent, &tiling).unwrap(),
    );
    golden.finish();
    println!("tiles: worst relative L2 {:.2e}", golden.worst);

    // What fits in one tile isn't tiled.
    let small = some_latent(1, 8, 8, 8);
    let plain = model.decode(&small).unwrap();
    assert_eq!(
        largest_difference(&model.decode_tiled(&small, &tiling).unwrap(), &plain),
        0.0
    );

    for wrong in [
        Tiling {
            stride_width: 200,
            ..tiling
        },
        Tiling {
            min_height: 250,
            ..tiling
        },
        Tiling {
            stride_height: 0,
            ..tiling
        },
        Tiling {
            stride_height: 288,
            ..tiling
        },
    ] {
        let error = model.decode_tiled(&latent, &wrong).unwrap_err().to_string();
        assert!(
            error.contains("multiples of the autoencoder's ratio 32"),
            "{error}"
        );
        assert!(model.encode_tiled(&picture, &wrong).is_err());
    }
}

#[test]
fn strips_equal_the_whole() {
    for case in CASES {
        let model = model(case);
        let ratio = model.ratio();
        let (height, width) = (384, 2 * ratio);
        let picture = pattern(2, height, width);
        let latent = some_latent(2, height / ratio, width / ratio, 8);
        let (encoded, decoded) = (
            model.encode(&picture).unwrap(),
            model.decode(&latent).unwrap(),
        );
        for rows in [1, 24, 100, 1000] {
            let found = model.encode_strips(&picture, rows).unwrap();
            let off = largest_difference(&found, &encoded);
            assert!(
                off <= 1e-6,
                "{case}: encoding in strips of {rows} is {off} off"
            );
            let found = model.decode_within(&latent, rows << 10).unwrap();
            let off = largest_difference(&found, &decoded);
            assert!(
                off <= 1e-6,
                "{case}: decoding maps of {rows} KiB in parts is {off} off"
            );
            let found = model.decode_strips(&latent, rows).unwrap();
            let off = largest_difference(&found, &decoded);
            assert!(
                off <= 1e-6,
                "{case}: decoding in strips of {rows} is {off} off"
            );
            // As far in strips as attention allows.
            let mut parts = Vec::new();
            let keep = |row: usize, strip: &Tensor| {
                let at: usize = parts.iter().map(|part: &Tensor| part.dims()[1]).sum();
                assert_eq!(row, at);
                parts.push(strip.clone());
                Ok(())
            };
            model.decode_strips_within(&latent, rows, 0, keep).unwrap();
            let off = largest_difference(&Tensor::cat(&parts, 1).unwrap(), &decoded);
            assert!(
                off <= 1e-6,
                "{case}: strips of {rows} all through: {off} off"
            );
        }
        let mut next = 0;
        model
            .decode_strips_with(&latent, 64, |row, strip| {
                assert_eq!(row, next);
                next += strip.dim(1)?;
                Ok(())
            })
            .unwrap();
        assert_eq!(next, height);
        assert!(model.decode_strips(&latent, 0).is_err());
        assert!(model.encode_strips(&picture, 0).is_err());
    }
}

/// Mean square of what the autoencoder makes of a picture, weighted so that no symmetry hides
/// an error.
fn loss(model: &Autoencoder, picture: &Tensor) -> Tensor {
    let out = model.decode(&model.encode(picture).unwrap()).unwrap();
    let count = out.elem_count();
    let weights: Vec<f32> = (0..count).map(|i| 1.0 + (i as f32 * 0.37).sin()).collect();
    let weights = Tensor::from_vec(weights, out.dims()).unwrap();
    (out.sqr().unwrap() * weights).unwrap().mean_all().unwrap()
}

#[test]
fn gradients_reach_every_parameter_and_are_right() {
    for case in ["a", "c", "d"] {
        let config = config(case);
        let side = 2 * config.ratio();
        let picture = pattern(1, side, side);
        let weights = Weights::trainable(Some(diffusers(case)), 1);
        let model = Autoencoder::load(&config, &weights, Halves::Both).unwrap();
        let gradients = loss(&model, &picture).host().unwrap().backward().unwrap();
        for (name, variable) in weights.variables() {
            let Some(gradient) = gradients.get(&variable) else {
                panic!("{case}: {name} has no gradient");
            };
            let gradient_values = values(&gradient.into());
            let size = gradient_values
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!(
                size.is_finite() && size > 0.0,
                "{case}: gradient of {name} is {size}"
            );
        }
        let probed: Vec<_> = weights
            .variables()
            .into_iter()
            .filter(|(name, _)| {
                [
                    "attn.to_q.weight",
                    "proj_out.weight",
                    "proj_in.weight",
                    "conv2.weight",
                    "conv_in",
                ]
                .iter()
                .any(|part| name.contains(part))
            })
            .step_by(3)
            .collect();
        assert!(probed.len() >= 3, "{case}: {}", probed.len());
        for (name, variable) in probed {
            // Along the gradient itself the slope is its length.
            let start = variable.as_tensor().copy().unwrap();
            let gradient = gradients.get(&variable).unwrap();
            let square: f64 = values(&gradient.into())
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum();
            let step = 2e-3 / square.sqrt();
            let at = |sign: f64| {
                variable
                    .set(&(&start + (gradient * (sign * step)).unwrap()).unwrap())
                    .unwrap();
                f64::from(loss(&model, &picture).to_scalar::<f32>().unwrap())
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            variable.set(&start).unwrap();
            let off = (slope / square - 1.0).abs();
            assert!(
                off < 0.03,
                "{case}: {name}: slope {slope:.4e}, gradient says {square:.4e}"
            );
        }
    }
}

#[test]
fn trains_from_nothing() {
    let config = config("a");
    let weights = Weights::trainable(None, 7);
    let model = Autoencoder::load(&config, &weights, Halves::Both).unwrap();
    let picture = pattern(1, 32, 32);
    let distance = || {
        let out = model.decode(&model.encode(&picture).unwrap()).unwrap();
        (out - &picture).unwrap().sqr().unwrap().mean_all().unwrap()
    };
    let first = distance().to_scalar::<f32>().unwrap();
    for _ in 0..20 {
        let gradients = distance().host().unwrap().backward().unwrap();
        for (_, variable) in weights.variables() {
            let step = (gradients.get(&variable).unwrap() * 1e-3).unwrap();
            variable
                .set(&(variable.as_tensor() - step).unwrap())
                .unwrap();
        }
    }
    let last = distance().to_scalar::<f32>().unwrap();
    assert!(last.is_finite() && last < 0.9 * first, "{first} -> {last}");
}

/// Counts what is read.
struct Watched {
    inner: Arc<dyn TensorSource>,
    read: Mutex<Vec<String>>,
}

impl TensorSource for Watched {
    fn names(&self) -> Vec<String> {
        self.inner.names()
    }
    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        self.inner.info(name)
    }
    fn view(&self, name: &str) -> brisk_store::Result<Option<TensorView<'_>>> {
        self.read.lock().unwrap().push(name.into());
        self.inner.view(name)
    }
    fn origin(&self, name: &str) -> String {
        self.inner.origin(name)
    }
}

#[test]
fn one_half_alone() {
    for (halves, wanted) in [
        (Halves::DecoderOnly, "decoder."),
        (Halves::EncoderOnly, "encoder."),
    ] {
        let watched = Arc::new(Watched {
            inner: diffusers("b"),
            read: Mutex::default(),
        });
        let weights = Weights::from_source(watched.clone());
        let half = Autoencoder::load(&config("b"), &weights, halves).unwrap();
        let read = watched.read.lock().unwrap();
        assert!(!read.is_empty() && read.iter().all(|name| name.starts_with(wanted)));
        let (picture, latent) = (pattern(1, 64, 64), some_latent(1, 2, 2, 8));
        let (encoded, decoded) = (half.encode(&picture), half.decode(&latent));
        assert_eq!(encoded.is_ok(), halves == Halves::EncoderOnly);
        assert_eq!(decoded.is_ok(), halves == Halves::DecoderOnly);
        let error = encoded.err().or(decoded.err()).unwrap().to_string();
        assert!(error.contains("wasn't loaded"), "{error}");
    }
}

#[test]
fn what_does_not_fit_is_reported() {
    // Weights of another model: everything missing, misshapen and left over at once.
    let weights = Weights::from_source(diffusers("c"));
    let error = Autoencoder::load(&config("b"), &weights, Halves::Both)
        .err()
        .unwrap();
    let Error::Weights(report) = error else {
        panic!("{error}")
    };
    assert!(!report.missing.is_empty() && !report.unexpected.is_empty());
    assert!(
        report
            .missing
            .iter()
            .any(|name| name.ends_with("running_var"))
    );

    let trainable = Weights::trainable(None, 0);
    let error = Autoencoder::load(&config("b"), &trainable, Halves::Both)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("decoder.up_blocks.1.1") && error.contains("batch_norm"),
        "{error}"
    );

    let model = model("a");
    for shape in [
        vec![1, 40, 64, 3],
        vec![1, 64, 64, 4],
        vec![64, 64, 3],
        vec![0, 64, 64, 3],
    ] {
        let picture = Tensor::zeros(shape.clone(), brisk_nn::DType::F32).unwrap();
        let error = model.encode(&picture).unwrap_err().to_string();
        assert!(error.contains("multiples of 32"), "{shape:?}: {error}");
        assert!(model.encode_strips(&picture, 64).is_err());
        assert!(model.encode_tiled(&picture, &Tiling::default()).is_err());
    }
    let latent = some_latent(1, 2, 2, 7);
    assert!(
        model
            .decode(&latent)
            .unwrap_err()
            .to_string()
            .contains("[1, 2, 2, 7]")
    );

    let poisoned = (some_latent(1, 2, 2, 8) * f64::NAN).unwrap();
    let error = model.decode(&poisoned).unwrap_err();
    let Error::NonFinite { stage, layer } = error else {
        panic!("{error}")
    };
    assert_eq!((stage.as_str(), layer.as_str()), ("vae", "decoder.conv_in"));
}
