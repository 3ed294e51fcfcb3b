//! When intermediate pictures are shown.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::options::{Options, keys};

/// The steps of `steps`, from 1, after which a picture is shown: every so many, or so many in all, of which
/// number k of p follows step ⌈k·steps/(p + 1)⌉ and none the last.
pub(crate) fn preview_steps(asked: &Options, steps: usize) -> Result<BTreeSet<usize>> {
    match (
        asked.get(&keys::PREVIEW_INTERVAL),
        asked.get(&keys::PREVIEWS),
    ) {
        (Some(_), Some(_)) => Err(Error::request(
            keys::PREVIEWS.name(),
            format!(
                "cannot be combined with `{}`; give one of them",
                keys::PREVIEW_INTERVAL.name()
            ),
        )),
        (Some(interval), None) => Ok((1..=steps)
            .filter(|step| step.is_multiple_of(interval))
            .collect()),
        (None, Some(count)) => Ok((1..=count)
            .map(|number| (number * steps).div_ceil(count + 1))
            .filter(|step| *step < steps)
            .collect()),
        (None, None) => Ok(BTreeSet::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_are_spread() {
        let count = |count: usize, steps: usize| -> Vec<usize> {
            let asked = Options::new().with(&keys::PREVIEWS, count);
            preview_steps(&asked, steps).unwrap().into_iter().collect()
        };
        assert_eq!(count(3, 20), [5, 10, 15]);
        assert_eq!(count(1, 2), [1]);
        // Fewer where there are fewer steps, and none of a run of one.
        assert_eq!(count(3, 2), [1]);
        assert_eq!((count(2, 1), count(0, 20)), (vec![], vec![]));
        let asked = Options::new().with(&keys::PREVIEW_INTERVAL, 2);
        let every: Vec<usize> = preview_steps(&asked, 5).unwrap().into_iter().collect();
        assert_eq!(every, [2, 4]);
        let error = preview_steps(&asked.with(&keys::PREVIEWS, 1), 5).unwrap_err();
        assert!(error.to_string().contains("preview-interval"), "{error}");
    }
}
