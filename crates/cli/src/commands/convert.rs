//! `brisk convert`: a quantized transformer back into plain weights.

use std::path::PathBuf;

use brisk_pipelines::quantize::{config_beside, unpack};
use brisk_store::{check_output, write_safetensors};
use clap::Args;

use super::ThreadArguments;
use crate::failure::Result;
use crate::output::{self, Format};

/// Turn a quantized transformer into plain bf16 weights under diffusers' names
#[derive(Debug, Args)]
#[command(
    before_help = "Reads SVDQuant files in int4 and nvfp4: nunchaku's single file, its older folder of two files,\n\
    diffusers' conversions, and the transformer's folder that `brisk quantize` writes. The configuration comes from the file, or from config.json beside it."
)]
pub struct ConvertArguments {
    /// File or folder of the transformer
    input: PathBuf,
    /// File to write (.safetensors)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The transformer's config.json, where the file brings none
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Runs the command.
pub fn run(arguments: &ConvertArguments) -> Result {
    arguments.threads.apply()?;
    let config = arguments.config.as_deref();
    let beside = config_beside(&arguments.input);
    let inputs = [&arguments.input, config.unwrap_or(&beside)];
    output::expect_format("--output", &arguments.output, Format::Safetensors)?;
    check_output(&arguments.output, &inputs)?;
    output::check_writable(&arguments.output)?;
    let tensors = unpack(&arguments.input, config)?;
    write_safetensors(&arguments.output, &tensors, &Default::default())?;
    output::note(&format!("{} tensors", tensors.len()));
    output::print(&arguments.output.display().to_string())
}
