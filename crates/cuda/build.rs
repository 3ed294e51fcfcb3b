//! Lists the kernel files and their machine code. A file that was not compiled yet has none: the tool that compiles it
//! is built from this crate.

use std::fmt::Write;
use std::path::Path;

const TARGETS: [&str; 4] = ["sm_80", "sm_90a", "sm_120", "compute_80"];

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=compiled");
    let mut files = Vec::new();
    for entry in std::fs::read_dir("kernels")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        files.extend(name.strip_suffix(".cu").map(str::to_owned));
    }
    files.sort();
    let mut text = format!(
        "/// The kernel files, without their ending.\npub const SOURCES: &[&str] = &{files:?};\n"
    );
    text.push_str("const COMPILED: &[Compiled] = &[\n");
    let root = std::env::current_dir()?;
    for file in &files {
        let code = TARGETS.map(|target| {
            let path = root.join("compiled").join(format!("{file}.{target}.z"));
            match path.exists() {
                true => format!("include_bytes!({:?})", path.display().to_string()),
                false => "&[]".to_owned(),
            }
        });
        let _ = writeln!(
            text,
            "Compiled {{ file: {file:?}, code: [{}] }},",
            code.join(", ")
        );
    }
    text.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&out).join("compiled.rs"), text)
}
