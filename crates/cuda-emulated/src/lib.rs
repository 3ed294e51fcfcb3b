//! A CUDA card on the CPU, for tests: the kernels' own sources, compiled with the C++ compiler and run thread by
//! thread under the code that drives a real card. It checks arguments, sizes of blocks and shared memory, and
//! that nothing is written beyond a buffer; what nobody wrote is NaN. A seed shuffles the order of threads.
//!
//! What it cannot see is said in docs/nvidia.md.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, PoisonError};

use brisk_cuda::driver::{Card, Driver, Launch, TensorMap};
use brisk_cuda::{Device, Error, Precision, Result};

/// The emulator's door: `brisk_emulated_launch` of `cpp/launch.hpp`.
pub type Door = unsafe extern "C" fn(
    *const c_char,
    *const c_uint,
    *const c_uint,
    c_uint,
    c_uint,
    c_uint,
    *const c_uint,
    *const *mut c_void,
) -> c_int;

#[cfg(emulator)]
mod door {
    use super::{c_char, c_int, c_uint, c_void};

    unsafe extern "C" {
        pub(super) fn brisk_emulated_launch(
            name: *const c_char,
            grid: *const c_uint,
            size: *const c_uint,
            shared: c_uint,
            seed: c_uint,
            count: c_uint,
            sizes: *const c_uint,
            arguments: *const *mut c_void,
        ) -> c_int;
    }
}

/// The door that was built in; none where there was no C++ compiler.
fn built_in() -> Option<Door> {
    #[cfg(emulator)]
    return Some(door::brisk_emulated_launch);
    #[cfg(not(emulator))]
    None
}

/// Whether tests have to do without the emulator, because there was no C++ compiler when this was built; says so on
/// stderr. Building says it too.
#[allow(clippy::print_stderr)]
pub fn is_missing() -> bool {
    let missing = built_in().is_none();
    if missing {
        eprintln!(
            "skipped: there was no C++ compiler when this was built (Debian: apt-get install g++)"
        );
    }
    missing
}

/// A device over the emulator, its threads in an order that `seed` shuffles (0: in their own); none where there was
/// no C++ compiler when this was built.
pub fn device(precision: Precision, seed: u32) -> Option<Device> {
    Some(device_over(built_in()?, precision, seed, (8, 0)))
}

/// As [`device`], of the generation whose kernels have instructions of their own (Hopper).
pub fn hopper(precision: Precision, seed: u32) -> Option<Device> {
    Some(device_over(built_in()?, precision, seed, (9, 0)))
}

/// As [`device`], over another build of the kernels and of any compute capability.
pub fn device_over(door: Door, precision: Precision, seed: u32, capability: (u32, u32)) -> Device {
    let card = Card {
        name: "emulated".to_owned(),
        index: 0,
        capability,
        multiprocessors: 4,
        memory: 1 << 30,
    };
    let emulated = Emulated {
        card,
        door,
        seed,
        buffers: Mutex::default(),
    };
    Device::over(Box::new(emulated), precision)
}

/// Bytes before and behind every buffer that nobody may write.
const FENCE: usize = 256;
/// What fences and unset values hold: NaN in either type.
const UNSET: u8 = 0xff;

/// A buffer between its fences. Kernels write it by its address alone, so nothing here owns its values.
struct Memory {
    start: *mut u8,
    layout: Layout,
    bytes: usize,
}

// SAFETY: it is plain memory, which is freed once.
unsafe impl Send for Memory {}

impl Memory {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.checked_add(2 * FENCE)?, FENCE).ok()?;
        // SAFETY: the fences alone make it larger than nothing, and all of it is set.
        let start = unsafe {
            let start = alloc(layout);
            if start.is_null() {
                return None;
            }
            start.write_bytes(UNSET, layout.size());
            start
        };
        Some(Self {
            start,
            layout,
            bytes,
        })
    }

    fn address(&self) -> u64 {
        self.start as u64 + FENCE as u64
    }

    /// Whether nothing wrote a fence.
    fn is_whole(&self) -> bool {
        // SAFETY: both ranges lie in the allocation, and no kernel runs now.
        let fences = unsafe {
            [
                std::slice::from_raw_parts(self.start, FENCE),
                std::slice::from_raw_parts(self.start.add(FENCE + self.bytes), FENCE),
            ]
        };
        fences.concat().iter().all(|byte| *byte == UNSET)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated so, and nobody has it any more.
        unsafe { dealloc(self.start, self.layout) };
    }
}

struct Emulated {
    card: Card,
    door: Door,
    seed: u32,
    /// By the address of the first value.
    buffers: Mutex<BTreeMap<u64, Memory>>,
}

