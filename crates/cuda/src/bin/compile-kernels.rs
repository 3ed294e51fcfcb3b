//! Compiles the kernels with NVRTC, which needs no card: machine code beside the sources.
//!
//!     cargo run -p brisk-cuda --features tools --bin compile-kernels -- [--check] PATH/libnvrtc.so.12
//!
//! The library is in the wheel nvidia-cuda-nvrtc-cu12 of the version that `compiled/manifest.json` names. A kernel
//! that spills registers, or whose products the compiler serialises, is an error. With `--check` nothing is written,
//! and machine code that differs from what is there is an error.

// A tool prints.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use brisk_cuda::{SOURCES, TARGETS, fingerprint};
use libloading::Library;
use serde_json::{Map, json};

type Answer<T> = Result<T, Box<dyn Error>>;
type Program = *mut c_void;

/// Version of NVRTC whose machine code is committed.
const VERSION: (c_int, c_int) = (12, 9);
/// The wheel that has it.
const WHEEL: &str = "nvidia-cuda-nvrtc-cu12==12.9.86";
const LANGUAGE: &str = "--std=c++17";
const VERBOSE: &str = "--ptxas-options=-v";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Answer<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = arguments.iter().position(|argument| argument == "--check");
    let check = check.map(|at| arguments.remove(at)).is_some();
    let [path] = arguments.as_slice() else {
        return Err(
            format!("give the path of libnvrtc.so.12, as pip install {WHEEL} leaves it").into(),
        );
    };
    let compiler = Compiler::open(path)?;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let headers = headers(&root.join("kernels"))?;
    let mut files = Map::new();
    let mut differing = Vec::new();
    for file in SOURCES {
        let source = std::fs::read(root.join("kernels").join(format!("{file}.cu")))?;
        let mut codes = Map::new();
        for target in TARGETS {
            let code = compiler.compile(file, &source, &headers, target)?;
            let packed = deflate(&code)?;
            let place = root.join("compiled").join(format!("{file}.{target}.z"));
            println!(
                "{file} {target}: {} bytes, {} packed",
                code.len(),
                packed.len()
            );
            if check && std::fs::read(&place).ok().as_deref() != Some(&packed) {
                differing.push(place.display().to_string());
            } else if !check {
                std::fs::write(&place, &packed)?;
            }
            codes.insert(
                target.to_owned(),
                json!(format!("{:016x}", fingerprint([packed.as_slice()]))),
            );
        }
        let parts = headers.iter().map(|(_, text)| text.to_bytes());
        let print = fingerprint(parts.chain([source.as_slice()]));
        files.insert(
            (*file).to_owned(),
            json!({"sources": format!("{print:016x}"), "codes": codes}),
        );
    }
    if !differing.is_empty() {
        return Err(format!(
            "compile anew, these are not of the sources: {}",
            differing.join(", ")
        )
        .into());
    }
    if !check {
        let manifest = json!({"compiler": WHEEL, "options": LANGUAGE, "files": files});
        let text = serde_json::to_string_pretty(&manifest)?;
        std::fs::write(root.join("compiled/manifest.json"), text + "\n")?;
    }
    Ok(())
}

/// Names and texts of what kernels include, in the order of their names.
fn headers(folder: &Path) -> Answer<Vec<(CString, CString)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cuh") {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            found.push((CString::new(name)?, CString::new(std::fs::read(&path)?)?));
        }
    }
    found.sort();
    Ok(found)
}

fn deflate(bytes: &[u8]) -> Answer<Vec<u8>> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// NVRTC's functions.
struct Compiler {
    library: Library,
}

/// A function of the library by its name and type.
macro_rules! function {
    ($library:expr, $name:literal, ($($argument:ty),*)) => {
        // SAFETY: the types are those of the library's header.
        unsafe { $library.get::<unsafe extern "C" fn($($argument),*) -> c_int>(concat!($name, "\0").as_bytes()) }
    };
}

