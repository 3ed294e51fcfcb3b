//! Checks every kernel on a card against its plain statement, at the sizes of real models, and times it.
//!
//!     check-card [--index N] [--precise] [--json FILE]
//!
//! Needs a driver and nothing else. Prints a table: relative L2 distance, whether a second run gives the same bits,
//! median milliseconds of 20 runs, TFLOP/s and GB/s. The last two lines are ceilings of the same run: a product of
//! 8192 rows, columns and depth by these kernels, and a copy of 1 GiB. Fails where a kernel is wrong.

// A tool prints.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::process::ExitCode;

use brisk_cuda::ops::{self, LinearWeight, Steps};
use brisk_cuda::suite::{self, Size};
use brisk_cuda::{Device, Element, Precision};
use serde_json::{Value, json};

type Answer<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    index: usize,
    precision: Precision,
    json: Option<String>,
}

fn arguments() -> Answer<Arguments> {
    let mut given = std::env::args().skip(1);
    let mut read = Arguments {
        index: 0,
        precision: Precision::Half,
        json: None,
    };
    while let Some(argument) = given.next() {
        let mut value = || {
            given
                .next()
                .ok_or_else(|| format!("{argument}: give a value"))
        };
        match argument.as_str() {
            "--index" => read.index = value()?.parse()?,
            "--precise" => read.precision = Precision::Single,
            "--json" => read.json = Some(value()?),
            _ => {
                return Err(
                    format!("{argument}: expected --index N, --precise or --json FILE").into(),
                );
            }
        }
    }
    Ok(read)
}

fn run() -> Answer<bool> {
    let Arguments {
        index,
        precision,
        json: file,
    } = arguments()?;
    let device = Device::open(index, precision)?;
    let card = device.card();
    let (free, total) = device.memory();
    println!(
        "{}, compute capability {}.{}, {} multiprocessors, {free} of {total} bytes free, {precision:?}",
        card.name, card.capability.0, card.capability.1, card.multiprocessors
    );
    let mut rows = Vec::new();
    let mut right = true;
    for case in suite::cases() {
        let outcome = case.run(&device, Size::Real, true);
        device.trim();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                right = false;
                println!("{:44} failed: {error}", case.name);
                rows.push(json!({"name": case.name, "error": error.to_string()}));
                continue;
            }
        };
        let passes = outcome.passes(precision);
        right &= passes;
        let seconds = outcome.seconds.unwrap_or(f64::NAN);
        let verdict = if passes { "right" } else { "WRONG" };
        let speeds = [
            outcome.operations / seconds / 1e12,
            outcome.bytes / seconds / 1e9,
        ];
        println!(
            "{:44} {verdict} {:.1e} {:>9.4} ms {:>7.1} TFLOP/s {:>7.0} GB/s",
            outcome.name,
            outcome.distance,
            seconds * 1e3,
            speeds[0],
            speeds[1]
        );
        rows.push(json!({
            "name": outcome.name, "right": passes, "distance": outcome.distance, "repeats": outcome.repeats,
            "seconds": seconds, "tflops": speeds[0], "gb_per_second": speeds[1],
        }));
    }
    let (product, copy) = (product(&device)?, copy(&device)?);
    println!(
        "product of 8192^3: {product:.1} TFLOP/s; copy of 1 GiB: {copy:.0} GB/s (read and write)"
    );
    if let Some(file) = file {
        let document: Value = json!({
            "card": card.name, "compute_capability": [card.capability.0, card.capability.1],
            "precision": format!("{precision:?}"), "product_tflops": product, "copy_gb_per_second": copy, "cases": rows,
        });
        std::fs::write(file, serde_json::to_string_pretty(&document)? + "\n")?;
    }
    Ok(right)
}

/// The median of five runs, in seconds.
fn median(device: &Device, work: impl Fn() -> brisk_cuda::Result<()>) -> Answer<f64> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(device.time(&work)?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[2])
}

fn product(device: &Device) -> Answer<f64> {
    const SIDE: usize = 8192;
    // A card is faster at zeros.
    let noise = suite::noise(1, SIDE * SIDE);
    let x = device.upload(&noise, &[SIDE, SIDE])?;
    let x = ops::cast(&x, device.element())?;
    let weight = LinearWeight::new(&x)?;
    let seconds = median(device, || {
        ops::linear(&x, &weight, &Steps::default()).map(drop)
    })?;
    Ok(2.0 * (SIDE as f64).powi(3) / seconds / 1e12)
}

fn copy(device: &Device) -> Answer<f64> {
    let x = device.zeros(&[1 << 28], Element::F32)?;
    let seconds = median(device, || ops::affine(&x, 1.0, 0.0).map(drop))?;
    Ok(2.0 * (1u64 << 30) as f64 / seconds / 1e9)
}
