//! The tokenizer from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Tensor, Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::super::Scales;
use super::super::transformer::TransformerConfig;
use super::{Parts, Tokenizer, TokenizerConfig, plain_names};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Neighbour, Port, PrepareResult, Prepared, Recognised, Runnable, Setting, Size,
    SizeName, Sizes, Work, not_run, pass,
};
use crate::{Error, Result};

/// HART's tokenizer.
pub static COMPONENT: Component = Component {
    name: "HART tokenizer",
    classes: &TokenizerConfig::CLASSES,
    keys: &TokenizerConfig::KEYS,
    folders: &["tokenizer"],
    beside: &["llm"],
    entries: &[ENCODE, DECODE],
    recognise,
    open: |bytes, label| {
        let config = TokenizerConfig::from_json(bytes, label)?;
        Ok(Box::new(Configuration {
            scales: vec![(format!("{label}: `v_patch_nums`"), config.scales()?)],
            config,
        }))
    },
};

const SAMPLE: Port = Port::float("sample", &["B", "colours", "H", "W"]);
const LATENT: Port = Port::float("latent", &["B", "z", "h", "w"]);
const SUM: Port = Port::float("f_hat", &["B", "z", "h", "w"]);
const CODES: Port = Port::ids("codes.", &["B", "codes_I"], "V");

const ENCODE: Entry = Entry {
    name: "tokenizer.encode",
    about: "Encode a picture into codes of several scales",
    inputs: &[SAMPLE],
    outputs: &[CODES, LATENT, SUM],
    sizes: &[],
    settings: &[Setting::Exact],
};

const DECODE: Entry = Entry {
    name: "tokenizer.decode",
    about: "Decode a sum of codewords, or a latent",
    inputs: &[LATENT],
    outputs: &[SAMPLE],
    sizes: &[SIDE],
    settings: &[Setting::Exact],
};

const SIDE: SizeName = SizeName {
    name: "side",
    unit: "N",
    about: "Places along a side of the latent (default: the largest of patch_nums)",
    usual: None,
    smallest: 1,
    largest: 1024,
    of_inputs: true,
};

/// A configuration, with the grids of codes that its latents may have.
struct Configuration {
    config: TokenizerConfig,
    /// With the file and key that say so; the transformer's come first.
    scales: Vec<(String, Scales)>,
}

impl Configuration {
    fn first(&self) -> &Scales {
        &self.scales[0].1
    }

    /// The grids of a picture of so many pixels along its sides.
    fn scales_of(&self, height: usize, width: usize) -> Result<&Scales> {
        let ratio = self.config.ratio();
        let fits = |scales: &Scales| [height, width] == [scales.side() * ratio; 2];
        let found = self.scales.iter().find(|(_, scales)| fits(scales));
        found.map(|(_, scales)| scales).ok_or_else(|| {
            let known = self.scales.iter().map(|(key, scales)| {
                let pixels = scales.side() * ratio;
                format!("{pixels}×{pixels} ({key} {:?})", scales.sides())
            });
            let known: Vec<String> = known.collect();
            Error::Shape(format!(
                "a picture of {height}×{width} pixels; expected {}",
                known.join(" or ")
            ))
        })
    }
}

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let has = |name: &str| {
        ["", "vae."]
            .iter()
            .any(|outer| source.info(&format!("{outer}{name}")).is_some())
    };
    let ours = has("quantize.embedding.weight")
        && has("encoder.mid.attn_1.qkv.weight")
        && has("post_quant_conv.weight");
    Ok(ours.then(|| Recognised::new("HART tokenizer")))
}

