//! A card, or what stands for one, with its pool.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::card;
use crate::driver::{Arguments, Card, Driver, Launch};
use crate::error::Result;
use crate::memory::{Block, Pool};
use crate::tensor::{Element, Tensor, array};

/// How values are kept between operations and multiplied; sums are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// bf16.
    #[default]
    Half,
    /// f32, several times slower: for comparisons.
    Single,
}

/// A card that is open. Cheap to clone.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    driver: Box<dyn Driver>,
    pool: Mutex<Pool>,
    precision: Precision,
    /// Kernels that were queued.
    launches: AtomicU64,
    /// Words that say whether values were finite, and of what.
    finite: Mutex<FiniteChecks>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // No tensor is left, so all of the pool goes back.
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        let checks = self
            .finite
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = checks.words.take() {
            // SAFETY: it is from this pool; its checks were queued before, and nobody will read them.
            unsafe { pool.give(&*self.driver, words) };
        }
        pool.trim(&*self.driver);
    }
}

/// Checks that were queued and not read.
#[derive(Default)]
struct FiniteChecks {
    /// A word a check. A tensor would keep the device alive that it lies in.
    words: Option<Block>,
    names: Vec<(String, String)>,
    /// The newest check: queued when another comes, when its values go, or by a kernel that reads them anyway.
    pending: Option<Pending>,
}

/// A check that no kernel makes yet.
struct Pending {
    address: u64,
    count: usize,
    element: Element,
    /// Where its word lies.
    word: u64,
}

impl Pending {
    fn queue(self, device: &Device) -> Result<()> {
        let x = array(self.address, self.element);
        // SAFETY: the values are there: their buffer queues the check before it goes. The word is read after it.
        unsafe { crate::ops::flag_not_finite(device, &x, self.count, self.word) }
    }
}

