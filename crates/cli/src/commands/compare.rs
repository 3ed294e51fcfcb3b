//! `brisk compare`: how alike two pictures are, or what two models draw.

pub mod models;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use brisk_media::{Picture, psnr, read_picture, ssim};
use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output;
use crate::text;

/// Measure how alike two pictures, two folders of pictures, or the pictures of two models are
#[derive(Debug, Args)]
#[command(
    before_help = "PSNR is in dB (60 and more: alike to the eye at any zoom; below 25: clearly different).\n\
    SSIM is 1 for equal pictures (Gaussian window of 11 pixels). Two folders are compared file\n\
    by file by equal names. Two models (a full one and a quantized one) draw the same prompts from\n\
    the same noise; size, memory and time are compared too."
)]
pub struct CompareArguments {
    /// Picture (PNG, JPEG, WebP), folder of pictures, or model
    a: PathBuf,
    /// What to compare it with, of the same kind and size
    b: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    models: models::ModelArguments,
}

struct Likeness {
    /// dB; infinite for equal pictures.
    psnr: f64,
    /// None below 11 pixels a side.
    ssim: Option<f64>,
    /// Largest difference of a channel, 0..255.
    max_difference: u8,
}

impl Likeness {
    fn of(a: &Picture, b: &Picture) -> Result<Self> {
        let psnr = psnr(a, b)?;
        let ssim = if a.width.min(a.height) < 11 {
            None
        } else {
            Some(ssim(a, b)?)
        };
        let max_difference = a
            .pixels
            .iter()
            .zip(&b.pixels)
            .map(|(x, y)| x.abs_diff(*y))
            .max()
            .unwrap_or(0);
        Ok(Self {
            psnr,
            ssim,
            max_difference,
        })
    }

    fn json(&self) -> Value {
        json!({
            "identical": self.max_difference == 0,
            "psnr_db": self.psnr.is_finite().then_some(self.psnr), // JSON has no infinity
            "ssim": self.ssim,
            "max_difference": self.max_difference,
        })
    }

    fn cells(&self) -> Vec<String> {
        let psnr = if self.psnr.is_finite() {
            format!("{:.2} dB", self.psnr)
        } else {
            "identical".to_owned()
        };
        let ssim = self
            .ssim
            .map_or("-".to_owned(), |ssim| format!("{ssim:.5}"));
        vec![psnr, ssim, self.max_difference.to_string()]
    }
}

/// Runs the command.
pub fn run(arguments: &CompareArguments) -> Result {
    if [&arguments.a, &arguments.b].map(|name| models::is_model(name)) == [true; 2] {
        return models::run(
            &arguments.a,
            &arguments.b,
            &arguments.models,
            arguments.json,
        );
    }
    if let Some(flag) = arguments.models.given() {
        return Err(Failure::usage(format!(
            "{flag}: has no effect on pictures; {} and {} are not two models",
            arguments.a.display(),
            arguments.b.display()
        )));
    }
    match (arguments.a.is_dir(), arguments.b.is_dir()) {
        (true, true) => folders(arguments),
        (false, false) => {
            let likeness = files(&arguments.a, &arguments.b)?;
            if arguments.json {
                return output::print_json(&likeness.json());
            }
            let cells = likeness.cells();
            output::print(&format!(
                "PSNR            {}\nSSIM            {}\nmax difference  {}",
                cells[0], cells[1], cells[2]
            ))
        }
        _ => Err(Failure::usage(format!(
            "{} and {} are a folder and a file; compare two of a kind",
            arguments.a.display(),
            arguments.b.display()
        ))),
    }
}

fn files(a: &Path, b: &Path) -> Result<Likeness> {
    Likeness::of(&read_picture(a)?, &read_picture(b)?)
        .map_err(|failure| failure.at(format!("{}, {}", a.display(), b.display())))
}

fn folders(arguments: &CompareArguments) -> Result {
    let (a, b) = (pictures(&arguments.a)?, pictures(&arguments.b)?);
    let common: Vec<&String> = a.intersection(&b).collect();
    if common.is_empty() {
        return Err(Failure::failed(format!(
            "{} and {} have no pictures (PNG, JPEG, WebP) of equal names",
            arguments.a.display(),
            arguments.b.display()
        )));
    }
    let only_a: Vec<&String> = a.difference(&b).collect();
    let only_b: Vec<&String> = b.difference(&a).collect();
    for (folder, names) in [(&arguments.a, &only_a), (&arguments.b, &only_b)] {
        if !names.is_empty() {
            output::warn(&format!("only in {}: {}", folder.display(), list(names)));
        }
    }
    let pairs = common
        .into_iter()
        .map(|name| {
            Ok((
                name,
                files(&arguments.a.join(name), &arguments.b.join(name))?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let count = pairs.len() as f64;
    let known: Vec<f64> = pairs
        .iter()
        .filter_map(|(_, likeness)| likeness.ssim)
        .collect();
    let average = Likeness {
        psnr: pairs.iter().map(|(_, likeness)| likeness.psnr).sum::<f64>() / count,
        ssim: (known.len() == pairs.len()).then(|| known.iter().sum::<f64>() / count),
        max_difference: pairs
            .iter()
            .map(|(_, likeness)| likeness.max_difference)
            .max()
            .unwrap_or(0),
    };
    if arguments.json {
        let pairs: Vec<Value> = pairs
            .iter()
            .map(|(name, likeness)| {
                let mut entry = json!({"name": name});
                merge(&mut entry, likeness.json());
                entry
            })
            .collect();
        return output::print_json(&json!({
            "pictures": pairs, "average": average.json(), "only_in_a": only_a, "only_in_b": only_b,
        }));
    }
    let mut rows = vec![
        ["picture", "PSNR", "SSIM", "max difference"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (name, likeness) in &pairs {
        rows.push([vec![(*name).clone()], likeness.cells()].concat());
    }
    rows.push([vec!["average".to_owned()], average.cells()].concat());
    output::print(&text::table(&rows))
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

fn list(names: &[&String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(|name| name.as_str()).collect();
    let more = names.len().saturating_sub(shown.len());
    if more > 0 {
        format!("{} and {more} more", shown.join(", "))
    } else {
        shown.join(", ")
    }
}

fn pictures(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", folder.display())))?;
    let is_picture = |name: &String| {
        let lower = name.to_ascii_lowercase();
        [".png", ".jpg", ".jpeg", ".webp"]
            .iter()
            .any(|ending| lower.ends_with(ending))
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(is_picture)
        .collect())
}
