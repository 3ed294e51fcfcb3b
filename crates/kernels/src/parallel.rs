//! How work is split over threads.

use crate::simd::{self, Level};
use rayon::prelude::*;
use std::ops::Range;

/// Elements below which a second thread costs more than it saves.
const SMALL: usize = 64 * 1024;

/// What a parallel loop does in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub multiplications: usize,
    /// What is read once and may have to come from memory.
    pub bytes: usize,
}

impl Work {
    /// Whether a second thread saves time. One that sleeps has to be woken, which on a virtual machine takes
    /// as long as half of these.
    pub fn is_worth_threads(self) -> bool {
        let multiplications = match simd::level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) | Level::Amx(_) => 1 << 23,
            _ => 1 << 22,
        };
        self.multiplications >= multiplications || self.bytes >= 1 << 20
    }
}

/// Calls `work` with every task, in parallel where `all` of them are worth it.
pub(crate) fn each<T: Send>(
    tasks: impl IntoIterator<Item = T> + IntoParallelIterator<Item = T>,
    all: Work,
    work: impl Fn(T) + Send + Sync,
) {
    if all.is_worth_threads() {
        tasks.into_par_iter().for_each(work);
    } else {
        tasks.into_iter().for_each(work);
    }
}

/// Splits `rows` rows into at most `parts` runs of nearly equal length.
pub(crate) fn ranges(rows: usize, parts: usize) -> Vec<Range<usize>> {
    let parts = parts.min(rows).max(1);
    (0..parts)
        .map(|i| rows * i / parts..rows * (i + 1) / parts)
        .collect()
}

/// Splits `total` rows into runs of at most about `most`, as many as several threads share evenly, in
/// multiples of `unit`.
pub(crate) fn even_runs(
    total: usize,
    most: usize,
    threads: usize,
    unit: usize,
) -> Vec<Range<usize>> {
    let count = threads * total.div_ceil(threads * most);
    let units = total.div_ceil(unit);
    let edge = |i: usize| (units * i / count * unit).min(total);
    (0..count)
        .map(|i| edge(i)..edge(i + 1))
        .filter(|run| !run.is_empty())
        .collect()
}

/// The rows of every run, where the runs follow each other from a result's first row to its last.
pub(crate) fn split_rows(
    out: &mut [f32],
    width: usize,
    runs: Vec<Range<usize>>,
) -> Vec<(Range<usize>, &mut [f32])> {
    let mut rest = out;
    let mut split = Vec::with_capacity(runs.len());
    for run in runs {
        let (rows, later) = rest.split_at_mut(run.len() * width);
        split.push((run, rows));
        rest = later;
    }
    split
}

/// Calls `work(first_row, rows)` on runs of whole rows of `out`, in parallel when it is large.
pub(crate) fn rows_mut<F>(out: &mut [f32], width: usize, work: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    if width == 0 || out.is_empty() {
        return;
    }
    debug_assert_eq!(out.len() % width, 0);
    if out.len() <= SMALL {
        work(0, out);
        return;
    }
    let rows = out.len() / width;
    let tasks = rayon::current_num_threads() * 4;
    let per_task = rows.div_ceil(tasks).max(1);
    out.par_chunks_mut(per_task * width)
        .enumerate()
        .for_each(|(i, chunk)| work(i * per_task, chunk));
}

/// Number of partial sums that reductions over rows use. Fixed, so that sums do not depend on
/// the number of threads.
pub(crate) const REDUCTION_PARTS: usize = 8;

/// Sums vectors of `width` values over `rows` rows: `work(range, accumulator)` adds its rows into
/// the zeroed accumulator; the partial sums are then added in a fixed order.
pub(crate) fn reduce_rows<F>(rows: usize, width: usize, work: F) -> Vec<f32>
where
    F: Fn(Range<usize>, &mut [f32]) + Sync,
{
    let parts: Vec<Vec<f32>> = ranges(rows, REDUCTION_PARTS)
        .into_par_iter()
        .map(|range| {
            let mut sum = vec![0.0; width];
            work(range, &mut sum);
            sum
        })
        .collect();
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_else(|| vec![0.0; width]);
    for part in parts {
        for (t, p) in total.iter_mut().zip(&part) {
            *t += p;
        }
    }
    total
}
