//! One component of a model's folder.

use std::sync::Arc;

use brisk_models::component::ComponentConfig;
use brisk_models::registry;
use brisk_pipelines::Error;
use brisk_pipelines::folder::ComponentFolder;
use brisk_store::{ModelFolder, Summary, TensorSource, summarise};
use serde_json::{Value, json};

use crate::text;

/// What a component's subfolder holds.
pub enum State {
    /// Weights.
    Weights {
        /// The tensors.
        source: Arc<dyn TensorSource>,
        /// Counts.
        summary: Summary,
    },
    /// Small files only, as for a scheduler or a tokenizer.
    Settings,
    /// Not there: why.
    Missing(String),
    /// There, and not readable: why.
    Damaged(String),
}

/// What its configuration says, and what loading the weights by it will say.
struct Configuration {
    config: Box<dyn ComponentConfig>,
    problem: Option<String>,
}

/// One component.
pub struct Component {
    /// Subfolder; empty for the folder itself.
    name: String,
    /// Class by the index or the configuration.
    pub class: Option<String>,
    /// What is there.
    pub state: State,
    configuration: Option<std::result::Result<Configuration, String>>,
    /// Keys of its configuration that nothing here knows.
    unknown_keys: Vec<String>,
}

/// Every component that a pipeline's index names.
pub fn of_pipeline(folder: &ModelFolder, index: &Value, variant: Option<&str>) -> Vec<Component> {
    let Some(entries) = index.as_object() else {
        return Vec::new();
    };
    let named = entries.iter().filter_map(|(name, entry)| {
        let class = entry.as_array().filter(|entry| entry.len() == 2)?[1].as_str()?;
        Some((name, class))
    });
    named
        .map(|(name, class)| Component::open(folder, name, Some(class), variant))
        .collect()
}

/// Networks in the folders that they usually have, where nothing but their own configurations names them; none
/// where the folder is a network's itself.
pub fn of_parts(folder: &ModelFolder, variant: Option<&str>) -> Option<Vec<Component>> {
    let known = |place: &ComponentFolder| {
        let config = place.has_config().then(|| place.config_json().ok())??;
        registry::of_config(&config).map(|_| ())
    };
    if known(&ComponentFolder::new(folder, "")).is_some() {
        return None;
    }
    let folders = registry::COMPONENTS.iter().flat_map(|known| known.folders);
    let mut names: Vec<&str> = Vec::new();
    for name in folders {
        if !names.contains(name) && known(&ComponentFolder::new(folder, *name)).is_some() {
            names.push(name);
        }
    }
    let parts = names
        .iter()
        .map(|name| Component::open(folder, name, None, variant));
    (!names.is_empty()).then(|| parts.collect())
}

impl Configuration {
    fn new(config: Box<dyn ComponentConfig>, state: &State) -> Self {
        let problem = match state {
            State::Weights { source, .. } => config.check(source.clone()).err(),
            _ => None,
        };
        Self {
            config,
            problem: problem.map(|error| error.to_string()),
        }
    }
}

impl Component {
    /// Looks at the subfolder `name`; an empty one means the folder itself.
    pub fn open(
        folder: &ModelFolder,
        name: &str,
        class: Option<&str>,
        variant: Option<&str>,
    ) -> Self {
        let place = ComponentFolder::new(folder, name);
        let config = place.inside("config.json");
        let value = place.config_json().ok();
        let class = class.map(str::to_owned).or_else(|| {
            let value = value.as_ref()?;
            ["_class_name", "model_type", "model_name"]
                .iter()
                .find_map(|key| value.get(key)?.as_str())
                .map(str::to_owned)
        });
        let settings = [
            "scheduler_config.json",
            "tokenizer.json",
            "vocab.json",
            "preprocessor_config.json",
        ];
        let state = if !place.has_config() {
            match settings.iter().any(|file| place.exists(file)) {
                true => State::Settings,
                false => State::Missing(match name.contains("tokenizer") {
                    true => format!(
                        "there is no {}, and no vocab.json",
                        place.inside("tokenizer.json")
                    ),
                    false => format!("there is no {config}"),
                }),
            }
        } else {
            match place.weights(variant) {
                Ok(source) => State::Weights {
                    summary: summarise(&*source),
                    source,
                },
                Err(Error::Store(error @ brisk_store::Error::Missing { .. })) => {
                    State::Missing(error.to_string())
                }
                Err(error) => State::Damaged(error.to_string()),
            }
        };
        let named = class.as_deref().and_then(registry::of_class);
        let component = named.or_else(|| registry::of_config(value.as_ref()?));
        let unknown_keys = match (component, &value) {
            (Some(component), Some(value)) => component.unknown_keys(value),
            _ => Vec::new(),
        };
        let unknown_keys = unknown_keys.into_iter().map(str::to_owned).collect();
        let configuration = match component {
            Some(component) if place.has_config() => {
                let read = place.component_config(component, variant);
                let read = read.map_err(|error| error.to_string());
                Some(read.map(|config| Configuration::new(config, &state)))
            }
            _ => None,
        };
        Self {
            name: name.to_owned(),
            class,
            state,
            configuration,
            unknown_keys,
        }
    }

