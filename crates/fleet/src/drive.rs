//! The threads that wait for sockets and disks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::make::{Phase, Stop};

/// How often it is looked whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Threads; what computes has its own.
const THREADS: usize = 2;

/// Runs `work` to its end; `interrupted` says that somebody wants it to stop.
///
/// # Errors
/// The system gives no threads; what `work` says.
pub fn drive<T, F: Future<Output = Result<T>>>(
    interrupted: Arc<AtomicBool>,
    work: impl FnOnce(Stop) -> F,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("fleet")
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(format!("cannot start threads: {error}")))?;
    let (sender, stop) = watch::channel(Phase::Go);
    let done = runtime.block_on(async {
        tokio::spawn(async move {
            while !interrupted.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
            sender.send_replace(Phase::Halt);
            // While this lives, nobody takes the end of the channel for a change.
            std::future::pending::<()>().await;
        });
        work(stop).await
    });
    // What still computes ends with the process.
    runtime.shutdown_background();
    done
}
