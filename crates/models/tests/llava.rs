//! What reads texts and pictures for clips against the goldens of transformers.

#[path = "common/components.rs"]
mod components;

use std::sync::Arc;

use brisk_models::component::{
    Component, ComponentWeights, LoadSettings, NamedTensors, PrepareError, Sizes, read_inputs,
};
use brisk_models::{clip, llava};
use brisk_nn::{Tensor, Trace};
use brisk_store::{Dtype, MemorySource, ModelFolder, TensorSource};
use brisk_testkit::{Golden, fixtures_dir};

const TOLERANCE: f64 = 1e-4;

/// Named tensors: type, shape, bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

fn stored(source: &dyn TensorSource) -> Vec<Stored> {
    let names = source.names().into_iter();
    names
        .map(|name| {
            let view = source.view(&name).unwrap().unwrap();
            (
                name.clone(),
                view.dtype,
                view.shape.clone(),
                view.data.to_vec(),
            )
        })
        .collect()
}

/// The inputs of a golden, with a value beside or without one of them.
fn inputs(golden: &str, skipped: Option<f32>, without: &str) -> Arc<dyn TensorSource> {
    let mut tensors = stored(&*components::inputs(golden, "inputs."));
    tensors.retain(|(name, ..)| name != without);
    if let Some(skipped) = skipped {
        let bytes = skipped.to_le_bytes().to_vec();
        tensors.push(("skip_layers".into(), Dtype::F32, vec![1], bytes));
    }
    Arc::new(MemorySource::new(tensors).unwrap())
}

fn run(
    component: &Component,
    case: &str,
    inputs: &dyn TensorSource,
    see: &mut dyn FnMut(&str, &Tensor),
) -> Result<NamedTensors, String> {
    let folder = ModelFolder::Disk(fixtures_dir().join("llava").join(case));
    let config = (component.open)(&folder.read("config.json").unwrap(), case).unwrap();
    let entry = component.entry("text_encoder").unwrap();
    let dimension = |word: &str| config.dimension(word);
    let message = |error: brisk_models::Error| error.to_string();
    let inputs =
        read_inputs(&config.inputs(entry), &dimension, inputs, "inputs").map_err(message)?;
    let weights = ComponentWeights::Stored(folder.open_component("", None).unwrap());
    let model = config
        .load(entry, &weights, &LoadSettings::default())
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    let mut ready = model
        .prepare(&inputs, &Sizes::default())
        .map_err(|error| match error {
            PrepareError::Failed(error) => error.to_string(),
            PrepareError::Size(error) => error.to_string(),
        })?;
    ready.run(&mut Trace::details(see)).map_err(message)?;
    ready.outputs().map_err(message)
}

#[test]
fn the_text_encoder_agrees_layer_by_layer() {
    for case in ["clip_text", "clip_text_old"] {
        let path = format!("llava/{case}/golden.safetensors");
        let mut golden = Golden::open(&path);
        // The layers' goldens are of texts without a mask.
        let mut ones = stored(&*components::inputs(&path, "inputs."));
        for (name, _, _, bytes) in &mut ones {
            if name == "attention_mask" {
                for value in bytes.chunks_exact_mut(8) {
                    value.copy_from_slice(&1i64.to_le_bytes());
                }
            }
        }
        let plain = MemorySource::new(ones).unwrap();
        let mut compared = 0;
        let mut see = |name: &str, x: &Tensor| {
            if name.starts_with("layers.") {
                assert!(
                    golden.compare(&format!("blocks.{name}"), x, TOLERANCE),
                    "{case} {name}"
                );
                compared += 1;
            }
        };
        let outputs = run(&clip::COMPONENT, case, &plain, &mut see).unwrap();
        assert!(compared > 0 && compared == golden.names("blocks.").len());
        for (name, wanted) in [
            ("last_hidden_state", "plain.last_hidden_state"),
            ("pooled", "outputs.pooled"),
        ] {
            let found = outputs.required(name).unwrap();
            assert!(golden.compare(wanted, found, TOLERANCE), "{case} {name}");
        }
        let masked = inputs(&path, None, "");
        let outputs = run(&clip::COMPONENT, case, &*masked, &mut |_, _| {}).unwrap();
        for name in ["last_hidden_state", "pooled"] {
            let found = outputs.required(name).unwrap();
            let wanted = format!("outputs.{name}");
            assert!(golden.compare(&wanted, found, TOLERANCE), "{case} {name}");
        }
        golden.report();
    }
}

#[test]
fn states_of_texts_with_pictures_agree() {
    for (case, golden_of) in [
        ("llava", "llava"),
        ("llava_new", "llava"),
        ("llama", "llama"),
    ] {
        let path = format!("llava/{golden_of}/golden.safetensors");
        let mut golden = Golden::open(&path);
        for (skipped, wanted) in [
            (None, "outputs.last_hidden_state"),
            (Some(0.0), "outputs.last_hidden_state"),
            (Some(1.0), "skipped.1"),
            (Some(2.0), "skipped.2"),
        ] {
            let mut features = None;
            let mut see = |name: &str, x: &Tensor| {
                if name == "multi_modal_projector" {
                    features = Some(x.reshape(((), x.dim(2).unwrap())).unwrap());
                }
            };
            let inputs = inputs(&path, skipped, "");
            let outputs = run(&llava::COMPONENT, case, &*inputs, &mut see).unwrap();
            let found = outputs.required("last_hidden_state").unwrap();
            assert!(golden.compare(wanted, found, TOLERANCE), "{case} {wanted}");
            assert_eq!(features.is_some(), golden_of == "llava");
            if let Some(features) = features {
                assert!(
                    golden.compare("blocks.features", &features, TOLERANCE),
                    "{case}"
                );
            }
        }
        golden.report();
    }
}

#[test]
fn pictures_and_their_tokens_must_go_together() {
    let path = "llava/llava/golden.safetensors";
    let refused = |inputs: &dyn TensorSource| {
        run(&llava::COMPONENT, "llava", inputs, &mut |_, _| {}).unwrap_err()
    };
    let message = refused(&*inputs(path, Some(5.0), ""));
    assert!(
        message.contains("\"skip_layers\" is 5; expected 0 to 4"),
        "{message}"
    );
    let message = refused(&*inputs(path, Some(0.5), ""));
    assert!(message.contains("skip_layers"), "{message}");
    let mut one = stored(&*inputs(path, None, ""));
    for (name, _, shape, bytes) in &mut one {
        if name == "pixel_values" {
            shape[0] = 1;
            bytes.truncate(bytes.len() / 2);
        }
    }
    let message = refused(&MemorySource::new(one).unwrap());
    assert!(message.contains("more image tokens"), "{message}");
    // Without a picture its token is a word like any other.
    let without = inputs(path, None, "pixel_values");
    run(&llava::COMPONENT, "llava", &*without, &mut |_, _| {}).unwrap();
}
