//! NVIDIA cards by their driver.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, PoisonError};

use crate::driver::{Card, Driver, Launch, TensorMap};
use crate::error::{Error, Result};
use crate::machine_code;
use crate::symbols::{Handle, LaunchAttribute, LaunchConfig, Library12};

/// Numbers of attributes in the driver's header.
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY: [c_int; 2] = [75, 76];
/// The attribute of a function that says how much shared memory it may ask for.
const SHARED_MEMORY: c_int = 8;
/// The shared memory that a kernel has without asking.
const UNASKED_SHARED_MEMORY: u32 = 48 << 10;
/// Bytes that are downloaded at a time.
const STAGING: usize = 4 << 20;
/// The answer that memory ran out.
const OUT_OF_MEMORY: c_int = 2;
/// A stream that does not wait for the default one.
const NON_BLOCKING: u32 = 1;

/// How a tensor map is encoded: type of the values, layout, swizzle, what is fetched into the L2, what lies outside.
const BF16: c_int = 9;
const NOT_INTERLEAVED: c_int = 0;
const SWIZZLE_128: c_int = 3;
const PROMOTE_128: c_int = 2;
const ZEROS_OUTSIDE: c_int = 0;

/// The cards of this machine, and what they are driven by.
#[derive(Clone, Debug)]
pub struct Found {
    /// Version of CUDA that the driver offers.
    pub version: (u32, u32),
    /// All cards, those included that are too old.
    pub cards: Vec<Card>,
}

/// Looks for cards. Nothing is allocated on any.
///
/// # Errors
/// No driver, or one that is too old or gives no card.
pub fn cards() -> Result<Found> {
    let library = Library12::get()?;
    let count = count(library)?;
    let cards = (0..count)
        .map(|index| describe(library, index))
        .collect::<Result<_>>()?;
    Ok(Found {
        version: library.version,
        cards,
    })
}

fn count(library: &Library12) -> Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: it writes one number.
    let code = unsafe { (library.functions.device_count)(&mut count) };
    library.check("counting cards", code)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn handle(library: &Library12, index: usize) -> Result<c_int> {
    let mut device: c_int = 0;
    // SAFETY: it writes one number.
    let code = unsafe { (library.functions.device_get)(&mut device, index as c_int) };
    library.check("choosing a card", code)?;
    Ok(device)
}

fn describe(library: &Library12, index: usize) -> Result<Card> {
    let functions = &library.functions;
    let device = handle(library, index)?;
    let attribute = |which: c_int| -> Result<u32> {
        let mut value: c_int = 0;
        // SAFETY: it writes one number.
        let code = unsafe { (functions.device_attribute)(&mut value, which, device) };
        library.check("describing a card", code)?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0u8; 256];
    let mut memory = 0usize;
    // SAFETY: it writes at most so many bytes, with a zero at the end, and one number.
    let codes = unsafe {
        [
            (functions.device_name)(
                name.as_mut_ptr().cast::<c_char>(),
                name.len() as c_int,
                device,
            ),
            (functions.device_memory)(&mut memory, device),
        ]
    };
    for code in codes {
        library.check("describing a card", code)?;
    }
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    Ok(Card {
        name: String::from_utf8_lossy(&name[..end]).into_owned(),
        index,
        capability: (attribute(CAPABILITY[0])?, attribute(CAPABILITY[1])?),
        multiprocessors: attribute(MULTIPROCESSORS)? as usize,
        memory,
    })
}

/// Opens a card.
pub(crate) fn open(index: usize) -> Result<Box<dyn Driver>> {
    let library = Library12::get()?;
    let count = count(library)?;
    if index >= count {
        return Err(Error::NoSuchCard { index, count });
    }
    let card = describe(library, index)?;
    let (major, minor) = card.capability;
    if major < 8 {
        return Err(Error::OldCard {
            name: card.name,
            major,
            minor,
        });
    }
    let functions = &library.functions;
    let device = handle(library, index)?;
    let mut context: Handle = std::ptr::null_mut();
    // SAFETY: it writes the context, which is given back when the card is dropped.
    let code = unsafe { (functions.context_retain)(&mut context, device) };
    library.check("opening a card", code)?;
    let mut opened = OpenCard {
        library,
        card,
        device,
        context,
        stream: std::ptr::null_mut(),
        functions: Mutex::default(),
        staging: Mutex::new(Staging(std::ptr::null_mut())),
        each: std::env::var_os("BRISK_CUDA_SYNC").is_some_and(|value| value == "1")
            || cfg!(debug_assertions),
    };
    opened.enter()?;
    // SAFETY: it writes the stream, which is destroyed when the card is dropped.
    let code = unsafe { (functions.stream_create)(&mut opened.stream, NON_BLOCKING) };
    library.check("making a stream", code)?;
    Ok(Box::new(opened))
}

