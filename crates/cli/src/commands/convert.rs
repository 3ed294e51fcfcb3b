//! `brisk convert`: a quantised transformer back into plain weights.

use std::path::{Path, PathBuf};

use brisk_models::sana::SanaConfig;
use brisk_pipelines::sana::quantise::unpacked;
use brisk_quant::NunchakuFile;
use brisk_store::{Limit, check_output, read_text, write_safetensors};
use clap::Args;

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::output;

/// Turn a quantised SANA transformer into plain bf16 weights under diffusers' names
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

impl ConvertArguments {
    /// The configuration that is given, or the one beside the weights.
    fn config_file(&self) -> PathBuf {
        let beside = || {
            let folder = match self.input.is_dir() {
                true => self.input.as_path(),
                false => self.input.parent().unwrap_or(Path::new("")),
            };
            folder.join("config.json")
        };
        self.config.clone().unwrap_or_else(beside)
    }
}

/// Runs the command.
pub fn run(arguments: &ConvertArguments) -> Result {
    arguments.threads.apply()?;
    let config_file = arguments.config_file();
    check_output(&arguments.output, &[&arguments.input, &config_file])?;
    output::check_writable(&arguments.output)?;
    let file = NunchakuFile::open(&arguments.input)?;
    let (json, label) = match (&arguments.config, file.config()?) {
        (None, Some(config)) => (config.to_string(), format!("{} (metadata)", file.label())),
        _ => {
            let path = config_file;
            let text = read_text(&path, Limit::SETTINGS).map_err(|error| {
                Failure::failed(format!(
                    "{} brings no configuration: {error}; give one with --config",
                    arguments.input.display()
                ))
            })?;
            (text, path.display().to_string())
        }
    };
    let config = SanaConfig::from_json(json.as_bytes(), &label)?;
    let tensors = unpacked(&config, file)?;
    write_safetensors(&arguments.output, &tensors, &Default::default())?;
    output::note(&format!("{} tensors", tensors.len()));
    output::print(&arguments.output.display().to_string())
}
