//! Another source under other names, with rows of its tensors in another order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_store::{Dtype, Error as StoreError, TensorSource, TensorView};

/// Where a tensor comes from.
pub(crate) struct Place {
    /// Name in the source.
    pub source: String,
    /// Which of its rows, along the first dimension; all in their order when `None`.
    pub rows: Option<Vec<usize>>,
    /// The shape that is given to them.
    pub shape: Vec<usize>,
}

/// Rows are put in order when a tensor is asked for; those that stand in a run are not copied.
pub(crate) struct Rearranged {
    source: Arc<dyn TensorSource>,
    places: BTreeMap<String, Place>,
}

impl Rearranged {
    /// By new name; rows must exist, and shapes fit their rows.
    pub fn new(source: Arc<dyn TensorSource>, places: BTreeMap<String, Place>) -> Self {
        Self { source, places }
    }
}

impl TensorSource for Rearranged {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        let place = self.places.get(name)?;
        let (dtype, _) = self.source.info(&place.source)?;
        Some((dtype, place.shape.clone()))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>, StoreError> {
        let Some(place) = self.places.get(name) else {
            return Ok(None);
        };
        let Some(whole) = self.source.view(&place.source)? else {
            return Ok(None);
        };
        whole.elements()?;
        let data = match &place.rows {
            None => whole.data,
            Some(rows) => chosen(whole, rows),
        };
        Ok(Some(TensorView {
            dtype: self.info(name).map_or(Dtype::U8, |(dtype, _)| dtype),
            shape: place.shape.clone(),
            data,
        }))
    }

    fn origin(&self, name: &str) -> String {
        let place = self.places.get(name);
        self.source
            .origin(place.map_or(name, |place| &place.source))
    }

    fn forget(&self, name: &str) {
        if let Some(place) = self.places.get(name) {
            self.source.forget(&place.source);
        }
    }
}

/// The bytes of some rows.
fn chosen<'a>(whole: TensorView<'a>, rows: &[usize]) -> Cow<'a, [u8]> {
    let count = whole.shape.first().copied().unwrap_or(1);
    let row = whole.data.len() / count.max(1);
    let first = rows.first().copied().unwrap_or(0);
    let run = rows.iter().enumerate().all(|(i, at)| *at == first + i);
    if run && let Cow::Borrowed(bytes) = whole.data {
        return Cow::Borrowed(&bytes[first * row..(first + rows.len()) * row]);
    }
    let bytes = rows
        .iter()
        .flat_map(|at| &whole.data[at * row..(at + 1) * row]);
    Cow::Owned(bytes.copied().collect())
}
