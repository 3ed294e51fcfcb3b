//! The projector from outside.

use std::collections::BTreeMap;

use brisk_nn::{Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::super::projector::{Projector, ProjectorConfig, Widths};
use super::super::tower::TowerConfig;
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Neighbour, Port, PrepareResult, Recognised, Runnable, Size, SizeName, Sizes,
    Work, pass,
};
use crate::cost::Cost;
use crate::language_model::LanguageModelConfig;
use crate::{Error, Result};

/// VILA-U's projector.
pub static COMPONENT: Component = Component {
    name: "VILA-U projector",
    classes: &ProjectorConfig::CLASSES,
    keys: &ProjectorConfig::KEYS,
    folders: &["mm_projector"],
    beside: &["vision_tower", "llm"],
    entries: &[PROJECT],
    recognise,
    open: |bytes, label| {
        Ok(Box::new(Configuration {
            config: ProjectorConfig::from_json(bytes, label)?,
            codeword: None,
            hidden: None,
        }))
    },
};

const FEATURES: Port = Port::float("features", &["B", "T", "C"]);
const EMBEDDINGS: Port = Port::float("embeddings", &["B", "T", "H"]);

const PROJECT: Entry = Entry {
    name: "projector",
    about: "Take sums of codewords to embeddings of the language model",
    inputs: &[FEATURES],
    outputs: &[EMBEDDINGS],
    sizes: &[PLACES],
    settings: &[],
};

const PLACES: SizeName = SizeName {
    name: "places",
    unit: "N",
    about: "Places of pictures (default: 256)",
    usual: Some(256),
    smallest: 1,
    largest: 65_536,
    of_inputs: true,
};

/// Widths of the 256-pixel model, where nothing says others.
const PUBLISHED: Widths = Widths {
    codeword: 1024,
    hidden: 4096,
};

/// A number, with the file and key that say so.
type Said = (usize, String);

struct Configuration {
    config: ProjectorConfig,
    codeword: Option<Said>,
    hidden: Option<Said>,
}

fn recognise(
    _source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    // Its names are those of any list of layers.
    Ok(None)
}

impl Configuration {
    /// What the folders beside say; of an identity one side says both.
    fn expected(&self) -> Widths {
        let number = |said: &Option<Said>| said.as_ref().map(|(number, _)| *number);
        let (codeword, hidden) = (number(&self.codeword), number(&self.hidden));
        let identity = self.config == ProjectorConfig::Identity;
        let other = |of: Option<usize>| if identity { of } else { None };
        Widths {
            codeword: codeword.or(other(hidden)).unwrap_or(PUBLISHED.codeword),
            hidden: hidden
                .or(other(codeword))
                .or(other(Some(PUBLISHED.codeword)))
                .unwrap_or(PUBLISHED.hidden),
        }
    }

    /// The widths of a file, held to what the folders beside it say.
    fn widths(&self, weights: &Weights) -> Result<Widths> {
        let Some(stored) = self.config.stored_widths(weights) else {
            return Ok(self.expected());
        };
        for (said, found, what) in [
            (&self.codeword, stored.codeword, "takes codewords"),
            (&self.hidden, stored.hidden, "gives embeddings"),
        ] {
            if let Some((wanted, key)) = said
                && *wanted != found
            {
                return Err(Error::Config(format!(
                    "the projector {what} of {found} channels, but {key} is {wanted}; they do not belong together"
                )));
            }
        }
        Ok(stored)
    }
}

impl ComponentConfig for Configuration {
    fn description(&self) -> String {
        let Widths { codeword, hidden } = self.expected();
        format!("{}, width {codeword} to {hidden}", self.config.name())
    }

    fn facts(&self) -> Map<String, Value> {
        let Widths { codeword, hidden } = self.expected();
        let facts = json!({
            "kind": self.config.name(), "codeword_width": codeword, "hidden_width": hidden,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.config.parameters(self.expected())
    }

    fn attach(&mut self, neighbour: &Neighbour) -> Result<()> {
        let key = |key: &str| format!("`{key}` of {}", neighbour.label);
        if neighbour.folder == "llm" {
            let config = LanguageModelConfig::llama(neighbour.config, neighbour.label)?;
            self.hidden = Some((config.hidden_size, key("hidden_size")));
        } else {
            let config = TowerConfig::from_json(neighbour.config, neighbour.label)?;
            self.codeword = Some((config.embed_dim, key("rqvaesiglip.embed_dim")));
        }
        Ok(())
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        _settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        Ok(weights.plain())
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        Projector::load(self.config, self.widths(weights)?, weights).map(drop)
    }

    /// Widths that only the weights say are checked when it runs.
    fn dimension(&self, word: &str) -> Option<Dimension> {
        match word {
            "C" => self
                .codeword
                .as_ref()
                .map(|(number, _)| Dimension::Exactly(*number)),
            _ => None,
        }
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        entry.sizes.iter().map(|size| size.with(0, 1)).collect()
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let shape = [1, sizes.or_zero(PLACES.name), self.expected().codeword];
        made.normal(FEATURES.name, &shape, 1.0, false)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let (batch, places, _) = inputs.required(FEATURES.name)?.dims3()?;
        let Widths { codeword, hidden } = self.expected();
        let [places_each, from, to] = [places, codeword, hidden].map(|size| size as u64);
        let mut cost = Cost::new("layers");
        match self.config {
            ProjectorConfig::Identity => {}
            ProjectorConfig::Linear => cost.linear(places_each, from, to),
            ProjectorConfig::Mlp(count) => {
                cost.linear(places_each, from, to);
                (1..count).for_each(|_| cost.linear(places_each, to, to));
            }
        }
        let sizes = vec![("batch", batch), ("places", places)];
        Ok(Work::of_batch(batch, sizes, &[cost]))
    }

    fn load(
        &self,
        _entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        let widths = self.widths(&weights)?;
        Ok(Box::new(Projector::load(self.config, widths, &weights)?))
    }
}

impl Runnable for Projector {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let features = inputs.required(FEATURES.name)?.clone();
        let (found, wanted) = (features.dim(2)?, self.widths().codeword);
        if found != wanted {
            return Err(Error::Shape(format!(
                "\"{}\" has {found} channels; the projector takes {wanted}",
                FEATURES.name
            ))
            .into());
        }
        Ok(pass(
            move |trace| self.forward(&features, trace),
            |embeddings| {
                Ok([(EMBEDDINGS.name.to_owned(), embeddings.clone())]
                    .into_iter()
                    .collect())
            },
        ))
    }
}
