//! The arguments of `brisk image` beside the options that models honour.

use std::path::{Path, PathBuf};

use brisk::options::Scope;
use brisk::{ImageRequest, OpenSettings, ResultKind, keys};
use brisk_store::ModelFolder;
use brisk_store::output::numbered;
use clap::Args;

use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::flags::{Flags, Pictures, rare};
use crate::{models, output};

/// Draw pictures from a text; without --model, the model in the box draws
#[derive(Debug, Args)]
#[command(
    override_usage = "brisk image \"WHAT IT SHOWS\" [-o FILE.png] [--model MODEL] [OPTIONS]",
    next_help_heading = "Picture",
    after_help = rare(ResultKind::Pictures)
)]
pub struct ImageArguments {
    /// What the picture shows, in quotes; each one makes a picture
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// The same as a flag
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT")]
    prompt: Vec<String>,
    /// Both at once: one side of a square, or WxH
    #[arg(long, value_name = "N|WxH", conflicts_with_all = ["width", "height"])]
    size: Option<String>,
    #[command(flatten)]
    flags: Flags<Pictures>,
    /// Folder, hub id (OWNER/NAME), or the name of one in the box
    #[arg(short, long, help_heading = "Model", value_name = "MODEL")]
    model: Option<String>,
    /// PNG to write, - for stdout (default brisk.png); several get -0, -1
    #[arg(
        short,
        long,
        help_heading = "Output and machine",
        value_name = "FILE",
        default_value = "brisk.png",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    output: PathBuf,
    /// Also write the final latents (safetensors)
    #[arg(long, help_heading = "Output and machine", value_name = "FILE")]
    pub(super) save_latents: Option<PathBuf>,
    /// Also write all pictures with their prompts as one PNG
    #[arg(long, value_name = "FILE", help_heading = "Output and machine")]
    pub(super) sheet: Option<PathBuf>,
    /// Show pictures on the way: a PNG file, or a folder for all
    #[arg(long, help_heading = "Output and machine", value_name = "PATH")]
    pub(super) preview: Option<PathBuf>,
    /// Where to compute: cpu
    #[arg(long, help_heading = "Output and machine", value_name = "NAME", value_parser = only_cpu)]
    device: Option<String>,
    #[arg(long, hide = true, value_parser = only_f32)]
    dtype: Option<String>,
    #[command(flatten, next_help_heading = "Output and machine")]
    pub(super) threads: ThreadArguments,
    /// Print one JSON document instead of file names
    #[arg(long, help_heading = "Output and machine")]
    pub(super) json: bool,
}

fn only_cpu(name: &str) -> Result<String, String> {
    match name {
        "cpu" => Ok(name.to_owned()),
        _ => Err(format!(
            "this build computes on cpu only, it has no device \"{name}\""
        )),
    }
}

fn only_f32(name: &str) -> Result<String, String> {
    match name {
        "f32" => Ok(name.to_owned()),
        _ => Err(format!(
            "the CPU computes in f32 whatever the files store; it has no \"{name}\""
        )),
    }
}

/// Extensions of formats that are not written.
const OTHER_FORMATS: [&str; 7] = ["jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];

impl ImageArguments {
    /// Names of the files, one a picture.
    pub(super) fn outputs(&self, count: usize) -> Result<Vec<PathBuf>> {
        let extension = self
            .output
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or("");
        if OTHER_FORMATS.contains(&extension.to_ascii_lowercase().as_str()) {
            return Err(Failure::usage(format!(
                "--output: {} would be no .{extension}; brisk writes PNG, name it .png",
                self.output.display()
            )));
        }
        if self.output == Path::new("-") && count != 1 {
            return Err(Failure::usage(format!(
                "--output -: stdout takes one picture, this request draws {count}; name a file"
            )));
        }
        if self.output == Path::new("-") && self.json {
            return Err(Failure::usage(
                "--output -: stdout takes the picture or --json's document, not both",
            ));
        }
        Ok((0..count)
            .map(|index| numbered(&self.output, index, count))
            .collect())
    }

    /// The request, with its files read.
    pub(super) fn request(&self) -> Result<ImageRequest> {
        let prompts: Vec<String> = self.words.iter().chain(&self.prompt).cloned().collect();
        if prompts.is_empty() {
            return Err(Failure::usage(
                "what should the picture show? For example: brisk image \"a red heart\"",
            ));
        }
        if prompts.iter().any(|prompt| prompt.trim().is_empty()) {
            return Err(Failure::usage(
                "--prompt: is empty; say what the picture should show",
            ));
        }
        if self.words.len() > 1
            && self
                .words
                .iter()
                .all(|word| !word.contains(char::is_whitespace))
        {
            output::warn(&format!(
                "{} prompts of one word each; put quotes around a prompt of several words",
                self.words.len()
            ));
        }
        let mut options = self.flags.read()?.of_scope(Scope::Request);
        if let Some((width, height)) = self.size()? {
            options.set(&keys::WIDTH, width);
            options.set(&keys::HEIGHT, height);
        }
        match (
            &self.preview,
            options.has(keys::PREVIEW_INTERVAL.definition()),
        ) {
            (Some(_), false) => options.set(&keys::PREVIEW_INTERVAL, 1),
            (None, true) => {
                return Err(Failure::usage(
                    "--preview-interval: has no effect without --preview",
                ));
            }
            _ => {}
        }
        Ok(ImageRequest { prompts, options })
    }

    /// Width and height, where --size gives them.
    fn size(&self) -> Result<Option<(usize, usize)>> {
        let Some(size) = &self.size else {
            return Ok(None);
        };
        let (width, height) = size.split_once(['x', 'X', '×']).unwrap_or((size, size));
        match (width.parse(), height.parse()) {
            (Ok(width), Ok(height)) => Ok(Some((width, height))),
            _ => Err(Failure::usage(format!(
                "--size: {size:?} is neither a number of pixels nor WxH, such as 1024x768"
            ))),
        }
    }

    /// The model's name, its folder, and how to open it.
    pub(super) fn model(&self) -> Result<(String, ModelFolder, OpenSettings)> {
        let options = self.flags.read()?.of_scope(Scope::Open);
        let variant = options.get(&keys::VARIANT);
        let settings = models::settings(options);
        // A network in one file lives in its own folder; opening says what else is needed.
        if let (None, Some(file)) = (
            &self.model,
            brisk::registry::option(ResultKind::Pictures, "transformer")
                .and_then(|option| settings.options.source(option)),
        ) {
            let parent = Path::new(file)
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let folder = ModelFolder::Disk(parent.to_owned());
            return Ok((folder.label(), folder, settings));
        }
        let found = models::find(
            self.model.as_deref(),
            variant.as_deref(),
            ResultKind::Pictures,
        )?;
        Ok((found.name, found.folder, settings))
    }
}
