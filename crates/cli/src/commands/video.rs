//! `brisk video`: from a text, and a picture that it begins with, to a clip.

use std::path::{Path, PathBuf};
use std::time::Instant;

use brisk::options::{Options, Scope, video_keys};
use brisk::{
    ClipFile, ResultKind, VideoModel, VideoRequest, Windows, describe_clip, draw_first_frame, keys,
    registry, write_clip_latents,
};
use brisk_media::{ClipShape, Frames};
use brisk_store::output::UnusedNames;
use brisk_store::{ModelFolder, check_outputs, write_atomic};
use clap::Args;
use serde_json::json;

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::flags::{Clips, Flags, rare};
use crate::output::Format;
use crate::{models, output, progress, text};

/// Make a clip of what a text says, from a first frame or from none
#[derive(Debug, Args)]
#[command(
    override_usage = "brisk video \"WHAT HAPPENS\" --model MODEL [--image FIRST.png] [-o FILE.gif] [OPTIONS]",
    next_help_heading = "Clip",
    after_help = rare(ResultKind::Clips)
)]
pub struct VideoArguments {
    /// What happens in the clip, in quotes
    #[arg(value_name = "PROMPT")]
    prompt: String,
    #[command(flatten)]
    flags: Flags<Clips>,
    /// Draws the first frame where there is no --image (default: the box's)
    #[arg(long, value_name = "MODEL", conflicts_with = "image")]
    image_model: Option<String>,
    /// What the first frame shows, where that is not the prompt
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "image",
        allow_hyphen_values = true
    )]
    image_prompt: Option<String>,
    /// Runs of the model, each of which begins with a frame of the one before
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    windows: usize,
    /// Last frames of a run that the next makes anew; they are blended
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    overlap: usize,
    /// Each run begins with the colours of the clip's first frame
    #[arg(long)]
    match_colours: bool,
    /// Every run reads its text with the clip's first frame
    #[arg(long)]
    keep_prompt_image: bool,
    /// Folder, hub id (OWNER/NAME), or the name of one in the box
    #[arg(short, long, help_heading = "Model", value_name = "MODEL")]
    model: Option<String>,
    /// .gif, .png (animated), .mp4, .webm, .mkv, .mov (by ffmpeg), or a new folder of frames (default brisk.gif)
    #[arg(short, long, help_heading = "Output and machine", value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write frames side by side as one PNG
    #[arg(long, help_heading = "Output and machine", value_name = "FILE")]
    strip: Option<PathBuf>,
    /// Also write the final latents (safetensors)
    #[arg(long, help_heading = "Output and machine", value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Print what made the clip instead of its file's name
    #[arg(long, help_heading = "Output and machine")]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Frames of a strip.
const STRIP_FRAMES: usize = 8;

pub fn run(arguments: &VideoArguments) -> Result {
    arguments.threads.apply()?;
    let given = arguments.flags.read()?;
    let (name, variant) = (arguments.model.as_deref(), given.get(&keys::VARIANT));
    let found = models::find(name, variant.as_deref(), ResultKind::Clips)?;
    let settings = models::settings(given.of_scope(Scope::Open));
    let mut model: Box<dyn VideoModel> = registry::open_video(&found.folder, &settings)?;
    let unused = UnusedNames::choose(Path::new("brisk.gif"), 1);
    let path = arguments.output.as_deref().unwrap_or(&unused.paths()[0]);
    let file = ClipFile::new(path)?;
    arguments.check_files(&file, &found.folder, &given)?;
    let mut options = given.of_scope(Scope::Request);
    let control = progress::control()?;
    let image = video_keys::IMAGE.definition();
    let draws = model.needs_image() && !options.has(image);
    if !draws && (arguments.image_model.is_some() || arguments.image_prompt.is_some()) {
        return Err(Failure::usage(
            "--image-model, --image-prompt: this model begins with no picture; leave them out",
        ));
    }
    if draws {
        let mut frame = model.first_frame(&arguments.prompt);
        if let Some(prompt) = &arguments.image_prompt {
            frame.prompt.clone_from(prompt);
        }
        let (width, height) = model.usual_size();
        let size = (
            options.get(&video_keys::WIDTH).unwrap_or(width),
            options.get(&video_keys::HEIGHT).unwrap_or(height),
        );
        let seed = options.get(&keys::SEED).unwrap_or(0);
        // What the clip itself is refused for is said before the picture is drawn.
        let blank = brisk::Picture::filled(size.0, size.1, [0; 3]);
        model.plan(&request(
            &arguments.prompt,
            &options.clone().with(&video_keys::IMAGE, blank.into()),
        ))?;
        let drawer = arguments.image_model.as_deref();
        let picture = draw_first_frame(drawer, &frame, size, seed, &control)?;
        options.set(&video_keys::IMAGE, picture.into());
    }
    let request = request(&arguments.prompt, &options);
    let windows = arguments.windows()?;
    let plan = windows.check(&*model, &request)?;
    super::report_drawn_seed(&options);
    plan.warnings
        .iter()
        .for_each(|warning| control.warn(warning));
    let started = Instant::now();
    let mut description = describe_clip(&plan, &found.name);
    if windows.count > 1 {
        let beginning = arguments.beginning(&file)?;
        let asked = (&request, found.name.as_str());
        let made = windows.make(&mut *model, asked, &beginning, &control)?;
        drop(control);
        description["windows"] = json!(windows.count);
        description["frames_written"] = json!(made.shape().frames);
        file.write(made.shape(), &mut made.frames(), &description)?;
        if let Some(path) = &arguments.strip {
            write_strip(path, made.shape(), &mut made.frames())?;
        }
        made.remove()?;
    } else {
        let made = model.generate(&plan, &control)?;
        drop(control);
        if let Some(path) = &arguments.save_latents {
            write_clip_latents(path, &made.latents)?;
        }
        let (shape, frames) = (made.clip.shape(), || {
            made.clip.frames().iter().cloned().map(Ok)
        });
        file.write(&shape, &mut frames(), &description)?;
        if let Some(path) = &arguments.strip {
            write_strip(path, &shape, &mut frames())?;
        }
        let stages = made.seconds.iter();
        let stages = stages.map(|(name, seconds)| ((*name).to_owned(), json!(seconds)));
        description["stages_seconds"] = stages.collect::<serde_json::Map<_, _>>().into();
        description["frames_written"] = json!(shape.frames);
    }
    let seconds = started.elapsed().as_secs_f64();
    if arguments.json {
        description["path"] = json!(file.path().display().to_string());
        description["seconds"] = json!(seconds);
        return output::print_json(&description);
    }
    output::note(&format!("done in {}", text::seconds(seconds)));
    output::print(&format!("{}\n", file.path().display()))
}

