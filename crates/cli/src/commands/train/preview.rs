//! `brisk train preview`.

use std::path::PathBuf;

use brisk::{Options, registry};
use brisk_pipelines::diffusion::preview::PreviewDecoder;
use clap::Args;

use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::output::{self, Format};
use crate::{models, progress, prompts};

/// Fit what shows a model's pictures while they are drawn
#[derive(Debug, Args)]
#[command(
    before_help = "Draws pictures and fits, by least squares, a convolution from latents to small pictures of them. Put the\n\
    result as preview_decoder.safetensors into the model's folder, or give it with --preview-decoder."
)]
pub struct PreviewArguments {
    /// Model that draws with latents: folder, hub id or the name of one in the box
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Prompts to draw, one a line; by default those that the model's folder says it knows
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Pictures to draw
    #[arg(long, value_name = "N", default_value_t = 256)]
    pictures: usize,
    /// Side of a latent cell in the preview, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 8)]
    patch: usize,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &PreviewArguments) -> Result {
    arguments.threads.apply()?;
    output::expect_format("--output", &arguments.output, Format::Safetensors)?;
    output::check_writable(&arguments.output)?;
    let folder = models::open(arguments.model.as_deref(), None)?;
    let options = models::kept_in_memory(&folder, Options::new());
    let mut model = registry::open_image(&folder, &models::settings(options))?;
    let prompts = match (&arguments.prompts, model.known_prompts()) {
        (Some(file), _) => prompts::read(file)?,
        (None, Some(known)) => known.prompts().to_vec(),
        (None, None) => {
            return Err(Failure::usage(
                "--prompts: is needed for a model whose folder has no prompts.json",
            ));
        }
    };
    let control = progress::control()?;
    let (pictures, patch) = (arguments.pictures, arguments.patch);
    let decoder = PreviewDecoder::of_model(&mut *model, &prompts, pictures, patch, &control)?;
    decoder.write(&arguments.output)?;
    output::print(&format!("{}\n", arguments.output.display()))
}
