//! Where detector and recogniser lie: in the model's folder, or where options say.

use std::path::Path;
use std::sync::Arc;

use brisk_models::component::{ComponentConfig, LoadSettings};
use brisk_models::craft::{self, CraftConfig, LinkRefiner, LinkRefinerConfig};
use brisk_models::crnn::{self, CrnnConfig};
use brisk_nn::Weights;
use brisk_store::{ModelFolder, TensorSource, open_weights};

use super::{Detector, Reader};
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::options::{Options, word_keys as keys};

/// Their folders in a model's.
const DETECTOR: &str = "detector";
const RECOGNISER: &str = "recogniser";

/// The networks besides the segmenter, found but not loaded.
pub(super) struct Besides {
    detector: Option<Opened<CraftConfig>>,
    recogniser: Option<Opened<CrnnConfig>>,
    refiner: Option<(LinkRefinerConfig, Arc<dyn TensorSource>)>,
}

type Plain = fn(Arc<dyn TensorSource>) -> brisk_models::Result<Arc<dyn TensorSource>>;
type OfTensors<C> = fn(&dyn TensorSource) -> brisk_models::Result<Box<C>>;

/// The networks, loaded.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    pub detector: Option<Arc<Detector>>,
    pub reader: Option<Arc<Reader>>,
}

impl Besides {
    /// Finds them.
    ///
    /// # Errors
    /// Files that options name and that are missing, damaged or another network's, or such in the model's folder.
    pub fn open(folder: &ModelFolder, given: &Options) -> Result<Self> {
        let detector = of(
            folder,
            (DETECTOR, given.get(&keys::DETECTOR).as_deref()),
            |bytes, label| CraftConfig::from_json(bytes, label).map(Box::new),
            (craft::plain_names, |source| {
                CraftConfig::of_tensors(source).map(Box::new)
            }),
        );
        let recogniser = of(
            folder,
            (RECOGNISER, given.get(&keys::RECOGNISER).as_deref()),
            |bytes, label| CrnnConfig::from_json(bytes, label).map(Box::new),
            (crnn::plain_names, |source| {
                CrnnConfig::of_tensors(source).map(Box::new)
            }),
        );
        let refiner = given.get(&keys::LINK_REFINER);
        let refiner = refiner.map(|path| link_refiner(&path)).transpose();
        Ok(Self {
            refiner: refiner.map_err(|error| error.of(keys::LINK_REFINER.definition().name))?,
            detector: detector.map_err(|error| error.of(DETECTOR))?,
            recogniser: recogniser.map_err(|error| error.of(RECOGNISER))?,
        })
    }

    pub fn has_detector(&self) -> bool {
        self.detector.is_some()
    }

    /// Bytes of their weights in memory.
    pub fn bytes(&self) -> u64 {
        let detector = self.detector.as_ref().map_or(0, Opened::count);
        let recogniser = self.recogniser.as_ref().map_or(0, Opened::count);
        4 * (detector + recogniser)
    }

    /// Loads them.
    ///
    /// # Errors
    /// Tensors that do not fit.
    pub fn load(&self) -> Result<Loaded> {
        let settings = LoadSettings::default();
        let detector = self.detector.as_ref().map(|opened| -> Result<_> {
            let weights = opened.parameters(&settings)?.build()?;
            let detector = Detector::load(&opened.config, &weights)?;
            Ok(Arc::new(match &self.refiner {
                Some((config, source)) => {
                    let weights = Weights::from_source(source.clone());
                    detector.refined_by(LinkRefiner::load(config, &weights)?)
                }
                None => detector,
            }))
        });
        let reader = self.recogniser.as_ref().map(|opened| {
            let weights = opened.parameters(&settings)?.build()?;
            Reader::load(&opened.config, &weights).map(Arc::new)
        });
        Ok(Loaded {
            detector: detector.transpose()?,
            reader: reader.transpose()?,
        })
    }
}

/// A link refiner's file.
fn link_refiner(path: &Path) -> Result<(LinkRefinerConfig, Arc<dyn TensorSource>)> {
    let source = craft::plain_names(open_weights(path)?)?;
    let config = LinkRefinerConfig::of_tensors(&*source)
        .map_err(|error| Error::folder(path.display().to_string(), error.to_string()))?;
    Ok((config, source))
}

/// A network in a folder with its configuration, or of a file alone.
fn of<C: ComponentConfig>(
    folder: &ModelFolder,
    (name, given): (&'static str, Option<&Path>),
    read: impl FnOnce(&[u8], &str) -> brisk_models::Result<Box<C>>,
    (plain, of_tensors): (Plain, OfTensors<C>),
) -> Result<Option<Opened<C>>> {
    let wanted = Wanted::default();
    let Some(path) = given else {
        let inside = ComponentFolder::new(folder, name);
        return match inside.has_config() {
            true => inside.open(read, &wanted).map(Some),
            false => Ok(None),
        };
    };
    let own = ModelFolder::Disk(path.to_owned());
    let alone = ComponentFolder::new(&own, "");
    if path.is_dir() && alone.has_config() {
        return alone.open(read, &wanted).map(Some);
    }
    let source = match path.is_dir() {
        true => alone.weights(None)?,
        false => open_weights(path)?,
    };
    let source = plain(source)?;
    let config = of_tensors(&*source)
        .map_err(|error| Error::folder(path.display().to_string(), error.to_string()))?;
    Opened::new(config, source).map(Some)
}
