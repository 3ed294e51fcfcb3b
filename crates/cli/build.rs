//! Lists the files of the models in the box, so that the binary can carry them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Folders of the models, and the names of the lists.
const MODELS: [(&str, &str); 2] = [
    ("sana-emoji", "SANA_EMOJI"),
    ("llada-arithmetic", "LLADA_ARITHMETIC"),
];

/// What a model needs at run time; its card, pictures and logs stay out of the binary.
const NEEDED: [&str; 3] = ["json", "safetensors", "txt"];

fn main() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    println!("cargo::rerun-if-changed=build.rs");
    if assets.is_dir() {
        println!("cargo::rerun-if-changed={}", assets.display());
    }
    let mut code = String::new();
    for (model, list) in MODELS {
        let mut files = Vec::new();
        collect(&assets.join(model), "", &mut files);
        files.sort();
        let _ = writeln!(
            code,
            "/// Relative name and bytes of every file of {model}.\nstatic {list}: &[(&str, &[u8])] = &["
        );
        for (name, path) in &files {
            let path = path.display().to_string();
            let _ = writeln!(code, "    ({name:?}, include_bytes!({path:?})),");
        }
        code.push_str("];\n");
    }
    let out = std::env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .expect("cargo sets OUT_DIR");
    std::fs::write(out.join("box_files.rs"), code).expect("OUT_DIR can be written");
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files);
        } else if path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| NEEDED.contains(&e))
            && let Ok(path) = path.canonicalize()
        {
            files.push((format!("{prefix}{name}"), path));
        }
    }
}