struct OpenCard {
    library: &'static Library12,
    card: Card,
    device: c_int,
    context: Handle,
    stream: Handle,
    /// What was loaded: by file, then kernel.
    functions: Mutex<Loaded>,
    /// Memory of the host that stays in place, for downloads; null until the first.
    staging: Mutex<Staging>,
    /// Whether every launch is waited for, so that a fault names its kernel.
    each: bool,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, (Handle, bool)>,
    kernels: HashMap<&'static str, Kernel>,
}

/// [`STAGING`] bytes of the host that stay in place.
struct Staging(*mut c_void);

/// A kernel, the shared memory that it may ask for, and whether it waits for the one before by itself.
#[derive(Clone, Copy)]
struct Kernel {
    function: Handle,
    shared: u32,
    starts_early: bool,
}

// SAFETY: the handles are the driver's, which may be used from any thread once its context is current;
// `enter` makes it so before every call.
unsafe impl Send for OpenCard {}
// SAFETY: as above; what changes is behind a lock.
unsafe impl Sync for OpenCard {}

impl OpenCard {
    /// Makes the context that of this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as this.
        let code = unsafe { (self.library.functions.context_set)(self.context) };
        self.library.check("choosing a context", code)
    }

    /// A kernel file's module, and whether its kernels wait for those before them.
    fn module(&self, file: &'static str) -> Result<(Handle, bool)> {
        let mut tried = Vec::new();
        for (target, code) in machine_code::candidates(file, self.card.capability)? {
            let mut module: Handle = std::ptr::null_mut();
            // SAFETY: the code is whole, and ends with zero where it is a text.
            let answer = unsafe {
                (self.library.functions.module_load)(&mut module, code.as_ptr().cast::<c_void>())
            };
            match self.library.check(target, answer) {
                Ok(()) => return Ok((module, machine_code::waits(target))),
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(Error::MachineCode {
            file: file.to_owned(),
            reason: tried.join("; "),
        })
    }

    /// A kernel that may ask for so much shared memory.
    fn kernel(&self, file: &'static str, name: &'static str, shared: u32) -> Result<Kernel> {
        let mut loaded = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut kernel = match loaded.kernels.get(name) {
            Some(found) if found.shared >= shared => return Ok(*found),
            Some(found) => *found,
            None => self.find(&mut loaded, file, name)?,
        };
        if shared > kernel.shared {
            // SAFETY: the function is loaded.
            let code = unsafe {
                (self.library.functions.function_attribute)(
                    kernel.function,
                    SHARED_MEMORY,
                    shared as c_int,
                )
            };
            self.library.check(&format!("kernel {name}"), code)?;
            kernel.shared = shared;
        }
        loaded.kernels.insert(name, kernel);
        Ok(kernel)
    }

    fn find(&self, loaded: &mut Loaded, file: &'static str, name: &str) -> Result<Kernel> {
        let (module, starts_early) = match loaded.modules.get(file) {
            Some(module) => *module,
            None => {
                let module = self.module(file)?;
                loaded.modules.insert(file, module);
                module
            }
        };
        let text = CString::new(name).unwrap_or_default();
        let mut function: Handle = std::ptr::null_mut();
        // SAFETY: the module is loaded and the name ends with zero.
        let code = unsafe {
            (self.library.functions.module_function)(&mut function, module, text.as_ptr())
        };
        self.library
            .check(&format!("finding kernel {name}"), code)?;
        Ok(Kernel {
            function,
            shared: UNASKED_SHARED_MEMORY,
            starts_early,
        })
    }
}

impl Driver for OpenCard {
    fn card(&self) -> &Card {
        &self.card
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: it writes one address.
        let code = unsafe { (self.library.functions.memory_allocate)(&mut address, bytes) };
        if code == OUT_OF_MEMORY {
            let (free, total) = self.memory();
            return Err(Error::OutOfMemory {
                needed: bytes,
                free,
                total,
            });
        }
        self.library.check("allocating memory", code)?;
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        if self.enter().is_ok() {
            // SAFETY: the caller's. A context that was lost frees nothing, and there is nothing to do about it.
            unsafe { (self.library.functions.memory_free)(address) };
        }
    }

    fn memory(&self) -> (usize, usize) {
        let (mut free, mut total) = (0, 0);
        if self.enter().is_ok() {
            // SAFETY: it writes two numbers.
            unsafe { (self.library.functions.memory_info)(&mut free, &mut total) };
        }
        (free, total)
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        let from = bytes.as_ptr().cast::<c_void>();
        // SAFETY: the caller's; from ordinary memory the driver has read it all when the call returns.
        let code =
            unsafe { (self.library.functions.copy_to_device)(to, from, bytes.len(), self.stream) };
        self.library.check("copying to the card", code)
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        // By way of memory that stays in place: some times as fast as what the driver does for other memory.
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.0.is_null() {
            // SAFETY: it writes the address, which is given back when the card is dropped.
            let code = unsafe { (self.library.functions.host_allocate)(&mut staging.0, STAGING) };
            self.library.check("allocating memory for copies", code)?;
        }
        for (number, part) in bytes.chunks_mut(STAGING).enumerate() {
            let from = from + (number * STAGING) as u64;
            // SAFETY: the caller's; the part fits, and the copy is waited for below.
            let code = unsafe {
                (self.library.functions.copy_to_host)(staging.0, from, part.len(), self.stream)
            };
            self.library.check("copying from the card", code)?;
            self.synchronize()?;
            // SAFETY: the copy wrote so many bytes there, and both have room for them.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    staging.0.cast::<u8>(),
                    part.as_mut_ptr(),
                    part.len(),
                );
            }
        }
        Ok(())
    }

    unsafe fn clear(&self, to: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's.
        let code = unsafe { (self.library.functions.clear)(to, 0, bytes, self.stream) };
        self.library.check("clearing memory", code)
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        self.enter()?;
        let functions = &self.library.functions;
        let kernel = self.kernel(launch.file, launch.kernel, launch.shared)?;
        let call = || format!("kernel {}", launch.kernel);
        let mut arguments: Vec<*mut c_void> = launch
            .arguments
            .pointers()
            .into_iter()
            .map(|at| at.cast_mut().cast::<c_void>())
            .collect();
        let attribute = LaunchAttribute::STARTS_EARLY;
        let config = LaunchConfig {
            grid: launch.grid,
            threads: [launch.threads, 1, 1],
            shared: launch.shared,
            stream: self.stream,
            attributes: &raw const attribute,
            attribute_count: u32::from(kernel.starts_early),
        };
        // SAFETY: the caller's; the driver reads the settings and the arguments before it returns.
        let code = unsafe {
            (functions.launch)(
                &config,
                kernel.function,
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        if code != 0 {
            self.library.check(&call(), code)?;
        }
        if self.each {
            // SAFETY: the stream lives as long as this.
            let code = unsafe { (functions.stream_synchronize)(self.stream) };
            self.library.check(&call(), code)?;
        }
        Ok(())
    }

    fn tensor_map(&self, address: u64, sides: &[usize], of_box: &[usize]) -> Result<TensorMap> {
        let mut map = TensorMap::default();
        let all: Vec<u64> = sides.iter().map(|side| *side as u64).collect();
        let strides: Vec<u64> = all
            .iter()
            .scan(size_of::<u16>() as u64, |bytes, side| {
                *bytes *= side;
                Some(*bytes)
            })
            .collect();
        let of_box: Vec<c_uint> = of_box.iter().map(|side| *side as c_uint).collect();
        let ones = vec![1; all.len()];
        // SAFETY: it writes the map, and reads as many sides, strides and steps as the rank says.
        let code = unsafe {
            (self.library.functions.tensor_map)(
                &mut map,
                BF16,
                all.len() as c_uint,
                address,
                all.as_ptr(),
                strides.as_ptr(),
                of_box.as_ptr(),
                ones.as_ptr(),
                NOT_INTERLEAVED,
                SWIZZLE_128,
                PROMOTE_128,
                ZEROS_OUTSIDE,
            )
        };
        self.library
            .check("describing a tensor to the card", code)?;
        Ok(map)
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as this.
        let code = unsafe { (self.library.functions.stream_synchronize)(self.stream) };
        self.library.check(
            "waiting for the card (set BRISK_CUDA_SYNC=1 to learn which kernel)",
            code,
        )
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.enter()?;
        let functions = &self.library.functions;
        let mut events: [Handle; 2] = [std::ptr::null_mut(); 2];
        for event in &mut events {
            // SAFETY: it writes the event.
            let code = unsafe { (functions.event_create)(event, 0) };
            self.library.check("timing", code)?;
        }
        let mut timed = || -> Result<f64> {
            // SAFETY: events and stream are there.
            self.library.check("timing", unsafe {
                (functions.event_record)(events[0], self.stream)
            })?;
            work()?;
            // SAFETY: as above.
            self.library.check("timing", unsafe {
                (functions.event_record)(events[1], self.stream)
            })?;
            // SAFETY: as above.
            self.library.check("timing", unsafe {
                (functions.event_synchronize)(events[1])
            })?;
            let mut milliseconds = 0f32;
            // SAFETY: both events were recorded and have happened.
            let code =
                unsafe { (functions.event_elapsed)(&mut milliseconds, events[0], events[1]) };
            self.library.check("timing", code)?;
            Ok(f64::from(milliseconds) / 1e3)
        };
        let result = timed();
        for event in events {
            // SAFETY: made above, used no more.
            unsafe { (functions.event_destroy)(event) };
        }
        result
    }
}

impl Drop for OpenCard {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        let staging = self
            .staging
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: all were made here; the driver waits for what is queued. Modules go with the context.
        unsafe {
            if !self.stream.is_null() {
                (self.library.functions.stream_destroy)(self.stream);
            }
            if !staging.0.is_null() {
                (self.library.functions.host_free)(staging.0);
            }
            (self.library.functions.context_release)(self.device);
        }
    }
}
