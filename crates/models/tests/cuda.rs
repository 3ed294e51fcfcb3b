//! Models on an emulated card against the goldens of their references.

// The figures, with --nocapture.
#![allow(clippy::print_stdout)]

#[path = "common/autoencoder.rs"]
mod autoencoder;
mod common;

use std::collections::HashMap;
use std::sync::Arc;

use autoencoder::{CASES, config, diffusers};
use brisk_models::class_conditional::{
    ClassConditionalConfig, ClassConditionalTransformer, plain_names,
};
use brisk_models::dcae::{Autoencoder, Halves};
use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::sana::{ForwardExtras, SanaTransformer};
use brisk_nn::{DType, Init, Linear, Location, Precision, Tensor, Trace, WeightsBuilder, ops};
use brisk_store::{Dtype, MemorySource};
use brisk_testkit::{Golden, fixtures_dir, load_tensors, relative_l2, values};

/// Precisions and the distance from the reference that each may have.
const PRECISIONS: [(Precision, f64); 2] = [(Precision::Half, 2e-2), (Precision::Single, 1e-5)];

fn card(precision: Precision, seed: u32) -> Location {
    let device = brisk_cuda_emulated::device(precision, seed);
    let device = device.expect("the emulator");
    device.into()
}

/// Distance of a map NHWC from the golden's, whole or thinned, where it has it.
fn distance(golden: &HashMap<String, Tensor>, name: &str, found: &Tensor) -> Option<f64> {
    let thinned = format!("{name}.every");
    let (step, wanted) = golden.iter().find_map(|(key, wanted)| match key == name {
        true => Some((1, wanted)),
        false => Some((key.strip_prefix(&thinned)?.parse().unwrap(), wanted)),
    })?;
    // Norms are channels last in the reference too.
    let found = match name.ends_with("norm_out") {
        true => found.clone(),
        false => ops::to_nchw(found).unwrap(),
    };
    let found: Vec<f32> = values(&found).into_iter().step_by(step).collect();
    Some(relative_l2(&found, &values(wanted)))
}

#[test]
fn autoencoders_match_the_reference() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for case in CASES {
        let golden = load_tensors(
            fixtures_dir()
                .join("dcae")
                .join(case)
                .join("golden.safetensors"),
        );
        for (precision, tolerance) in PRECISIONS {
            let weights = WeightsBuilder::from_source(diffusers(case)).at(&card(precision, 3));
            let model =
                Autoencoder::load(&config(case), &weights.build().unwrap(), Halves::Both).unwrap();
            let mut seen = Vec::new();
            let keep =
                &mut |name: &str, x: &Tensor| seen.push((format!("blocks.{name}"), x.clone()));
            let input = |name: &str| ops::to_nhwc(&golden[name]).unwrap();
            let latent = model
                .encode_traced(&input("inputs.sample"), &mut Trace::parts(keep))
                .unwrap();
            let keep =
                &mut |name: &str, x: &Tensor| seen.push((format!("blocks.{name}"), x.clone()));
            let sample = model
                .decode_traced(&input("inputs.latent"), &mut Trace::parts(keep))
                .unwrap();
            assert_eq!(latent.location(), Location::HOST);
            let (picture, mut strips) = (Tensor::zeros(sample.shape(), DType::F32).unwrap(), 0);
            let keep = |row: usize, strip: &Tensor| {
                strips += 1;
                picture.slice_set(&strip.beside(&picture)?, 1, row)
            };
            model
                .decode_strips_within(&input("inputs.latent"), 16, 0, keep)
                .unwrap();
            let apart = relative_l2(&values(&picture), &values(&sample));
            assert!(strips > 1, "{case} has one strip");
            assert!(apart < 1e-6, "{case}: strips are {apart:e} from the whole");
            seen.push(("outputs.latent".into(), latent));
            seen.push(("outputs.sample".into(), sample));
            let distances: Vec<(String, f64)> = seen
                .into_iter()
                .filter_map(|(name, x)| {
                    distance(&golden, &name, &x).map(|distance| (name, distance))
                })
                .collect();
            assert!(
                distances.len() > 4 && distances.iter().any(|(name, _)| name == "outputs.sample")
            );
            for (name, distance) in &distances {
                assert!(
                    *distance < tolerance,
                    "{case}, {precision:?}: first to diverge is {name}, {distance:.2e}"
                );
            }
            let worst = distances
                .iter()
                .map(|(_, distance)| *distance)
                .fold(0.0, f64::max);
            println!(
                "{case}, {precision:?}: {} values, at most {worst:.2e}",
                distances.len()
            );
        }
    }
}

