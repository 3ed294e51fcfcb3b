//! The autoencoder from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Tensor, Trace, Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::names::prefix;
use super::{ClipTiling, VideoAutoencoder, VideoAutoencoderConfig, VideoHalves, plain_names};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Recognised, Runnable, Setting, Size, SizeName, Sizes, Work,
    pass,
};
use crate::hunyuan_video::clip::{to_channels_first, to_channels_last};
use crate::{Error, Result};

/// HunyuanVideo's autoencoder.
pub static COMPONENT: Component = Component {
    name: "HunyuanVideo autoencoder",
    classes: &VideoAutoencoderConfig::CLASSES,
    keys: VideoAutoencoderConfig::KEYS,
    folders: &["vae"],
    beside: &[],
    entries: &[ENCODE, DECODE],
    recognise,
    open: |bytes, label| Ok(Box::new(VideoAutoencoderConfig::from_json(bytes, label)?)),
};

const SAMPLE: Port = Port::float("sample", &["B", "colours", "F", "H", "W"]);
const LATENT: Port = Port::float("latent", &["B", "C", "f", "h", "w"]);
const TILE_SIZE: Port = Port::ids("tile_size", &["3"], "pixels").optional();
const TILE_STRIDE: Port = Port::ids("tile_stride", &["3"], "pixels").optional();
const FRAMES: SizeName = SizeName {
    name: "frames",
    unit: "N",
    about: "Frames of a clip, one more than a multiple of 4 (default: 17)",
    usual: Some(17),
    smallest: 1,
    largest: 65_536,
    of_inputs: true,
};
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
    about: "Encode a clip",
    inputs: &[SAMPLE, TILE_SIZE, TILE_STRIDE],
    outputs: &[LATENT],
    sizes: &[SIZE, FRAMES],
    settings: &[Setting::Exact],
};

const DECODE: Entry = Entry {
    name: "vae.decode",
    about: "Decode the latent of a clip",
    inputs: &[LATENT, TILE_SIZE, TILE_STRIDE],
    outputs: &[SAMPLE],
    settings: &[Setting::Exact, Setting::StripRows],
    ..ENCODE
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let layout = match prefix(source) {
        None => return Ok(None),
        Some("") => "diffusers names",
        Some(_) => "the authors' names",
    };
    Ok(Some(Recognised::new(format!(
        "HunyuanVideo autoencoder ({layout})"
    ))))
}

impl ComponentConfig for VideoAutoencoderConfig {
    fn description(&self) -> String {
        format!(
            "t{}f{}c{}, levels of {:?} channels, scaling factor {}",
            self.temporal_compression_ratio,
            self.spatial_compression_ratio,
            self.latent_channels,
            self.block_out_channels,
            self.scaling_factor
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let [encoder, decoder] = self.parameters();
        let facts = json!({
            "pixels_per_cell": self.spatial_compression_ratio,
            "frames_per_latent_frame": self.temporal_compression_ratio,
            "latent_channels": self.latent_channels, "levels": self.block_out_channels,
            "attention": self.mid_block_add_attention, "scaling_factor": self.scaling_factor,
            "parameters_of_encoder": encoder, "parameters_of_decoder": decoder,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameters().iter().sum()
    }

    fn entry_parameters(&self, entry: &Entry) -> u64 {
        let [encoder, decoder] = self.parameters();
        match half(entry) {
            VideoHalves::EncoderOnly => encoder,
            _ => decoder,
        }
    }

    fn shared(&self) -> Vec<(&'static str, usize)> {
        vec![("pixels_per_cell", self.spatial_compression_ratio)]
    }

    fn plain_names(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        plain_names(source)
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        let found = weights.renamed(plain_names)?;
        Ok(found.exact(settings.exact))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        VideoAutoencoder::load(self, weights, VideoHalves::Both).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "colours" => Dimension::Exactly(self.in_channels),
            "C" => Dimension::Exactly(self.latent_channels),
            "H" | "W" => Dimension::MultipleOf(self.spatial_compression_ratio),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        let multiple = |name: &str| match name {
            "frames" => 1,
            _ => self.spatial_compression_ratio,
        };
        let declared = entry.sizes.iter();
        declared
            .map(|size| size.with(0, multiple(size.name)))
            .collect()
    }

    fn example_inputs(
        &self,
        entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let (pixels, frames) = (sizes.or_zero(SIZE.name), sizes.or_zero(FRAMES.name));
        if half(entry) == VideoHalves::EncoderOnly {
            let shape = [1, self.in_channels, frames, pixels, pixels];
            made.normal(SAMPLE.name, &shape, 0.5, true)?;
        } else {
            let side = pixels / self.spatial_compression_ratio;
            let frames = self.latent_frames(frames);
            let shape = [1, self.latent_channels, frames, side, side];
            made.normal(LATENT.name, &shape, 1.0, false)?;
        }
        Ok(made.take())
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let input = inputs.required(entry.inputs[0].name)?;
        let &[batch, _, frames, height, width] = input.dims() else {
            return Err(Error::Shape(format!("a clip of shape {:?}", input.dims())));
        };
        let size = [frames, height, width];
        let costs = match half(entry) {
            VideoHalves::EncoderOnly => self.encode_cost(size),
            _ => self.decode_cost(size),
        };
        let sizes = vec![
            ("batch", batch),
            ("frames", frames),
            ("height", height),
            ("width", width),
        ];
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
            model: VideoAutoencoder::load(self, &weights, half)?,
            encodes: half == VideoHalves::EncoderOnly,
            strip_rows: settings.strip_rows,
        }))
    }
}

