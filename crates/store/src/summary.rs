//! What a file holds, from its header alone.

use std::collections::BTreeMap;

use crate::TensorSource;
use crate::dtype::{byte_count, element_count};

/// Counts over all tensors of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements of all tensors.
    pub parameters: usize,
    /// Bytes of all tensors as stored.
    pub bytes: usize,
    /// Number of elements by element type.
    pub by_dtype: BTreeMap<String, usize>,
    /// Number of elements by the name's part before the first dot.
    pub by_prefix: BTreeMap<String, usize>,
}

/// Counts a source's tensors without touching their data.
pub fn summarise(source: &dyn TensorSource) -> Summary {
    let mut summary = Summary::default();
    for name in source.names() {
        let Some((dtype, shape)) = source.info(&name) else {
            continue;
        };
        // Readers have refused shapes that overflow; saturating keeps foreign sources from panicking.
        let elements = element_count(&shape).unwrap_or(usize::MAX);
        let bytes = byte_count(dtype, &shape).unwrap_or(usize::MAX);
        summary.tensors += 1;
        summary.parameters = summary.parameters.saturating_add(elements);
        summary.bytes = summary.bytes.saturating_add(bytes);
        let add = |count: &mut usize| *count = count.saturating_add(elements);
        add(summary.by_dtype.entry(dtype.name().to_owned()).or_default());
        let prefix = name.split('.').next().unwrap_or_default();
        add(summary.by_prefix.entry(prefix.to_owned()).or_default());
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, Result, TensorView};

    /// Has headers only: any look at the data fails the test.
    struct HeaderOnly;

    impl TensorSource for HeaderOnly {
        fn names(&self) -> Vec<String> {
            ["a.x", "a.y", "b"].map(String::from).to_vec()
        }

        fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
            Some(if name == "b" {
                (Dtype::BF16, vec![2])
            } else {
                (Dtype::F32, vec![3, 2])
            })
        }

        fn view(&self, _name: &str) -> Result<Option<TensorView<'_>>> {
            panic!("summarise touched tensor data")
        }

        fn origin(&self, _name: &str) -> String {
            String::new()
        }
    }

    #[test]
    fn counts_from_the_header_alone() {
        let summary = summarise(&HeaderOnly);
        assert_eq!(
            (summary.tensors, summary.parameters, summary.bytes),
            (3, 14, 52)
        );
        assert_eq!(
            summary.by_dtype,
            BTreeMap::from([("F32".into(), 12), ("BF16".into(), 2)])
        );
        assert_eq!(
            summary.by_prefix,
            BTreeMap::from([("a".into(), 12), ("b".into(), 2)])
        );
    }
}
