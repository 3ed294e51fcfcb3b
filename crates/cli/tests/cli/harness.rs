//! A temporary folder, and what the binary did in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

/// Longest that a command takes: one that hangs fails its test.
const PATIENCE: Duration = Duration::from_secs(600);

/// A folder that commands run in, with an empty home so that nothing of the user's is seen.
pub struct Place {
    folder: tempfile::TempDir,
}

/// How a command ended.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brisk"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        for name in [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_ENDPOINT",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "XDG_CACHE_HOME",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_HOME", self.path("hf"))
            .env("HF_HUB_OFFLINE", "1");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.command(arguments);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let process = child.id().to_string();
        let (ended, end) = channel::<()>();
        std::thread::spawn(move || {
            if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &process]).status();
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        Outcome::of(output)
    }

    /// Runs and expects success.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
        outcome
    }

    /// Runs and expects one message with all of `words`, `code`, nothing on stdout and no new file.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str], arguments: &[&str]) {
        let before = self.files();
        let outcome = self.run(arguments);
        let Outcome { stdout, stderr, .. } = &outcome;
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {stderr}");
        assert_eq!(stdout, "", "{arguments:?}: stdout");
        assert_eq!(
            stderr.matches("error:").count(),
            1,
            "{arguments:?}: {stderr}"
        );
        for word in words {
            assert!(
                stderr.contains(word),
                "{arguments:?}: no {word:?} in: {stderr}"
            );
        }
        for word in ["panicked", "bug in brisk", "RUST_BACKTRACE"] {
            assert!(!stderr.contains(word), "{arguments:?}: {stderr}");
        }
        assert_eq!(self.files(), before, "{arguments:?}: files were left");
    }

    /// Every file below the folder, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    collect(&path, files)
                } else {
                    files.push(path)
                }
            }
        }
        let mut files = Vec::new();
        collect(self.folder.path(), &mut files);
        files.sort();
        files
    }

    /// Copies `fixtures/{fixture}` to the folder `name`, without the recorded cases.
    pub fn copy(&self, fixture: &str, name: &str) -> PathBuf {
        fn copy(from: &Path, to: &Path) {
            std::fs::create_dir_all(to).unwrap();
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                let target = to.join(entry.file_name());
                if !entry.path().is_dir() {
                    std::fs::copy(entry.path(), target).unwrap();
                } else if entry.file_name() != "cases" {
                    copy(&entry.path(), &target);
                }
            }
        }
        let target = self.path(name);
        copy(&fixture_path(fixture), &target);
        target
    }
}

impl Outcome {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

pub fn fixture_path(name: &str) -> PathBuf {
    brisk_testkit::fixtures_dir().join(name)
}

pub fn fixture(name: &str) -> String {
    fixture_path(name).display().to_string()
}

/// Replaces a piece of a text file.
#[track_caller]
pub fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// A picture with a gradient.
pub fn gradient(width: usize, height: usize, shift: u8) -> Vec<u8> {
    let pixels = (0..height * width).flat_map(|at| {
        let (x, y) = (at % width, at / width);
        [
            (x * 5) as u8,
            (y * 7) as u8,
            ((x + y) as u8).saturating_add(shift),
        ]
    });
    let picture = brisk_media::Picture::new(width, height, pixels.collect()).unwrap();
    brisk_media::encode_png(&picture, &[]).unwrap()
}
