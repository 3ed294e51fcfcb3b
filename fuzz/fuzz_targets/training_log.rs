//! Any bytes as a training log: its lines, which a chart shows, or an error, never a panic.
//! Run: `cargo +nightly fuzz run training_log fuzz/corpus/training_log fuzz/seeds/training_log`
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use brisk_media::{LineChart, Series, line_chart_svg};
use brisk_train::log::read_log;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| brisk_fuzz::folder("training-log"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.join("log.jsonl");
    std::fs::write(&path, bytes).expect("a place to write");
    let Ok(entries) = read_log(&path) else {
        return;
    };
    let points = entries.iter().filter_map(|entry| Some((entry.step as f64, entry.loss?)));
    let points: Vec<(f64, f64)> = points.collect();
    for log_y in [false, true] {
        let mut chart = LineChart::new("fuzz", "step", "loss");
        chart.log_y = log_y;
        chart.series.push(Series {
            name: "loss".to_owned(),
            points: points.clone(),
        });
        // There may be no point that it can show.
        drop(line_chart_svg(&chart));
    }
});