fn half(entry: &Entry) -> VideoHalves {
    match entry.name == ENCODE.name {
        true => VideoHalves::EncoderOnly,
        false => VideoHalves::DecoderOnly,
    }
}

struct Half {
    model: VideoAutoencoder,
    encodes: bool,
    strip_rows: Option<usize>,
}

impl Half {
    fn run(&self, x: &Tensor, tiling: Option<&ClipTiling>, trace: &mut Trace) -> Result<Tensor> {
        match (self.encodes, tiling, self.strip_rows) {
            (_, Some(_), Some(_)) => Err(Error::Config(
                "strips and tiles are two ways to cut a clip; give one of them".into(),
            )),
            (true, Some(tiling), _) => self.model.encode_tiled(x, tiling),
            (true, None, _) => self.model.encode(x, trace),
            (false, Some(tiling), _) => self.model.decode_tiled(x, tiling),
            (false, None, None) => self.model.decode(x, trace),
            (false, None, Some(rows)) => {
                let clips = (0..x.dim(0)?).map(|clip| {
                    let mut frames = Vec::new();
                    let latent = x.narrow(0, clip, 1)?.contiguous()?;
                    self.model.decode_pieces(&latent, rows, |_, frame| {
                        frames.push(frame.unsqueeze(1)?);
                        Ok(())
                    })?;
                    Tensor::cat(&frames, 1)
                });
                Tensor::cat(&clips.collect::<Result<Vec<_>>>()?, 0)
            }
        }
    }
}

/// The tiles among the inputs.
fn tiling(inputs: &NamedTensors) -> Result<Option<ClipTiling>> {
    let three = |port: Port| -> Result<Option<[usize; 3]>> {
        let Some(tensor) = inputs.get(port.name) else {
            return Ok(None);
        };
        let values = tensor.to_vec1::<u32>()?;
        let values: Vec<usize> = values.into_iter().map(|value| value as usize).collect();
        Ok(values.try_into().ok())
    };
    match (three(TILE_SIZE)?, three(TILE_STRIDE)?) {
        (Some(size), Some(stride)) => Ok(Some(ClipTiling { size, stride })),
        (None, None) => Ok(None),
        _ => Err(Error::Shape(format!(
            "\"{}\" and \"{}\" go together; only one of them is there",
            TILE_SIZE.name, TILE_STRIDE.name
        ))),
    }
}

impl Runnable for Half {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let (from, to) = match self.encodes {
            true => (SAMPLE, LATENT),
            false => (LATENT, SAMPLE),
        };
        let x = to_channels_last(inputs.required(from.name)?)?;
        let tiling = tiling(inputs)?;
        Ok(pass(
            move |trace| self.run(&x, tiling.as_ref(), trace),
            move |result| {
                let result = to_channels_first(result)?;
                Ok([(to.name.to_owned(), result)].into_iter().collect())
            },
        ))
    }

    /// `decoder.mid_block.resnets.0` belongs to `mid_block`.
    fn part<'a>(&self, traced: &'a str) -> &'a str {
        let inner = traced.split_once('.').map_or(traced, |(_, inner)| inner);
        match inner.split_once('.') {
            Some(("mid_block", _)) => "mid_block",
            _ if traced == "quant_conv" => "conv_out",
            _ => inner,
        }
    }
}
