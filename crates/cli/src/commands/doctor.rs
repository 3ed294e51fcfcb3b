//! `brisk doctor`: what this machine offers.

use brisk::{ResultKind, registry};
use brisk_kernels::simd;
use brisk_store::hub::HubOptions;
use clap::Args;
use serde_json::json;

use super::ThreadArguments;
use crate::failure::Result;
use crate::{output, text};
use brisk_pipelines::machine::{self, Ceilings, Memory, SIDE};

/// Show what this machine offers: threads, speed, memory, cache
#[derive(Debug, Args)]
#[command(
    before_help = "Multiply-adds in registers and the copy (256 MiB) are the ceilings that a run can reach at best,\n\
    the matrix product (1024 x 1024, f32) what it does reach; each is the median of five. Send this with a bug report."
)]
pub struct DoctorArguments {
    #[command(flatten)]
    threads: ThreadArguments,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &DoctorArguments) -> Result {
    arguments.threads.apply()?;
    let memory = Memory::read();
    let cpu = machine::cpu_name();
    let features = machine::cpu_features();
    let threads = rayon::current_num_threads();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ceilings = Ceilings::measure();
    let hub = HubOptions::from_env();
    let cached = brisk::cached(&hub.cache);
    let cached_bytes: u64 = cached.iter().map(|model| model.bytes).sum();
    let boxed: Vec<_> = brisk::BoxModel::all()
        .iter()
        .filter(|model| model.folder().is_some())
        .collect();
    let families = registry::FAMILIES;
    let cards = machine::Cards::look();
    if arguments.json {
        return output::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "system": {"os": std::env::consts::OS, "architecture": std::env::consts::ARCH},
            "cpu": {"name": cpu, "features": features, "kernels": simd::name(), "cores": cores, "threads": threads},
            "nvidia": cards.json(),
            "fma_gflops": ceilings.fma,
            "gemm_gflops": ceilings.gemm,
            "copy_gb_per_second": ceilings.copy,
            "memory": {"total_bytes": memory.total, "available_bytes": memory.available},
            "hub": {
                "cache": hub.cache.display().to_string(), "models": cached.len(), "bytes": cached_bytes,
                "endpoint": hub.endpoint, "offline": hub.offline, "token": hub.token.is_some(),
            },
            "families": families.iter()
                .map(|family| json!({"name": family.name, "about": family.about, "gives": gives(family)}))
                .collect::<Vec<_>>(),
            "in_the_box": boxed.iter()
                .map(|model| json!({"name": model.name, "bytes": model.size()}))
                .collect::<Vec<_>>(),
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
            "multiply-add",
            format!("{:.1} GFLOP/s (f32, in registers)", ceilings.fma),
        ),
        row(
            "matrix product",
            format!(
                "{:.1} GFLOP/s (f32, {SIDE} x {SIDE} x {SIDE})",
                ceilings.gemm
            ),
        ),
        row(
            "copy",
            ceilings
                .copy
                .map_or("not measured, too little memory".to_owned(), |speed| {
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
        row("cards", cards.shown()),
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
            "runs",
            families
                .iter()
                .map(|family| family.about)
                .collect::<Vec<_>>()
                .join("; "),
        ),
        row(
            "in the box",
            if boxed.is_empty() {
                "no models in this build".to_owned()
            } else {
                let named = |model: &&brisk::BoxModel| {
                    format!("{} ({})", model.name, text::bytes(model.size()))
                };
                boxed.iter().map(named).collect::<Vec<_>>().join(", ")
            },
        ),
    ];
    output::print(&text::table(&rows))
}

/// What a family's models give, in words.
fn gives(family: &registry::Family) -> Vec<&'static str> {
    family.results().into_iter().map(ResultKind::name).collect()
}
