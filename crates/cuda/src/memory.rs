//! A pool over the driver's memory: what was freed is used again at once, since all work is queued in order.

use std::collections::BTreeMap;

use crate::driver::Driver;
use crate::error::{Error, Result};

/// Bytes of the slabs that small buffers share.
const SLAB: usize = 64 << 20;
/// Bytes above which a buffer has a block of its own.
const LARGE: usize = 16 << 20;
/// Large blocks come in multiples of this.
const CLASS: usize = 2 << 20;
/// Addresses are multiples of this.
const ALIGN: usize = 256;

/// The pool of one device.
#[derive(Default)]
pub(crate) struct Pool {
    /// Address to bytes.
    slabs: BTreeMap<u64, usize>,
    /// Free parts of slabs, address to bytes.
    free: BTreeMap<u64, usize>,
    /// Free large blocks, by bytes.
    large: BTreeMap<usize, Vec<u64>>,
    used: usize,
    peak: usize,
}

/// A part of the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) address: u64,
    /// Bytes that it takes.
    pub(crate) bytes: usize,
}

impl Pool {
    /// At least `bytes`, whatever they hold.
    pub(crate) fn take(&mut self, driver: &dyn Driver, bytes: usize) -> Result<Block> {
        let block = if driver.checks_bounds() {
            let bytes = bytes.max(1);
            Block {
                address: driver.allocate(bytes)?,
                bytes,
            }
        } else {
            let bytes = bytes.max(1).next_multiple_of(ALIGN);
            match bytes > LARGE {
                true => self.take_large(driver, bytes.next_multiple_of(CLASS))?,
                false => self.take_small(driver, bytes)?,
            }
        };
        self.used += block.bytes;
        self.peak = self.peak.max(self.used);
        Ok(block)
    }

    fn take_large(&mut self, driver: &dyn Driver, bytes: usize) -> Result<Block> {
        let fitting = self.large.range(bytes..=bytes + bytes / 8).next();
        if let Some(found) = fitting.map(|(found, _)| *found)
            && let Some(free) = self.large.get_mut(&found)
            && let Some(address) = free.pop()
        {
            if free.is_empty() {
                self.large.remove(&found);
            }
            return Ok(Block {
                address,
                bytes: found,
            });
        }
        let address = self.ask(driver, bytes)?;
        Ok(Block { address, bytes })
    }

    fn take_small(&mut self, driver: &dyn Driver, bytes: usize) -> Result<Block> {
        let fitting = self.free.iter().filter(|(_, free)| **free >= bytes);
        let best = fitting
            .min_by_key(|(_, free)| **free)
            .map(|(at, free)| (*at, *free));
        let (address, free) = match best {
            Some(best) => best,
            None => {
                let address = self.ask(driver, SLAB)?;
                self.slabs.insert(address, SLAB);
                (address, SLAB)
            }
        };
        self.free.remove(&address);
        if free > bytes {
            self.free.insert(address + bytes as u64, free - bytes);
        }
        Ok(Block { address, bytes })
    }

    /// The driver's memory; where that is full, once more after everything unused went back.
    fn ask(&mut self, driver: &dyn Driver, bytes: usize) -> Result<u64> {
        match driver.allocate(bytes) {
            Err(Error::OutOfMemory { .. }) => {
                self.trim(driver);
                driver.allocate(bytes)
            }
            given => given,
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It is from this pool over this driver, and nothing that is queued later uses it.
    pub(crate) unsafe fn give(&mut self, driver: &dyn Driver, block: Block) {
        self.used -= block.bytes;
        if driver.checks_bounds() {
            // SAFETY: the caller's; it was allocated alone.
            unsafe { driver.free(block.address) };
            return;
        }
        if block.bytes > LARGE {
            self.large
                .entry(block.bytes)
                .or_default()
                .push(block.address);
            return;
        }
        let (mut address, mut bytes) = (block.address, block.bytes);
        // Neighbours join, but slabs stay apart.
        if let Some((&before, &size)) = self.free.range(..address).next_back()
            && before + size as u64 == address
            && !self.slabs.contains_key(&address)
        {
            self.free.remove(&before);
            (address, bytes) = (before, size + bytes);
        }
        let after = address + bytes as u64;
        if !self.slabs.contains_key(&after)
            && let Some(size) = self.free.remove(&after)
        {
            bytes += size;
        }
        self.free.insert(address, bytes);
    }

    /// Gives the driver back what nobody uses.
    pub(crate) fn trim(&mut self, driver: &dyn Driver) {
        let mut unused: Vec<u64> = std::mem::take(&mut self.large)
            .into_values()
            .flatten()
            .collect();
        let empty = |(at, size): (&u64, &usize)| (self.free.get(at) == Some(size)).then_some(*at);
        let empty: Vec<u64> = self.slabs.iter().filter_map(empty).collect();
        for at in empty {
            self.free.remove(&at);
            self.slabs.remove(&at);
            unused.push(at);
        }
        for address in unused {
            // SAFETY: from this driver, whole, and no buffer lies in it.
            unsafe { driver.free(address) };
        }
    }

    /// Bytes in use now, and at most so far.
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.used, self.peak)
    }

