//! The arguments of `brisk image` beside the options that models honour.

use std::path::{Path, PathBuf};

use brisk::options::{Definition, Scope, Support};
use brisk::{ImageRequest, OpenSettings, Options, Redraw, ResultKind, keys};
use brisk_store::output::{UnusedNames, numbered};
use brisk_store::read::read;
use brisk_store::{Limit, ModelFolder, check_outputs};
use clap::Args;

use super::best_of::BestOfArguments;
use super::is_stdout;
use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::flags::{Flags, Pictures, rare};
use crate::output::Format;
use crate::{models, output};

/// Draw pictures from a text; without --model, the model in the box draws
#[derive(Debug, Args)]
#[command(
    override_usage = "brisk image \"WHAT IT SHOWS\" [-o FILE.png] [--model MODEL] [OPTIONS]",
    next_help_heading = "Picture",
    after_help = format!(
        "{}, --save-codes FILE\nWith --best-of: {}",
        rare(ResultKind::Pictures),
        BestOfArguments::MORE
    )
)]
pub struct ImageArguments {
    /// What the picture shows, in quotes; each one makes a picture
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT", hide = true)]
    prompt: Vec<String>,
    /// Prompts, one a line, from a file or - for stdin
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Draw a picture again by what its file says; other options overrule
    #[arg(long, value_name = "PNG")]
    from: Option<PathBuf>,
    /// Both at once: one side of a square, or WxH
    #[arg(long, value_name = "N|WxH", conflicts_with_all = ["width", "height"])]
    size: Option<String>,
    #[command(flatten)]
    flags: Flags<Pictures>,
    /// Folder, hub id (OWNER/NAME), or the name of one in the box
    #[arg(short, long, help_heading = "Model", value_name = "MODEL")]
    model: Option<String>,
    /// PNG to write, - for stdout (default brisk.png or brisk-N.png)
    #[arg(
        short,
        long,
        help_heading = "Output and machine",
        value_name = "FILE",
        allow_hyphen_values = true
    )]
    output: Option<PathBuf>,
    /// Also write the final latents (safetensors)
    #[arg(long, help_heading = "Output and machine", value_name = "FILE")]
    pub(super) save_latents: Option<PathBuf>,
    /// Also write the codes that the pictures were made of (safetensors)
    #[arg(long, value_name = "FILE", hide = true)]
    pub(super) save_codes: Option<PathBuf>,
    /// Also write all pictures with their prompts as one PNG
    #[arg(long, value_name = "FILE", help_heading = "Output and machine")]
    pub(super) sheet: Option<PathBuf>,
    /// Show pictures on the way: a PNG file, or a folder for all
    #[arg(long, help_heading = "Output and machine", value_name = "PATH")]
    pub(super) preview: Option<PathBuf>,
    #[command(flatten)]
    pub(super) best: BestOfArguments,
    #[arg(long, hide = true, value_parser = only_f32)]
    dtype: Option<String>,
    #[command(flatten, next_help_heading = "Output and machine")]
    pub(super) threads: ThreadArguments,
    /// Print one JSON document instead of file names
    #[arg(long, help_heading = "Output and machine")]
    pub(super) json: bool,
}

fn only_f32(name: &str) -> Result<String, String> {
    match name {
        "f32" => Ok(name.to_owned()),
        _ => Err(format!(
            "the CPU computes in f32 whatever the files store; it has no \"{name}\""
        )),
    }
}

impl ImageArguments {
    /// Names of the files, one a picture; where none was given, those of `unused`.
    pub(super) fn outputs(
        &self,
        count: usize,
        unused: &mut Option<UnusedNames>,
    ) -> Result<Vec<PathBuf>> {
        let Some(output) = &self.output else {
            let chosen = unused.insert(UnusedNames::choose(Path::new("brisk.png"), count));
            return Ok(chosen.paths().to_vec());
        };
        output::expect_format("--output", output, Format::Png)?;
        if output == Path::new("-") && count != 1 {
            return Err(Failure::usage(format!(
                "--output -: stdout takes one picture, this request draws {count}; name a file"
            )));
        }
        if output == Path::new("-") && self.json {
            return Err(Failure::usage(
                "--output -: stdout takes the picture or --json's document, not both",
            ));
        }
        Ok((0..count)
            .map(|index| numbered(output, index, count))
            .collect())
    }

    /// Refuses, before any work, files besides `outputs` whose names say another format, files that cannot be
    /// written, and those that would overwrite what is read or one another.
    pub(super) fn check_files(
        &self,
        outputs: &[PathBuf],
        model: &ModelFolder,
        options: &[&Options],
    ) -> Result {
        if let Some(path) = &self.save_latents {
            output::expect_format("--save-latents", path, Format::Safetensors)?;
        }
        if let Some(path) = &self.save_codes {
            output::expect_format("--save-codes", path, Format::Safetensors)?;
        }
        if let Some(path) = &self.sheet {
            output::expect_format("--sheet", path, Format::Png)?;
        }
        let preview = self.preview.iter().filter(|path| !path.is_dir());
        let also = [&self.save_latents, &self.save_codes, &self.sheet];
        let also = also.into_iter().flatten().chain(preview);
        let files = outputs.iter().filter(|path| !is_stdout(path));
        let written: Vec<&Path> = files.chain(also).map(PathBuf::as_path).collect();
        let mut read: Vec<PathBuf> = options.iter().flat_map(|given| given.files()).collect();
        read.extend(self.prompts.iter().chain(&self.from).cloned());
        read.extend(self.best.files().cloned());
        if let ModelFolder::Disk(folder) = model {
            read.push(folder.clone());
        }
        let read: Vec<&Path> = read.iter().map(PathBuf::as_path).collect();
        check_outputs(&written, &read)?;
        written
            .iter()
            .try_for_each(|path| output::check_writable(path))
    }

