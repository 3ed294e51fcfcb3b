//! A message where a mapped file loses its bytes: another program cut it while it was read.
//!
//! The system then sends the signal SIGBUS, which ends the process without a word. Maps are written down
//! in a table that a handler can read at any moment, so that it can name the file.

use std::ffi::CString;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Most maps that are known at once; of more, the rest have no message.
const SLOTS: usize = 1024;

/// One map. A slot is free while its path is null, and valid while its length is not zero.
struct Slot {
    start: AtomicUsize,
    length: AtomicUsize,
    path: AtomicPtr<std::ffi::c_char>,
}

static MAPS: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        path: AtomicPtr::new(ptr::null_mut()),
    }
}; SLOTS];

/// A map that is in the table until this is dropped.
#[derive(Debug)]
pub(crate) struct Noted {
    slot: Option<usize>,
}

impl Noted {
    /// Writes a map down. It has to be dropped before the map.
    pub(crate) fn new(map: &[u8], path: &Path) -> Self {
        let label = path.display().to_string();
        let Ok(label) = CString::new(label) else {
            return Self { slot: None };
        };
        let label = label.into_raw();
        for (index, slot) in MAPS.iter().enumerate() {
            let free = slot.path.compare_exchange(
                ptr::null_mut(),
                label,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if free.is_ok() {
                slot.start.store(map.as_ptr().addr(), Ordering::Relaxed);
                slot.length.store(map.len(), Ordering::Release);
                return Self { slot: Some(index) };
            }
        }
        drop_label(label);
        Self { slot: None }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.map(|index| &MAPS[index]) {
            slot.length.store(0, Ordering::Release);
            // Nobody reads this map any more, so no handler looks at its path.
            drop_label(slot.path.swap(ptr::null_mut(), Ordering::AcqRel));
        }
    }
}

fn drop_label(label: *mut std::ffi::c_char) {
    if !label.is_null() {
        // SAFETY: every path of the table, and the one that found no place in it, comes from
        // `CString::into_raw`, and is taken out of the table before it comes here.
        drop(unsafe { CString::from_raw(label) });
    }
}

/// Ends the process with a message and exit code 1 when a mapped file is cut while it is read, where the
/// system's own answer is a signal without a word. For a program to call once, at its start; a library
/// leaves it to the program that uses it.
pub fn exit_when_a_file_is_cut() {
    #[cfg(unix)]
    handler::install();
}

#[cfg(unix)]
mod handler {
    use std::sync::OnceLock;

    use super::{MAPS, Ordering};

    /// What was done with the signal before.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    pub(super) fn install() {
        BEFORE.get_or_init(|| {
            // SAFETY: both structures are plain data for which zeros are valid; nothing else is changed.
            unsafe {
                let mut before: libc::sigaction = std::mem::zeroed();
                libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before);
                before
            }
        });
        // SAFETY: as above, and the handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigemptyset(&raw mut action.sa_mask);
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            action.sa_sigaction = handle as *const () as usize;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }

    /// Only calls what a signal handler may: reads of atomics, `write`, `_exit`, `sigaction`.
    extern "C" fn handle(
        _signal: libc::c_int,
        info: *mut libc::siginfo_t,
        _context: *mut libc::c_void,
    ) {
        // SAFETY: the system gives a valid structure to a handler with SA_SIGINFO.
        let address = unsafe { (*info).si_addr() }.addr();
        for slot in &MAPS {
            let length = slot.length.load(Ordering::Acquire);
            let start = slot.start.load(Ordering::Relaxed);
            if length > 0 && (start..start + length).contains(&address) {
                let path = slot.path.load(Ordering::Relaxed);
                say(b"error: ");
                // SAFETY: the map is in the table and being read, so its path is a C string that lives.
                let path = unsafe { std::ffi::CStr::from_ptr(path) };
                say(path.to_bytes());
                say(b": another program cut this file while it was read; try again when it is whole\n");
                // SAFETY: `_exit` may be called in a handler; nothing after it runs.
                unsafe { libc::_exit(1) };
            }
        }
        // Not ours: the same fault comes again, and meets what was there before.
        if let Some(before) = BEFORE.get() {
            // SAFETY: the structure came from the system, for this signal.
            unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
        }
    }

    fn say(text: &[u8]) {
        // SAFETY: the bytes are valid for as many as are written.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_known_while_they_live() {
        let bytes = [0; 16];
        let note = Noted::new(&bytes, Path::new("a file"));
        let slot = &MAPS[note.slot.unwrap()];
        assert_eq!(slot.start.load(Ordering::Relaxed), bytes.as_ptr().addr());
        assert_eq!(slot.length.load(Ordering::Relaxed), 16);
        let other = Noted::new(&bytes, Path::new("a file"));
        assert_ne!(other.slot, note.slot);
        assert!(Noted::new(&bytes, Path::new("a\0b")).slot.is_none());
    }
}
