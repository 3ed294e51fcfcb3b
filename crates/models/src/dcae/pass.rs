//! One run of a half: who watches it, and how large a map may be held whole.

use brisk_nn::{Location, Result, Tensor, Trace, check_finite};

/// A forward pass through one half.
pub(super) struct Pass<'a, 'b> {
    trace: &'a mut Trace<'b>,
    /// Bytes of a map above which local operations run on parts of it.
    whole_map: usize,
}

/// [`Pass::whole_map`] unless asked otherwise: maps of up to 512² pixels of the published models stay
/// whole.
const WHOLE_MAP: usize = 128 << 20;

impl<'a, 'b> Pass<'a, 'b> {
    pub(super) fn new(trace: &'a mut Trace<'b>) -> Self {
        Self::within(trace, WHOLE_MAP)
    }

    /// A pass that keeps larger maps than `whole_map` whole only where a block sees all of them.
    pub(super) fn within(trace: &'a mut Trace<'b>, whole_map: usize) -> Self {
        Self { trace, whole_map }
    }

    /// Whether values inside blocks are wanted, which then run step by step.
    pub(super) fn is_detailed(&self) -> bool {
        self.trace.is_detailed()
    }

    /// Rows of the parts that a map is worked in, if it is large, in ordinary memory, neither trained through nor traced in
    /// detail: few maps as large are then held at once.
    pub(super) fn part_rows(&self, x: &Tensor) -> Result<Option<usize>> {
        let bytes = x.elem_count() * size_of::<f32>();
        let on_card = x.location() != Location::HOST;
        if bytes <= self.whole_map || x.track_op() || self.is_detailed() || on_card {
            return Ok(None);
        }
        Ok(Some(x.dim(1)? * self.whole_map / bytes))
    }

    /// The output of a whole block: checked for NaN and infinity, then shown.
    pub(super) fn block(&mut self, name: &str, value: &Tensor) -> Result<()> {
        check_finite(value, "vae", name)?;
        self.trace.see(name, value);
        Ok(())
    }

    /// Runs a part of a block, which shows its values itself.
    pub(super) fn in_block<T>(&mut self, block: &str, work: impl FnOnce(&mut Trace) -> T) -> T {
        work(&mut self.trace.within(block))
    }

    /// A value inside a block.
    pub(super) fn detail(&mut self, block: &str, name: &str, value: &Tensor) {
        self.trace.within(block).detail(name, value);
    }
}
