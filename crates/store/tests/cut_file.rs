//! A file that is cut while it is read, by this process itself, in a child.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

use brisk_store::{
    Dtype, OutTensor, SafetensorsFile, TensorSource, exit_when_a_file_is_cut, write_safetensors,
};

const VARIABLE: &str = "BRISK_TEST_FILE_TO_CUT";

fn cut(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(100)).unwrap();
}

fn write(path: &Path) {
    let tensor = OutTensor {
        name: "w".into(),
        dtype: Dtype::U8,
        shape: vec![1 << 20],
        data: vec![7; 1 << 20].into(),
    };
    write_safetensors(path, &[tensor], &Default::default()).unwrap();
}

#[test]
fn a_program_that_asked_for_it_says_which_file_and_exits() {
    if let Some(path) = std::env::var_os(VARIABLE) {
        exit_when_a_file_is_cut();
        let path = Path::new(&path);
        let file = SafetensorsFile::open(path).unwrap();
        let view = file.view("w").unwrap().unwrap();
        cut(path);
        let sum: u64 = view.data.iter().map(|byte| u64::from(*byte)).sum();
        panic!("read {sum} from nowhere");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    write(&path);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_program_that_asked_for_it_says_which_file_and_exits",
            "--nocapture",
        ])
        .env(VARIABLE, &path)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("weights.safetensors: another program cut this file"),
        "{message}"
    );
}

#[test]
fn a_file_that_is_shorter_already_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    write(&path);
    let file = SafetensorsFile::open(&path).unwrap();
    cut(&path);
    let message = file.view("w").unwrap_err().to_string();
    assert!(
        message.contains("weights.safetensors") && message.contains("another program"),
        "{message}"
    );
}