/// Launches share the emulator's one block.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Emulated {
    fn failed(call: &str, message: impl Into<String>) -> Error {
        Error::Driver {
            call: call.to_owned(),
            message: message.into(),
        }
    }

    /// That no fence was written.
    fn check_fences(&self, call: &str) -> Result<()> {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        match buffers.values().all(Memory::is_whole) {
            true => Ok(()),
            false => Err(Self::failed(call, "it wrote beyond a buffer")),
        }
    }

    /// That a range lies in one buffer.
    fn check_range(&self, address: u64, bytes: usize) -> Result<()> {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = buffers
            .range(..=address)
            .next_back()
            .is_some_and(|(first, memory)| (address - first) as usize + bytes <= memory.bytes);
        match fits {
            true => Ok(()),
            false => Err(Self::failed("copying", "a range that no buffer has")),
        }
    }
}

impl Driver for Emulated {
    fn card(&self) -> &Card {
        &self.card
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let full = || Error::OutOfMemory {
            needed: bytes,
            free: 0,
            total: self.card.memory,
        };
        let memory = Memory::new(bytes).ok_or_else(full)?;
        let address = memory.address();
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.insert(address, memory);
        Ok(address)
    }

    // SAFETY: as the trait's; the buffer is no more.
    unsafe fn free(&self, address: u64) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.remove(&address);
    }

    fn memory(&self) -> (usize, usize) {
        (self.card.memory, self.card.memory)
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.check_range(to, bytes.len())?;
        // SAFETY: the range lies in a buffer, as was checked.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.check_range(from, bytes.len())?;
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    unsafe fn clear(&self, to: u64, bytes: usize) -> Result<()> {
        self.check_range(to, bytes)?;
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(to as *mut u8, 0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let call = format!("kernel {}", launch.kernel);
        let name =
            CString::new(launch.kernel).map_err(|error| Self::failed(&call, error.to_string()))?;
        let pointers = launch.arguments.pointers().into_iter();
        let pointers: Vec<*mut c_void> =
            pointers.map(|at| at.cast_mut().cast::<c_void>()).collect();
        let sizes = launch.arguments.sizes();
        let block = [launch.threads, 1, 1];
        let outcome = {
            let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the caller's; the emulator compares number and sizes of arguments with the kernel's.
            let through = |door: Door| unsafe {
                door(
                    name.as_ptr(),
                    launch.grid.as_ptr(),
                    block.as_ptr(),
                    launch.shared,
                    self.seed,
                    sizes.len() as c_uint,
                    sizes.as_ptr(),
                    pointers.as_ptr(),
                )
            };
            // A door that leads to some kernels only leaves the others to the one that was built in.
            match (through(self.door), built_in()) {
                (1, Some(built_in)) => through(built_in),
                (outcome, _) => outcome,
            }
        };
        match outcome {
            0 => self.check_fences(&call),
            1 => Err(Self::failed(&call, "there is no such kernel")),
            2 => Err(Self::failed(
                &call,
                format!("it takes other arguments than of {sizes:?} bytes"),
            )),
            3 => Err(Self::failed(
                &call,
                format!("blocks of {block:?}, or more shared memory used than asked for"),
            )),
            4 => Err(Self::failed(&call, "threads wait for each other for ever")),
            _ => Err(Self::failed(&call, "copies are never waited for")),
        }
    }

    fn tensor_map(&self, address: u64, sides: &[usize], of_box: &[usize]) -> Result<TensorMap> {
        let refuse = |why: &str| {
            Err(Self::failed(
                "describing a tensor to the card",
                format!("sides {sides:?}, box {of_box:?}: {why}"),
            ))
        };
        // What the driver of a card asks for.
        let rank = sides.len();
        if rank == 0 || rank > 5 || of_box.len() != rank {
            return refuse("one to five sides, and as many of the box");
        }
        if !address.is_multiple_of(16)
            || sides[..rank - 1]
                .iter()
                .scan(2, |bytes, side| {
                    *bytes *= side;
                    Some(*bytes)
                })
                .any(|bytes| bytes % 16 != 0)
        {
            return refuse("rows must begin at multiples of 16 bytes");
        }
        if of_box.iter().any(|side| *side == 0 || *side > 256) || of_box[0] * 2 > 128 {
            return refuse("a box of at most 256 a side, and 128 bytes innermost");
        }
        self.check_range(address, 2 * sides.iter().product::<usize>())?;
        let (mut all, mut strides, mut boxes) = ([0u64; 5], [0u64; 5], [0u32; 6]);
        let mut stride = 2;
        boxes[0] = rank as u32;
        for (at, (side, of_box)) in sides.iter().zip(of_box).enumerate() {
            (all[at], strides[at], boxes[at + 1]) = (*side as u64, stride, *of_box as u32);
            stride *= *side as u64;
        }
        let pairs = boxes
            .chunks(2)
            .map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32);
        let words = std::iter::once(address)
            .chain(pairs)
            .chain(all)
            .chain(strides);
        let mut map = TensorMap::default();
        map.0
            .iter_mut()
            .zip(words)
            .for_each(|(to, word)| *to = word);
        Ok(map)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let start = std::time::Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn checks_bounds(&self) -> bool {
        true
    }
}
