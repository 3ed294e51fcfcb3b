//! The autoencoder from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::Tensor;
use brisk_nn::{Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::keys::KNOWN_KEYS;
use super::native::{self, Family};
use super::{Autoencoder, AutoencoderConfig, Halves};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Prepared, Recognised, Runnable, Setting, Size, SizeName,
    Sizes, Work, not_run,
};
use crate::{Error, Result};

/// DC-AE, in every published variant and naming.
pub static COMPONENT: Component = Component {
    name: "DC-AE autoencoder",
    classes: &["AutoencoderDC"],
    keys: &KNOWN_KEYS,
    folders: &["vae"],
    beside: &[],
    entries: &[ENCODE, DECODE],
    recognise,
    open: |bytes, label| Ok(Box::new(open(bytes, label)?)),
};

const SAMPLE: Port = Port::float("sample", &["B", "colours", "H", "W"]);
const LATENT: Port = Port::float("latent", &["B", "C", "h", "w"]);
const SIZE: SizeName = SizeName {
    name: "size",
    unit: "PIXELS",
    about: "Side of the picture in pixels (default: 512)",
    usual: Some(512),
    smallest: 1,
    largest: 8192,
    of_inputs: true,
};

const ENCODE: Entry = Entry {
    name: "vae.encode",
    about: "Encode a picture",
    inputs: &[SAMPLE],
    outputs: &[LATENT],
    sizes: &[SIZE],
    settings: &[Setting::Exact, Setting::StripRows, Setting::Device],
};

const DECODE: Entry = Entry {
    name: "vae.decode",
    about: "Decode a latent",
    inputs: &[LATENT],
    outputs: &[SAMPLE],
    ..ENCODE
};

/// Reads a `config.json`: written out, or the published name of one (`model_name`).
///
/// # Errors
/// As [`AutoencoderConfig::from_json`] and [`native::named_config`].
pub fn open(bytes: &[u8], label: &str) -> Result<AutoencoderConfig> {
    let file = crate::config::parse::<Value>(bytes, label).ok();
    match file.as_ref().and_then(|file| file.get("model_name")) {
        Some(Value::String(name)) => native::named_config(name, None)
            .map_err(|error| Error::Config(format!("{label}: `model_name`: {error}"))),
        _ => AutoencoderConfig::from_json(bytes, label),
    }
}

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    if let Some(family) = native::detect(source) {
        let details = json!({"stages": match family {
            Family::Paper { stages } | Family::V15 { stages } => stages,
            Family::Sana | Family::Lite => 6,
        }});
        let name = match family {
            Family::Paper { .. } => {
                "DC-AE autoencoder of the paper, in or mix (the authors' names)"
            }
            Family::Sana => "DC-AE autoencoder of SANA (the authors' names)",
            Family::Lite => "DC-AE-Lite autoencoder (the authors' names)",
            Family::V15 { .. } => "DC-AE 1.5 autoencoder (the authors' names)",
        };
        return Ok(Some(Recognised::with(name, details)));
    }
    let names = source.names();
    let has = |beginning: &str| names.iter().any(|name| name.starts_with(beginning));
    // Others name their halves alike.
    let other = names.iter().any(|name| name.contains(".resnets."));
    let ours = has("encoder.down_blocks.") && has("decoder.up_blocks.") && !other;
    Ok(ours.then(|| Recognised::new("DC-AE autoencoder (diffusers names)")))
}

