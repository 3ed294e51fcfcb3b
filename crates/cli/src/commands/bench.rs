//! `brisk bench`: how fast the parts run, and how near to what the machine can do.

mod components;
mod inputs;
mod kernels;
mod language;
mod measure;
mod pipeline;
mod plot;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use brisk_models::gemma2::Gemma2Config;
use brisk_models::low_bit::weight_only_parameters;
use brisk_models::sana::{self, SanaConfig};
use brisk_nn::{Activations, Quantisation, Storage, Weights};
use brisk_pipelines::RandomWeights;
use brisk_store::{ModelFolder, TensorSource};
use clap::{Args, Subcommand, ValueEnum};

use super::ThreadArguments;
use super::component::Found;
use crate::failure::{Failure, Result};
use crate::models;

/// Time the parts of a model, or plot earlier results
#[derive(Debug, Subcommand)]
#[command(
    before_help = "Prints the median and the range of several runs, the floating-point operations and bytes that the\n\
    part needs at least, its share of the machine's measured ceilings, and peak memory. With --random,\n\
    weights are made up at the shapes of a folder that holds only config.json files (bench/configs)."
)]
pub enum BenchVerb {
    Image(pipeline::ImageArguments),
    #[command(name = "text_encoder")]
    TextEncoder(components::TextEncoderArguments),
    Transformer(components::TransformerArguments),
    #[command(name = "vae.encode")]
    VaeEncode(components::VaeEncodeArguments),
    #[command(name = "vae.decode")]
    VaeDecode(components::VaeDecodeArguments),
    #[command(name = "language_model")]
    LanguageModel(language::LanguageModelArguments),
    Text(language::TextArguments),
    Gemm(kernels::GemmArguments),
    Depthwise(kernels::DepthwiseArguments),
    Plot(plot::PlotArguments),
}

/// Runs the command.
pub fn run(verb: &BenchVerb) -> Result {
    match verb {
        BenchVerb::Image(arguments) => pipeline::run(arguments),
        BenchVerb::TextEncoder(arguments) => components::text_encoder(arguments),
        BenchVerb::Transformer(arguments) => components::transformer(arguments),
        BenchVerb::VaeEncode(arguments) => components::vae_encode(arguments),
        BenchVerb::VaeDecode(arguments) => components::vae_decode(arguments),
        BenchVerb::LanguageModel(arguments) => language::language_model(arguments),
        BenchVerb::Text(arguments) => language::text(arguments),
        BenchVerb::Gemm(arguments) => kernels::gemm(arguments),
        BenchVerb::Depthwise(arguments) => kernels::depthwise(arguments),
        BenchVerb::Plot(arguments) => plot::run(arguments),
    }
}

/// How to measure; every part takes these.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Runs that count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Runs before them that don't
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    warm_up: u32,
    /// Don't measure the machine's ceilings, which takes a few seconds
    #[arg(long)]
    no_ceilings: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Inputs from a file, outputs to one, so that another program's can be compared.
#[derive(Debug, Args)]
pub struct FileArguments {
    /// Tensors to compute on, named as for brisk probe (default: made up)
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Safetensors file for what the last run computed
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,
}

/// How random matrices are kept.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StorageName {
    // Without help of its own, which would take a page of its own.
    Bf16,
    F32,
    // The transformer's in 4 bits with a branch, everything else in bf16.
    Int4,
}

impl StorageName {
    fn storage(self) -> Storage {
        match self {
            Self::Bf16 | Self::Int4 => Storage::Bf16,
            Self::F32 => Storage::F32,
        }
    }
}

/// Where weights come from: one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OriginArguments {
    /// Pipeline's or component's folder, hub id, or sana-emoji
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Make up weights for the config.json files of this folder
    #[arg(long, value_name = "FOLDER")]
    random: Option<PathBuf>,
}

/// A model, read or made up.
#[derive(Debug, Args)]
pub struct ModelArguments {
    #[command(flatten)]
    origin: OriginArguments,
    /// Variant of the weights, such as fp16
    #[arg(long, value_name = "NAME", requires = "model")]
    variant: Option<String>,
    /// How made-up matrices are kept (default: bf16; int4: a transformer as SVDQuant makes it)
    #[arg(long, value_name = "TYPE", requires = "random")]
    storage: Option<StorageName>,
}

