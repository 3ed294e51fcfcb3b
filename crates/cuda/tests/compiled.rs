//! The committed machine code is that of the committed sources.

use std::path::Path;

use brisk_cuda::{SOURCES, TARGETS, fingerprint};
use serde_json::Value;

const HOW: &str = "compile the kernels anew: docs/nvidia.md says how";

#[test]
fn machine_code_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| {
        std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}; {HOW}", path.display()))
    };
    let manifest: Value =
        serde_json::from_slice(&read(&root.join("compiled/manifest.json"))).unwrap();
    let mut headers: Vec<_> = std::fs::read_dir(root.join("kernels"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cuh"))
        .collect();
    headers.sort();
    let headers: Vec<Vec<u8>> = headers.iter().map(|path| read(path)).collect();
    let print = |parts: Vec<&[u8]>| Value::from(format!("{:016x}", fingerprint(parts)));
    for file in SOURCES {
        let entry = &manifest["files"][file];
        let source = read(&root.join("kernels").join(format!("{file}.cu")));
        let parts = headers.iter().chain([&source]).map(Vec::as_slice).collect();
        assert_eq!(
            entry["sources"],
            print(parts),
            "{file}.cu or a header was changed; {HOW}"
        );
        for target in TARGETS {
            let code = read(&root.join("compiled").join(format!("{file}.{target}.z")));
            assert_eq!(
                entry["codes"][target],
                print(vec![&code]),
                "{file} for {target}; {HOW}"
            );
        }
    }
    let listed = manifest["files"].as_object().unwrap().keys();
    assert!(listed.eq(SOURCES), "kernels that are no more; {HOW}");
}

/// Cards of sm_90 on start a kernel before the last one has ended.
#[test]
fn every_kernel_waits_for_the_one_before() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for file in SOURCES {
        let text = std::fs::read_to_string(kernels.join(format!("{file}.cu"))).unwrap();
        let (mut from, mut found) = (0, 0);
        // Hopper's products wait inside, where the first weights are on their way.
        let waits = "take_turn();";
        while let Some(at) = text[from..].find("KERNEL(").map(|at| from + at) {
            from = at + 1;
            found += 1;
            let body = at + text[at..].find('{').unwrap() + 1;
            let first = text[body..].trim_start_matches(['\\', ' ', '\n']);
            assert!(first.starts_with(waits), "{file}.cu: {}", &text[at..body]);
        }
        assert!(found > 0 || text.matches(waits).count() == 2, "{file}.cu");
    }
}

#[test]
fn a_changed_source_has_another_fingerprint() {
    assert_ne!(
        fingerprint([b"a".as_slice(), b"b"]),
        fingerprint([b"ab".as_slice()])
    );
    assert_ne!(
        fingerprint([b"a".as_slice()]),
        fingerprint([b"b".as_slice()])
    );
}