/// Checks that one set of words has room for.
const CHECKS: usize = 4096;

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {:?})", self.card().name, self.0.precision)
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Device {
    /// Card number `index` of this machine.
    ///
    /// # Errors
    /// A driver that is missing, too old or fails; a card that is missing or too old.
    pub fn open(index: usize, precision: Precision) -> Result<Self> {
        Ok(Self::over(card::open(index)?, precision))
    }

    /// Whatever `driver` drives.
    pub fn over(driver: Box<dyn Driver>, precision: Precision) -> Self {
        Self(Arc::new(Inner {
            driver,
            pool: Mutex::default(),
            precision,
            launches: AtomicU64::new(0),
            finite: Mutex::default(),
        }))
    }

    /// What it is.
    pub fn card(&self) -> &Card {
        self.0.driver.card()
    }

    /// How values are kept.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// The type of operands and results.
    pub fn element(&self) -> Element {
        match self.0.precision {
            Precision::Half => Element::Bf16,
            Precision::Single => Element::F32,
        }
    }

    /// Bytes free and in all, as the driver sees it.
    pub fn memory(&self) -> (usize, usize) {
        self.0.driver.memory()
    }

    /// Bytes that new tensors may take: those that the driver has free, and what the pool holds for reuse.
    pub fn available(&self) -> usize {
        let (free, _) = self.memory();
        free + self.pool().idle()
    }

    /// Bytes of tensors now, and at most so far.
    pub fn usage(&self) -> (usize, usize) {
        self.pool().usage()
    }

    /// Gives the driver back what no tensor uses.
    pub fn trim(&self) {
        self.pool().trim(&*self.0.driver);
    }

    /// Waits for everything that was queued.
    ///
    /// # Errors
    /// Faults of kernels.
    pub fn synchronize(&self) -> Result<()> {
        self.0.driver.synchronize()
    }

    /// Seconds that the card takes for what `work` queues.
    ///
    /// # Errors
    /// Those of `work`, and faults of kernels.
    pub fn time(&self, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
        self.0.driver.time(&mut work)
    }

    /// Queues a check that `x` has finite values only; `stage` and `layer` name it in the answer of
    /// [`Device::first_not_finite`].
    ///
    /// # Errors
    /// What the driver says.
    pub fn check_finite(&self, x: &Tensor, stage: &str, layer: &str) -> Result<()> {
        let mut checks = self.checks();
        if let Some(last) = checks.pending.take() {
            last.queue(self)?;
        }
        if !x.element().is_float() || x.count() == 0 {
            return Ok(());
        }
        let words = match checks.words {
            Some(words) => words,
            None => {
                let words = self.pool().take(self.driver(), 4 * CHECKS)?;
                checks.words = Some(words);
                // SAFETY: the block has a word for each check.
                unsafe { self.driver().clear(words.address, 4 * CHECKS)? };
                words
            }
        };
        // A full list keeps its last word for all that follow.
        let at = checks.names.len().min(CHECKS - 1);
        if checks.names.len() < CHECKS {
            checks.names.push((stage.to_owned(), layer.to_owned()));
        }
        checks.pending = Some(Pending {
            address: x.address(),
            count: x.count(),
            element: x.element(),
            word: words.address + 4 * at as u64,
        });
        Ok(())
    }

    /// The word of the newest check, if that is of `x` and not queued: a kernel that reads all of `x` makes it.
    pub(crate) fn take_check(&self, x: &Tensor) -> Option<u64> {
        let mut checks = self.checks();
        let same = checks.pending.take_if(|pending| {
            pending.address == x.address()
                && pending.count == x.count()
                && pending.element == x.element()
        });
        same.map(|pending| pending.word)
    }

    /// Queues the newest check if its values lie in this block.
    fn check_before_it_goes(&self, block: &Block) {
        let within = block.address..block.address + block.bytes as u64;
        let pending = self
            .checks()
            .pending
            .take_if(|pending| within.contains(&pending.address));
        if let Some(pending) = pending {
            // A card that can't be asked any more says so at the next call.
            drop(pending.queue(self));
        }
    }

    fn checks(&self) -> MutexGuard<'_, FiniteChecks> {
        self.0.finite.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stage and layer of the first check since the last call that met NaN or infinity, once all of
    /// them have run.
    ///
    /// # Errors
    /// Faults of kernels.
    pub fn first_not_finite(&self) -> Result<Option<(String, String)>> {
        let mut checks = std::mem::take(&mut *self.checks());
        if let Some(pending) = checks.pending.take() {
            pending.queue(self)?;
        }
        let Some(words) = checks.words else {
            return Ok(None);
        };
        let mut bytes = vec![0; 4 * CHECKS];
        // SAFETY: the block has so many bytes, and after the download nothing that is queued uses it.
        let read = unsafe {
            let read = self.driver().download(words.address, &mut bytes);
            self.pool().give(self.driver(), words);
            read
        };
        read?;
        let words = bytes.as_chunks::<4>().0.iter();
        let found = words.zip(checks.names).find(|(word, _)| **word != [0; 4]);
        Ok(found.map(|(_, name)| name))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.0.driver
    }

    /// A buffer whose values are not set.
    pub(crate) fn buffer(&self, bytes: usize) -> Result<Buffer> {
        let block = self.pool().take(self.driver(), bytes)?;
        Ok(Buffer {
            device: self.clone(),
            block,
        })
    }

    /// Queues a kernel; `None` of blocks is nothing to do.
    ///
    /// # Safety
    /// As [`Driver::launch`].
    pub(crate) unsafe fn launch(
        &self,
        (file, kernel): (&'static str, &'static str),
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        arguments: &Arguments,
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let launch = Launch {
            file,
            kernel,
            grid: grid.map(|blocks| u32::try_from(blocks).unwrap_or(u32::MAX)),
            threads,
            shared: shared as u32,
            arguments,
        };
        // SAFETY: the caller's.
        unsafe { self.driver().launch(&launch)? };
        self.0.launches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many kernels were queued so far.
    pub(crate) fn launches(&self) -> u64 {
        self.0.launches.load(Ordering::Relaxed)
    }
}

/// Memory of a tensor; it goes back to the pool.
pub(crate) struct Buffer {
    device: Device,
    block: Block,
}

impl Buffer {
    pub(crate) fn address(&self) -> u64 {
        self.block.address
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.check_before_it_goes(&self.block);
        let driver = self.device.driver();
        // SAFETY: it was taken from this pool, and nobody has it any more: what is queued runs first.
        unsafe { self.device.pool().give(driver, self.block) };
    }
}