/// Some of a clip's frames side by side.
fn write_strip(path: &Path, shape: &ClipShape, frames: Frames) -> Result {
    let strip = shape
        .strip(STRIP_FRAMES, frames)
        .map_err(brisk::Error::from)?;
    let bytes = brisk_media::encode_png(&strip, &[]).map_err(brisk::Error::from)?;
    Ok(write_atomic(path, &bytes)?)
}

fn request(prompt: &str, options: &Options) -> VideoRequest {
    VideoRequest {
        prompt: prompt.to_owned(),
        options: options.clone(),
    }
}

impl VideoArguments {
    /// How many runs make the clip, and how they follow.
    fn windows(&self) -> Result<Windows> {
        let windows = Windows {
            count: self.windows,
            overlap: self.overlap,
            match_colours: self.match_colours,
            keep_prompt_image: self.keep_prompt_image,
        };
        for (flag, given) in [
            ("--overlap", self.overlap > 0),
            ("--match-colours", self.match_colours),
            ("--keep-prompt-image", self.keep_prompt_image),
        ] {
            if given && self.windows < 2 {
                return Err(Failure::usage(format!(
                    "{flag} has no effect without --windows"
                )));
            }
        }
        if self.windows > 1 && self.save_latents.is_some() {
            return Err(Failure::usage(
                "--save-latents: each window has its own; leave it out, or make one window",
            ));
        }
        Ok(windows)
    }

    /// Where the runs of a clip wait for the last one: beside the result, under a name that the same command finds again.
    fn beginning(&self, file: &ClipFile) -> Result<PathBuf> {
        if self.output.is_none() {
            return Err(Failure::usage(
                "--windows needs --output: a clip that takes long goes on under its name",
            ));
        }
        let mut name = file.path().file_name().unwrap_or_default().to_owned();
        name.push(".unfinished");
        Ok(file.path().with_file_name(name))
    }

    /// Refuses, before any work, files that cannot be written or would overwrite what is read or one another.
    fn check_files(&self, file: &ClipFile, model: &ModelFolder, given: &Options) -> Result {
        let mut written = vec![file.path()];
        for (flag, path, format) in [
            ("--strip", &self.strip, Format::Png),
            ("--save-latents", &self.save_latents, Format::Safetensors),
        ] {
            if let Some(path) = path {
                output::expect_format(flag, path, format)?;
                written.push(path);
            }
        }
        let mut read = given.files();
        if let ModelFolder::Disk(folder) = model {
            read.push(folder.clone());
        }
        let read: Vec<&Path> = read.iter().map(PathBuf::as_path).collect();
        check_outputs(&written, &read)?;
        let folder = usize::from(file.is_folder());
        written[folder..]
            .iter()
            .try_for_each(|path| output::check_writable(path))
    }
}
