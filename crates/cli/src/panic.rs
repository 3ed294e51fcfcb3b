//! A panic is a bug of ours: say so in one line, without a backtrace.

use std::sync::atomic::{AtomicBool, Ordering};

/// Replaces the standard report. Unwinding goes on, so that temporary files are removed.
pub fn install_hook() {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    std::panic::set_hook(Box::new(|info| {
        if brisk_text::is_guarded() || REPORTED.swap(true, Ordering::Relaxed) {
            return;
        }
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = info
            .location()
            .map(|at| format!(" ({}:{})", at.file(), at.line()))
            .unwrap_or_default();
        crate::output::message(&format!(
            "error: this is a bug in brisk {}: {message}{place}; please report it with the command you gave",
            env!("CARGO_PKG_VERSION")
        ));
    }));
}
