//! What losses are made of, gathered from the parts of an update and summed up between two lines of the log.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::log::Measured;

/// Values by their keys in the log.
pub(crate) type Terms = Vec<(&'static str, f64)>;

/// The terms of an update's parts, in the parts' order whoever is done first.
#[derive(Default)]
pub(crate) struct Collected(Mutex<Vec<(usize, f64, Terms)>>);

impl Collected {
    /// Of a part of a batch.
    pub fn add(&self, part: &Range<usize>, batch: usize, terms: Terms) {
        let share = part.len() as f64 / batch as f64;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((part.start, share, terms));
    }

    /// The means over the batch.
    fn means(self) -> Terms {
        let mut all = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.sort_by_key(|(start, ..)| *start);
        let mut means = Terms::new();
        for (_, share, terms) in all {
            for (key, value) in terms {
                match means.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, mean)) => *mean += share * value,
                    None => means.push((key, share * value)),
                }
            }
        }
        means
    }
}

/// Sum and number of each term since the last line of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums(pub BTreeMap<String, (f64, u64)>);

impl Sums {
    /// Adds an update's; one that is not finite is left out, as a log cannot hold it.
    pub fn add(&mut self, collected: Collected) {
        let finite = |(_, value): &(&str, f64)| value.is_finite();
        for (key, value) in collected.means().into_iter().filter(finite) {
            let sum = self.0.entry(key.to_owned()).or_default();
            sum.0 += value;
            sum.1 += 1;
        }
    }

    /// The means; they begin anew.
    pub fn take(&mut self) -> Measured {
        let sums = std::mem::take(&mut self.0).into_iter();
        sums.map(|(key, (sum, count))| (key, sum / count as f64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_by_their_size_and_updates_alike() {
        let update = |values: [f64; 2]| {
            let collected = Collected::default();
            collected.add(&(1..4), 4, vec![("a", values[1])]);
            collected.add(&(0..1), 4, vec![("a", values[0])]);
            collected
        };
        let mut sums = Sums::default();
        sums.add(update([2.0, 6.0]));
        sums.add(update([1.0, 1.0]));
        sums.add(update([f64::NAN, 1.0]));
        assert_eq!(sums.take(), [("a".to_owned(), 3.0)].into());
        assert!(sums.take().is_empty());
    }
}
