//! What is said when a model is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use brisk_models::component::RandomWeights;
use brisk_store::ModelFolder;

use crate::error::{Error, Result};
use crate::options::{Key, Options};

/// From a model's name, as an option gives it, to its folder.
pub type Resolve = dyn Fn(&str, Option<&str>) -> Result<ModelFolder> + Send + Sync;

/// From a weights file's name, as an option gives it, to its path.
pub type ResolveFile = dyn Fn(&Path) -> Result<PathBuf> + Send + Sync;

/// How to open a model.
#[derive(Clone)]
pub struct OpenSettings {
    /// Options of [`crate::options::Scope::Open`].
    pub options: Options,
    /// Make up weights at the shapes of the configurations instead of opening weight files.
    pub random: Option<RandomWeights>,
    /// Open to plan requests and to tell of the model: weights are not read, and nothing can be run.
    pub plan_only: bool,
    /// Finds models that options name, with the variant that is wanted.
    pub resolve: Arc<Resolve>,
    /// Finds weights files that options name.
    pub resolve_file: Arc<ResolveFile>,
}

impl Default for OpenSettings {
    fn default() -> Self {
        Self::new(Options::new())
    }
}

impl OpenSettings {
    /// With these options; other models and files are looked for on disk only.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            random: None,
            plan_only: false,
            resolve: Arc::new(|name, _| {
                let path = PathBuf::from(name);
                if path.is_dir() {
                    return Ok(ModelFolder::Disk(path));
                }
                Err(Error::folder(name, "there is no such folder"))
            }),
            resolve_file: Arc::new(|path| Ok(path.to_owned())),
        }
    }

    /// The folder that an option names.
    pub(crate) fn folder(&self, key: &'static Key<String>) -> Result<Option<ModelFolder>> {
        let Some(name) = self.options.get(key) else {
            return Ok(None);
        };
        let variant = self.options.get(&crate::options::keys::VARIANT);
        (self.resolve)(&name, variant.as_deref())
            .map(Some)
            .map_err(|error| error.of(key.name()))
    }
}

impl OpenSettings {
    /// The path of a weights file that the option of this name gives.
    pub(crate) fn file(&self, option: &'static str, given: &Path) -> Result<PathBuf> {
        (self.resolve_file)(given).map_err(|error| error.of(option))
    }
}

impl std::fmt::Debug for OpenSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OpenSettings")
            .field("options", &self.options)
            .field("random", &self.random)
            .field("plan_only", &self.plan_only)
            .finish_non_exhaustive()
    }
}
