//! Compiles the kernels with the C++ compiler. Where there is none the crate builds, and says so when it is used.

use std::path::Path;

fn main() {
    println!("cargo:rustc-check-cfg=cfg(emulator)");
    let kernels = Path::new("../cuda/kernels");
    println!("cargo:rerun-if-changed=../cuda/kernels");
    println!("cargo:rerun-if-changed=cpp");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(1).debug(false);
    build
        .include("cpp")
        .include(kernels)
        .define("EMULATED", None);
    build
        .flag_if_supported("-fno-exceptions")
        .flag_if_supported("-fno-rtti");
    build.flag_if_supported("-Wno-unknown-pragmas");
    // Turns of fibers are long jumps, to which a compiler's checks object.
    build.flag("-U_FORTIFY_SOURCE");
    let unix = std::env::var_os("CARGO_CFG_UNIX").is_some();
    if !unix || build.try_get_compiler().is_err() {
        println!(
            "cargo:warning=no C++ compiler: the CUDA kernels cannot be tested (Debian: apt-get install g++)"
        );
        return;
    }
    let mut names: Vec<String> = std::fs::read_dir(kernels)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".cu"))
        .collect();
    names.sort();
    let mut text: String = names
        .iter()
        .map(|name| format!("#include \"{name}\"\n"))
        .collect();
    text.push_str("#include \"launch.hpp\"\n");
    let file = Path::new(&std::env::var_os("OUT_DIR").unwrap_or_default()).join("kernels.cpp");
    if std::fs::write(&file, text).is_ok()
        && build.file(&file).try_compile("brisk_emulated").is_ok()
    {
        println!("cargo:rustc-cfg=emulator");
    }
}
