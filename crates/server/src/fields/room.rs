//! Bytes that several may take at the same time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Room for so many bytes.
#[derive(Debug)]
pub struct Room {
    all: usize,
    taken: Mutex<usize>,
    returned: Condvar,
}

/// Bytes that somebody has; dropped, they are free.
#[derive(Debug)]
pub struct Taken<'a> {
    room: &'a Room,
    bytes: usize,
}

impl Room {
    /// Room for `all` bytes.
    pub const fn of(all: usize) -> Self {
        Self {
            all,
            taken: Mutex::new(0),
            returned: Condvar::new(),
        }
    }

    /// Waits until so many bytes are free, or all of them where that is fewer.
    pub fn take(&self, bytes: usize) -> Taken<'_> {
        let bytes = bytes.min(self.all);
        let full = |taken: &mut usize| self.all - *taken < bytes;
        let waited = self.returned.wait_while(self.taken(), full);
        let mut taken = waited.unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Taken { room: self, bytes }
    }

    fn taken(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.taken() -= self.bytes;
        self.room.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let (room, now, most) = (Room::of(100), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..24 {
                let (room, now, most) = (&room, &now, &most);
                scope.spawn(move || {
                    let bytes = 20 + 10 * (number % 3);
                    let taken = room.take(bytes);
                    most.fetch_max(
                        now.fetch_add(bytes, Ordering::SeqCst) + bytes,
                        Ordering::SeqCst,
                    );
                    std::thread::sleep(std::time::Duration::from_millis(2));
                    now.fetch_sub(bytes, Ordering::SeqCst);
                    drop(taken);
                });
            }
        });
        assert!((40..=100).contains(&most.into_inner()));
        // More than there is at all: everything.
        let all = room.take(1000);
        assert_eq!(*room.taken(), 100);
        drop(all);
        assert_eq!(*room.taken(), 0);
    }
}
