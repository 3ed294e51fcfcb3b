//! Gradients of one batch, computed in equal parts side by side.
//!
//! A part runs on one thread from forward to backward, so cores never wait for each other inside
//! an operation. The recipe sets the number of parts, not the machine, so a run gives the same
//! weights wherever it is repeated; at most as many run at once as the program has threads, and
//! only the activations of those are in memory. On a card the batch is one part.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Var;
use candle_core::backprop::GradStore;
use rayon::ThreadPool;

use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::optimiser::Gradients;

/// The threads of a run.
pub(crate) struct Shards {
    /// How many parts a batch has at most.
    parts: usize,
    /// One thread each, which take the parts in turn.
    single: Vec<ThreadPool>,
    /// As many threads as parts together, for what follows them.
    joint: ThreadPool,
}

impl Shards {
    /// `count` parts, on the threads of the calling pool.
    pub fn new(count: usize) -> Result<Shards> {
        let pool = |threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .start_handler(|_| brisk_nn::flush_denormals())
                .build()
                .map_err(|e| Error::Data(format!("cannot start {threads} threads: {e}")))
        };
        Ok(Shards {
            parts: count,
            single: (0..count.min(rayon::current_num_threads()))
                .map(|_| pool(1))
                .collect::<Result<_>>()?,
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
            true => self.parts.min(batch).max(1),
            false => 1,
        };
        let range = |i| batch * i / count..batch * (i + 1) / count;
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
        let next = AtomicUsize::new(0);
        let take = || -> Result<Vec<_>> {
            let mut done = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok(done);
                }
                done.push((i, part(range(i))?));
            }
        };
        let take = &take;
        let parts: Result<Vec<_>> = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .single
                .iter()
                .map(|pool| scope.spawn(move || pool.install(take)))
                .collect();
            let failed = |_| Err(Error::Data("a training thread failed".to_owned()));
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(failed))
                .collect()
        });
        // Summed in the order of the parts, whoever was done first.
        let mut parts: Vec<_> = parts?.into_iter().flatten().collect();
        parts.sort_by_key(|(i, _)| *i);
        let (losses, parts): (Vec<f64>, Vec<(f64, GradStore)>) =
            parts.into_iter().map(|(_, part)| part).unzip();
        let gradients = self.together(|| Gradients::sum(parameters, &parts))?;
        Ok((losses.iter().sum(), gradients))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    #[test]
    fn gradients_are_those_of_the_parts_whatever_runs_them() {
        let values = Tensor::rand(-1.0f32, 1.0, (7, 33), &Device::Cpu).unwrap();
        let weights = Tensor::rand(-1.0f32, 1.0, (33, 5), &Device::Cpu).unwrap();
        let weights = Var::from_tensor(&weights).unwrap();
        let parameters = [("weights".to_owned(), weights.clone())];
        let loss = |range: Range<usize>| -> Result<Loss> {
            let rows = values.narrow(0, range.start, range.len())?;
            let surrogate = rows.matmul(weights.as_tensor())?.sqr()?.mean_all()?;
            let value = surrogate.to_dtype(DType::F64)?.to_scalar()?;
            Ok(Loss { value, surrogate })
        };
        let of = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let run = || Shards::new(5)?.gradients(7, &parameters, loss);
            let (value, gradients) = pool.unwrap().install(run).unwrap();
            let gradient = gradients.into_arrays().remove(0).unwrap();
            (value, gradient)
        };
        let alone = of(1);
        for threads in [2, 3, 8] {
            assert_eq!(of(threads), alone);
        }
        let all = loss(0..7).unwrap();
        assert!(
            (alone.0 - all.value).abs() < 1e-6,
            "{} {}",
            alone.0,
            all.value
        );
    }
}
