//! CLIP's two encoders against the goldens of transformers.

#[path = "common/components.rs"]
mod components;

use brisk_models::clip::MODEL;
use brisk_models::component::{ComponentWeights, LoadSettings, PrepareError, Sizes, read_inputs};
use brisk_models::registry;
use brisk_nn::Trace;
use brisk_store::{ModelFolder, parse_json};
use brisk_testkit::{Golden, fixtures_dir};

const TOLERANCE: f64 = 1e-4;

#[test]
fn pictures_and_texts_are_as_alike_as_in_the_reference() {
    let folder = ModelFolder::Disk(fixtures_dir().join("clip/model"));
    let file = folder.read("config.json").unwrap();
    let named = registry::of_config(&parse_json(&file, "config.json").unwrap()).unwrap();
    assert_eq!(named.name, MODEL.name);
    let stored = folder.open_component("", None).unwrap();
    let found = registry::recognise(&*stored, &Default::default()).unwrap();
    assert_eq!(found.unwrap().0.name, MODEL.name);

    let config = (MODEL.open)(&file, "config.json").unwrap();
    let entry = MODEL.entry("similarity").unwrap();
    let path = "clip/model/golden.safetensors";
    let given = components::inputs(path, "inputs.");
    let dimension = |word: &str| config.dimension(word);
    let inputs = read_inputs(&config.inputs(entry), &dimension, &*given, "inputs").unwrap();
    let work = config.work(entry, &inputs, &Sizes::default()).unwrap();
    assert!(work.costs.iter().all(|cost| cost.flops > 0));
    let model = config
        .load(
            entry,
            &ComponentWeights::Stored(stored),
            &LoadSettings::default(),
        )
        .unwrap();
    let mut ready = match model.prepare(&inputs, &Sizes::default()) {
        Ok(ready) => ready,
        Err(PrepareError::Failed(error)) => panic!("{error}"),
        Err(PrepareError::Size(error)) => panic!("{error}"),
    };
    let mut seen = Vec::new();
    ready
        .run(&mut Trace::details(&mut |name, _| {
            seen.push(name.to_owned())
        }))
        .unwrap();
    assert!(seen.contains(&"text_model.layers.1".to_owned()), "{seen:?}");
    assert!(
        seen.contains(&"vision_model.layers.2".to_owned()),
        "{seen:?}"
    );
    let outputs = ready.outputs().unwrap();
    let mut golden = Golden::open(path);
    for name in ["text_embeds", "image_embeds", "logits_per_image"] {
        let found = outputs.required(name).unwrap();
        let name = format!("outputs.{name}");
        assert!(golden.compare(&name, found, TOLERANCE), "{name}");
    }
}