    /// Bytes that are the pool's and in use by nothing.
    pub(crate) fn idle(&self) -> usize {
        let large = self.large.iter();
        let large: usize = large.map(|(bytes, all)| bytes * all.len()).sum();
        self.free.values().sum::<usize>() + large
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Card, Launch, TensorMap};
    use std::sync::Mutex;

    /// Hands out addresses of which nothing is read.
    struct Paper {
        left: Mutex<usize>,
        given: Mutex<BTreeMap<u64, usize>>,
        card: Card,
    }

    impl Paper {
        fn new(bytes: usize) -> Self {
            let card = Card {
                name: "paper".into(),
                index: 0,
                capability: (8, 0),
                multiprocessors: 1,
                memory: bytes,
            };
            Self {
                left: Mutex::new(bytes),
                given: Mutex::default(),
                card,
            }
        }
    }

    impl Driver for Paper {
        fn card(&self) -> &Card {
            &self.card
        }

        fn allocate(&self, bytes: usize) -> Result<u64> {
            let (mut left, mut given) = (self.left.lock().unwrap(), self.given.lock().unwrap());
            if bytes > *left {
                return Err(Error::OutOfMemory {
                    needed: bytes,
                    free: *left,
                    total: self.card.memory,
                });
            }
            *left -= bytes;
            // Side by side, as a driver may place them.
            let at = given
                .last_key_value()
                .map_or(256, |(at, size)| at + *size as u64);
            given.insert(at, bytes);
            Ok(at)
        }

        // SAFETY: as the trait's; nothing is read or written at these addresses.
        unsafe fn free(&self, address: u64) {
            *self.left.lock().unwrap() += self.given.lock().unwrap().remove(&address).unwrap();
        }

        fn memory(&self) -> (usize, usize) {
            (*self.left.lock().unwrap(), self.card.memory)
        }

        // SAFETY: as the trait's; nothing is read or written at these addresses.
        unsafe fn upload(&self, _: u64, _: &[u8]) -> Result<()> {
            Ok(())
        }

        // SAFETY: as the trait's; nothing is read or written at these addresses.
        unsafe fn download(&self, _: u64, _: &mut [u8]) -> Result<()> {
            Ok(())
        }

        // SAFETY: as the trait's; nothing is read or written at these addresses.
        unsafe fn clear(&self, _: u64, _: usize) -> Result<()> {
            Ok(())
        }

        // SAFETY: as the trait's; nothing is read or written at these addresses.
        unsafe fn launch(&self, _: &Launch) -> Result<()> {
            Ok(())
        }

        fn tensor_map(&self, _: u64, _: &[usize], _: &[usize]) -> Result<TensorMap> {
            Ok(TensorMap::default())
        }

        fn synchronize(&self) -> Result<()> {
            Ok(())
        }

        fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
            work().map(|()| 0.0)
        }
    }

    #[test]
    fn what_was_given_back_is_used_again() {
        let driver = Paper::new(3 * SLAB);
        let mut pool = Pool::default();
        let blocks: Vec<Block> = (0..4).map(|_| pool.take(&driver, 1000).unwrap()).collect();
        assert!(
            blocks
                .windows(2)
                .all(|pair| pair[1].address == pair[0].address + 1024)
        );
        for at in [1, 0, 2] {
            // SAFETY: taken above, and nothing is queued.
            unsafe { pool.give(&driver, blocks[at]) };
        }
        // The three are one part again.
        assert_eq!(
            pool.take(&driver, 3 * 1024).unwrap().address,
            blocks[0].address
        );
        assert_eq!(pool.usage(), (4 * 1024, 4 * 1024));
        assert_eq!(driver.given.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_full_card_first_gets_back_what_is_unused() {
        let driver = Paper::new(3 * SLAB);
        let mut pool = Pool::default();
        let large = pool.take(&driver, 2 * SLAB).unwrap();
        let small = pool.take(&driver, 10).unwrap();
        assert!(matches!(
            pool.take(&driver, 2 * SLAB),
            Err(Error::OutOfMemory { .. })
        ));
        // SAFETY: taken above, and nothing is queued.
        unsafe {
            pool.give(&driver, large);
            pool.give(&driver, small);
        }
        // A block of another size: both it and the slab went back.
        assert!(pool.take(&driver, 3 * SLAB).is_ok());
    }
}
