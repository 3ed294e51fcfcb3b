//! The driver's functions, found when a card is first asked for.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

use crate::driver::TensorMap;
use crate::error::{Error, Result};

/// What every function answers.
pub(crate) type Code = c_int;
/// A context, stream, module, function or event.
pub(crate) type Handle = *mut c_void;

/// The library's names.
#[cfg(windows)]
const LIBRARIES: [&str; 1] = ["nvcuda.dll"];
#[cfg(not(windows))]
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"];

/// The version without which nothing is tried: 1000·major + 10·minor.
const OLDEST: c_int = 12_000;

/// `CUlaunchConfig`.
#[repr(C)]
pub(crate) struct LaunchConfig {
    pub(crate) grid: [c_uint; 3],
    pub(crate) threads: [c_uint; 3],
    pub(crate) shared: c_uint,
    pub(crate) stream: Handle,
    pub(crate) attributes: *const LaunchAttribute,
    pub(crate) attribute_count: c_uint,
}

/// `CUlaunchAttribute`, with a value that is a number.
#[repr(C)]
pub(crate) struct LaunchAttribute {
    pub(crate) which: c_int,
    unused: c_int,
    pub(crate) value: c_int,
    rest: [c_int; 15],
}

impl LaunchAttribute {
    /// That blocks may start before those of the kernel before have ended: they wait inside.
    pub(crate) const STARTS_EARLY: Self = Self {
        which: 6,
        unused: 0,
        value: 1,
        rest: [0; 15],
    };
}

macro_rules! functions {
    ($($field:ident $symbol:literal ($($argument:ty),*);)+) => {
        /// The functions.
        #[allow(missing_docs)]
        pub(crate) struct Functions {
            $(pub(crate) $field: unsafe extern "system" fn($($argument),*) -> Code,)+
        }

        impl Functions {
            fn of(library: &Library) -> std::result::Result<Self, &'static str> {
                Ok(Self {
                    $($field: {
                        // SAFETY: these are the types of the driver's header, which it keeps.
                        let found = unsafe { library.get($symbol) };
                        *found.map_err(|_| stringify!($field))?
                    },)+
                })
            }
        }
    };
}

functions! {
    device_get b"cuDeviceGet\0" (*mut c_int, c_int);
    device_count b"cuDeviceGetCount\0" (*mut c_int);
    device_name b"cuDeviceGetName\0" (*mut c_char, c_int, c_int);
    device_attribute b"cuDeviceGetAttribute\0" (*mut c_int, c_int, c_int);
    device_memory b"cuDeviceTotalMem_v2\0" (*mut usize, c_int);
    context_retain b"cuDevicePrimaryCtxRetain\0" (*mut Handle, c_int);
    context_release b"cuDevicePrimaryCtxRelease_v2\0" (c_int);
    context_set b"cuCtxSetCurrent\0" (Handle);
    stream_create b"cuStreamCreate\0" (*mut Handle, c_uint);
    stream_destroy b"cuStreamDestroy_v2\0" (Handle);
    stream_synchronize b"cuStreamSynchronize\0" (Handle);
    memory_info b"cuMemGetInfo_v2\0" (*mut usize, *mut usize);
    memory_allocate b"cuMemAlloc_v2\0" (*mut u64, usize);
    memory_free b"cuMemFree_v2\0" (u64);
    host_allocate b"cuMemAllocHost_v2\0" (*mut *mut c_void, usize);
    host_free b"cuMemFreeHost\0" (*mut c_void);
    copy_to_device b"cuMemcpyHtoDAsync_v2\0" (u64, *const c_void, usize, Handle);
    copy_to_host b"cuMemcpyDtoHAsync_v2\0" (*mut c_void, u64, usize, Handle);
    clear b"cuMemsetD8Async\0" (u64, u8, usize, Handle);
    module_load b"cuModuleLoadData\0" (*mut Handle, *const c_void);
    module_function b"cuModuleGetFunction\0" (*mut Handle, Handle, *const c_char);
    function_attribute b"cuFuncSetAttribute\0" (Handle, c_int, c_int);
    tensor_map b"cuTensorMapEncodeTiled\0" (*mut TensorMap, c_int, c_uint, u64, *const u64, *const u64, *const c_uint, *const c_uint, c_int, c_int, c_int, c_int);
    launch b"cuLaunchKernelEx\0" (*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
    event_create b"cuEventCreate\0" (*mut Handle, c_uint);
    event_record b"cuEventRecord\0" (Handle, Handle);
    event_synchronize b"cuEventSynchronize\0" (Handle);
    event_elapsed b"cuEventElapsedTime\0" (*mut f32, Handle, Handle);
    event_destroy b"cuEventDestroy_v2\0" (Handle);
    error_text b"cuGetErrorString\0" (Code, *mut *const c_char);
}

/// The driver, initialised.
pub(crate) struct Library12 {
    pub(crate) functions: Functions,
    /// Version of CUDA that it offers.
    pub(crate) version: (u32, u32),
    _library: Library,
}

impl Library12 {
    /// The driver of this machine. The first answer stays.
    pub(crate) fn get() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<Library12>> = OnceLock::new();
        FOUND.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self> {
        let library = LIBRARIES.iter().find_map(|name| {
            // SAFETY: loading the driver runs its own initialisers only.
            unsafe { Library::new(name) }.ok()
        });
        let library = library.ok_or_else(|| Error::NoDriver(LIBRARIES[0].to_owned()))?;
        // The version comes first: an older library lacks functions.
        let mut version: c_int = 0;
        // SAFETY: the type is that of the driver's header.
        let asked = unsafe {
            library
                .get::<unsafe extern "system" fn(*mut c_int) -> Code>(b"cuDriverGetVersion\0")
                .map(|ask| ask(&mut version))
        };
        if asked.is_err() || version < OLDEST {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            return Err(Error::OldDriver(format!("{major}.{minor}")));
        }
        let functions = Functions::of(&library)
            .map_err(|name| Error::OldDriver(format!("no function {name}")))?;
        // SAFETY: the type is that of the driver's header; the flags must be zero.
        let code = unsafe {
            match library.get::<unsafe extern "system" fn(c_uint) -> Code>(b"cuInit\0") {
                Ok(start) => start(0),
                Err(_) => return Err(Error::OldDriver("no function cuInit".to_owned())),
            }
        };
        if code != 0 {
            return Err(Error::NoDevice(text(&functions, code)));
        }
        Ok(Self {
            functions,
            version: (version as u32 / 1000, version as u32 % 1000 / 10),
            _library: library,
        })
    }

    /// An error for an answer other than zero.
    pub(crate) fn check(&self, call: &str, code: Code) -> Result<()> {
        match code {
            0 => Ok(()),
            _ => Err(Error::Driver {
                call: call.to_owned(),
                message: text(&self.functions, code),
            }),
        }
    }
}

/// What an answer means, in the driver's words.
fn text(functions: &Functions, code: Code) -> String {
    let mut words: *const c_char = std::ptr::null();
    // SAFETY: it sets the pointer to a text of its own that ends with zero, or to null.
    unsafe {
        if (functions.error_text)(code, &mut words) == 0 && !words.is_null() {
            return format!("{} (code {code})", CStr::from_ptr(words).to_string_lossy());
        }
    }
    format!("code {code}")
}