/// Bytes that a weight in 4 bits takes, with its part of a scale.
const LOW_BIT_BYTES: f64 = 0.53;

/// Seed of made-up weights.
const SEED: u64 = 0;

impl ModelArguments {
    fn folder(&self) -> Result<ModelFolder> {
        match &self.origin.random {
            Some(folder) => Ok(ModelFolder::Disk(folder.clone())),
            None => models::open(self.origin.model.as_deref(), self.variant.as_deref()),
        }
    }

    fn random(&self) -> Option<RandomWeights> {
        self.origin.random.as_ref()?;
        let storage = self.storage.unwrap_or(StorageName::Bf16);
        Some(RandomWeights {
            seed: SEED,
            storage: storage.storage(),
            low_bit: matches!(storage, StorageName::Int4),
        })
    }

    fn open(&self, component: &str) -> Result<Component> {
        let folder = self.folder()?;
        let found = Found::find(&folder, component)?;
        if matches!(self.storage, Some(StorageName::Int4)) && component != "transformer" {
            return Err(Failure::usage(format!(
                "--storage int4: only a transformer is kept so, not {component}"
            )));
        }
        Ok(Component {
            folder,
            found,
            random: self.random(),
            variant: self.variant.clone(),
        })
    }
}

/// A component whose weights are yet to be read.
struct Component {
    folder: ModelFolder,
    found: Found,
    random: Option<RandomWeights>,
    variant: Option<String>,
}

/// Weights, and the bytes that one takes.
struct Opened {
    weights: Weights,
    weight_bytes: f64,
}

impl Component {
    /// The files' tensors, and the bytes that they take.
    fn stored(&self) -> Result<(Arc<dyn TensorSource>, u64)> {
        let variant = self.variant.as_deref();
        let source = self.folder.open_component(&self.found.folder, variant)?;
        let bytes = brisk_pipelines::memory::stored_bytes(&*source);
        Ok((source, bytes))
    }

    /// As [`Component::weights`] for a transformer, which may be held in 4 bits.
    fn transformer_weights(&self, config: &SanaConfig) -> Result<Opened> {
        let activations = Activations::default();
        match self.random {
            Some(random) => {
                let opened = self.weights(config.parameters())?;
                if !random.low_bit {
                    return Ok(opened);
                }
                Ok(Opened {
                    weights: sana::with_random_low_bit(config, opened.weights, activations),
                    weight_bytes: LOW_BIT_BYTES,
                })
            }
            None => {
                let (source, bytes) = self.stored()?;
                Ok(Opened {
                    weights: sana::parameters(config, source, activations)?,
                    weight_bytes: bytes as f64 / config.parameters().max(1) as f64,
                })
            }
        }
    }

    /// As [`Component::weights`] for a text encoder, which may be held in 4 bits.
    fn text_weights(&self, config: &Gemma2Config) -> Result<Opened> {
        if self.random.is_some() {
            return self.weights(config.parameters());
        }
        let (source, bytes) = self.stored()?;
        Ok(Opened {
            weights: weight_only_parameters(source)?,
            weight_bytes: bytes as f64 / config.parameters().max(1) as f64,
        })
    }

    /// Makes up `count` weights, after a look at the free memory, or opens the files.
    fn weights(&self, count: u64) -> Result<Opened> {
        self.quantised_weights(count, Quantisation::None)
    }

    /// As [`Component::weights`], with quantised linear layers. `weight_bytes` is that of the stored
    /// weights.
    fn quantised_weights(&self, count: u64, how: Quantisation) -> Result<Opened> {
        let Some(random) = self.random else {
            let (source, bytes) = self.stored()?;
            let values = brisk_pipelines::memory::stored_values(&*source).max(1);
            return Ok(Opened {
                weights: Weights::from_source(source).quantised(how, None),
                weight_bytes: bytes as f64 / values as f64,
            });
        };
        let size = match random.storage {
            Storage::F32 => 4,
            Storage::Bf16 => 2,
        };
        brisk_pipelines::memory::check(
            "weights",
            (count as f64 * how.bytes_per_value(size as f64)) as u64,
            brisk_pipelines::memory::available(),
            "use --storage bf16, or a smaller model",
        )?;
        Ok(Opened {
            weights: Weights::random(random.seed, random.storage).quantised(how, None),
            weight_bytes: size as f64,
        })
    }
}
