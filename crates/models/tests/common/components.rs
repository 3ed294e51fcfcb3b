//! Networks through the registry: opened with what stands beside them, and run on a golden's inputs.

#![allow(dead_code)] // each test binary uses its part

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_models::component::{
    Component, ComponentConfig, ComponentWeights, LoadSettings, NamedTensors, Neighbour, Sizes,
    read_inputs,
};
use brisk_nn::{Tensor, Trace};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource, open_weights};
use brisk_testkit::fixtures_dir;

/// The component in the folder `own` of a model, whose configuration is `bytes`.
pub fn configured(
    component: &Component,
    bytes: &[u8],
    model: &ModelFolder,
    own: &str,
) -> brisk_models::Result<Box<dyn ComponentConfig>> {
    let mut config = (component.open)(bytes, &format!("{own}/config.json"))?;
    let beside = component.beside.iter().map(|folder| folder.to_string());
    let inside = config
        .inside()
        .into_iter()
        .map(|folder| format!("{own}/{folder}"));
    for folder in beside.chain(inside).collect::<Vec<_>>() {
        let file = format!("{folder}/config.json");
        if !model.exists(&file) {
            continue;
        }
        config.attach(&Neighbour {
            folder: folder.strip_prefix(&format!("{own}/")).unwrap_or(&folder),
            config: &model.read(&file).unwrap(),
            label: &file,
            weights: &|| model.open_component(&folder, None),
        })?;
    }
    Ok(config)
}

/// The component in its usual folder.
pub fn opened(component: &Component, model: &ModelFolder) -> Box<dyn ComponentConfig> {
    let own = component.folders[0];
    let bytes = model.read(&format!("{own}/config.json")).unwrap();
    configured(component, &bytes, model, own).unwrap_or_else(|error| panic!("{error}"))
}

/// The tensors of a golden below `prefix`, as a file of them.
pub fn inputs(path: &str, prefix: &str) -> Arc<dyn TensorSource> {
    let source = open_weights(&fixtures_dir().join(path)).unwrap();
    let names = source.names().into_iter();
    let own = |name: String| {
        let short = name.strip_prefix(prefix)?.to_owned();
        Some((short, Slice::whole(name)))
    };
    let map: BTreeMap<String, Slice> = names.filter_map(own).collect();
    Arc::new(MappedSource::new(source, map).unwrap())
}

/// Runs an entry on those of the inputs that it takes.
pub fn run(
    component: &Component,
    model: &ModelFolder,
    entry: &str,
    source: Arc<dyn TensorSource>,
    see: &mut dyn FnMut(&str, &Tensor),
) -> NamedTensors {
    let config = opened(component, model);
    let entry = component.entry(entry).unwrap();
    let ports = config.inputs(entry);
    let taken = |name: &String| {
        ports.iter().any(|port| match port.is_series() {
            true => name.starts_with(port.name),
            false => name == port.name,
        })
    };
    let kept = source.names().into_iter().filter(taken);
    let map = kept
        .map(|name| (name.clone(), Slice::whole(name)))
        .collect();
    let source = MappedSource::new(source, map).unwrap();
    let dimension = |word: &str| config.dimension(word);
    let inputs = read_inputs(&ports, &dimension, &source, "inputs").unwrap();
    let weights = model.open_component(component.folders[0], None).unwrap();
    let weights = ComponentWeights::Stored(weights);
    let model = config
        .load(entry, &weights, &LoadSettings::default())
        .unwrap();
    let mut ready = match model.prepare(&inputs, &Sizes::default()) {
        Ok(ready) => ready,
        Err(error) => panic!("{error:?}"),
    };
    ready.run(&mut Trace::details(see)).unwrap();
    ready.outputs().unwrap()
}
