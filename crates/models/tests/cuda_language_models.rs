//! Diffusion language models on an emulated card against their authors' classes.

use brisk_models::language_model::{Attention, LanguageModel, LanguageModelConfig, Rows, Span};
use brisk_nn::{DType, Location, Precision, Quantization, Tensor, Trace, WeightsBuilder};
use brisk_testkit::{Golden, fixtures_dir, relative_l2, values};

/// Precisions and the distance from the reference that each may have.
const PRECISIONS: [(Precision, f64); 2] = [(Precision::Half, 2e-2), (Precision::Single, 1e-5)];

fn card(precision: Precision) -> Location {
    let device = brisk_cuda_emulated::device(precision, 3);
    device.expect("the emulator").into()
}

fn config(case: &str) -> LanguageModelConfig {
    let path = fixtures_dir().join("language_models").join(case);
    let bytes = std::fs::read(path.join("config.json")).unwrap();
    LanguageModelConfig::from_json(&bytes, "config.json").unwrap()
}

fn weights(case: &str, location: &Location) -> WeightsBuilder {
    let path = fixtures_dir().join("language_models").join(case);
    let source = brisk_store::open_weights(&path.join("model.safetensors")).unwrap();
    WeightsBuilder::from_source(source).at(location)
}

fn load(case: &str, location: &Location) -> LanguageModel {
    let weights = weights(case, location).build().unwrap();
    LanguageModel::load(&config(case), &weights).unwrap()
}

fn golden(case: &str) -> (Golden, Vec<u32>) {
    let golden = Golden::open(&format!("language_models/{case}/golden.safetensors"));
    let ids = golden.get("inputs.input_ids").to_dtype(DType::U32).unwrap();
    let ids = ids.flatten_all().unwrap().to_vec1().unwrap();
    (golden, ids)
}

#[test]
fn every_dense_architecture_agrees_with_its_reference() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for case in [
        "llada_0",
        "illada_0",
        "llada_norm_0",
        "llada_groups_0",
        "dream_0",
        "a2d_qwen3_0",
        "fast_dllm_v2_0",
        "sdar_0",
    ] {
        for (precision, tolerance) in PRECISIONS {
            let (mut golden, ids) = golden(case);
            let model = load(case, &card(precision));
            let mut compared = 0;
            let mut check = |name: &str, x: &Tensor| {
                compared += usize::from(golden.compare(&format!("blocks.{name}"), x, tolerance));
            };
            let hidden = model
                .hidden_traced(
                    &[Span::whole(&ids)],
                    &mut [None],
                    Rows::All,
                    &mut Trace::parts(&mut check),
                )
                .unwrap();
            assert!(compared > 1, "{case}: {compared}");
            let logits = model.logits(&hidden).unwrap().unsqueeze(0).unwrap();
            assert_eq!(logits.dtype(), DType::F32);
            assert!(golden.compare("outputs.logits", &logits, tolerance));
            // Unwatched, additions run inside the layers before them.
            let logits = model.forward(&[&ids]).unwrap().unsqueeze(0).unwrap();
            assert!(golden.compare("outputs.logits", &logits, tolerance));
            golden.report();
        }
    }
}

/// Blocks that are written again, prefixes and single rows give the rows of the whole run, as a block-causal model's
/// blocks do one after another; nothing but keys and values is wanted of a first pass.
#[test]
fn caches_reproduce_the_whole_run() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for (precision, tolerance) in PRECISIONS {
        let card = card(precision);
        let (_, ids) = golden("llada_0");
        let model = load("llada_0", &card);
        let mut cache = model.cache(ids.len()).unwrap();
        let whole = model.hidden(&[Span::whole(&ids)], &mut [Some(&mut cache)], Rows::All);
        let whole = whole.unwrap().to(&Location::HOST).unwrap();
        let nothing = model.hidden(&[Span::whole(&ids)], &mut [Some(&mut cache)], Rows::None);
        assert_eq!(nothing.unwrap().dim(0).unwrap(), 0);
        for (start, end) in [(9, ids.len()), (9, 15), (20, 21)] {
            let rows = [(0, 0), (0, end - start - 1)];
            let rows = Rows::Some(if end - start > 1 { &rows } else { &rows[..1] });
            let span = Span::from(&ids[start..end], start);
            let part = model
                .hidden(&[span], &mut [Some(&mut cache)], rows)
                .unwrap();
            let first = whole.narrow(0, start, 1).unwrap();
            let last = whole.narrow(0, end - 1, 1).unwrap();
            let wanted = match part.dim(0).unwrap() {
                1 => first,
                _ => Tensor::cat(&[first, last], 0).unwrap(),
            };
            let distance = relative_l2(&values(&part), &values(&wanted));
            assert!(distance < tolerance, "{start}..{end}: {distance:.2e}");
        }

        let config = LanguageModelConfig {
            attention: Attention::BlockCausal(4),
            ..config("dream_2")
        };
        let weights = weights("dream_2", &card).build().unwrap();
        let model = LanguageModel::load(&config, &weights).unwrap();
        let (_, ids) = golden("dream_2");
        let whole = model.hidden(&[Span::whole(&ids)], &mut [None], Rows::All);
        let whole = whole.unwrap().to(&Location::HOST).unwrap();
        let mut cache = model.cache(ids.len()).unwrap();
        for start in (0..ids.len()).step_by(4) {
            let end = (start + 4).min(ids.len());
            let span = Span::from(&ids[start..end], start);
            let part = model.hidden(&[span], &mut [Some(&mut cache)], Rows::All);
            let wanted = whole.narrow(0, start, end - start).unwrap();
            let distance = relative_l2(&values(&part.unwrap()), &values(&wanted));
            assert!(distance < tolerance, "block at {start}: {distance:.2e}");
        }
    }
}

#[test]
fn weights_of_few_bits_agree_with_the_processor() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for (how, tolerance) in [
        (Quantization::EightBit, 2e-2),
        // The processor rounds inputs to 8 bits besides.
        (Quantization::FourBit, 3e-2),
    ] {
        let (_, ids) = golden("llada_0");
        let run = |location: &Location| -> Vec<f32> {
            let weights = weights("llada_0", location).quantize(how, None);
            let model = LanguageModel::load(&config("llada_0"), &weights.build().unwrap());
            values(&model.unwrap().forward(&[&ids]).unwrap())
        };
        let wanted = run(&Location::HOST);
        for precision in [Precision::Half, Precision::Single] {
            let distance = relative_l2(&run(&card(precision)), &wanted);
            assert!(
                distance < tolerance,
                "{how:?}, {precision:?}: {distance:.2e}"
            );
        }
    }
}

/// Experts have no operations on a card: that is said by name, not computed elsewhere.
#[test]
fn experts_are_refused() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    let card = card(Precision::Single);
    let weights = weights("llada_moe_0", &card).build().unwrap();
    let refused = LanguageModel::load(&config("llada_moe_0"), &weights)
        .map_err(|error| error.to_string())
        .and_then(|model| {
            let hidden = model.forward(&[&[1, 2, 3]]);
            hidden.map(drop).map_err(|error| error.to_string())
        });
    assert!(
        refused.as_ref().is_err_and(|text| text.contains("card")),
        "{refused:?}"
    );
}
