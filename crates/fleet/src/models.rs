//! Which model answers which request of a batch.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use brisk::ResultKind;
use brisk_server::engine::ModelInfo;
use clap::Args;

use crate::batch::{Entry, Input};
use crate::error::{Error, Result};

/// Which models answer, and what they may use.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelOptions {
    /// A model: one in the box, a folder or a hub id; ID=MODEL chooses its id (default: all in the box)
    #[arg(long = "model", value_name = "[ID=]MODEL")]
    pub models: Vec<String>,

    /// Another name for a model
    #[arg(long = "alias", value_name = "NAME=ID")]
    pub aliases: Vec<String>,

    /// Memory for models and requests, such as 24GiB (default: 80 % of what is free)
    #[arg(long, value_name = "SIZE", value_parser = brisk_server::parse_bytes)]
    pub memory: Option<u64>,
}

impl ModelOptions {
    /// Settings of a server that only this program asks.
    pub fn settings(&self) -> brisk_server::Settings {
        brisk_server::Settings {
            models: self.models.clone(),
            aliases: self.aliases.clone(),
            memory: self.memory,
            // Who asks waits for answers, so there are never many.
            max_jobs: usize::MAX,
            max_jobs_per_caller: usize::MAX,
            ..Default::default()
        }
    }
}

/// The models of a batch, by what a request says of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answering(BTreeMap<String, ModelInfo>);

impl Answering {
    /// Finds the model of every request among `models`; a request that names none asks the first that gives
    /// what it wants.
    ///
    /// # Errors
    /// A request that none of them answers, by its line.
    pub fn find(input: &Input, models: &[ModelInfo]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for entry in &input.entries {
            let key = Self::key(entry);
            if let Slot::Vacant(slot) = found.entry(key) {
                slot.insert(of(input, entry, models)?.clone());
            }
        }
        Ok(Self(found))
    }

    /// What a request says of its model.
    pub fn key(entry: &Entry) -> String {
        let kind = entry.endpoint.result().name();
        format!("{kind} {}", entry.model.as_deref().unwrap_or_default())
    }

    /// The models.
    pub fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        self.0.values()
    }

    /// The model of a request.
    pub fn of(&self, entry: &Entry) -> Option<&ModelInfo> {
        self.0.get(&Self::key(entry))
    }

    /// What requests say, with the slugs of the models that answer them.
    pub fn slugs(&self) -> BTreeMap<String, String> {
        let models = self.0.iter();
        models
            .map(|(key, model)| (key.clone(), model.slug.clone()))
            .collect()
    }
}

fn of<'m>(input: &Input, entry: &Entry, models: &'m [ModelInfo]) -> Result<&'m ModelInfo> {
    let wanted: ResultKind = entry.endpoint.result();
    let gives = |model: &&ModelInfo| model.results.contains(&wanted);
    let found = match &entry.model {
        None => models.iter().find(gives),
        Some(name) => models
            .iter()
            .filter(gives)
            .find(|model| model.id == *name || model.aliases.contains(name)),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = models
            .iter()
            .filter(gives)
            .map(|model| &*model.id)
            .collect();
        let known = match known.is_empty() {
            true => format!("no model here gives {}", wanted.name()),
            false => format!("{} comes from {}", wanted.name(), known.join(", ")),
        };
        let asked = entry.model.as_deref().map_or_else(
            || "it names no model".to_owned(),
            |model| {
                let shown = brisk_store::shown_within(model, 64);
                format!("model: there is no {shown} for {}", entry.endpoint.path())
            },
        );
        Error::Usage(format!(
            "{}, line {}: {asked}; {known}",
            input.path.display(),
            entry.line
        ))
    })
}