    /// Name for a table.
    pub fn shown_name(&self) -> &str {
        if self.name.is_empty() {
            "model"
        } else {
            &self.name
        }
    }

    /// What its configuration says, in words.
    pub fn facts(&self) -> Option<String> {
        match self.configuration.as_ref()? {
            Ok(configuration) => Some(configuration.config.description()),
            Err(_) => None,
        }
    }

    /// What its configuration says that nothing here knows, if anything.
    pub fn note(&self) -> Option<String> {
        (!self.unknown_keys.is_empty()).then(|| {
            format!(
                "{}: brisk does not know these keys of its config.json and goes without them: {}",
                self.shown_name(),
                self.unknown_keys.join(", ")
            )
        })
    }

    /// What is missing or wrong, if anything.
    pub fn problem(&self) -> Option<String> {
        let name = self.shown_name();
        match (&self.state, &self.configuration) {
            (State::Missing(why) | State::Damaged(why), _) => Some(format!("{name}: {why}")),
            (_, Some(Err(why))) => Some(format!("{name}: {why}")),
            (_, Some(Ok(Configuration { problem, .. }))) => {
                problem.as_ref().map(|problem| format!("{name}: {problem}"))
            }
            _ => None,
        }
    }

    /// Whether it is not there, or not whole.
    pub fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing(_))
    }

    /// The word before [`Self::problem`].
    pub fn kind_of_problem(&self) -> &'static str {
        match &self.state {
            State::Missing(_) => "missing",
            _ => "wrong",
        }
    }

    /// A row: name, class, parameters, bytes, types.
    pub fn cells(&self) -> Vec<String> {
        let class = self.class.clone().unwrap_or_else(|| "unknown".to_owned());
        let mut cells = vec![self.shown_name().to_owned(), class];
        match &self.state {
            State::Weights { summary, .. } => {
                cells.extend([
                    text::count(summary.parameters as u64),
                    text::bytes(summary.bytes as u64),
                    dtypes(summary),
                ]);
            }
            State::Settings => cells.push("settings".to_owned()),
            State::Missing(_) => cells.push("missing".to_owned()),
            State::Damaged(_) => cells.push("damaged".to_owned()),
        }
        cells
    }

    /// As JSON, with every tensor if asked for.
    pub fn json(&self, tensors: bool) -> Value {
        let mut document =
            json!({"name": self.shown_name(), "class": self.class, "problem": self.problem()});
        if let Some(Ok(configuration)) = &self.configuration {
            document["configuration"] = configuration.config.description().into();
            document["facts"] = configuration.config.facts().into();
            document["unknown_keys"] = json!(self.unknown_keys);
            document["expected_parameters"] = configuration.config.parameters().into();
        }
        if let State::Weights { source, summary } = &self.state {
            document["summary"] = json!(summary);
            if tensors {
                document["tensors"] = super::tensor_list(&**source);
            }
        }
        document
    }
}

/// Types with their shares, the largest first.
pub fn dtypes(summary: &Summary) -> String {
    let mut types: Vec<(&String, &usize)> = summary.by_dtype.iter().collect();
    types.sort_by(|a, b| b.1.cmp(a.1));
    match &types[..] {
        [] => "no tensors".to_owned(),
        [(name, _)] => (*name).clone(),
        several => several
            .iter()
            .map(|(name, count)| format!("{name} {}", text::count(**count as u64)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}
