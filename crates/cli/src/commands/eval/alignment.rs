//! `brisk eval alignment`: whether pictures show what was asked for.

use std::path::PathBuf;

use brisk::{Control, ImageRequest, Options, keys, registry};
use brisk_media::{Picture, contact_sheet, encode_png};
use brisk_store::write_atomic;
use brisk_train::checker::SceneChecker;
use brisk_train::eval::{AlignmentOptions, AlignmentReport, Judged, Share, evaluate_alignment};
use clap::Args;
use serde_json::json;

use crate::commands::ThreadArguments;
use crate::failure::Result;
use crate::output::Format;
use crate::{models, output, progress, text};

/// Pictures of the sheet.
const SHEET: usize = 50;

/// Measure how often a model of scenes draws everything that was asked for
#[derive(Debug, Args)]
#[command(
    before_help = "Six kinds of prompts, those of GenEval: one object, two, one to four alike, a colour, a position, two\n\
    colours. Combinations that no training scene shows stand beside those that some do. The judge is a\n\
    small network (`brisk train checker`), which never saw a drawn picture."
)]
pub struct AlignmentArguments {
    /// Folder, hub id or a model in the box
    #[arg(short, long, value_name = "MODEL")]
    model: String,
    /// Folder of the judge, `checker` in the folder of its training (default: the one in the box)
    #[arg(long, value_name = "FOLDER")]
    checker: Option<PathBuf>,
    /// Prompts of each kind, held out and not; some kinds have fewer
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Pictures of each prompt
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    seeds: u16,
    /// Seed of the first of them
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Denoising steps (default: the model's)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Guidance (default: the model's)
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f32>,
    /// Pictures drawn together
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    batch: u16,
    /// Also write fifty pictures with what was asked and what was seen as one PNG
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Print one JSON document, with every judgement
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &AlignmentArguments) -> Result {
    arguments.threads.apply()?;
    if let Some(sheet) = &arguments.sheet {
        output::expect_format("--sheet", sheet, Format::Png)?;
        output::check_writable(sheet)?;
    }
    let checker = match &arguments.checker {
        Some(folder) => SceneChecker::open(folder)?,
        None => SceneChecker::in_the_box()?,
    };
    let folder = models::open(Some(&arguments.model), None)?;
    let options = Options::new().with(&keys::RESIDENCY, "all".to_owned());
    let mut model = registry::open_image(&folder, &models::settings(options))?;
    let control = progress::control()?;
    let options = AlignmentOptions {
        prompts: arguments.count.into(),
        seeds: arguments.seeds.into(),
        seed: arguments.seed,
        batch: arguments.batch.into(),
    };
    let mut cells: Vec<(Picture, String)> = Vec::new();
    let mut seen = 0usize;
    let report = evaluate_alignment(
        &checker,
        &options,
        &control,
        &mut |prompts, seed| {
            let request = ImageRequest {
                prompts: prompts.to_vec(),
                options: Options::new(),
            }
            .with(&keys::SEED, seed)
            .with_some(&keys::STEPS, arguments.steps)
            .with_some(&keys::GUIDANCE, arguments.guidance);
            let quiet = Control::silent().with_cancel(control.cancel_flag());
            let images = model.draw(&request, &quiet)?;
            Ok(images.into_iter().map(|image| image.picture).collect())
        },
        &mut |picture, judged| {
            // One prompt in eleven, so that every kind is on the sheet.
            if arguments.sheet.is_some() && seen.is_multiple_of(11) && cells.len() < SHEET {
                cells.push((picture.clone(), label(judged)));
            }
            seen += 1;
        },
    );
    drop(control);
    let report = report?;
    if let Some(path) = &arguments.sheet {
        let sheet = contact_sheet(&cells, 10)?;
        write_atomic(path, &encode_png(&sheet, &[])?)?;
    }
    if arguments.json {
        let mut document = json!(report);
        document["model"] = model.label().into();
        return output::print_json(&document);
    }
    output::print(&text::table(&rows(&report)))
}

fn label(judged: &Judged) -> String {
    match judged.verdict.right {
        true => format!("{} (yes)", judged.prompt),
        false => format!("{} (no: {})", judged.prompt, judged.verdict.fault),
    }
}

fn rows(report: &AlignmentReport) -> Vec<Vec<String>> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let cell = |share: &Share| {
        let (low, high) = share.interval;
        format!(
            "{} ({:.0} to {:.0}; {} prompts)",
            percent(share.share),
            100.0 * low,
            100.0 * high,
            share.prompts
        )
    };
    let head = ["kind", "held-out combinations", "trained combinations"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (kind, held_out, trained) in &report.kinds {
        rows.push(vec![kind.name().to_owned(), cell(held_out), cell(trained)]);
    }
    let mean = vec![
        "mean".to_owned(),
        percent(report.held_out),
        percent(report.trained),
    ];
    rows.push(mean);
    rows
}
