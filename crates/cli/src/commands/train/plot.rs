//! `brisk train plot`.

use std::path::{Path, PathBuf};

use brisk_media::{LineChart, Series, line_chart_svg};
use brisk_store::{check_output, write_atomic};
use brisk_train::log::{LogEntry, MEASURES, read_log};
use clap::Args;

use crate::failure::{Failure, Result};
use crate::output;

/// Draw the losses (or held-out PSNR) of training logs as SVG
#[derive(Debug, Args)]
pub struct PlotArguments {
    /// training_log.jsonl of one or several runs
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// SVG file to write
    #[arg(short, long, value_name = "FILE", default_value = "loss.svg")]
    output: PathBuf,
    /// What to draw
    #[arg(long, value_name = "NAME", default_value = "loss", value_parser = quantities())]
    quantity: String,
    /// Title above the chart
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
}

/// What a line of a log has, and its name on the axis.
type Quantity = (&'static str, bool, Box<dyn Fn(&LogEntry) -> Option<f64>>);

/// Names of what can be drawn.
fn quantities() -> clap::builder::PossibleValuesParser {
    let measures = MEASURES.iter().map(|measure| measure.option);
    let of_updates = ["loss", "learning-rate", "gradient-norm"];
    of_updates
        .into_iter()
        .chain(measures)
        .collect::<Vec<_>>()
        .into()
}

/// The quantity of a name.
fn quantity(name: &str) -> Quantity {
    match name {
        "learning-rate" => (
            "learning rate",
            false,
            Box::new(|entry| Some(entry.learning_rate)),
        ),
        "gradient-norm" => ("gradient norm", true, Box::new(|entry| entry.gradient_norm)),
        name => match MEASURES.iter().find(|measure| measure.option == name) {
            Some(measure) => (
                measure.title,
                false,
                Box::new(|entry| entry.measured.get(measure.key).copied()),
            ),
            None => ("loss", true, Box::new(|entry| entry.loss)),
        },
    }
}

/// Runs `brisk train plot`.
pub fn run(arguments: &PlotArguments) -> Result {
    output::expect_svg(&arguments.output)?;
    let logs: Vec<&Path> = arguments.logs.iter().map(PathBuf::as_path).collect();
    check_output(&arguments.output, &logs)?;
    output::check_writable(&arguments.output)?;
    let (name, log_y, value) = quantity(&arguments.quantity);
    let title = arguments
        .title
        .clone()
        .unwrap_or_else(|| "Training".to_owned());
    let mut chart = LineChart::new(title, "updates", name);
    chart.log_y = log_y;
    for path in &arguments.logs {
        let points: Vec<(f64, f64)> = read_log(path)?
            .iter()
            .filter_map(|entry| Some((entry.step as f64, value(entry)?)))
            .collect();
        if points.is_empty() {
            return Err(Failure::failed(format!(
                "{} has no values of {name}; the recipe says how often one is logged, and a short run may have none",
                path.display()
            )));
        }
        // Runs name their folders, not their logs.
        let folder = path
            .parent()
            .and_then(|parent| parent.file_name())
            .unwrap_or(path.as_os_str());
        let label = if arguments.logs.len() == 1 {
            name.to_owned()
        } else {
            folder.to_string_lossy().into_owned()
        };
        chart.series.push(Series {
            name: label,
            points,
        });
    }
    write_atomic(&arguments.output, line_chart_svg(&chart)?.as_bytes())?;
    output::print(&arguments.output.display().to_string())
}