    /// The prompts: those given, or those of a file.
    fn prompts(&self) -> Result<Vec<String>> {
        let given = self.words.iter().chain(&self.prompt).cloned();
        match &self.prompts {
            None => Ok(given.collect()),
            Some(_) if given.count() > 0 => Err(Failure::usage(
                "--prompts: there are prompts on the command line too; give one of both",
            )),
            Some(file) => crate::prompts::read(file),
        }
    }

    /// What made the picture of --from.
    fn redraw(&self) -> Result<Option<Redraw>> {
        let Some(file) = &self.from else {
            return Ok(None);
        };
        let bytes = read(file, Limit::PICTURE)?;
        let texts = brisk_media::read_png_metadata(&bytes)
            .map_err(|error| Failure::from(error).at(file.display()))?;
        Ok(Some(brisk::redraw(&texts, &file.display().to_string())?))
    }

    /// What is to be drawn.
    pub(super) fn job(&self) -> Result<Job> {
        let redraw = self.redraw()?;
        let mut prompts = self.prompts()?;
        let given = self.flags.read()?;
        let instead = given.definitions().any(|option| option.instead_of_prompt);
        if prompts.is_empty() && redraw.is_none() && !instead {
            return Err(Failure::usage(
                "what should the picture show? For example: brisk image \"a red heart\"",
            ));
        }
        if prompts.is_empty() && instead {
            prompts.push(String::new());
        } else if prompts.iter().any(|prompt| prompt.trim().is_empty()) {
            return Err(Failure::usage(
                "--prompt: is empty; say what the picture should show",
            ));
        }
        let single = |word: &String| !word.contains(char::is_whitespace);
        if self.words.len() > 1 && self.words.iter().all(single) {
            output::warn(&format!(
                "{} prompts of one word each; put quotes around a prompt of several words",
                self.words.len()
            ));
        }
        let mut options = given.of_scope(Scope::Request);
        if let Some((width, height)) = self.size()? {
            options.set(&keys::WIDTH, width);
            options.set(&keys::HEIGHT, height);
        }
        let chosen = [
            keys::PREVIEW_INTERVAL.definition(),
            keys::PREVIEWS.definition(),
        ];
        let chosen = chosen.into_iter().find(|option| options.has(option));
        match (&self.preview, chosen) {
            (Some(_), None) => options.set(&keys::PREVIEW_INTERVAL, 1),
            (None, Some(option)) => {
                return Err(Failure::usage(format!(
                    "--{}: has no effect without --preview",
                    option.name
                )));
            }
            _ => {}
        }
        let mut open = given.of_scope(Scope::Open);
        let (mut prompts, mut only, mut model) = (prompts, None, self.model.clone());
        let mut stated = Vec::new();
        if let Some(redraw) = redraw {
            stated.extend(Redraw::STATED.into_iter().filter(|d| !options.has(d)));
            if prompts.is_empty() {
                prompts = redraw.request.prompts;
                let count = redraw.request.options.get(&keys::IMAGES);
                only = (!options.has(keys::IMAGES.definition()) && count.is_some())
                    .then_some(redraw.index);
            }
            options.complete(&redraw.request.options);
            open.complete(&redraw.open);
            model = model.or(Some(redraw.model));
        }
        Ok(Job {
            request: ImageRequest { prompts, options },
            stated,
            only,
            open,
            model,
        })
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
}

/// What is to be drawn, and with what.
pub(super) struct Job {
    request: ImageRequest,
    /// Options whose values a picture's description states.
    stated: Vec<&'static Definition>,
    /// The one picture of the request that is wanted; all where there is none.
    pub(super) only: Option<usize>,
    open: Options,
    model: Option<String>,
}

impl Job {
    /// The request to a model: what a description states and the model does not let one choose is left out.
    pub(super) fn request(&self, support: &Support) -> ImageRequest {
        let mut request = self.request.clone();
        for definition in &self.stated {
            if !support.honours(definition) {
                request.options.remove(definition);
            }
        }
        request
    }

    /// The model's name, its folder, and how to open it.
    pub(super) fn model(&self) -> Result<(String, ModelFolder, OpenSettings)> {
        let variant = self.open.get(&keys::VARIANT);
        let settings = models::settings(self.open.clone());
        // A network in one file lives in its own folder; opening says what else is needed.
        if let (None, Some(file)) = (
            &self.model,
            brisk::registry::option(ResultKind::Pictures, "transformer")
                .and_then(|option| self.open.source(option)),
        ) {
            let parent = Path::new(file)
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let folder = ModelFolder::Disk(parent.to_owned());
            return Ok((folder.label(), folder, settings));
        }
        let name = self.model.as_deref();
        let found = models::find(name, variant.as_deref(), ResultKind::Pictures)?;
        Ok((found.name, found.folder, settings))
    }
}
