//! Every bad file of the fuzzer's seeds is refused, by name.

use brisk_text::{ChatMessage, ChatTemplate, Tokenizer};
use std::path::{Path, PathBuf};

fn seeds(target: &str) -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let entries = std::fs::read_dir(folder.join(target)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                path,
            )
        })
        .collect()
}

#[test]
fn tokenizers() {
    let seeds = seeds("tokenizer");
    assert!(seeds.len() >= 12);
    for (name, path) in seeds {
        let bytes = std::fs::read(path).unwrap();
        let error = Tokenizer::from_bytes(&bytes, &name).err();
        let error = error
            .unwrap_or_else(|| panic!("{name} was accepted"))
            .to_string();
        assert!(error.starts_with(&name), "{name}: {error}");
    }
}

#[test]
fn chat_templates() {
    let seeds = seeds("chat_template");
    assert!(seeds.len() >= 9);
    let turn = [ChatMessage {
        role: "user".to_owned(),
        content: "Hi".to_owned(),
    }];
    for (name, path) in seeds {
        let text = std::fs::read_to_string(path).unwrap();
        let rendered = ChatTemplate::new(text, Vec::new(), &name)
            .and_then(|template| template.render(&turn, None));
        let error = rendered.err();
        let error = error
            .unwrap_or_else(|| panic!("{name} was accepted"))
            .to_string();
        assert!(error.starts_with(&name), "{name}: {error}");
    }
}
