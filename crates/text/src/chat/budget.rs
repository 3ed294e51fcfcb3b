//! What one rendering may cost. A template is a program of the model's files; it may neither run
//! without end nor fill the memory.

use std::cell::Cell;

use super::fault::{Fault, Result};

/// Steps of a rendering: evaluated nodes, compared elements, and [`STRIDE`] bytes of text read or made.
const STEPS: u64 = 10_000_000;
/// Bytes that a rendering may make in all, those of values it drops again included.
const BYTES: u64 = 512 << 20;
/// Bytes of text that count as one step.
const STRIDE: usize = 64;
/// What an element of a list costs besides what it holds.
const ELEMENT: usize = 48;
/// Levels of nested expressions, blocks and calls.
const DEPTH: usize = 500;
/// Levels of lists in lists.
pub const NESTING: u32 = 100;

/// Counts down while a template runs.
pub struct Budget {
    steps: Cell<u64>,
    bytes: Cell<u64>,
    depth: Cell<usize>,
}

impl Budget {
    pub fn new() -> Self {
        Self {
            steps: Cell::new(STEPS),
            bytes: Cell::new(BYTES),
            depth: Cell::new(0),
        }
    }

    /// Pays for `steps` of work.
    pub fn work(&self, steps: usize) -> Result<()> {
        match self.steps.get().checked_sub(steps as u64) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => Err(Fault::new(format!(
                "it takes more than {} million steps",
                STEPS / 1_000_000
            ))),
        }
    }

    /// Pays for looking through `bytes` of text.
    pub fn read(&self, bytes: usize) -> Result<()> {
        self.work(bytes / STRIDE + 1)
    }

    /// Pays for making `bytes` of text, before they are made.
    pub fn make(&self, bytes: usize) -> Result<()> {
        match self.bytes.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.bytes.set(left);
                self.read(bytes)
            }
            None => Err(Fault::new(format!(
                "its text is longer than {} MB in all",
                BYTES >> 20
            ))),
        }
    }

    /// Pays for making `count` pieces of `bytes` each.
    pub fn make_times(&self, bytes: usize, count: usize) -> Result<()> {
        self.make(bytes.saturating_mul(count))
    }

    /// Pays for a list of `count` elements.
    pub fn elements(&self, count: usize) -> Result<()> {
        self.make_times(ELEMENT, count)
    }

    /// Runs `work` one level deeper.
    pub fn deeper<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.depth.get() >= DEPTH {
            return Err(Fault::new(format!("it nests deeper than {DEPTH} levels")));
        }
        self.depth.set(self.depth.get() + 1);
        let result = work();
        self.depth.set(self.depth.get() - 1);
        result
    }
}
