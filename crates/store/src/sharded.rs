//! Weights split over several files, joined by an index (`*.index.json`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::open::open_shard;
use crate::read::{Limit, without_mark};
use crate::{Dtype, Error, Result, TensorSource, TensorView};

/// Largest index file that is read.
const MAX_INDEX: Limit = Limit::new("shard index", 100_000_000);

/// Shards opened through their index. Every name of the index is checked against its shard at opening.
pub struct ShardedSource {
    label: String,
    shards: BTreeMap<String, Arc<dyn TensorSource>>,
    places: BTreeMap<String, String>,
}

impl ShardedSource {
    /// Opens an index file and all shards beside it.
    pub fn open(index: &Path) -> Result<Self> {
        let label = index.display().to_string();
        let bytes = crate::read::read(index, MAX_INDEX)?;
        let folder = index.parent().unwrap_or(Path::new(""));
        Self::from_index(&bytes, &label, |shard| {
            let path = folder.join(shard);
            match path.try_exists() {
                Ok(true) => open_shard(&path).map(Some),
                Ok(false) => Ok(None),
                Err(error) => Err(Error::io("open", &path, error)),
            }
        })
    }

    /// From an index's bytes; `open` gives the shard of a (checked, bare) file name, or `None` when
    /// there is no such file.
    pub fn from_index(
        bytes: &[u8],
        label: &str,
        open: impl Fn(&str) -> Result<Option<Arc<dyn TensorSource>>>,
    ) -> Result<Self> {
        let places = Self::parse_index(bytes, label)?;
        let mut shards = BTreeMap::new();
        // Each shard with one of its tensors, for messages.
        let needed: BTreeMap<&String, &String> =
            places.iter().map(|(name, shard)| (shard, name)).collect();
        let total = needed.len();
        for (shard, name) in needed {
            let opened = open(shard).map_err(|error| {
                Error::malformed(
                    label,
                    format!("shard {shard:?} of tensor {name:?}: {error}"),
                )
            })?;
            let source = opened.ok_or_else(|| {
                Error::missing(
                    label,
                    format!(
                        "shard {shard:?} (one of {total}) is missing beside the index; \
                         the model looks half-downloaded, get it again"
                    ),
                )
            })?;
            shards.insert(shard.clone(), source);
        }
        for (name, shard) in &places {
            let found = shards
                .get(shard)
                .is_some_and(|source| source.info(name).is_some());
            if !found {
                return Err(Error::malformed(
                    label,
                    format!(
                        "the index puts tensor {name:?} in shard {shard:?}, which has no such tensor"
                    ),
                ));
            }
        }
        Ok(Self {
            label: label.to_owned(),
            shards,
            places,
        })
    }

    /// The `weight_map` of an index: tensor name to shard, every shard a bare file name.
    pub fn parse_index(bytes: &[u8], label: &str) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: Pairs,
        }
        let index: Index = serde_json::from_slice(without_mark(bytes))
            .map_err(|error| Error::malformed(label, format!("not a weight index: {error}")))?;
        let mut places = BTreeMap::new();
        for (name, shard) in index.weight_map.0 {
            if !is_bare_file_name(&shard) {
                return Err(Error::malformed(
                    label,
                    format!(
                        "tensor {name:?} is said to be in {shard:?}; \
                         a shard must be a bare file name inside the model's folder"
                    ),
                ));
            }
            if places.insert(name.clone(), shard).is_some() {
                return Err(Error::malformed(
                    label,
                    format!("tensor {name:?} is there twice"),
                ));
            }
        }
        if places.is_empty() {
            return Err(Error::malformed(label, "the weight_map is empty"));
        }
        Ok(places)
    }
}

impl TensorSource for ShardedSource {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        self.shards.get(self.places.get(name)?)?.info(name)
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>> {
        match self
            .places
            .get(name)
            .and_then(|shard| self.shards.get(shard))
        {
            Some(source) => source.view(name),
            None => Ok(None),
        }
    }

    fn origin(&self, name: &str) -> String {
        match self
            .places
            .get(name)
            .and_then(|shard| self.shards.get(shard))
        {
            Some(source) => source.origin(name),
            None => self.label.clone(),
        }
    }

    fn forget(&self, name: &str) {
        let shard = self
            .places
            .get(name)
            .and_then(|shard| self.shards.get(shard));
        if let Some(source) = shard {
            source.forget(name);
        }
    }
}

/// A file name that cannot leave its folder on any system.
pub(crate) fn is_bare_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':'])
        && !name.chars().any(char::is_control)
}

/// A JSON table of strings with repeated keys kept.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a table of tensor names and shard names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}
