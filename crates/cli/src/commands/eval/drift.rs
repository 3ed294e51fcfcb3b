//! `brisk eval drift`: how far a clip gets away from its first frame.

use std::path::PathBuf;

use brisk_media::read_clip;
use brisk_train::FeatureNetwork;
use brisk_train::eval::{Drift, clip_drift};
use clap::Args;
use serde_json::json;

use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::{output, text};

/// Measure how far a clip drifts from its first frame
#[derive(Debug, Args)]
#[command(
    before_help = "Every N-th frame, and the last, beside the first: how far their mean colours and their spread are apart\n\
    (0 to 255), and what a fixed network sees at every place (0: the same). Of clips of several windows N is a\n\
    window's frames less one, so that the frames are those that windows begin with. GIF has 256 colours a frame."
)]
pub struct DriftArguments {
    /// GIF, animated PNG or WebP, or a folder of frames
    #[arg(value_name = "CLIP")]
    clip: PathBuf,
    /// Frames from one that is compared to the next
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    every: u16,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &DriftArguments) -> Result {
    arguments.threads.apply()?;
    let clip = read_clip(&arguments.clip)?;
    let label = arguments.clip.display();
    if clip.frames().len() < 2 {
        return Err(Failure::usage(format!(
            "{label} has one frame, expected two or more"
        )));
    }
    let network = FeatureNetwork::in_the_box()?;
    let drifts = clip_drift(&network, clip.frames(), arguments.every.into())?;
    let most = |of: fn(&Drift) -> f64| drifts.iter().map(of).fold(0.0, f64::max);
    let most = [
        most(|drift| drift.colour),
        most(|drift| drift.contrast),
        most(|drift| drift.features),
    ];
    if arguments.json {
        return output::print_json(&json!({
            "clip": label.to_string(), "frames": clip.frames().len(), "drift": drifts,
            "most": {"colour": most[0], "contrast": most[1], "features": most[2]},
        }));
    }
    let row = |name: String, [colour, contrast, features]: [f64; 3]| {
        vec![
            name,
            format!("{colour:.2}"),
            format!("{contrast:.2}"),
            format!("{features:.3}"),
        ]
    };
    let heads = ["frame", "colour", "contrast", "features"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(drifts.iter().map(|drift| {
        let values = [drift.colour, drift.contrast, drift.features];
        row(drift.frame.to_string(), values)
    }));
    rows.push(row("most".to_owned(), most));
    output::print(&text::table(&rows))
}
