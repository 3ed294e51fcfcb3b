//! What a run is made of beside its recipe, by fingerprints: a run goes on with what it began with.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_pipelines::folder::Opened;
use brisk_store::{Fingerprint, TensorSource, fingerprint};
use serde::{Deserialize, Serialize};

use crate::data::pictures::PictureData;
use crate::error::{JsonContext, Result};
use crate::families::autoencoder::AutoencoderConfig;
use crate::families::video_autoencoder::VideoAutoencoderConfig;
use crate::objectives::perceptual::FeatureNetwork;

/// Fingerprints by what they are of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// With the pictures and their entries.
    pub(crate) fn data(mut self, data: &PictureData) -> Result<Self> {
        let mut found = Fingerprint::default();
        match data.side() {
            Some(side) => found.add(&(side as u64).to_le_bytes()),
            None => {
                let shapes = (0..data.len()).filter_map(|index| data.shape(index));
                let sides = shapes.flat_map(|shape| [shape.height, shape.width]);
                for side in sides {
                    found.add(&(side as u64).to_le_bytes());
                }
            }
        }
        found.add(&serde_json::to_vec(data.entries()).in_document("entries")?);
        found.add(data.bytes());
        self.0.insert("data set".to_owned(), found.text());
        Ok(self)
    }

    /// With the autoencoder whose latents are learned.
    pub(crate) fn autoencoder(self, vae: &Opened<AutoencoderConfig>) -> Result<Self> {
        self.latents_of(vae.config.scaling_factor, vae.stored())
    }

    /// With the autoencoder of clips whose latents are learned.
    pub(crate) fn video_autoencoder(self, vae: &Opened<VideoAutoencoderConfig>) -> Result<Self> {
        self.latents_of(vae.config.scaling_factor, vae.stored())
    }

    fn latents_of(
        mut self,
        scaling_factor: f64,
        weights: Option<&Arc<dyn TensorSource>>,
    ) -> Result<Self> {
        let mut found = Fingerprint::default();
        found.add(&scaling_factor.to_le_bytes());
        if let Some(source) = weights {
            found.add(fingerprint(&**source)?.as_bytes());
        }
        self.0.insert("autoencoder".to_owned(), found.text());
        Ok(self)
    }

    /// With the tokenizer whose codes are learned.
    pub(crate) fn tokenizer(mut self, weights: &dyn TensorSource) -> Result<Self> {
        self.0.insert("tokenizer".to_owned(), fingerprint(weights)?);
        Ok(self)
    }

    /// With the network whose features the loss compares.
    pub(crate) fn features(mut self, network: &FeatureNetwork) -> Self {
        let name = "network of the perceptual loss".to_owned();
        self.0.insert(name, network.fingerprint().to_owned());
        self
    }

    /// With the weights of one network to start from, where there are any.
    pub(crate) fn start_from(self, weights: Option<&Arc<dyn TensorSource>>) -> Result<Self> {
        self.start(weights.map_or(&[], std::slice::from_ref))
    }

    /// With the weights to start from, where there are any.
    pub(crate) fn start(mut self, weights: &[Arc<dyn TensorSource>]) -> Result<Self> {
        let mut found = Fingerprint::default();
        for source in weights {
            found.add(fingerprint(&**source)?.as_bytes());
        }
        if !weights.is_empty() {
            let name = "model to start from";
            self.0.insert(name.to_owned(), found.text());
        }
        Ok(self)
    }

    /// Why a run that began with `self` cannot go on with `now`; none where it can.
    pub(crate) fn refusal(&self, now: &Inputs) -> Option<String> {
        let names = self.0.keys().chain(now.0.keys());
        let changed = |name: &&String| self.0.get(*name) != now.0.get(*name);
        let name = names.into_iter().find(changed)?;
        let how = match (self.0.get(name), now.0.get(name)) {
            (Some(_), None) => "is not given any more",
            (None, _) => "was not there when the run began",
            _ => "is another one than the run began with",
        };
        Some(format!(
            "the {name} {how}. A run goes on with what it began with: take that, start in another folder (--from goes \
             on from a finished model), or remove this folder"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pictures::{PictureEntry, PictureSet};
    use brisk_media::Picture;

    fn data(level: u8, name: &str) -> PictureData {
        let entry = PictureEntry {
            captions: Vec::new(),
            name: name.to_owned(),
            tags: Vec::new(),
            hexcode: String::new(),
            set: PictureSet::Own,
            group: String::new(),
            held_out: false,
        };
        let picture = Picture {
            width: 8,
            height: 8,
            pixels: vec![level; 192],
        };
        let mut data = PictureData::new();
        data.push(entry, &picture);
        data
    }

    fn of(level: u8, name: &str) -> Inputs {
        Inputs::default().data(&data(level, name)).unwrap()
    }

    #[test]
    fn what_changed_is_named() {
        let before = of(3, "apple");
        assert_eq!(before.refusal(&of(3, "apple")), None);
        for other in [of(4, "apple"), of(3, "pear")] {
            assert!(before.refusal(&other).unwrap().contains("the data set is"));
        }
        let mut more = before.clone();
        more.0.insert("autoencoder".to_owned(), "1".to_owned());
        let message = before.refusal(&more).unwrap();
        assert!(message.contains("the autoencoder was not"), "{message}");
        let message = more.refusal(&before).unwrap();
        assert!(message.contains("not given"), "{message}");
    }
}
