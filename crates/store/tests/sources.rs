//! Good files of every kind, and folders that lack something.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use brisk_store::{
    Dtype, OutTensor, PickleFile, TensorSource, open_weights, safetensors_bytes, summarise,
    write_atomic, write_safetensors,
};

const TORCH: &[u8] = include_bytes!("data/torch.pth");

fn values(source: &dyn TensorSource, name: &str) -> Vec<f32> {
    source
        .view(name)
        .unwrap()
        .unwrap_or_else(|| panic!("no {name}"))
        .to_f32()
        .unwrap()
}

#[test]
fn a_checkpoint_of_pytorch_is_read() {
    let file = PickleFile::from_static(TORCH, "torch.pth").unwrap();
    assert_eq!(
        file.names(),
        [
            "bf16",
            "bias",
            "bool",
            "empty",
            "expanded",
            "half",
            "long",
            "parameter",
            "row",
            "transposed",
            "weight"
        ]
    );
    assert_eq!(values(&file, "weight"), [0.5, -2.0]);
    assert!(values(&file, "bias")[0].is_nan());
    assert_eq!(file.info("transposed"), Some((Dtype::F32, vec![4, 3])));
    let transposed = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11].map(|value| value as f32);
    assert_eq!(values(&file, "transposed"), transposed);
    let row = file.view("row").unwrap().unwrap();
    assert!(
        matches!(row.data, Cow::Borrowed(_)),
        "contiguous tensors are not copied"
    );
    assert_eq!(row.to_f32().unwrap(), [4.0, 5.0, 6.0, 7.0]);
    assert_eq!(file.info("bf16"), Some((Dtype::BF16, vec![2])));
    assert_eq!(values(&file, "bf16"), [1.5, -0.25]);
    assert_eq!(file.info("half"), Some((Dtype::F16, vec![])));
    assert_eq!(values(&file, "half"), [3.0]);
    assert_eq!(
        file.view("long").unwrap().unwrap().to_i64().unwrap(),
        [-1, 1 << 40]
    );
    assert_eq!(
        file.view("bool").unwrap().unwrap().to_i64().unwrap(),
        [1, 0]
    );
    assert_eq!(values(&file, "expanded"), [7.0; 3]);
    assert_eq!(file.info("empty"), Some((Dtype::F32, vec![0, 5])));
    assert_eq!(values(&file, "empty"), [0.0f32; 0]);
    assert_eq!(file.info("parameter"), Some((Dtype::F64, vec![1])));
    assert_eq!(values(&file, "parameter"), [9.0]);
    assert!(
        file.view("other.a").unwrap().is_none(),
        "only the state dict counts"
    );
    assert_eq!(summarise(&file).tensors, 11);
}

fn weights(name: &str, value: f32) -> Vec<u8> {
    let tensor = OutTensor {
        name: name.into(),
        dtype: Dtype::F32,
        shape: vec![1],
        data: value.to_le_bytes().to_vec().into(),
    };
    safetensors_bytes(&[tensor], &BTreeMap::new()).unwrap()
}

fn sharded(folder: &Path) -> std::path::PathBuf {
    let index = folder.join("model.safetensors.index.json");
    let text = r#"{"metadata": {"total_size": 8}, "weight_map":
        {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    write_atomic(&index, text.as_bytes()).unwrap();
    write_atomic(&folder.join("model-1.safetensors"), &weights("a", 1.0)).unwrap();
    write_atomic(&folder.join("model-2.safetensors"), &weights("b", 2.0)).unwrap();
    index
}

#[test]
fn files_are_told_apart_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let tensor = OutTensor {
        name: "a".into(),
        dtype: Dtype::F32,
        shape: vec![],
        data: 3f32.to_le_bytes().to_vec().into(),
    };
    write_safetensors(&path("renamed.bin"), &[tensor], &BTreeMap::new()).unwrap();
    assert_eq!(
        values(&*open_weights(&path("renamed.bin")).unwrap(), "a"),
        [3.0]
    );
    write_atomic(&path("checkpoint"), TORCH).unwrap();
    assert_eq!(
        values(&*open_weights(&path("checkpoint")).unwrap(), "half"),
        [3.0]
    );
    let source = open_weights(&sharded(folder.path())).unwrap();
    assert_eq!(source.names(), ["a", "b"]);
    assert_eq!(values(&*source, "b"), [2.0]);
    assert_eq!(source.info("a"), Some((Dtype::F32, vec![1])));
    assert!(source.origin("b").ends_with("model-2.safetensors"));

    let refused = |bytes: &[u8], name: &str| {
        write_atomic(&path(name), bytes).unwrap();
        let message = open_weights(&path(name))
            .err()
            .expect("refused")
            .to_string();
        assert!(message.contains(name), "{message}");
        message
    };
    assert!(refused(b"", "empty.safetensors").contains("0 bytes"));
    assert!(refused(b"some text", "notes").contains("not a weights file"));
    assert!(refused(b"version https://git-lfs", "x.pth").contains("git lfs pull"));
    assert!(refused(b"\x80\x02\x8a\x0a", "old.pth").contains("legacy"));
    assert!(
        open_weights(folder.path())
            .err()
            .unwrap()
            .to_string()
            .contains("folder")
    );
    assert!(
        open_weights(&path("absent"))
            .err()
            .unwrap()
            .to_string()
            .contains("absent")
    );
}

#[test]
fn a_missing_shard_looks_half_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let index = sharded(folder.path());
    std::fs::remove_file(folder.path().join("model-2.safetensors")).unwrap();
    let message = open_weights(&index).err().unwrap().to_string();
    for fragment in [
        "model-2.safetensors",
        "model.safetensors.index.json",
        "half-downloaded",
    ] {
        assert!(message.contains(fragment), "{message}");
    }
}

