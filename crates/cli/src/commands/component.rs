//! What the verbs share that run one component on tensors: finding it, and reading its inputs.

use std::path::Path;

use brisk_models::component::{
    Component, ComponentConfig, Entry, NamedTensors, Sizes, read_inputs,
};
use brisk_models::registry;
use brisk_store::{ModelFolder, open_weights};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// A component of a model, with what its `config.json` says.
pub struct Found {
    /// The way to run it.
    pub entry: &'static Entry,
    /// Its configuration.
    pub config: Box<dyn ComponentConfig>,
    /// Folder below the model's; empty for the model's own.
    pub folder: String,
    /// The configuration's name, for messages.
    pub label: String,
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
        let inside = |folder: &str| format!("{folder}/config.json");
        let (folder, file) = match folders.iter().find(|folder| model.exists(&inside(folder))) {
            Some(folder) => (*folder, inside(folder)),
            None if model.exists("config.json") => ("", "config.json".to_owned()),
            None => {
                let places: Vec<String> = folders.iter().map(|folder| inside(folder)).collect();
                return Err(Failure::failed(format!(
                    "{}: there is no {}: expected {} (a pipeline's folder) or config.json (the component's own)",
                    model.label(),
                    folders.join(" or "),
                    places.join(" or ")
                )));
            }
        };
        let bytes = model.read(&file)?;
        let label = format!("{}/{file}", model.label());
        let value = brisk_store::parse_json(&bytes, &label)?;
        let (component, entry) = chosen(&value, &label, entry, &able)?;
        Ok(Self {
            entry,
            config: (component.open)(&bytes, &label)?,
            folder: folder.to_owned(),
            label,
        })
    }

    /// What the pipeline's other components say of themselves.
    pub fn beside(&self, model: &ModelFolder) -> Result<Sizes> {
        let mut sizes = Sizes::default();
        let folders = registry::COMPONENTS
            .iter()
            .flat_map(|component| component.folders);
        for folder in folders {
            let file = format!("{folder}/config.json");
            if *folder == self.folder || !model.exists(&file) {
                continue;
            }
            if let Some(component) = registry::of_config(&model.read_json(&file)?) {
                let label = format!("{}/{file}", model.label());
                let config = (component.open)(&model.read(&file)?, &label)?;
                for (name, value) in config.shared() {
                    sizes.set(name, value);
                }
            }
        }
        Ok(sizes)
    }

    /// The tensors of a file, held to what the entry takes.
    pub fn read_inputs(&self, path: &Path) -> Result<NamedTensors> {
        let source = open_weights(path)?;
        let ports = self.config.inputs(self.entry);
        let label = path.display().to_string();
        let dimension = |word: &str| self.config.dimension(word);
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
