//! The vision tower from outside, with the depth transformer in its file.

use std::collections::BTreeMap;

use brisk_nn::{Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::super::tower::{Parts, SiglipConfig, Tower, TowerConfig};
use super::runs::{Decode, Depths, Encode};
use crate::Result;
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Neighbour, Port, Recognised, Runnable, Setting, Size, Sizes, Work,
};

/// VILA-U's vision tower.
pub static COMPONENT: Component = Component {
    name: "VILA-U vision tower",
    classes: &TowerConfig::CLASSES,
    keys: &TowerConfig::KEYS,
    folders: &["vision_tower"],
    beside: &[],
    entries: &[ENCODE, DECODE, DEPTH],
    recognise,
    open: |bytes, label| {
        Ok(Box::new(Configuration {
            config: TowerConfig::from_json(bytes, label)?,
            label: label.to_owned(),
        }))
    },
};

pub(super) const PIXELS: Port = Port::float("pixel_values", &["B", "colours", "N", "N"]);
pub(super) const CODES: Port = Port::ids("codes", &["B", "h", "w", "D"], "V");
pub(super) const FEATURES: Port = Port::float("features", &["B", "h", "w", "C"]);
pub(super) const SAMPLE: Port = Port::float("sample", &["B", "colours", "H", "W"]);
pub(super) const HIDDEN: Port = Port::float("hidden_states", &["B", "T", "hidden"]);
pub(super) const TAUGHT: Port = Port::ids("codes", &["B", "T", "D"], "V");
pub(super) const LOGITS: Port = Port::float("logits", &["B", "T", "D", "V"]);

const ENCODE: Entry = Entry {
    name: "vision_tower.encode",
    about: "Encode a picture into codes, several a place",
    inputs: &[PIXELS],
    outputs: &[CODES, FEATURES],
    sizes: &[],
    settings: &[Setting::Exact],
};

const DECODE: Entry = Entry {
    name: "vision_tower.decode",
    about: "Decode sums of codewords",
    inputs: &[FEATURES],
    outputs: &[SAMPLE],
    sizes: &[],
    settings: &[Setting::Exact],
};

const DEPTH: Entry = Entry {
    name: "depth",
    about: "Predict the codes of places from those before them at the same place",
    inputs: &[HIDDEN, TAUGHT],
    outputs: &[LOGITS],
    sizes: &[],
    settings: &[],
};

struct Configuration {
    config: TowerConfig,
    label: String,
}

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let has = |name: &str| source.info(name).is_some();
    let ours = has("rqtransformer.pos_emb_d") && has("rqvaesiglip.post_quant_conv.weight");
    Ok(ours.then(|| Recognised::new("VILA-U vision tower")))
}

/// What an entry loads.
fn parts(entry: &Entry) -> Parts {
    Parts {
        encoder: entry.name == ENCODE.name,
        decoder: entry.name == DECODE.name,
        depth: entry.name == DEPTH.name,
    }
}

impl ComponentConfig for Configuration {
    fn description(&self) -> String {
        let config = &self.config;
        let pixels = match &config.siglip {
            Some(siglip) => format!("{} pixels, ", siglip.image_size),
            None => String::new(),
        };
        format!(
            "{pixels}{grid}×{grid} places of {} codes, {} codewords of width {}",
            config.depth,
            config.n_embed,
            config.embed_dim,
            grid = config.grid,
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let config = &self.config;
        let facts = json!({
            "pixels": config.siglip.as_ref().map(|siglip| siglip.image_size), "places": config.places(),
            "codes_of_a_place": config.depth, "codewords": config.n_embed,
            "codeword_width": config.embed_dim, "decoded_pixels": config.decoded_size(),
            "parameters_of_depth_transformer": config.head.parameters(),
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.config.parameter_count(Parts::ALL)
    }

    fn entry_parameters(&self, entry: &Entry) -> u64 {
        self.config.parameter_count(parts(entry))
    }

    fn inside(&self) -> Vec<String> {
        self.config.siglip_folders()
    }

    fn attach(&mut self, neighbour: &Neighbour) -> Result<()> {
        let siglip = SiglipConfig::from_json(neighbour.config, neighbour.label)?;
        self.config.set_siglip(siglip, &self.label, neighbour.label)
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        let plain = weights.plain().exact(settings.exact);
        Ok(plain.quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        Tower::load(&self.config, weights, Parts::ALL).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        let config = &self.config;
        let size = match word {
            "colours" => 3,
            "N" => config.siglip.as_ref()?.image_size,
            "h" | "w" => config.grid,
            "C" => config.embed_dim,
            "D" => config.depth,
            "V" => config.n_embed,
            "hidden" => config.head.hidden_width,
            _ => return None,
        };
        Some(Dimension::Exactly(size))
    }

    fn sizes(&self, _entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        Vec::new()
    }

    fn example_inputs(
        &self,
        entry: &Entry,
        _sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let config = &self.config;
        let (grid, places) = (config.grid, config.places());
        if entry.name == ENCODE.name {
            let side = config.siglip()?.image_size;
            made.normal(PIXELS.name, &[1, 3, side, side], 0.5, true)?;
        } else if entry.name == DECODE.name {
            made.normal(
                FEATURES.name,
                &[1, grid, grid, config.embed_dim],
                1.0,
                false,
            )?;
        } else {
            let shape = [1, places, config.head.hidden_width];
            made.normal(HIDDEN.name, &shape, 1.0, false)?;
            let codes =
                (0..places * config.depth).map(|at| ((at * 7919 + 11) % config.n_embed) as u32);
            let mut inputs = made.take();
            inputs.insert_ids(TAUGHT.name, &[1, places, config.depth], codes.collect())?;
            return Ok(inputs);
        }
        Ok(made.take())
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let first = inputs.required(entry.inputs[0].name)?;
        let batch = first.dim(0)?;
        if entry.name == DEPTH.name {
            let places = first.dim(1)?;
            let sizes = vec![("batch", batch), ("places", places)];
            let costs = self.config.head.cost(places, false);
            return Ok(Work::of_batch(batch, sizes, &costs));
        }
        let sizes = vec![("batch", batch)];
        Ok(match entry.name == ENCODE.name {
            true => Work::of_batch(batch, sizes, &self.config.encode_cost()),
            false => Work::of_batch(batch, sizes, &self.config.decode_cost()).by_convolutions(),
        })
    }

    fn load(
        &self,
        entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        let tower = Tower::load(&self.config, &weights, parts(entry));
        let tower = tower.map_err(|error| labelled(error, &self.label))?;
        Ok(if entry.name == ENCODE.name {
            Box::new(Encode(tower))
        } else if entry.name == DECODE.name {
            Box::new(Decode(tower))
        } else {
            Box::new(Depths(tower))
        })
    }
}

/// A configuration's error with the file that it is of.
fn labelled(error: crate::Error, label: &str) -> crate::Error {
    match error {
        crate::Error::Config(message) => crate::Error::Config(format!("{label}: {message}")),
        other => other,
    }
}
