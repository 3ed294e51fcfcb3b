//! `brisk masks`: from a picture, and what shows what to find, to a folder of masks.

use std::path::PathBuf;

use brisk::options::{Options, Scope, word_keys};
use brisk::{Annotations, Found, MaskFiles, MaskModel, PictureFolder, ResultKind, keys, registry};
use clap::Args;
use serde_json::json;

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::flags::{Flags, Masks, rare};
use crate::{models, output, progress};

/// Find the pixels of what points and boxes show, of words' characters, or of everything in a picture
#[derive(Debug, Args)]
#[command(after_help = rare(ResultKind::Masks))]
pub struct MasksArguments {
    /// PNG, JPEG or WebP; with --words also a folder of them
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
    /// Pictures of a folder at once, as far as memory allows (default: 2)
    #[arg(long, value_name = "N", default_value_t = 2, hide_default_value = true, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
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
    let folder = arguments.picture.is_dir();
    match folder {
        true => arguments.threads.apply_to_others()?,
        false => arguments.threads.apply()?,
    }
    let given = arguments.flags.read()?;
    let (name, variant) = (arguments.model.as_deref(), given.get(&keys::VARIANT));
    let found = models::find(name, variant.as_deref(), ResultKind::Masks)?;
    let settings = models::settings(given.of_scope(Scope::Open));
    let mut model = registry::open_masks(&found.folder, &settings)?;
    if folder {
        return whole_folder(arguments, &given, &mut *model, &found);
    }
    let (out, embedding) = (
        arguments.output.as_deref(),
        arguments.save_embedding.as_deref(),
    );
    let files = MaskFiles::new(&arguments.picture, out, embedding);
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

/// Every picture of a folder; what is done already is left as it is.
fn whole_folder(
    arguments: &MasksArguments,
    given: &Options,
    model: &mut dyn MaskModel,
    found: &Found,
) -> Result {
    if arguments.save_embedding.is_some() {
        return Err(Failure::usage(
            "--save-embedding: a folder has many pictures; give one",
        ));
    }
    let Some(words) = given.get(&word_keys::WORDS) else {
        let folder = arguments.picture.display();
        return Err(Failure::usage(format!(
            "{folder} is a folder, which needs --words FILE, FOLDER or auto"
        )));
    };
    let out = arguments.output.clone().unwrap_or_else(|| {
        let name = arguments
            .picture
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        PathBuf::from(format!("{name}-masks"))
    });
    let annotations = Annotations::open(&words)?;
    let pictures = PictureFolder::open(&arguments.picture, &out, given, &found.name)?;
    let options = given.of_scope(Scope::Request);
    let control = progress::control()?;
    let asked = (&options, found.name.as_str());
    let parallel = usize::from(arguments.parallel);
    let report = pictures.run(
        model,
        asked,
        &found.folder,
        &annotations,
        parallel,
        &control,
    )?;
    drop(control);
    match arguments.json {
        true => output::print_json(&json!({
            "folder": out.display().to_string(), "before": report.before, "done": report.done,
            "failed": report.failed.iter().map(|(path, problem)| json!({
                "picture": path.display().to_string(), "problem": problem,
            })).collect::<Vec<_>>(),
        }))?,
        false => output::print(&format!(
            "{}: {} pictures done, {} were there, {} failed\n",
            out.display(),
            report.done,
            report.before,
            report.failed.len()
        ))?,
    }
    match report.failed.len() {
        0 => Ok(()),
        count => Err(Failure::failed(format!(
            "{count} pictures failed; the same command tries them again"
        ))),
    }
}
