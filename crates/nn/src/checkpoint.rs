//! Asking, before every operation, whether the work of this thread is to go on.
//!
//! A thread that drives a job carries a token. Every operation on tensors and every parameter that is
//! loaded asks it first, so no model needs checks of its own. A thread without one is never asked.

use crate::error::{Error, Result};
use std::cell::RefCell;
use std::sync::Arc;

/// Who says whether a job goes on.
pub trait Checkpoint: Send + Sync {
    /// Whether the work goes on. It may wait here, while others compute.
    fn go_on(&self) -> bool;
}

thread_local! {
    static TOKENS: RefCell<Tokens> = const { RefCell::new(Tokens(Vec::new())) };
}

/// The tokens of a thread: those of the jobs that it drives, a job within another after it.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Arc<dyn Checkpoint>>);

impl Tokens {
    /// Those of this thread, to take along to the threads that its work is given to.
    pub fn of_this_thread() -> Self {
        TOKENS.with_borrow(Clone::clone)
    }

    /// Runs `work` with these tokens in place of this thread's.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        /// Puts the thread's own back, also where the work panics.
        struct Own(Tokens);
        impl Drop for Own {
            fn drop(&mut self) {
                TOKENS.set(std::mem::take(&mut self.0));
            }
        }
        let _own = Own(TOKENS.replace(self));
        work()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tokens({})", self.0.len())
    }
}

/// Runs `work`, whose operations on this thread ask `token` before they begin, and the tokens of the jobs
/// that this one is a part of.
pub fn with_checkpoint<R>(token: Arc<dyn Checkpoint>, work: impl FnOnce() -> R) -> R {
    let mut tokens = Tokens::of_this_thread();
    tokens.0.push(token);
    tokens.run(work)
}

/// Whether the work of this thread goes on. Called before every operation.
///
/// # Errors
/// [`Error::Stopped`] where it is to end.
pub fn checkpoint() -> Result<()> {
    let goes_on = TOKENS.with_borrow(|tokens| tokens.0.iter().rev().all(|token| token.go_on()));
    if goes_on { Ok(()) } else { Err(Error::Stopped) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Storage, Tensor, Weights};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Goes on so many times.
    struct Times(AtomicUsize);

    impl Checkpoint for Times {
        fn go_on(&self) -> bool {
            let left = |count: usize| count.checked_sub(1);
            self.0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
                .is_ok()
        }
    }

    fn times(count: usize) -> Arc<Times> {
        Arc::new(Times(AtomicUsize::new(count)))
    }

    fn is_stopped<T>(result: Result<T>) -> bool {
        matches!(result, Err(Error::Stopped))
    }

    #[test]
    fn operations_and_loaded_parameters_ask() {
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]]).unwrap();
        let weights = Weights::random(1, Storage::F32);
        with_checkpoint(times(0), || {
            assert!(is_stopped(&x + &x) && is_stopped(x.matmul(&x)));
            assert!(is_stopped(x.affine(2.0, 0.0)) && is_stopped(crate::ops::silu(&x)));
            assert!(is_stopped(Tensor::cat(&[&x, &x], 0)));
            let read = weights.get("w", &[2, 2], crate::Init::Zeros);
            assert!(is_stopped(read));
            // What costs nothing asks nobody.
            assert_eq!(x.dims(), [2, 2]);
        });
        assert!((&x + &x).is_ok());
    }

    #[test]
    fn a_job_within_another_ends_with_it() {
        let outer = times(2);
        with_checkpoint(outer.clone(), || {
            with_checkpoint(times(1), || {
                assert!(checkpoint().is_ok());
                assert!(is_stopped(checkpoint()));
            });
            assert!(checkpoint().is_ok());
            with_checkpoint(times(9), || assert!(is_stopped(checkpoint())));
        });
        let others = with_checkpoint(times(0), Tokens::of_this_thread);
        with_checkpoint(times(1), || {
            others.run(|| assert!(is_stopped(checkpoint())));
            assert!(checkpoint().is_ok());
        });
        let thrown = std::panic::catch_unwind(|| with_checkpoint(times(0), || panic!("once")));
        assert!(thrown.is_err() && checkpoint().is_ok());
    }
}
