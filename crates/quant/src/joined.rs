//! Several sources as one.

use std::collections::BTreeSet;
use std::sync::Arc;

use brisk_store::{Dtype, Error as StoreError, TensorSource, TensorView};

use crate::error::{Error, Result};

struct Joined {
    parts: Vec<Arc<dyn TensorSource>>,
}

/// Tensors of all `parts`, which must not share a name.
///
/// # Errors
/// A name that is there twice.
pub fn join(parts: Vec<Arc<dyn TensorSource>>) -> Result<Arc<dyn TensorSource>> {
    let mut seen = BTreeSet::new();
    for part in &parts {
        for name in part.names() {
            if !seen.insert(name.clone()) {
                return Err(Error::Tensor {
                    file: part.origin(&name),
                    tensor: name,
                    problem: "it is in another file of the model too".to_owned(),
                });
            }
        }
    }
    Ok(Arc::new(Joined { parts }))
}

impl TensorSource for Joined {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.parts.iter().flat_map(|part| part.names()).collect();
        names.sort();
        names
    }

    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        self.parts.iter().find_map(|part| part.info(name))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>, StoreError> {
        match self.parts.iter().find(|part| part.info(name).is_some()) {
            Some(part) => part.view(name),
            None => Ok(None),
        }
    }

    fn origin(&self, name: &str) -> String {
        let holder = self.parts.iter().find(|part| part.info(name).is_some());
        match holder.or(self.parts.first()) {
            Some(part) => part.origin(name),
            None => "no file".to_owned(),
        }
    }

    fn forget(&self, name: &str) {
        if let Some(part) = self.parts.iter().find(|part| part.info(name).is_some()) {
            part.forget(name);
        }
    }
}
