//! The version with the commit that is built, where git tells it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let package = env!("CARGO_PKG_VERSION");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // HEAD changes with the branch, its log with every commit.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let version = match git(&["rev-parse", "--short=10", "HEAD"]) {
        Some(commit) if !commit.is_empty() => format!("{package} ({commit})"),
        _ => package.to_owned(),
    };
    println!("cargo::rustc-env=BRISK_VERSION={version}");
}
