//! What this machine offers: names, memory, and the speeds that nothing on it can exceed.

use std::time::Instant;

use brisk_kernels::ceiling;
use brisk_kernels::gemm::{self, Threads, View};
use rayon::prelude::*;
use serde_json::{Value, json};

pub use brisk_nn::flush_denormals;

const REPEATS: usize = 5;
/// Rows, columns and depth of the matrix product.
pub const SIDE: usize = 1024;
/// Values that are copied: 256 MiB, well beyond any cache.
const COPIED: usize = 64 << 20;
/// Rounds of multiply-adds a thread: some tens of milliseconds.
const ROUNDS: usize = 20_000_000;

/// Measured limits of the threads in use.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Fused multiply-adds in registers, GFLOP/s.
    pub fma: f64,
    /// Product of two f32 matrices of [`SIDE`] rows and columns, GFLOP/s.
    pub gemm: f64,
    /// Bytes read plus bytes written by a copy beyond the caches, GB/s; none where memory is short.
    pub copy: Option<f64>,
}

impl Ceilings {
    /// Measures; the median of five each, in about two seconds.
    pub fn measure() -> Self {
        let room = crate::memory::available().is_none_or(|free| free > 3 * 4 * COPIED as u64);
        Self {
            fma: fma_gflops(),
            gemm: gemm_gflops(),
            copy: room.then(copy_gbs),
        }
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({"fma_gflops": self.fma, "gemm_gflops": self.gemm, "copy_gb_per_second": self.copy})
    }
}

/// The cards of this machine, or why none can be used.
pub struct Cards(brisk_nn::cards::Result<brisk_nn::cards::Found>);

impl Cards {
    /// Looks for the driver and asks it.
    pub fn look() -> Self {
        Self(brisk_nn::cards::cards())
    }

    /// In a line.
    pub fn shown(&self) -> String {
        let found = match &self.0 {
            Ok(found) => found,
            Err(reason) => return format!("none: {reason}"),
        };
        let (major, minor) = found.version;
        let cards = found.cards.iter().map(|card| {
            let ((major, minor), memory) =
                (card.capability, card.memory as f64 / (1u64 << 30) as f64);
            let code = brisk_nn::cards::target(card.capability).unwrap_or("none, too old");
            format!(
                "{}: {} ({memory:.1} GiB, compute capability {major}.{minor}, machine code {code})",
                card.index, card.name
            )
        });
        let cards: Vec<String> = cards.collect();
        format!("{}; driver for CUDA {major}.{minor}", cards.join(", "))
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        let found = match &self.0 {
            Ok(found) => found,
            Err(reason) => return json!({"cards": [], "reason": reason.to_string()}),
        };
        let cards = found.cards.iter().map(|card| {
            json!({
                "index": card.index, "name": card.name, "bytes": card.memory,
                "compute_capability": [card.capability.0, card.capability.1],
                "multiprocessors": card.multiprocessors, "machine_code": brisk_nn::cards::target(card.capability),
            })
        });
        json!({"cards": cards.collect::<Vec<_>>(), "cuda": [found.version.0, found.version.1]})
    }
}

/// Median of the values; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count.is_multiple_of(2) => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
        count => sorted[count / 2],
    }
}

/// Median seconds of a few runs after a warm-up.
fn median_seconds(mut work: impl FnMut()) -> f64 {
    work();
    let seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .collect();
    median(&seconds).max(1e-9)
}

fn fma_gflops() -> f64 {
    let mut operations = 0;
    let seconds = median_seconds(|| {
        operations = rayon::broadcast(|_| ceiling::multiply_adds(ROUNDS))
            .iter()
            .sum();
    });
    operations as f64 / seconds / 1e9
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

/// The instruction sets that the kernels use, by the name of their level.
pub fn kernels() -> &'static str {
    brisk_kernels::simd::name()
}

/// Threads that compute.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Makes this thread one of a pool of its own, of as many threads as compute: from outside, every parallel
/// loop is a message to a pool and back. For a thread that computes as long as it lives.
///
/// # Errors
/// Threads that cannot be started, or a thread that is one of a pool already; loops then run where they did.
pub fn join_own_pool() -> Result<OwnPool, String> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads())
        .use_current_thread()
        .start_handler(|_| flush_denormals())
        .build();
    pool.map(OwnPool).map_err(|error| error.to_string())
}

/// The pool of a thread; its other threads end with this.
#[derive(Debug)]
pub struct OwnPool(#[expect(dead_code, reason = "it is kept, for its end")] rayon::ThreadPool);

/// The processor's name, or else its architecture.
pub fn cpu_name() -> String {
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

/// Instruction sets that matter to the kernels.
#[cfg(target_arch = "x86_64")]
pub fn cpu_features() -> Vec<&'static str> {
    let known = [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avxvnni", std::is_x86_feature_detected!("avxvnni")),
    ];
    known
        .into_iter()
        .filter_map(|(name, here)| here.then_some(name))
        .collect()
}

/// Instruction sets that matter to the kernels.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

/// Memory of the whole machine.
pub struct Memory {
    /// Bytes in all.
    pub total: Option<u64>,
    /// Bytes that a program can still have.
    pub available: Option<u64>,
}

impl Memory {
    /// Asks the system.
    pub fn read() -> Self {
        Self {
            total: kibibytes("/proc/meminfo", "MemTotal:"),
            available: crate::memory::available(),
        }
    }
}

/// Lets [`peak_memory`] count anew from what is in use now, where the system can.
pub fn forget_peak_memory() {
    // Where it can't, the peak is of the whole run: larger, never smaller.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Largest resident set of this process so far, in bytes; Linux only.
pub fn peak_memory() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

fn kibibytes(file: &str, key: &str) -> Option<u64> {
    std::fs::read_to_string(file)
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kibibytes| kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
