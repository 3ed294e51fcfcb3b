//! One channel from a running pipeline to whoever shows it, and one flag back to stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brisk_media::Picture;

use crate::error::{Error, Result};

/// What a pipeline reports.
#[derive(Debug, Clone)]
pub enum Event {
    /// A stage begins; `total` is the number of [`Event::Step`]s it will report, 0 for none.
    Stage {
        /// Short name: `text`, `transformer`, `denoise`, `decode`.
        name: &'static str,
        /// Steps to come.
        total: usize,
    },
    /// A step of the current stage is done.
    Step {
        /// Steps done so far, from 1.
        index: usize,
        /// Steps in all.
        total: usize,
        /// Seconds that this step took.
        seconds: f64,
    },
    /// What follows was chosen because it takes little memory: what is kept for reuse had better go back
    /// to the system.
    SaveMemory,
    /// What the picture would be if denoising stopped here.
    Preview(Picture),
    /// A line worth keeping: a number that was measured, a choice that was made.
    Log(String),
    /// Something the user should know; the run goes on.
    Warning(String),
    /// Estimated peak need of a stage and what is free, both in bytes.
    Memory {
        /// Stage name.
        stage: &'static str,
        /// Estimate.
        needed: u64,
        /// Free memory, where the system tells.
        available: Option<u64>,
    },
    /// Everything is done.
    Done {
        /// Number of pictures.
        images: usize,
        /// Seconds in all.
        seconds: f64,
    },
}

/// Receives events and carries the wish to stop. Checked between steps.
pub struct Control {
    cancel: Arc<AtomicBool>,
    listener: Box<dyn FnMut(Event) + Send>,
}

impl Control {
    /// A control whose events go to `listener`.
    pub fn new(listener: impl FnMut(Event) + Send + 'static) -> Self {
        Self {
            cancel: Arc::new(AtomicBool::new(false)),
            listener: Box::new(listener),
        }
    }

    /// A control that drops every event.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Uses a flag that exists already (a signal handler's, for instance).
    pub fn with_cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = cancel;
        self
    }

    /// The flag to set from another thread to stop the run at its next check.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }

    /// Sends an event.
    pub fn send(&mut self, event: Event) {
        (self.listener)(event);
    }

    /// [`Error::Cancelled`] if the flag is set.
    pub fn check(&self) -> Result<()> {
        check(&self.cancel)
    }
}

/// As [`Control::check`], for a thread that has the flag alone.
pub(crate) fn check(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_is_an_error() {
        let mut control = Control::silent();
        control.send(Event::Warning("nothing".to_owned()));
        assert!(control.check().is_ok());
        control.cancel_flag().store(true, Ordering::Relaxed);
        assert!(matches!(control.check(), Err(Error::Cancelled)));
    }

    #[test]
    fn events_reach_the_listener() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut control = Control::new(move |event| drop(sender.send(event)));
        control.send(Event::Stage {
            name: "text",
            total: 2,
        });
        assert!(matches!(
            receiver.recv(),
            Ok(Event::Stage {
                name: "text",
                total: 2
            })
        ));
    }
}
