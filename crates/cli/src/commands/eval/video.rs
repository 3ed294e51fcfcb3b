//! `brisk eval video`: whether clips show what was asked for.

use std::path::PathBuf;
use std::sync::Arc;

use brisk::options::video_keys;
use brisk::{Control, Options, VideoModel, VideoRequest, keys, registry};
use brisk_media::{Picture, contact_sheet, encode_png};
use brisk_pipelines::EvaluationClips;
use brisk_pipelines::reproduce::ClipFigures;
use brisk_store::{ModelFolder, write_atomic};
use brisk_train::data::scenes::Drawings;
use brisk_train::eval::video::{
    DrawnClips, JudgedClip, TrueClips, VideoEvaluationReport, evaluate_video,
};
use clap::Args;
use serde_json::json;

use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::{models, output, progress, text};

/// Clips of the sheet, and frames of each.
const SHEET: [usize; 2] = [24, 6];
/// Clips of either part that are drawn where nothing is said.
const DEFAULT_COUNT: u16 = 100;

/// Measure whether a model of clips makes emoji move as it was asked
#[derive(Debug, Args)]
#[command(
    before_help = "Emoji that jump, move, grow, shrink or spin: a tracker tells which motion a clip shows. Pairs of object\n\
    and motion that no clip of training has stand beside others. Also measured: the first frame against\n\
    the given one, how much neighbouring frames differ, and the Fréchet distance from true clips by\n\
    what the checker of scenes sees. Without --npm, by the clips that the model's folder brings along."
)]
pub struct VideoEvalArguments {
    /// Folder, hub id or a model in the box
    #[arg(short, long, value_name = "MODEL")]
    model: String,
    /// Variant of the weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Folder with the npm packages in noto, fluent-emoji-flat and twemoji, to draw other clips
    #[arg(long, value_name = "FOLDER")]
    npm: Option<PathBuf>,
    /// Clips of held-out pairs, and as many of others, with --npm (default: 100)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(25..=10_000))]
    count: Option<u16>,
    /// Added to the seeds of the clips
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u32,
    /// Denoising steps (default: the model's)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Guidance (default: the model's)
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f32>,
    /// Also write some clips with what was asked and what was seen as one PNG
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Print one JSON document, with every judgement
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &VideoEvalArguments) -> Result {
    arguments.threads.apply()?;
    if let Some(sheet) = &arguments.sheet {
        output::expect_format("--sheet", sheet, Format::Png)?;
        output::check_writable(sheet)?;
    }
    let variant = arguments.variant.as_deref();
    let folder = models::open(Some(&arguments.model), variant)?;
    let options = Options::new()
        .with_some(&keys::VARIANT, arguments.variant.clone())
        .with(&keys::RESIDENCY, "all".to_owned());
    let mut model = registry::open_video(&folder, &models::settings(options))?;
    let control = progress::control()?;
    let asked = Options::new()
        .with_some(&keys::STEPS, arguments.steps)
        .with_some(&keys::GUIDANCE, arguments.guidance);
    let drawings = match &arguments.npm {
        Some(npm) => Some(Drawings::open(npm).map_err(brisk_train::Error::from)?),
        None => None,
    };
    let truths: Box<dyn TrueClips + '_> = match &drawings {
        Some(drawings) => {
            let (width, _) = model.usual_size();
            let blank = Picture::filled(width, width, [255; 3]);
            let usual = model.plan(&request(&*model, "a cat jumps", &blank, 0, &asked))?;
            Box::new(DrawnClips {
                drawings,
                each: arguments.count.unwrap_or(DEFAULT_COUNT).into(),
                size: usual.width,
                frames: usual.frames,
            })
        }
        None => Box::new(known(&folder, arguments)?),
    };
    let mut cells: Vec<(Picture, String)> = Vec::new();
    let mut seen = 0usize;
    let every = (truths.count() / SHEET[0]).max(1);
    let report = evaluate(
        &mut *model,
        &*truths,
        (&asked, arguments.seed.into()),
        &control,
        &mut |frames, judged| {
            if arguments.sheet.is_some() && seen.is_multiple_of(every) {
                add(&mut cells, frames, judged);
            }
            seen += 1;
        },
    );
    drop(control);
    let report = report?;
    if let Some(path) = &arguments.sheet {
        let sheet = contact_sheet(&cells, SHEET[1])?;
        write_atomic(path, &encode_png(&sheet, &[])?)?;
    }
    if arguments.json {
        let mut document = json!(report);
        document["model"] = model.label().into();
        return output::print_json(&document);
    }
    output::print(&text::table(&rows(&report)))
}

