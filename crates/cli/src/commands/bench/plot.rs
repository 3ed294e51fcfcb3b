//! A roofline: every stage as a point below what the machine allows.

use std::path::{Path, PathBuf};

use brisk_media::{LineChart, Mark, Series, line_chart_svg};
use brisk_store::{Limit, read_json};
use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output;

/// Plot results of --json below the machine's ceilings
#[derive(Debug, Args)]
#[command(
    before_help = "Operations a byte to the right, operations a second upwards: the slope is the copy's speed, the\n\
    flat part that of multiply-adds in registers. Measure all files on one machine."
)]
pub struct PlotArguments {
    /// JSON documents of other brisk bench commands
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// SVG file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Draws the chart.
pub fn run(arguments: &PlotArguments) -> Result {
    output::expect_svg(&arguments.output)?;
    output::check_writable(&arguments.output)?;
    let mut marks = Vec::new();
    let mut roof: Option<(f64, f64)> = None;
    for path in &arguments.files {
        let document = read(path)?;
        let (fma, copy) = ceilings(&document, path)?;
        let highest = roof.unwrap_or((0.0, 0.0));
        roof = Some((highest.0.max(fma), highest.1.max(copy)));
        marks.extend(points(&document, path)?);
    }
    let Some((fma, copy)) = roof.filter(|_| !marks.is_empty()) else {
        return Err(Failure::failed(
            "no stage of these files has operations and bytes to plot",
        ));
    };
    let chart = chart(marks, fma, copy);
    brisk_store::write_atomic(&arguments.output, line_chart_svg(&chart)?.as_bytes())?;
    output::print(&arguments.output.display().to_string())
}

fn read(path: &Path) -> Result<Value> {
    Ok(read_json(path, Limit::DATA)?)
}

/// GFLOP/s and GB/s.
fn ceilings(document: &Value, path: &Path) -> Result<(f64, f64)> {
    let number = |name: &str| {
        let value = document["ceilings"][name].as_f64();
        value.filter(|value| *value > 0.0).ok_or_else(|| {
            Failure::failed(format!(
                "{}: has no ceilings.{name}; expected a document of `brisk bench … --json` without --no-ceilings",
                path.display()
            ))
        })
    };
    Ok((number("fma_gflops")?, number("copy_gb_per_second")?))
}

/// Stages that have operations, bytes and time.
fn points(document: &Value, path: &Path) -> Result<Vec<Mark>> {
    let stages = document["stages"].as_array().ok_or_else(|| {
        Failure::failed(format!(
            "{}: has no stages; expected a document of `brisk bench … --json`",
            path.display()
        ))
    })?;
    let component = document["component"].as_str().unwrap_or_default();
    let marks = stages.iter().filter_map(|stage| {
        let number = |name: &str| stage[name].as_f64().filter(|value| *value > 0.0);
        let name = stage["name"].as_str()?;
        let label = if stage["part"] == true {
            format!("{component} {name}")
        } else {
            name.to_owned()
        };
        Some(Mark {
            label,
            x: number("flops")? / number("bytes")?,
            y: number("gflops_per_second")?,
        })
    });
    Ok(marks.collect())
}

fn chart(marks: Vec<Mark>, fma: f64, copy: f64) -> LineChart {
    let ridge = fma / copy;
    let (low, high) = marks.iter().fold((ridge, ridge), |(low, high), mark| {
        (low.min(mark.x), high.max(mark.x))
    });
    let (low, high) = (low / 2.0, high * 2.0);
    let mut chart = LineChart::new(
        "Roofline",
        "operations a byte (FLOP/B)",
        "operations a second (GFLOP/s)",
    );
    (chart.log_x, chart.log_y) = (true, true);
    (chart.width, chart.height) = (1000, 600);
    chart.series.push(Series {
        name: format!("{fma:.0} GFLOP/s, {copy:.0} GB/s"),
        points: vec![(low, low * copy), (ridge, fma), (high, fma)],
    });
    chart.marks = marks;
    chart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roof_bends_where_both_ceilings_meet() {
        let mark = Mark {
            label: "x".into(),
            x: 1.0,
            y: 1.0,
        };
        let chart = chart(vec![mark], 160.0, 20.0);
        assert_eq!(
            chart.series[0].points,
            [(0.5, 10.0), (8.0, 160.0), (16.0, 160.0)]
        );
    }
}
