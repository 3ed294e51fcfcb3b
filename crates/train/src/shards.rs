//! Gradients of one batch, computed in equal parts side by side.
//!
//! A part runs on one thread from forward to backward, so cores never wait for each other inside
//! an operation. The recipe sets the number of parts, not the machine, so a run gives the same
//! weights wherever it is repeated. On a card the batch is one part.

use std::ops::Range;

use candle_core::Var;
use candle_core::backprop::GradStore;
use rayon::ThreadPool;

use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::optimiser::Gradients;

/// The threads of a run, one a part.
pub(crate) struct Shards {
    /// One thread each, for the parts.
    single: Vec<ThreadPool>,
    /// As many threads together, for what follows the parts.
    joint: ThreadPool,
}

impl Shards {
    /// `count` parts, each with a thread of its own.
    pub fn new(count: usize) -> Result<Shards> {
        let pool = |threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .start_handler(|_| brisk_nn::flush_denormals())
                .build()
                .map_err(|e| Error::Data(format!("cannot start {threads} threads: {e}")))
        };
        Ok(Shards {
            single: (0..count).map(|_| pool(1)).collect::<Result<_>>()?,
            joint: pool(count)?,
        })
    }

    /// Runs parallel iterators of `work` on the threads of all parts.
    pub fn together<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.joint.install(work)
    }

    /// Mean loss and gradient over `batch` samples; `loss` gives the mean loss of a range of them.
    pub fn gradients(
        &self,
        batch: usize,
        parameters: &[(String, Var)],
        loss: impl Fn(Range<usize>) -> Result<Loss> + Sync,
    ) -> Result<(f64, Gradients)> {
        // A card computes a batch as one.
        let count = match brisk_nn::training_device().is_cpu() {
            true => self.single.len().min(batch).max(1),
            false => 1,
        };
        let ranges = (0..count).map(|i| batch * i / count..batch * (i + 1) / count);
        let part = |range: Range<usize>| -> Result<(f64, (f64, GradStore))> {
            let share = range.len() as f64 / batch as f64;
            let loss = loss(range)?;
            Ok((share * loss.value, (share, loss.surrogate.backward()?)))
        };
        let part = &part;
        if count == 1 {
            // All threads for what is done beside the card.
            let (loss, part) = self.together(|| part(0..batch))?;
            let gradients = self.together(|| Gradients::sum(parameters, &[part]))?;
            return Ok((loss, gradients));
        }
        let parts: Result<Vec<_>> = std::thread::scope(|scope| {
            let running: Vec<_> = ranges
                .zip(&self.single)
                .map(|(range, pool)| scope.spawn(move || pool.install(|| part(range))))
                .collect();
            let failed = |_| Err(Error::Data("a training thread failed".to_owned()));
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(failed))
                .collect()
        });
        let (losses, parts): (Vec<f64>, Vec<(f64, GradStore)>) = parts?.into_iter().unzip();
        let gradients = self.together(|| Gradients::sum(parameters, &parts))?;
        Ok((losses.iter().sum(), gradients))
    }
}