/// The clips that the model's folder brings along.
fn known(folder: &ModelFolder, arguments: &VideoEvalArguments) -> Result<EvaluationClips> {
    let Some(clips) = EvaluationClips::read(folder)? else {
        return Err(Failure::usage(format!(
            "{} brings no clips to be measured by ({}); --npm FOLDER: the npm packages in noto, fluent-emoji-flat and \
             twemoji, of which clips are drawn",
            folder.label(),
            EvaluationClips::CAPTIONS
        )));
    };
    match arguments.count {
        Some(count) => Err(Failure::usage(format!(
            "--count {count}: {} brings {} clips along; with --npm others are drawn, as many as you say",
            folder.label(),
            clips.0.len()
        ))),
        None => Ok(clips),
    }
}

fn request(
    model: &dyn VideoModel,
    caption: &str,
    first: &Picture,
    seed: u64,
    asked: &Options,
) -> VideoRequest {
    let mut options = asked.clone().with(&keys::SEED, seed);
    if model.needs_image() {
        options.set(&video_keys::IMAGE, Arc::new(first.clone()));
    }
    VideoRequest {
        prompt: caption.to_owned(),
        options,
    }
}

/// Asks a model for clips, with options and a number that is added to their seeds.
fn evaluate(
    model: &mut dyn VideoModel,
    truths: &dyn TrueClips,
    (asked, seed): (&Options, u64),
    control: &Control,
    see: &mut dyn FnMut(&[Picture], &JudgedClip),
) -> brisk_train::Result<VideoEvaluationReport> {
    let quiet = Control::silent().with_cancel(control.cancel_flag());
    let mut generate = |caption: &str, first: &Picture, index: u64| -> brisk_train::Result<_> {
        let plan = model.plan(&request(model, caption, first, seed + index, asked))?;
        Ok(model.generate(&plan, &quiet)?.clip.frames().to_vec())
    };
    evaluate_video(truths, control, &mut generate, see)
}

/// The judge of reproductions.
pub fn judge(
    model: &mut dyn VideoModel,
    clips: &EvaluationClips,
    settings: &[Options],
    control: &Control,
) -> brisk::Result<Vec<ClipFigures>> {
    let label = model.label().to_owned();
    let figures = settings.iter().map(|asked| {
        evaluate(model, clips, (asked, 0), control, &mut |_, _| {})
            .map(|report| ClipFigures::from(&report))
            .map_err(|error| match error {
                brisk_train::Error::Pipeline(error) => error,
                other => brisk::Error::folder(&label, other.to_string()),
            })
    });
    figures.collect()
}

/// Some frames of a clip, the first with what was asked for and what was found.
fn add(cells: &mut Vec<(Picture, String)>, frames: &[Picture], judged: &JudgedClip) {
    let columns = SHEET[1];
    let found = judged
        .verdict
        .motion
        .map_or("still", |motion| motion.words());
    for column in 0..columns {
        let at = column * (frames.len() - 1) / (columns - 1);
        let caption = match column {
            0 => format!("{} ({found})", judged.caption),
            _ => String::new(),
        };
        cells.push((frames[at].clone(), caption));
    }
}

fn rows(report: &VideoEvaluationReport) -> Vec<Vec<String>> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (held_out, trained) = (&report.held_out, &report.trained);
    let row = |name: &str, cells: [String; 2]| {
        let mut row = vec![name.to_owned()];
        row.extend(cells);
        row
    };
    let both =
        |of: &dyn Fn(&brisk_train::eval::video::VideoShare) -> String| [of(held_out), of(trained)];
    let mut rows = vec![
        row("", ["held-out pairs".to_owned(), "other pairs".to_owned()]),
        row("clips", both(&|share| share.clips.to_string())),
        row("motion right", both(&|share| percent(share.motion_right))),
        row(
            "motion right, true clips",
            both(&|share| percent(share.truth_right)),
        ),
        row(
            "first frame",
            both(&|share| format!("{:.1} dB", share.first_frame_psnr)),
        ),
        row("moving at all", both(&|share| percent(share.moving))),
        row(
            "change a frame",
            both(&|share| format!("{:.2}", share.change)),
        ),
        row(
            "change a frame, true clips",
            both(&|share| format!("{:.2}", share.truth_change)),
        ),
    ];
    let of_all = |name: &str, value: String| row(name, [value, String::new()]);
    for (motion, share) in &report.motions {
        rows.push(of_all(motion.words(), percent(*share)));
    }
    rows.push(of_all(
        "Fréchet distance",
        format!("{:.4}", report.frechet_distance),
    ));
    if let Some(distance) = report.truth_frechet_distance {
        rows.push(of_all(
            "Fréchet distance, true clips",
            format!("{distance:.4}"),
        ));
    }
    rows
}
