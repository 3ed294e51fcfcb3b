//! `brisk masks`: from a picture, and what shows what to find, to a folder of masks.

use std::path::PathBuf;

use brisk::options::Scope;
use brisk::{MaskFiles, ResultKind, keys, registry};
use clap::Args;

use super::ThreadArguments;
use crate::failure::Result;
use crate::flags::{Flags, Masks, rare};
use crate::{models, output, progress};

/// Find the pixels of what points and boxes show, or of everything in a picture
#[derive(Debug, Args)]
#[command(after_help = rare(ResultKind::Masks))]
pub struct MasksArguments {
    /// PNG, JPEG or WebP
    #[arg(value_name = "PICTURE")]
    picture: PathBuf,
    #[command(flatten)]
    flags: Flags<Masks>,
    /// Folder, hub id (OWNER/NAME), weights file (.pth, .safetensors), or the name of one in the box
    #[arg(short, long, help_heading = "Model", value_name = "MODEL")]
    model: Option<String>,
    /// New folder for a PNG each, coco.json, overlay.png and summary.json (default PICTURE-masks)
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Also write the picture as the encoder saw it, for --embedding (safetensors)
    #[arg(long, value_name = "FILE")]
    save_embedding: Option<PathBuf>,
    /// Print what summary.json says instead of file names
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &MasksArguments) -> Result {
    arguments.threads.apply()?;
    let given = arguments.flags.read()?;
    let (name, variant) = (arguments.model.as_deref(), given.get(&keys::VARIANT));
    let found = models::find(name, variant.as_deref(), ResultKind::Masks)?;
    let settings = models::settings(given.of_scope(Scope::Open));
    let mut model = registry::open_masks(&found.folder, &settings)?;
    let (folder, embedding) = (
        arguments.output.as_deref(),
        arguments.save_embedding.as_deref(),
    );
    let files = MaskFiles::new(&arguments.picture, folder, embedding);
    let request = files.request(given.of_scope(Scope::Request), &found.folder)?;
    let plan = model.plan(&request)?;
    let control = progress::control()?;
    plan.warnings
        .iter()
        .for_each(|warning| control.warn(warning));
    let masks = model.generate(&plan, &control)?;
    drop(control);
    let summary = files.write(&plan, &masks, &found.name)?;
    match arguments.json {
        true => output::print_json(&summary),
        false => output::print(&files.in_words(&masks)),
    }
}
