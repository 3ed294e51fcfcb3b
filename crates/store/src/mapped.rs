//! Another source under other names: renamed, cut along the first dimension, reshaped.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::dtype::{byte_count, element_count};
use crate::{Dtype, Error, Result, TensorSource, TensorView};

/// Where one tensor of a [`MappedSource`] comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Name in the underlying source.
    pub source: String,
    /// Rows along the first dimension; all when `None`.
    pub rows: Option<Range<usize>>,
    /// Shape given to the (cut) tensor; its own when `None`.
    pub shape: Option<Vec<usize>>,
}

impl Slice {
    /// The whole tensor, only renamed.
    pub fn whole(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            rows: None,
            shape: None,
        }
    }

    /// Some rows of it.
    pub fn rows(source: impl Into<String>, rows: Range<usize>) -> Self {
        Self {
            source: source.into(),
            rows: Some(rows),
            shape: None,
        }
    }

    /// The same elements in another shape.
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            shape: Some(shape.into()),
            ..self
        }
    }
}

struct Place {
    source: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes inside the source tensor.
    range: Range<usize>,
}

/// A view of another source under new names. Nothing is copied.
pub struct MappedSource {
    source: Arc<dyn TensorSource>,
    places: BTreeMap<String, Place>,
    unmapped: Vec<String>,
}

impl MappedSource {
    /// `map` goes from new name to slice. Entries whose source tensor is absent are left out, so that
    /// the loader can report all missing tensors together; a slice that does not fit is an error.
    pub fn new(source: Arc<dyn TensorSource>, map: BTreeMap<String, Slice>) -> Result<Self> {
        let mut places = BTreeMap::new();
        let mut used = BTreeSet::new();
        for (name, slice) in map {
            let Some((dtype, shape)) = source.info(&slice.source) else {
                continue;
            };
            let place = place(dtype, shape, &slice).map_err(|problem| {
                Error::malformed(
                    &source.origin(&slice.source),
                    format!(
                        "tensor {:?} cannot become {name:?}: {problem}",
                        slice.source
                    ),
                )
            })?;
            used.insert(slice.source);
            places.insert(name, place);
        }
        let mut unmapped = source.names();
        unmapped.retain(|name| !used.contains(name));
        Ok(Self {
            source,
            places,
            unmapped,
        })
    }

    /// Names of the underlying source that no slice uses, sorted.
    pub fn unmapped(&self) -> &[String] {
        &self.unmapped
    }
}

fn place(dtype: Dtype, mut shape: Vec<usize>, slice: &Slice) -> Result<Place, String> {
    let overflow = || "its size overflows".to_owned();
    let mut start = 0;
    if let Some(rows) = &slice.rows {
        let found = format!("{shape:?}");
        let Some(first) = shape.first_mut() else {
            return Err("rows of a scalar".to_owned());
        };
        if rows.start > rows.end || rows.end > *first {
            return Err(format!("rows {rows:?} of a tensor of shape {found}"));
        }
        *first = rows.end - rows.start;
        let row = byte_count(dtype, &shape[1..]).ok_or_else(overflow)?;
        start = row.checked_mul(rows.start).ok_or_else(overflow)?;
    }
    let length = byte_count(dtype, &shape).ok_or_else(overflow)?;
    if let Some(wanted) = &slice.shape {
        if element_count(wanted) != element_count(&shape) {
            return Err(format!("shape {shape:?} does not reshape to {wanted:?}"));
        }
        shape.clone_from(wanted);
    }
    let end = start.checked_add(length).ok_or_else(overflow)?;
    Ok(Place {
        source: slice.source.clone(),
        dtype,
        shape,
        range: start..end,
    })
}

impl TensorSource for MappedSource {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        self.places
            .get(name)
            .map(|place| (place.dtype, place.shape.clone()))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>> {
        let Some(place) = self.places.get(name) else {
            return Ok(None);
        };
        let Some(whole) = self.source.view(&place.source)? else {
            return Ok(None);
        };
        let data = match whole.data {
            Cow::Borrowed(bytes) => bytes.get(place.range.clone()).map(Cow::Borrowed),
            Cow::Owned(bytes) => bytes
                .get(place.range.clone())
                .map(|part| Cow::Owned(part.to_vec())),
        };
        let data = data.ok_or_else(|| {
            Error::malformed(
                &self.source.origin(&place.source),
                format!("tensor {:?} is shorter than its shape says", place.source),
            )
        })?;
        Ok(Some(TensorView {
            dtype: place.dtype,
            shape: place.shape.clone(),
            data,
        }))
    }

    fn origin(&self, name: &str) -> String {
        match self.places.get(name) {
            Some(place) => self.source.origin(&place.source),
            None => self.source.origin(name),
        }
    }

    fn forget(&self, name: &str) {
        if let Some(place) = self.places.get(name) {
            self.source.forget(&place.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySource;

    fn source() -> Arc<dyn TensorSource> {
        let data = (0..12u8).collect();
        Arc::new(
            MemorySource::new(vec![
                ("qkv".into(), Dtype::I16, vec![3, 2], data),
                ("other".into(), Dtype::U8, vec![], vec![1]),
            ])
            .unwrap(),
        )
    }

    fn mapped(slice: Slice) -> Result<MappedSource> {
        MappedSource::new(source(), BTreeMap::from([("new".to_owned(), slice)]))
    }

    #[test]
    fn rows_are_cut_and_reshaped() {
        let mapped = mapped(Slice::rows("qkv", 1..3).reshaped([4, 1])).unwrap();
        assert_eq!(mapped.names(), ["new"]);
        assert_eq!(mapped.info("new"), Some((Dtype::I16, vec![4, 1])));
        let view = mapped.view("new").unwrap().unwrap();
        assert_eq!(view.data.as_ref(), (4..12u8).collect::<Vec<_>>());
        assert!(matches!(view.data, Cow::Borrowed(_)));
        assert_eq!(mapped.unmapped(), ["other"]);
        assert!(mapped.view("qkv").unwrap().is_none());
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_what_is_absent_is_absent() {
        #[allow(clippy::reversed_empty_ranges)]
        for slice in [
            Slice::rows("qkv", 2..4),
            Slice::rows("qkv", 3..1),
            Slice::rows("other", 0..1),
            Slice::whole("qkv").reshaped([5]),
            Slice::whole("qkv").reshaped([usize::MAX, 2]),
        ] {
            assert!(mapped(slice.clone()).is_err(), "{slice:?}");
        }
        let absent = mapped(Slice::whole("nothing")).unwrap();
        assert!(absent.names().is_empty());
        assert_eq!(absent.unmapped(), ["other", "qkv"]);
    }
}
