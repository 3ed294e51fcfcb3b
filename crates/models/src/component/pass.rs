//! Inputs of a network that only has to run on them.

use brisk_nn::Trace;

use super::{NamedTensors, Prepared, not_run};
use crate::Result;

/// Inputs on which `run` computes, and what names its results as the entry's outputs; only `run` is timed.
pub(crate) fn pass<'a, Found: 'a>(
    run: impl Fn(&mut Trace) -> Result<Found> + 'a,
    outputs: impl Fn(&Found) -> Result<NamedTensors> + 'a,
) -> Box<dyn Prepared + 'a> {
    Box::new(Pass {
        run,
        outputs,
        found: None,
    })
}

struct Pass<Run, Outputs, Found> {
    run: Run,
    outputs: Outputs,
    found: Option<Found>,
}

impl<Run, Outputs, Found> Prepared for Pass<Run, Outputs, Found>
where
    Run: Fn(&mut Trace) -> Result<Found>,
    Outputs: Fn(&Found) -> Result<NamedTensors>,
{
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        self.found = Some((self.run)(trace)?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        (self.outputs)(self.found.as_ref().ok_or_else(not_run)?)
    }
}