impl ComponentConfig for Configuration {
    fn description(&self) -> String {
        format!(
            "f{}c{}, {} codewords, {} scales to {side}×{side}",
            self.config.ratio(),
            self.config.z_channels,
            self.config.vocab_size,
            self.first().count(),
            side = self.first().side(),
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "pixels_per_cell": self.config.ratio(), "latent_channels": self.config.z_channels,
            "codewords": self.config.vocab_size, "patch_nums": self.first().sides(),
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.config.parameters()
    }

    fn entry_parameters(&self, entry: &Entry) -> u64 {
        let [encode, decode] = self.config.parameter_counts();
        if entry.name == ENCODE.name {
            encode
        } else {
            decode
        }
    }

    /// The transformer's grids go before those of the tokenizer's own file, which may be of an earlier
    /// stage of training.
    fn attach(&mut self, neighbour: &Neighbour) -> Result<()> {
        let transformer = TransformerConfig::from_json(neighbour.config, neighbour.label)?;
        let key = format!("{}: `patch_nums`", neighbour.label);
        self.scales.insert(0, (key, transformer.scales()?));
        Ok(())
    }

    fn plain_names(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        plain_names(source)
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        builder(weights, settings)
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        Tokenizer::load(&self.config, weights, Parts::All).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "colours" => Dimension::Exactly(3),
            "z" => Dimension::Exactly(self.config.z_channels),
            "V" => Dimension::Exactly(self.config.vocab_size),
            "H" | "W" => Dimension::MultipleOf(self.config.ratio()),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        let declared = entry.sizes.iter();
        declared
            .map(|size| size.with(self.first().side(), 1))
            .collect()
    }

    fn example_inputs(
        &self,
        entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        if entry.name == ENCODE.name {
            let pixels = self.first().side() * self.config.ratio();
            made.normal(SAMPLE.name, &[1, 3, pixels, pixels], 0.5, true)?;
        } else {
            let side = sizes.or_zero(SIDE.name);
            made.normal(
                LATENT.name,
                &[1, self.config.z_channels, side, side],
                1.0,
                false,
            )?;
        }
        Ok(made.take())
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let (batch, _, height, width) = inputs.required(entry.inputs[0].name)?.dims4()?;
        let costs = match entry.name == ENCODE.name {
            true => {
                let scales = self.scales_of(height, width)?;
                self.config.encode_cost(scales.side(), scales.codes())
            }
            false => self.config.decode_cost(height, width),
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
        let encodes = entry.name == ENCODE.name;
        let parts = match encodes {
            true => Parts::Encoder,
            false => Parts::Decoder,
        };
        let weights = builder(weights, settings)?.build()?;
        Ok(Box::new(Half {
            model: Tokenizer::load(&self.config, &weights, parts)?,
            encodes,
            configuration: Configuration {
                config: self.config.clone(),
                scales: self.scales.clone(),
            },
        }))
    }
}

/// The tokenizer's parameters, whichever layout the file has.
pub(in super::super) fn builder(
    weights: &ComponentWeights,
    settings: &LoadSettings,
) -> Result<WeightsBuilder> {
    let found = weights.renamed(plain_names)?;
    Ok(found.exact(settings.exact))
}

struct Half {
    model: Tokenizer,
    encodes: bool,
    configuration: Configuration,
}

impl Runnable for Half {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        if !self.encodes {
            let latent = ops::to_nhwc(inputs.required(LATENT.name)?)?;
            return Ok(pass(
                move |trace| self.model.picture(&latent, trace),
                |sample| {
                    Ok([(SAMPLE.name.to_owned(), ops::to_nchw(sample)?)]
                        .into_iter()
                        .collect())
                },
            ));
        }
        let sample = ops::to_nhwc(inputs.required(SAMPLE.name)?)?;
        let (_, height, width, _) = sample.dims4()?;
        Ok(Box::new(Encode {
            model: &self.model,
            scales: self.configuration.scales_of(height, width)?,
            sample,
            outputs: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

/// `decoder.up.3.block.0` belongs to `up.3`.
pub(in super::super) fn part(name: &str) -> &str {
    let inner = name
        .strip_prefix("encoder.")
        .or_else(|| name.strip_prefix("decoder."))
        .unwrap_or(name);
    let end = match inner.split('.').next() {
        Some("up" | "down") => inner.match_indices('.').nth(1).map(|(at, _)| at),
        _ => inner.find('.'),
    };
    match &inner[..end.unwrap_or(inner.len())] {
        "post_quant_conv" => "conv_in",
        "norm_out" | "quant_conv" => "conv_out",
        part => part,
    }
}

struct Encode<'a> {
    model: &'a Tokenizer,
    scales: &'a Scales,
    /// NHWC.
    sample: Tensor,
    outputs: Option<NamedTensors>,
}

impl Prepared for Encode<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let latent = self.model.latent(&self.sample, trace)?;
        let encoded = self.model.quantizer().encode(self.scales, &latent)?;
        trace.see("quantizer", &encoded.sum);
        let batch = latent.dim(0)?;
        let mut outputs = NamedTensors::default();
        for (scale, (codes, side)) in encoded
            .codes
            .into_iter()
            .zip(self.scales.sides())
            .enumerate()
        {
            let name = format!("{}{scale}", CODES.name);
            outputs.insert_ids(&name, &[batch, side * side], codes)?;
        }
        outputs.insert(LATENT.name, ops::to_nchw(&latent)?);
        outputs.insert(SUM.name, ops::to_nchw(&encoded.sum)?);
        self.outputs = Some(outputs);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        self.outputs.clone().ok_or_else(not_run)
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn traced_names_fall_into_parts() {
        assert_eq!(part("decoder.up.3.block.0"), "up.3");
        assert_eq!(part("encoder.mid.attn_1"), "mid");
        assert_eq!(part("encoder.norm_out"), "conv_out");
        assert_eq!(part("decoder.conv_in"), "conv_in");
        assert_eq!(part("quantizer"), "quantizer");
    }
}