#[test]
fn a_truncated_shard_says_how_much_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let index = sharded(folder.path());
    let whole = weights("b", 2.0);
    let shard = folder.path().join("model-2.safetensors");
    write_atomic(&shard, &whole[..whole.len() - 3]).unwrap();
    let message = open_weights(&index).err().unwrap().to_string();
    let counts = format!("expected {} bytes, found {}", whole.len(), whole.len() - 3);
    assert!(
        message.contains("model-2.safetensors") && message.contains(&counts),
        "{message}"
    );
}

#[test]
fn a_shard_without_its_tensor_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let index = sharded(folder.path());
    write_atomic(
        &folder.path().join("model-2.safetensors"),
        &weights("c", 2.0),
    )
    .unwrap();
    let message = open_weights(&index).err().unwrap().to_string();
    assert!(
        message.contains("\"b\"") && message.contains("model-2.safetensors"),
        "{message}"
    );
}

#[test]
fn a_header_may_have_any_length() {
    // Lengths whose first bytes are the marks of a pickle, a zip, a text, an index and a web page.
    for length in [
        632u64, 640, 896, 1152, 1408, 19280, 66176, 84816, 0x7b, 0x3c, 0x2020,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        let mut header = br#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_vec();
        if header.len() as u64 > length {
            continue;
        }
        header.resize(length as usize, b' ');
        let file = [&length.to_le_bytes()[..], &header, &5f32.to_le_bytes()].concat();
        std::fs::write(&path, file).unwrap();
        let source = open_weights(&path).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!(values(&*source, "x"), [5.0], "{length}");
    }
}

#[test]
fn what_stands_in_a_files_place_is_named_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 72600\n";
    for name in [
        "a.safetensors",
        "a.pth",
        "a.bin",
        "a",
        "config.json",
        "x.txt",
    ] {
        let path = folder.path().join(name);
        for (text, named) in [
            (pointer, "git lfs pull"),
            ("<!DOCTYPE html><html>", "web page"),
            (
                r#"<?xml version="1.0"?><Error><Code>AccessDenied</Code>"#,
                "error message",
            ),
            (r#"{"error": "Entry not found"}"#, "Entry not found"),
        ] {
            std::fs::write(&path, text).unwrap();
            let model = brisk_store::ModelFolder::Disk(folder.path().to_owned());
            for error in [
                open_weights(&path).err().unwrap(),
                model.open(name).err().unwrap(),
                model.read(name).err().unwrap(),
            ] {
                let message = error.to_string();
                assert!(
                    message.contains(name) && message.contains(named),
                    "{message}"
                );
            }
        }
    }
    for (bytes, named) in [
        (&b"GGUF\x03\0\0\0"[..], "GGUF"),
        (b"\x1f\x8b\x08\0", "gzip"),
    ] {
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let message = open_weights(&path).err().unwrap().to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn an_index_never_opens_an_index() {
    let index = |shard: &str| format!(r#"{{"weight_map": {{"a.weight": "{shard}"}}}}"#);
    let (own, other) = ("model.safetensors.index.json", "model.bin.index.json");
    for files in [
        &[(own, index(own))][..],
        &[(own, index(other)), (other, index(own))],
        &[(own, index("shard")), ("shard", index("shard"))],
        &[
            (own, index("config.json")),
            ("config.json", "{}".to_owned()),
        ],
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let boxed: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, text)| (*name, &*text.clone().into_bytes().leak()))
            .collect();
        let embedded = brisk_store::ModelFolder::Embedded {
            label: "box",
            files: boxed.leak(),
        };
        for error in [
            open_weights(&folder.path().join(own)).err().unwrap(),
            embedded.open(own).err().unwrap(),
        ] {
            let message = error.to_string();
            for named in [own, "\"a.weight\"", "a shard must be safetensors"] {
                assert!(message.contains(named), "{message}");
            }
        }
    }
}

#[test]
fn a_checkpoint_from_before_the_zip_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/legacy_pickle/shared");
    let file = open_weights(&folder.join("checkpoint.pth")).unwrap();
    let wanted = open_weights(&folder.join("tensors.safetensors")).unwrap();
    assert_eq!(file.names(), wanted.names());
    for name in wanted.names() {
        assert_eq!(file.info(&name), wanted.info(&name), "{name}");
        let bytes =
            |source: &dyn TensorSource| source.view(&name).unwrap().unwrap().data.into_owned();
        assert_eq!(bytes(&*file), bytes(&*wanted), "{name}");
    }
}

#[test]
fn damaged_old_checkpoints_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/legacy_pickle/shared");
    let whole = std::fs::read(folder.join("checkpoint.pth")).unwrap();
    for cut in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        let cut = whole[..cut].to_vec();
        assert!(PickleFile::from_bytes(cut, "cut.pth").is_err());
    }
    // The number of elements before the first storage.
    let last = whole.len() - 8 - 24 * 4;
    for at in [last - 1, last - 4] {
        let mut changed = whole.clone();
        changed[at] ^= 0x40;
        // Whatever is changed, it is read or refused.
        let _ = PickleFile::from_bytes(changed, "changed.pth");
    }
    let wrong = |from: &[u8], to: &[u8]| {
        let at = whole
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        let mut changed = whole.clone();
        changed[at..at + to.len()].copy_from_slice(to);
        PickleFile::from_bytes(changed, "changed.pth")
            .err()
            .unwrap()
            .to_string()
    };
    let message = wrong(b"little_endian", b"little_endiar");
    assert!(message.contains("little endian"), "{message}");
    let message = wrong(b"FloatStorage", b"FlootStorage");
    assert!(
        message.contains("FlootStorage") && message.contains("legacy"),
        "{message}"
    );
}