#[test]
fn transformers_match_the_reference() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for case in [
        "t1_base",
        "t2_qk_norm",
        "t3_sprint",
        "t4_position",
        "t5_patch2",
        "t7_learned_sigma",
    ] {
        for (precision, tolerance) in PRECISIONS {
            let mut golden = common::golden(case);
            let inputs = common::Inputs::read(&golden);
            let weights = common::weights_builder(case)
                .at(&card(precision, 3))
                .build()
                .unwrap();
            let model = SanaTransformer::load(&common::config(case), &weights).unwrap();
            let caption = model.encode_caption(&inputs.text, &inputs.lengths).unwrap();
            let mut compared = 0;
            let mut compare = |name: &str, x: &Tensor| {
                let (wanted, x) = common::wanted_block(name, x);
                compared += usize::from(golden.compare(&wanted, &x, tolerance));
            };
            let guidance = inputs.guidance.as_ref();
            let out = model
                .forward_traced(
                    &inputs.latent,
                    &inputs.timestep,
                    guidance,
                    &caption,
                    &ForwardExtras::default(),
                    &mut Trace::details(&mut compare),
                )
                .unwrap();
            assert!(
                compared > 4 && out.location() == Location::HOST,
                "{case}: {compared}"
            );
            assert!(golden.compare("outputs.sample", &common::nchw(&out), tolerance));
            // Unwatched, additions run inside the parts.
            let out = common::run(&model, &inputs, &ForwardExtras::default());
            assert!(golden.compare("outputs.sample", &out, tolerance));
            golden.report();
        }
    }
}

#[test]
fn text_encoders_match_the_reference() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for case in ["softcap50", "softcap2", "sliding", "narrow"] {
        for (precision, tolerance) in PRECISIONS {
            let folder = fixtures_dir().join("gemma2").join(case);
            let mut golden = Golden::open(&format!("gemma2/{case}/golden.safetensors"));
            let config = std::fs::read(folder.join("config.json")).unwrap();
            let config = Gemma2Config::from_json(&config, "config.json").unwrap();
            let source = brisk_store::open_weights(&folder.join("model.safetensors")).unwrap();
            let weights = WeightsBuilder::from_source(source)
                .at(&card(precision, 3))
                .build()
                .unwrap();
            let model = Gemma2Model::load(&config, &weights).unwrap();
            let integers = |name: &str| golden.get(name).to_dtype(DType::U32).unwrap();
            let (ids, mask) = (
                integers("inputs.input_ids"),
                integers("inputs.attention_mask"),
            );
            let out = model.forward(&ids, Some(&mask)).unwrap();
            // Rows of masked positions are zero in the goldens.
            let mask = mask.to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap();
            let out = out.to(&Location::HOST).unwrap();
            let out = out.broadcast_mul(&mask).unwrap();
            assert!(golden.compare("outputs.last_hidden_state", &out, tolerance));
            golden.report();
        }
    }
}

/// Models that were trained in f16 give noise in bf16; f32 takes them.
#[test]
fn files_of_f16_are_refused_by_name() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    let one = [0x00u8, 0x3c].repeat(6);
    let stored = ("x.weight".to_owned(), Dtype::F16, vec![2, 3], one);
    let source = Arc::new(MemorySource::new(vec![stored]).unwrap());
    let load = |precision| {
        let weights = WeightsBuilder::from_source(source.clone()).at(&card(precision, 0));
        Linear::load(&weights.build()?.pp("x"), 3, 2, false, Init::Zeros)
    };
    let refused = load(Precision::Half).unwrap_err().to_string();
    assert!(
        refused.contains("x.weight") && refused.contains("_BF16"),
        "{refused}"
    );
    let layer = load(Precision::Single).unwrap();
    let ones = Tensor::ones((1, 3), DType::F32).unwrap();
    // Operands of two places are refused, whichever comes first.
    assert!(layer.forward(&ones).is_err());
    let moved = ones.to(&card(Precision::Single, 0)).unwrap();
    assert!(
        layer.forward(&moved).is_err() && (&ones + &moved).is_err() && (&moved + &ones).is_err()
    );
}

#[test]
fn class_conditional_transformers_match_the_reference() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for case in ["u_vit", "u_vit_patches", "u_sit", "dit", "dit_patches"] {
        for (precision, tolerance) in PRECISIONS {
            let folder = fixtures_dir().join("class_conditional").join(case);
            let mut golden = Golden::open(&format!(
                "class_conditional/{case}/golden_transformer.safetensors"
            ));
            let config = std::fs::read(folder.join("config.json")).unwrap();
            let config = ClassConditionalConfig::from_json(&config, "config.json").unwrap();
            let source = brisk_store::open_weights(&folder.join("model.safetensors")).unwrap();
            let weights = WeightsBuilder::from_source(plain_names(source).unwrap())
                .at(&card(precision, 3))
                .build()
                .unwrap();
            let model = ClassConditionalTransformer::load(&config, &weights).unwrap();
            let latents = ops::to_nhwc(&golden.get("inputs.hidden_states")).unwrap();
            let classes = golden.get("inputs.class_labels").to_dtype(DType::U32);
            let classes: Vec<u32> = classes.unwrap().to_vec1().unwrap();
            let times = golden.get("inputs.timestep");
            let mut compared = 0;
            let mut compare = |name: &str, x: &Tensor| {
                let name = format!("blocks.{name}");
                compared += usize::from(golden.compare(&name, x, tolerance));
            };
            let trace = &mut Trace::details(&mut compare);
            let found = model
                .forward_traced(&latents, &times, &classes, trace)
                .unwrap();
            assert!(compared > 3 && found.location() == Location::HOST, "{case}");
            let found = ops::to_nchw(&found).unwrap();
            assert!(
                golden.compare("outputs.sample", &found, tolerance),
                "{case}"
            );
            // Unwatched, additions run inside the parts.
            let found = model.forward(&latents, &times, &classes).unwrap();
            let found = ops::to_nchw(&found).unwrap();
            assert!(
                golden.compare("outputs.sample", &found, tolerance),
                "{case}"
            );
            golden.report();
        }
    }
}
