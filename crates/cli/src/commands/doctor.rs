//! `brisk doctor`: what this machine offers.

use std::time::Instant;

use brisk_kernels::gemm::{self, Threads, View};
use brisk_kernels::simd;
use brisk_store::hub::HubOptions;
use clap::Args;
use rayon::prelude::*;
use serde_json::json;

use super::ThreadArguments;
use crate::failure::Result;
use crate::{box_model, models, output, text};

/// Show what this machine offers: threads, speed, memory, cache
#[derive(Debug, Args)]
#[command(
    before_help = "The matrix product (1024 x 1024, f32) and the copy (256 MiB) are the ceilings that a run can\n\
    reach at best; each is the median of five. Send this with a bug report."
)]
pub struct DoctorArguments {
    #[command(flatten)]
    threads: ThreadArguments,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const REPEATS: usize = 5;
const SIDE: usize = 1024;
/// Values that are copied: 256 MiB, well beyond any cache.
const COPIED: usize = 64 << 20;

/// Runs the command.
pub fn run(arguments: &DoctorArguments) -> Result {
    arguments.threads.apply()?;
    let memory = Memory::read();
    let cpu = cpu_name();
    let features = cpu_features();
    let threads = rayon::current_num_threads();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gemm = gemm_gflops();
    let copy = if memory
        .available
        .is_none_or(|free| free > 3 * 4 * COPIED as u64)
    {
        Some(copy_gbs())
    } else {
        None
    };
    let hub = HubOptions::from_env();
    let cached = models::cached(&hub.cache);
    let cached_bytes: u64 = cached.iter().map(|model| model.bytes).sum();
    let box_bytes = box_model::size();
    if arguments.json {
        return output::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "system": {"os": std::env::consts::OS, "architecture": std::env::consts::ARCH},
            "cpu": {"name": cpu, "features": features, "kernels": simd::name(), "cores": cores, "threads": threads},
            "gemm_gflops": gemm,
            "copy_gb_per_second": copy,
            "memory": {"total_bytes": memory.total, "available_bytes": memory.available},
            "hub": {
                "cache": hub.cache.display().to_string(), "models": cached.len(), "bytes": cached_bytes,
                "endpoint": hub.endpoint, "offline": hub.offline, "token": hub.token.is_some(),
            },
            "box_model": box_model::folder().map(|_| json!({"name": box_model::NAME, "bytes": box_bytes})),
        }));
    }
    let or_unknown = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), text::bytes);
    let hub_mode = if hub.offline {
        "offline"
    } else {
        "downloads allowed"
    };
    let token = if hub.token.is_some() {
        "with a token"
    } else {
        "no token"
    };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row(
            "brisk",
            format!(
                "{} ({} {})",
                env!("CARGO_PKG_VERSION"),
                std::env::consts::OS,
                std::env::consts::ARCH
            ),
        ),
        row("processor", format!("{cpu}, {cores} threads available")),
        row(
            "instructions",
            format!("{} (kernels use {})", features.join(" "), simd::name()),
        ),
        row("threads in use", threads.to_string()),
        row(
            "matrix product",
            format!("{gemm:.1} GFLOP/s (f32, {SIDE} x {SIDE} x {SIDE})"),
        ),
        row(
            "copy",
            copy.map_or("not measured, too little memory".to_owned(), |speed| {
                format!("{speed:.1} GB/s (read and write)")
            }),
        ),
        row(
            "memory",
            format!(
                "{} in all, {} available",
                or_unknown(memory.total),
                or_unknown(memory.available)
            ),
        ),
        row(
            "hub cache",
            format!(
                "{}, {} models, {}",
                hub.cache.display(),
                cached.len(),
                text::bytes(cached_bytes)
            ),
        ),
        row("hub", format!("{}, {hub_mode}, {token}", hub.endpoint)),
        row(
            "model in the box",
            match box_model::folder() {
                Some(_) => format!("{} ({})", box_model::NAME, text::bytes(box_bytes)),
                None => "none in this build".to_owned(),
            },
        ),
    ];
    output::print(&text::table(&rows))
}

/// Median seconds of a few runs after a warm-up.
fn median_seconds(mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[REPEATS / 2].max(1e-9)
}

fn gemm_gflops() -> f64 {
    let values = |seed: usize| -> Vec<f32> {
        (0..SIDE * SIDE)
            .map(|i| ((i * seed) % 17) as f32 * 0.1)
            .collect()
    };
    let (a, b, mut out) = (values(7), values(5), vec![0.0f32; SIDE * SIDE]);
    let seconds = median_seconds(|| {
        let (a, b) = (View::new(&a, SIDE, SIDE), View::new(&b, SIDE, SIDE));
        gemm::multiply(&mut out, SIDE, a, b, 1.0, false, Threads::Pool);
    });
    2.0 * (SIDE as f64).powi(3) / seconds / 1e9
}

/// Bytes read plus bytes written, over all threads.
fn copy_gbs() -> f64 {
    let (from, mut to) = (vec![1.0f32; COPIED], vec![0.0f32; COPIED]);
    let part = COPIED.div_ceil(rayon::current_num_threads());
    let seconds = median_seconds(|| {
        to.par_chunks_mut(part)
            .zip(from.par_chunks(part))
            .for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&to);
    });
    2.0 * 4.0 * COPIED as f64 / seconds / 1e9
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| {
            line.strip_prefix("model name")
                .and_then(|rest| rest.split_once(':'))
        })
        .map_or(std::env::consts::ARCH.to_owned(), |(_, name)| {
            name.trim().to_owned()
        })
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let known = [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
    ];
    known
        .into_iter()
        .filter_map(|(name, here)| here.then_some(name))
        .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

struct Memory {
    total: Option<u64>,
    available: Option<u64>,
}

impl Memory {
    fn read() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .map(|kibibytes| kibibytes.saturating_mul(1024));
        Self {
            total,
            available: brisk_pipelines::memory::available(),
        }
    }
}
