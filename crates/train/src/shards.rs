//! Gradients of one batch, computed in equal parts side by side.
//!
//! A part runs on one thread from forward to backward, so cores never wait for each other inside
//! an operation. The recipe sets the number of parts, not the machine, so a run gives the same
//! weights wherever it is repeated.

use std::ops::Range;

use candle_core::Var;
use candle_core::backprop::GradStore;
use rayon::ThreadPool;

use crate::error::{Error, Result};
use crate::loss::Loss;

/// The threads of a run, one a part.
pub(crate) struct Shards {
    pools: Vec<ThreadPool>,
}

impl Shards {
    /// `count` parts, each with a thread of its own.
    pub fn new(count: usize) -> Result<Shards> {
        let pool = || {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(1);
            builder
                .start_handler(|_| brisk_nn::flush_denormals())
                .build()
        };
        let pools = (0..count.max(1))
            .map(|_| pool().map_err(|e| Error::Data(format!("cannot start a thread: {e}"))))
            .collect::<Result<_>>()?;
        Ok(Shards { pools })
    }

    /// Mean loss and gradient over `batch` samples; `loss` gives the mean loss of a range of them.
    pub fn gradients(
        &self,
        batch: usize,
        parameters: &[(String, Var)],
        loss: impl Fn(Range<usize>) -> Result<Loss> + Sync,
    ) -> Result<(f64, GradStore)> {
        let count = self.pools.len().min(batch).max(1);
        let ranges = (0..count).map(|i| batch * i / count..batch * (i + 1) / count);
        let part = |range: Range<usize>| -> Result<(f64, f64, GradStore)> {
            let share = range.len() as f64 / batch as f64;
            let loss = loss(range)?;
            Ok((share, share * loss.value, loss.surrogate.backward()?))
        };
        let part = &part;
        let parts: Vec<Result<(f64, f64, GradStore)>> = std::thread::scope(|scope| {
            let running: Vec<_> = ranges
                .zip(&self.pools)
                .map(|(range, pool)| scope.spawn(move || pool.install(|| part(range))))
                .collect();
            let failed = |_| Err(Error::Data("a training thread failed".to_owned()));
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(failed))
                .collect()
        });
        let mut total: Option<(f64, GradStore)> = None;
        for part in parts {
            let (share, value, mut gradients) = part?;
            let (mean, mut sum) = match total.take() {
                Some((before, sum)) => (before + value, Some(sum)),
                None => (value, None),
            };
            for (_, variable) in parameters {
                let variable = variable.as_tensor();
                let Some(gradient) = gradients.get(variable) else {
                    continue;
                };
                let scaled = (gradient * share)?;
                match &mut sum {
                    None => gradients.insert(variable, scaled),
                    Some(sum) => match sum.remove(variable) {
                        Some(before) => sum.insert(variable, (before + scaled)?),
                        None => sum.insert(variable, scaled),
                    },
                };
            }
            total = Some((mean, sum.unwrap_or(gradients)));
        }
        total.ok_or_else(|| Error::Data("an update needs at least one sample".to_owned()))
    }
}
