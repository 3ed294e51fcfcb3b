//! The detector of characters and the recogniser of words against their goldens.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_models::component::{Component, ComponentWeights, LoadSettings, Sizes, read_inputs};
use brisk_models::{craft, crnn};
use brisk_nn::{Tensor, Trace, Weights};
use brisk_store::{MappedSource, MemorySource, ModelFolder, Slice, TensorSource, open_weights};
use brisk_testkit::{Golden, fixtures_dir};

const TOLERANCE: f64 = 1e-4;

fn folder(name: &str) -> ModelFolder {
    ModelFolder::Disk(fixtures_dir().join(name))
}

/// The inputs of a golden as a file of them.
fn inputs(path: &str) -> Arc<dyn TensorSource> {
    let source = open_weights(&fixtures_dir().join(path)).unwrap();
    let names = source.names().into_iter();
    let map: BTreeMap<String, Slice> = names
        .filter_map(|name| {
            Some((
                name.strip_prefix("inputs.")?.to_owned(),
                Slice::whole(&*name),
            ))
        })
        .collect();
    Arc::new(MappedSource::new(source, map).unwrap())
}

/// Runs a network's one entry on its golden and compares every part and every result.
fn agrees(component: &Component, name: &str) {
    let (folder, entry) = (folder(name), &component.entries[0]);
    let config = (component.open)(&folder.read("config.json").unwrap(), name).unwrap();
    let path = format!("{name}/golden_{}.safetensors", entry.name);
    let mut golden = Golden::open(&path);
    let dimension = |word: &str| config.dimension(word);
    let inputs = read_inputs(&config.inputs(entry), &dimension, &*inputs(&path), &path).unwrap();
    let weights = ComponentWeights::Stored(folder.open_component("", None).unwrap());
    let model = config
        .load(entry, &weights, &LoadSettings::default())
        .unwrap();
    let mut seen = 0;
    let mut see = |name: &str, x: &Tensor| {
        assert!(
            golden.compare(&format!("blocks.{name}"), x, TOLERANCE),
            "{name}"
        );
        seen += 1;
    };
    let mut ready = model
        .prepare(&inputs, &Sizes::default())
        .unwrap_or_else(|error| panic!("{error:?}"));
    ready.run(&mut Trace::details(&mut see)).unwrap();
    let outputs = ready.outputs().unwrap();
    for port in entry.outputs {
        let found = outputs.required(port.name).unwrap();
        assert!(golden.compare(&format!("outputs.{}", port.name), found, TOLERANCE));
    }
    assert_eq!(golden.names("blocks.").len(), seen);
    golden.report();
}

#[test]
fn the_detector_agrees_map_by_map() {
    agrees(&craft::COMPONENT, "craft/base");
}

#[test]
fn the_recogniser_agrees_part_by_part() {
    agrees(&crnn::COMPONENT, "crnn/base");
}

#[test]
fn widths_are_told_by_tensors() {
    let source = folder("craft/base").open_component("", None).unwrap();
    let plain = craft::plain_names(source).unwrap();
    let written = folder("craft/base").read("config.json").unwrap();
    let wanted = craft::CraftConfig::from_json(&written, "config.json").unwrap();
    assert_eq!(craft::CraftConfig::of_tensors(&*plain).unwrap(), wanted);

    let source = folder("crnn/base").open_component("", None).unwrap();
    let plain = crnn::plain_names(source).unwrap();
    // Its characters are not those of English.
    let refused = crnn::CrnnConfig::of_tensors(&*plain)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("14 classes") && refused.contains("characters"),
        "{refused}"
    );
    let nothing = MemorySource::new(Vec::new()).unwrap();
    let refused = craft::CraftConfig::of_tensors(&nothing)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("basenet.slice1.0.weight"), "{refused}");
}

#[test]
fn the_link_refiner_agrees() {
    let source = folder("craft/refiner").open_component("", None).unwrap();
    let plain = craft::plain_names(source).unwrap();
    let config = craft::LinkRefinerConfig::of_tensors(&*plain).unwrap();
    assert_eq!((config.inputs, config.channels), (10, [12, 16]));
    let refiner = craft::LinkRefiner::load(&config, &Weights::from_source(plain)).unwrap();
    let mut golden = Golden::open("craft/refiner/golden_refiner.safetensors");
    let scores = craft::Scores {
        maps: golden.get("inputs.maps"),
        features: golden.get("inputs.features"),
    };
    assert!(golden.compare("affinity", &refiner.forward(&scores).unwrap(), TOLERANCE));
    golden.report();
    let narrow = craft::Scores {
        features: scores.maps.clone(),
        ..scores
    };
    let refused = refiner.forward(&narrow).unwrap_err().to_string();
    assert!(refused.contains("detector of 4"), "{refused}");

    let detector = folder("craft/base").open_component("", None).unwrap();
    let refused = craft::LinkRefinerConfig::of_tensors(&*craft::plain_names(detector).unwrap());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("no link refiner"), "{refused}");
}
