//! Libraries that read what people made (tokenizers, pictures, drawings) panic at some malformed files;
//! here that becomes an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would become an error, so that a panic hook need not
/// report it.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// What `work` gives.
///
/// # Errors
/// The message of its panic. What it was working on must not be used after one.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        format!("malformed ({})", text.unwrap_or("no message"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_messages() {
        assert_eq!(guarded(|| 1), Ok(1));
        let found = guarded(|| -> u8 {
            assert!(is_guarded());
            panic!("no {}", "way")
        });
        assert_eq!(found, Err("malformed (no way)".to_owned()));
        assert!(!is_guarded());
    }
}
