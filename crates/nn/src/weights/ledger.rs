//! What was asked for, and what of it was wrong.

use crate::error::WeightReport;
use brisk_store::{Dtype, TensorSource};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Problems and uses, collected while a model is built.
#[derive(Default)]
pub(super) struct Ledger {
    report: Mutex<WeightReport>,
    used: Mutex<BTreeSet<String>>,
}

/// A lock whose holder cannot leave anything half-done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// A layer asked for it.
    pub fn used(&self, path: &str) {
        lock(&self.used).insert(path.to_owned());
    }

    /// No source has it.
    pub fn missing(&self, path: &str) {
        lock(&self.report).missing.push(path.to_owned());
    }

    /// It has another shape.
    pub fn misshapen(&self, path: &str, found: Vec<usize>, expected: &[usize]) {
        let entry = (path.to_owned(), found, expected.to_vec());
        lock(&self.report).misshapen.push(entry);
    }

    /// It holds whole numbers of type `found`.
    pub fn integers(&self, path: &str, found: Dtype) {
        let entry = (path.to_owned(), found.to_string());
        lock(&self.report).integers.push(entry);
    }

    /// It holds NaN or infinity.
    pub fn non_finite(&self, path: &str) {
        lock(&self.report).non_finite.push(path.to_owned());
    }

    /// Those of `names` that nobody asked for.
    pub fn unused(&self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        let used = lock(&self.used);
        let unused = names.into_iter().filter(|name| !used.contains(name));
        unused.collect()
    }

    /// All problems by now and `unexpected` tensors, with the file that they are about.
    pub fn report(
        &self,
        unexpected: Vec<String>,
        source: Option<&dyn TensorSource>,
    ) -> WeightReport {
        let mut report = lock(&self.report).clone();
        report.unexpected = unexpected;
        report.origin = source.map_or_else(String::new, |source| origin(&report, source));
        report
    }
}

fn origin(report: &WeightReport, source: &dyn TensorSource) -> String {
    let lists = [&report.missing, &report.unexpected, &report.non_finite];
    let named = lists.iter().find_map(|list| list.first());
    let named = named.or(report.misshapen.first().map(|(name, ..)| name));
    let named = named.or(report.integers.first().map(|(name, _)| name));
    match named.or(source.names().first()) {
        Some(name) => source.origin(name),
        None => "an empty file".to_owned(),
    }
}
