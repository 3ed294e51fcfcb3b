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

use brisk_models::component::RandomWeights;
use brisk_nn::Storage;
use brisk_store::ModelFolder;
use clap::{Args, Subcommand, ValueEnum};

use super::ThreadArguments;
use crate::failure::Result;
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
    #[command(flatten)]
    Component(components::ComponentArguments),
    Text(language::TextArguments),
    Gemm(kernels::GemmArguments),
    Depthwise(kernels::DepthwiseArguments),
    Plot(plot::PlotArguments),
}

/// Runs the command.
pub fn run(verb: &BenchVerb) -> Result {
    match verb {
        BenchVerb::Image(arguments) => pipeline::run(arguments),
        BenchVerb::Component(arguments) => components::run(arguments),
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
}
