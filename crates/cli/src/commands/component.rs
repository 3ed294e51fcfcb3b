//! What the verbs share that run one component on tensors: finding it, and reading its inputs.

use std::path::Path;

use brisk_models::component::{
    Component, ComponentConfig, Entry, NamedTensors, Sizes, read_inputs,
};
use brisk_models::registry;
use brisk_pipelines::folder::{ComponentFolder, Opened, Wanted};
use brisk_store::{ModelFolder, open_weights};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// A component of a model that can be run in a way.
pub struct Found {
    /// The way to run it.
    pub entry: &'static Entry,
    /// Where it lies.
    pub place: ComponentFolder,
    component: &'static Component,
}

impl Found {
    /// The component below a pipeline's folder, or the folder itself, that can be run as `entry`.
    pub fn find(model: &ModelFolder, entry: &str) -> Result<Self> {
        let able: Vec<(&'static Component, &'static Entry)> = registry::entries()
            .into_iter()
            .filter(|(_, known)| known.name == entry)
            .collect();
        let folders = able.iter().flat_map(|(component, _)| component.folders);
        let folders: Vec<&str> = folders.copied().collect();
        let place = ComponentFolder::find(model, &folders)?;
        let label = place.config_label();
        let (component, entry) = chosen(&place.config_json()?, &label, entry, &able)?;
        Ok(Self {
            entry,
            component,
            place,
        })
    }

    /// What the pipeline's other components say of themselves.
    pub fn beside(&self, model: &ModelFolder) -> Result<Sizes> {
        let mut sizes = Sizes::default();
        let folders = registry::COMPONENTS
            .iter()
            .flat_map(|component| component.folders);
        for folder in folders {
            let place = ComponentFolder::new(model, *folder);
            if *folder == self.place.name() || !place.has_config() {
                continue;
            }
            if let Some(component) = registry::of_config(&place.config_json()?) {
                for (name, value) in place.component_config(component, None)?.shared() {
                    sizes.set(name, value);
                }
            }
        }
        Ok(sizes)
    }

    /// Reads its configuration and finds its weights.
    pub fn open(&self, wanted: &Wanted) -> Result<Opened<dyn ComponentConfig>> {
        Ok(self.place.open_as(self.component, wanted)?)
    }

    /// The tensors of a file, held to what the entry takes.
    pub fn read_inputs(&self, config: &dyn ComponentConfig, path: &Path) -> Result<NamedTensors> {
        let source = open_weights(path)?;
        let ports = config.inputs(self.entry);
        let label = path.display().to_string();
        let dimension = |word: &str| config.dimension(word);
        Ok(read_inputs(&ports, &dimension, &*source, &label)?)
    }
}

/// The component that a configuration names; one that names none is what the only candidate expects.
fn chosen(
    config: &Value,
    label: &str,
    entry: &str,
    able: &[(&'static Component, &'static Entry)],
) -> Result<(&'static Component, &'static Entry)> {
    let Some(component) = registry::of_config(config) else {
        return match able {
            [only] => Ok(*only),
            _ => {
                let classes = able.iter().flat_map(|(component, _)| component.classes);
                let classes: Vec<&str> = classes.copied().collect();
                Err(Failure::failed(format!(
                    "{label}: names no network that brisk runs as {entry} (found: {}); expected one of {}",
                    registry::classes(config).join(", "),
                    classes.join(", ")
                )))
            }
        };
    };
    let found = able.iter().find(|(able, _)| std::ptr::eq(*able, component));
    found.copied().ok_or_else(|| {
        let entries: Vec<&str> = component.entries.iter().map(|entry| entry.name).collect();
        Failure::failed(format!(
            "{label} describes a {}, which has no {entry}; it has {}",
            component.name,
            entries.join(", ")
        ))
    })
}
