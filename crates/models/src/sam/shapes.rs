//! Settings that the shapes of a file's tensors tell.

use brisk_store::TensorSource;

/// Shapes of the tensors whose names have a beginning.
pub(super) struct Shapes<'a> {
    source: &'a dyn TensorSource,
    prefix: &'static str,
}

impl<'a> Shapes<'a> {
    pub fn new(source: &'a dyn TensorSource, prefix: &'static str) -> Self {
        Self { source, prefix }
    }

    /// A tensor's shape, if it is there.
    pub fn of(&self, name: &str) -> Option<Vec<usize>> {
        let info = self.source.info(&format!("{}{name}", self.prefix));
        info.map(|(_, shape)| shape)
    }

    /// One of a tensor's sizes.
    pub fn side(&self, name: &str, dimension: usize) -> Option<usize> {
        self.of(name)?.get(dimension).copied()
    }

    /// Takes over one of a tensor's sizes, if it is there.
    pub fn set(&self, value: &mut usize, name: &str, dimension: usize) {
        if let Some(side) = self.side(name, dimension) {
            *value = side;
        }
    }

    /// Tensors whose names count up from 0.
    pub fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..)
            .take_while(|index| self.of(&name(*index)).is_some())
            .count()
    }
}
