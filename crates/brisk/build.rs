//! Lists the models that come along: every folder of `assets` with a `box.json`, so that the crate can
//! carry their files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Says what a model in the box is, and of which kind of result it is the default.
const CARD: &str = "box.json";

/// Its keys.
const KEYS: [&str; 4] = ["about", "data", "default_of", "licence"];

/// `default_of` of a model that is the default of nothing.
const NOTHING: &str = "nothing";

/// What a model needs at run time; its card, pictures and logs stay out of the binary.
const NEEDED: [&str; 3] = ["json", "safetensors", "txt"];
/// How the files begin that a model is measured by, pictures too.
const MEASURED_BY: &str = "evaluation_";

fn main() {
    // Asked for when it runs: a build folder may have come from another checkout.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let assets = Path::new(&package).join("../../assets");
    println!("cargo::rerun-if-changed=build.rs");
    let mut folders = Vec::new();
    if let Ok(entries) = std::fs::read_dir(&assets) {
        println!("cargo::rerun-if-changed={}", assets.display());
        folders = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join(CARD).is_file())
            .collect();
    }
    folders.sort();
    let mut code = String::from("static MODELS: &[BoxModel] = &[\n");
    let mut contents = Contents::default();
    let mut defaults = std::collections::BTreeMap::new();
    for folder in &folders {
        let kind = write_model(&mut code, &mut contents, folder);
        if kind != NOTHING
            && let Some(first) = defaults.insert(kind.clone(), folder)
        {
            panic!(
                "{}: default_of is {kind:?}, and so it is in {}",
                folder.display(),
                first.display()
            );
        }
    }
    code.push_str("];\n");
    code.push_str(&contents.code);
    let out = std::env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .expect("cargo sets OUT_DIR");
    std::fs::write(out.join("box_models.rs"), code).expect("OUT_DIR can be written");
}

/// The files of all models: of those that are alike, as the autoencoder of a student and its teacher, one is carried.
#[derive(Default)]
struct Contents {
    known: std::collections::HashMap<Vec<u8>, String>,
    code: String,
}

impl Contents {
    /// The name of the constant that has a file's bytes.
    fn name(&mut self, path: &Path) -> String {
        let bytes = std::fs::read(path).expect("files of a model can be read");
        let next = format!("FILE_{}", self.known.len());
        let name = self.known.entry(bytes).or_insert_with(|| {
            let path = path.display().to_string();
            let line = format!("static {next}: &[u8] = include_bytes!({path:?});\n");
            self.code.push_str(&line);
            next
        });
        name.clone()
    }
}

/// Writes the entry of a model, and gives its `default_of`.
fn write_model(code: &mut String, contents: &mut Contents, folder: &Path) -> String {
    let card = folder.join(CARD);
    let text = std::fs::read_to_string(&card).expect("the card can be read");
    let value: serde_json::Value = serde_json::from_str(&text).expect("the card is JSON");
    let word = |key: &str| {
        value[key]
            .as_str()
            .unwrap_or_else(|| panic!("{}: {key} is no text", card.display()))
            .to_owned()
    };
    let default_of = word("default_of");
    let kind = match &*default_of {
        "pictures" => "Some(ResultKind::Pictures)",
        "text" => "Some(ResultKind::Text)",
        "masks" => "Some(ResultKind::Masks)",
        "clips" => "Some(ResultKind::Clips)",
        NOTHING => "None",
        other => panic!(
            "{}: default_of is {other:?}, expected pictures, text, masks, clips or {NOTHING}",
            card.display()
        ),
    };
    for key in value.as_object().into_iter().flat_map(|card| card.keys()) {
        assert!(
            KEYS.contains(&key.as_str()),
            "{}: nothing reads {key:?}, expected {KEYS:?}",
            card.display()
        );
    }
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .expect("names of models are text");
    let _ = writeln!(
        code,
        "    BoxModel {{ name: {name:?}, label: {:?}, about: {:?}, licence: {:?}, data: {:?}, default_of: {kind}, files: &[",
        format!("{name} (in the box)"),
        word("about"),
        word("licence"),
        word("data"),
    );
    let mut files = Vec::new();
    collect(folder, "", &mut files);
    files.sort();
    for (name, path) in &files {
        let bytes = contents.name(path);
        let _ = writeln!(code, "        ({name:?}, {bytes}),");
    }
    code.push_str("    ] },\n");
    default_of
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
        if name.starts_with('.') || name == CARD {
            continue;
        }
        let is_needed = name.starts_with(MEASURED_BY)
            || path
                .extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| NEEDED.contains(&extension));
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files);
        } else if is_needed && let Ok(path) = path.canonicalize() {
            files.push((format!("{prefix}{name}"), path));
        }
    }
}
