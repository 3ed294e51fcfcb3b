//! Results as a table for people and one JSON document for programs.

use brisk_models::Cost;
use serde_json::{Map, Value, json};

use super::RunArguments;
use crate::failure::Result;
use crate::{output, text};
use brisk_pipelines::machine::{self, Ceilings, median};

/// A measured part.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Whether it is contained in the stage before it that isn't a part.
    pub is_part: bool,
    /// Seconds of every run.
    pub seconds: Vec<f64>,
    /// Floating-point operations of its products; 0 where it has none or they aren't known.
    pub flops: u64,
    /// Bytes that its products read and write at least.
    pub bytes: u64,
}

impl Stage {
    /// A whole, without a known cost.
    pub fn new(name: &str, seconds: Vec<f64>) -> Self {
        Self {
            name: name.to_owned(),
            is_part: false,
            seconds,
            flops: 0,
            bytes: 0,
        }
    }

    /// A part of the whole before it.
    pub fn part(name: &str, seconds: Vec<f64>) -> Self {
        Self {
            is_part: true,
            ..Self::new(name, seconds)
        }
    }

    /// Adds what it costs; activations are f32.
    pub fn with_cost(mut self, cost: &Cost, weight_bytes: f64) -> Self {
        self.flops = cost.flops;
        self.bytes = (cost.parameters as f64 * weight_bytes) as u64 + 4 * cost.activations;
        self
    }

    fn median(&self) -> f64 {
        median(&self.seconds)
    }

    fn extremes(&self) -> (f64, f64) {
        let start = (f64::INFINITY, 0.0f64);
        self.seconds
            .iter()
            .fold(start, |(low, high), s| (low.min(*s), high.max(*s)))
    }

    fn gflops(&self) -> Option<f64> {
        (self.flops > 0).then(|| self.flops as f64 / self.median().max(1e-12) / 1e9)
    }

    fn gigabytes(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.bytes as f64 / self.median().max(1e-12) / 1e9)
    }

    fn json(&self, ceilings: Option<&Ceilings>) -> Value {
        let (low, high) = self.extremes();
        let share = |value: Option<f64>, ceiling: Option<f64>| Some(value? / ceiling?);
        json!({
            "name": self.name, "part": self.is_part,
            "median_seconds": self.median(), "minimum_seconds": low, "maximum_seconds": high,
            "seconds": self.seconds,
            "flops": self.flops, "bytes": self.bytes,
            "gflops_per_second": self.gflops(), "gb_per_second": self.gigabytes(),
            "share_of_fma": share(self.gflops(), ceilings.map(|c| c.fma)),
            "share_of_copy": share(self.gigabytes(), ceilings.and_then(|c| c.copy)),
        })
    }

    fn row(&self, ceilings: Option<&Ceilings>) -> Vec<String> {
        let (low, high) = self.extremes();
        let indent = if self.is_part { "  " } else { "" };
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let percent = |value: Option<f64>, ceiling: Option<f64>| {
            or_dash(
                value
                    .zip(ceiling)
                    .map(|(value, ceiling)| format!("{:.0} %", 100.0 * value / ceiling)),
            )
        };
        vec![
            format!("{indent}{}", self.name),
            duration(self.median()),
            format!("{} to {}", duration(low), duration(high)),
            or_dash((self.flops > 0).then(|| format!("{:.2}", self.flops as f64 / 1e9))),
            or_dash((self.bytes > 0).then(|| text::bytes(self.bytes))),
            or_dash(self.gflops().map(|speed| format!("{speed:.1}"))),
            percent(self.gflops(), ceilings.map(|c| c.fma)),
            percent(self.gigabytes(), ceilings.and_then(|c| c.copy)),
        ]
    }
}

/// Seconds with three digits and a unit.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} us", s * 1e6),
    }
}

/// Everything one command measured.
pub struct Report {
    /// What was timed, as on the command line.
    pub component: &'static str,
    /// Label of the model, for those that have one.
    pub model: Option<String>,
    /// Whether weights were made up.
    pub random: bool,
    /// Sizes that decide the work.
    pub sizes: Map<String, Value>,
    /// The results.
    pub stages: Vec<Stage>,
}

impl Report {
    /// Prints; measures the ceilings after the memory has been read, as they take some themselves.
    pub fn print(&self, arguments: &RunArguments) -> Result {
        let peak = machine::peak_memory();
        let ceilings = (!arguments.no_ceilings).then(Ceilings::measure);
        let threads = rayon::current_num_threads();
        if arguments.json {
            return output::print_json(&json!({
                "component": self.component, "model": self.model, "random": self.random,
                "version": env!("CARGO_PKG_VERSION"), "cpu": machine::cpu_name(),
                "threads": threads, "runs": arguments.runs, "warm_up": arguments.warm_up,
                "sizes": self.sizes,
                "stages": self.stages.iter().map(|stage| stage.json(ceilings.as_ref())).collect::<Vec<_>>(),
                "ceilings": ceilings.map(|ceilings| ceilings.json()),
                "peak_memory_bytes": peak,
            }));
        }
        let titles = [
            "stage", "median", "range", "GFLOP", "bytes", "GFLOP/s", "of FMA", "of copy",
        ];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(self.stages.iter().map(|stage| stage.row(ceilings.as_ref())));
        let sizes: Vec<String> = self
            .sizes
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let mut page = format!(
            "{}: {}; {threads} threads, {} runs after {}\n\n{}",
            self.component,
            sizes.join(", "),
            arguments.runs,
            arguments.warm_up,
            text::table(&rows)
        );
        page.push('\n');
        if let Some(ceilings) = ceilings {
            let copy = ceilings
                .copy
                .map_or(String::new(), |copy| format!(", copy {copy:.1} GB/s"));
            page.push_str(&format!(
                "ceilings: multiply-add {:.1} GFLOP/s, matrix product {:.1} GFLOP/s{copy}\n",
                ceilings.fma, ceilings.gemm
            ));
        }
        if let Some(peak) = peak {
            page.push_str(&format!("peak memory: {}\n", text::bytes(peak)));
        }
        output::print(&page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_ceilings() {
        let mut cost = Cost::new("x");
        cost.flops = 4_000_000_000;
        cost.parameters = 1_000_000_000;
        cost.activations = 500_000_000;
        let stage = Stage::new("x", vec![3.0, 2.0, 1.0]).with_cost(&cost, 2.0);
        let ceilings = Ceilings {
            fma: 8.0,
            gemm: 7.0,
            copy: Some(4.0),
        };
        let json = stage.json(Some(&ceilings));
        assert_eq!(json["median_seconds"], 2.0);
        assert_eq!(json["minimum_seconds"], 1.0);
        assert_eq!(json["bytes"], 4_000_000_000u64);
        assert_eq!(json["share_of_fma"], 0.25);
        assert_eq!(json["share_of_copy"], 0.5);
        assert_eq!(stage.json(None)["share_of_fma"], Value::Null);
    }
}
