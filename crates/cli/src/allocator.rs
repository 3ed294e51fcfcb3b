//! Where memory comes from.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, which its bindings leave out.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Longer than anything runs, in milliseconds; forever (-1) would not let [`release_memory`] work.
const NEVER: std::ffi::c_long = 3_600_000;

/// Keeps freed memory for the next operation. Handed back to the system, as it would be after a tenth
/// of a second, every page of a large result is cleared once more: an eighth of the time of decoding
/// a picture.
pub fn keep_memory() {
    // SAFETY: sets an option of the allocator, which may be done at any time.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER);
    }
}

/// Hands freed memory back to the system, before something whose maps differ in size from what came
/// before: that of this thread and of those that compute. Taking it again costs a second for every two GB or so.
pub fn release_memory() {
    release_of_thread();
    rayon::broadcast(|_| release_of_thread());
}

/// Every thread has pages of its own, which no other hands back.
fn release_of_thread() {
    // SAFETY: frees what is unused, which may be done at any time.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