impl Compiler {
    fn open(path: &str) -> Answer<Self> {
        // SAFETY: loading it runs its own initialisers only.
        let library = unsafe { Library::new(path) }?;
        let (mut major, mut minor) = (0, 0);
        let version = function!(library, "nvrtcVersion", (*mut c_int, *mut c_int))?;
        // SAFETY: it writes two numbers.
        unsafe { version(&mut major, &mut minor) };
        if (major, minor) != VERSION {
            return Err(format!("this is NVRTC {major}.{minor}; pip install {WHEEL}").into());
        }
        Ok(Self { library })
    }

    fn compile(
        &self,
        file: &str,
        source: &[u8],
        headers: &[(CString, CString)],
        target: &str,
    ) -> Answer<Vec<u8>> {
        let library = &self.library;
        let (source, name) = (CString::new(source)?, CString::new(format!("{file}.cu"))?);
        let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
        let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
        let machine = target.starts_with("sm");
        let mut options = vec![
            CString::new(format!("--gpu-architecture={target}"))?,
            CString::new(LANGUAGE)?,
        ];
        if machine {
            options.push(CString::new(VERBOSE)?);
        }
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        type Text = *const c_char;
        let create = function!(
            library,
            "nvrtcCreateProgram",
            (*mut Program, Text, Text, c_int, *const Text, *const Text)
        )?;
        let compile = function!(
            library,
            "nvrtcCompileProgram",
            (Program, c_int, *const Text)
        )?;
        let destroy = function!(library, "nvrtcDestroyProgram", (*mut Program))?;
        // SAFETY: all texts end with zero and live until the program is destroyed.
        let code = unsafe {
            create(
                &mut program,
                source.as_ptr(),
                name.as_ptr(),
                names.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            );
            compile(program, options.len() as c_int, options.as_ptr())
        };
        let log = self.read(program, "nvrtcGetProgramLogSize\0", "nvrtcGetProgramLog\0")?;
        let log = CStr::from_bytes_until_nul(&log)
            .map(CStr::to_string_lossy)
            .unwrap_or_default();
        if code != 0 {
            return Err(format!("{file} for {target}: {log}").into());
        }
        complain(file, target, &log)?;
        let made = match machine {
            true => self.read(program, "nvrtcGetCUBINSize\0", "nvrtcGetCUBIN\0")?,
            false => self.read(program, "nvrtcGetPTXSize\0", "nvrtcGetPTX\0")?,
        };
        // SAFETY: made above, used no more.
        unsafe { destroy(&mut program) };
        Ok(made)
    }

    /// What a function that gives a size and one that gives so many bytes say.
    fn read(&self, program: Program, size: &str, read: &str) -> Answer<Vec<u8>> {
        // SAFETY: the types are those of the library's header.
        let (ask, read) = unsafe {
            (
                self.library
                    .get::<unsafe extern "C" fn(Program, *mut usize) -> c_int>(size.as_bytes())?,
                self.library
                    .get::<unsafe extern "C" fn(Program, *mut c_char) -> c_int>(read.as_bytes())?,
            )
        };
        let mut bytes = 0;
        // SAFETY: it writes one number.
        unsafe { ask(program, &mut bytes) };
        let mut made = vec![0u8; bytes];
        // SAFETY: it writes so many bytes.
        unsafe { read(program, made.as_mut_ptr().cast::<c_char>()) };
        Ok(made)
    }
}

/// An error where the compiler's log tells of what makes kernels slow.
fn complain(file: &str, target: &str, log: &str) -> Answer<()> {
    for line in log.lines() {
        let spills =
            line.contains("spill") && !line.contains(" 0 bytes spill stores, 0 bytes spill loads");
        let stack = line.contains("bytes stack frame") && !line.contains(" 0 bytes stack frame");
        if spills || stack || line.contains("C75") || line.contains("warning") {
            return Err(format!("{file} for {target}: {}", line.trim()).into());
        }
    }
    Ok(())
}
