//! Names that training wrappers put before every name of a file.

use std::sync::Arc;

use crate::{MappedSource, Result, Slice, TensorSource};

/// What wrappers put before the names of the network they hold: data-parallel training, compilation,
/// and single-file checkpoints of diffusion models.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model.diffusion_model."];

/// The same tensors under the network's own names: a wrapper's prefix that *all* names share is taken
/// off, several in turn. Other sources are given back as they are.
///
/// # Errors
/// As [`MappedSource::new`].
pub fn unwrapped(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    let names = source.names();
    let mut start = 0;
    while let Some(prefix) = WRAPPERS.iter().find(|prefix| {
        let inside = |name: &String| name[start..].len() > prefix.len();
        !names.is_empty()
            && names
                .iter()
                .all(|name| name[start..].starts_with(**prefix) && inside(name))
    }) {
        start += prefix.len();
    }
    if start == 0 {
        return Ok(source);
    }
    let map = names
        .into_iter()
        .map(|name| (name[start..].to_owned(), Slice::whole(name)));
    let map = map.collect();
    Ok(Arc::new(MappedSource::new(source, map)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, MemorySource};

    fn names(names: &[&str]) -> Vec<String> {
        let tensors = names
            .iter()
            .map(|name| ((*name).to_owned(), Dtype::U8, vec![1], vec![0]));
        let source = MemorySource::new(tensors.collect()).unwrap();
        unwrapped(Arc::new(source)).unwrap().names()
    }

    #[test]
    fn a_prefix_of_all_names_is_taken_off() {
        assert_eq!(names(&["module.a", "module.b.c"]), ["a", "b.c"]);
        assert_eq!(names(&["module._orig_mod.a"]), ["a"]);
        assert_eq!(names(&["model.diffusion_model.x.y"]), ["x.y"]);
    }

    #[test]
    fn other_names_stay() {
        for kept in [
            &["b", "module.a"][..],
            &["model.a", "model.b"],
            &["module."],
            &[],
        ] {
            assert_eq!(names(kept), kept);
        }
    }
}
