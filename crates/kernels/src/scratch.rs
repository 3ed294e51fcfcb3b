//! Buffers that a thread keeps, so that an operation does not pay for fresh pages every time.

use std::cell::RefCell;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with a buffer of `len` values, whatever they are.
pub(crate) fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = BUFFERS
        .with_borrow_mut(|buffers| {
            // The one that fits best; a nested call takes another.
            let fits = (0..buffers.len()).filter(|i| buffers[*i].len() >= len);
            let best = fits.min_by_key(|i| buffers[*i].len());
            best.map(|i| buffers.swap_remove(i))
                .or_else(|| buffers.pop())
        })
        .unwrap_or_default();
    if buffer.len() < len {
        // Not `resize`, which would copy what nobody needs.
        buffer = vec![0.0; len];
    }
    let result = work(&mut buffer[..len]);
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_buffers_are_distinct_and_kept() {
        let first = with_buffer(100, |a| {
            with_buffer(50, |b| {
                a.fill(1.0);
                b.fill(2.0);
            });
            assert!(a.iter().all(|v| *v == 1.0));
            a.as_ptr() as usize
        });
        assert_eq!(with_buffer(100, |a| a.as_ptr() as usize), first);
    }
}