impl ComponentConfig for AutoencoderConfig {
    fn description(&self) -> String {
        format!(
            "f{}c{}, {} + {} stages, scaling factor {}",
            self.ratio(),
            self.latent_channels,
            self.encoder.len(),
            self.decoder.len(),
            self.scaling_factor
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let halves = self.parameters();
        let facts = json!({
            "pixels_per_cell": self.ratio(), "latent_channels": self.latent_channels,
            "stages": self.encoder.len(), "scaling_factor": self.scaling_factor,
            "parameters_of_encoder": halves.encoder, "parameters_of_decoder": halves.decoder,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        let halves = self.parameters();
        halves.encoder + halves.decoder
    }

    fn entry_parameters(&self, entry: &Entry) -> u64 {
        let halves = self.parameters();
        match half(entry) {
            Halves::EncoderOnly => halves.encoder,
            _ => halves.decoder,
        }
    }

    fn shared(&self) -> Vec<(&'static str, usize)> {
        vec![("pixels_per_cell", self.ratio())]
    }

    fn plain_names(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        native::plain_names(source)
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        let found = weights.renamed(native::plain_names)?;
        Ok(found.exact(settings.exact).at(&settings.location))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        Autoencoder::load(self, weights, Halves::Both).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "colours" => Dimension::Exactly(self.in_channels),
            "C" => Dimension::Exactly(self.latent_channels),
            "H" | "W" => Dimension::MultipleOf(self.ratio()),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        let declared = entry.sizes.iter();
        declared.map(|size| size.with(0, self.ratio())).collect()
    }

    fn example_inputs(
        &self,
        entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let pixels = sizes.or_zero("size");
        let side = pixels / self.ratio();
        if half(entry) == Halves::EncoderOnly {
            let shape = [1, self.in_channels, pixels, pixels];
            made.normal(SAMPLE.name, &shape, 0.5, true)?;
        } else {
            let shape = [1, self.latent_channels, side, side];
            made.normal(LATENT.name, &shape, 1.0, false)?;
        }
        Ok(made.take())
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let encodes = half(entry) == Halves::EncoderOnly;
        let (batch, _, rows, columns) = inputs.required(entry.inputs[0].name)?.dims4()?;
        let ratio = if encodes { 1 } else { self.ratio() };
        let (height, width) = (rows * ratio, columns * ratio);
        let costs = match encodes {
            true => self.encode_cost(height, width),
            false => self.decode_cost(height, width),
        };
        let sizes = vec![("batch", batch), ("height", height), ("width", width)];
        Ok(Work::of_batch(batch, sizes, &costs).by_convolutions())
    }

    fn load(
        &self,
        entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let half = half(entry);
        let weights = self.weights(weights, settings)?.build()?;
        Ok(Box::new(Half {
            model: Autoencoder::load(self, &weights, half)?,
            encodes: half == Halves::EncoderOnly,
            strip_rows: settings.strip_rows,
        }))
    }
}

fn half(entry: &Entry) -> Halves {
    match entry.name == ENCODE.name {
        true => Halves::EncoderOnly,
        false => Halves::DecoderOnly,
    }
}

struct Half {
    model: Autoencoder,
    encodes: bool,
    strip_rows: Option<usize>,
}

impl Half {
    fn ports(&self) -> (Port, Port) {
        match self.encodes {
            true => (SAMPLE, LATENT),
            false => (LATENT, SAMPLE),
        }
    }
}

impl Runnable for Half {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let input = inputs.required(self.ports().0.name)?;
        Ok(Box::new(Pass {
            half: self,
            input: ops::to_nhwc(input)?,
            result: None,
        }))
    }

    /// `decoder.up_blocks.5.1.attn` ends a piece of `up_blocks.5`.
    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

fn part(name: &str) -> &str {
    let inner = name.split_once('.').map_or(name, |(_, inner)| inner);
    let mut dots = inner.match_indices('.').map(|(at, _)| at);
    let end = dots.nth(1).unwrap_or(inner.len());
    match &inner[..end] {
        // The norm before the last convolution belongs to it.
        "norm_out" => "conv_out",
        part => part,
    }
}

struct Pass<'a> {
    half: &'a Half,
    /// NHWC, as the result.
    input: Tensor,
    result: Option<Tensor>,
}

impl Prepared for Pass<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let (model, input) = (&self.half.model, &self.input);
        let result = match (self.half.encodes, self.half.strip_rows) {
            (true, None) => model.encode_traced(input, trace)?,
            (true, Some(rows)) => model.encode_strips(input, rows)?,
            (false, None) => model.decode_traced(input, trace)?,
            (false, Some(rows)) => model.decode_strips(input, rows)?,
        };
        self.result = Some(result);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let result = ops::to_nchw(self.result.as_ref().ok_or_else(not_run)?)?;
        let name = self.half.ports().1.name.to_owned();
        Ok([(name, result)].into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn traced_names_fall_into_parts() {
        assert_eq!(part("decoder.up_blocks.5.1.attn"), "up_blocks.5");
        assert_eq!(part("encoder.down_blocks.0.1"), "down_blocks.0");
        assert_eq!(part("decoder.norm_out"), "conv_out");
        assert_eq!(part("decoder.conv_in"), "conv_in");
    }
}
