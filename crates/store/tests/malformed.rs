//! Bad files: every one is an error that says why, none is a panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brisk_store::{
    Dtype, Error, OutTensor, PickleFile, Result, SafetensorsFile, ShardedSource, TensorSource,
    safetensors_bytes,
};

fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| read(entry.unwrap().path()))
        .collect()
}

fn read_all(source: &dyn TensorSource) -> Result<()> {
    for name in source.names() {
        source
            .view(&name)?
            .expect("a listed tensor is there")
            .to_f32()?;
    }
    Ok(())
}

fn safetensors(bytes: &[u8]) -> Result<()> {
    read_all(&SafetensorsFile::from_bytes(bytes.to_vec(), "bad file")?)
}

fn pickle(bytes: &[u8]) -> Result<()> {
    read_all(&PickleFile::from_bytes(bytes.to_vec(), "bad file")?)
}

fn index(bytes: &[u8]) -> Result<()> {
    read_all(&ShardedSource::from_index(bytes, "bad file", |_| Ok(None))?)
}

/// Every seed is refused; those listed, for the reason that is their name.
fn refuses(target: &str, read: impl Fn(&[u8]) -> Result<()>, reasons: &[(&str, &[&str])]) {
    let seeds = seeds(target);
    let mut messages = BTreeMap::new();
    for (name, bytes) in &seeds {
        let message = match read(bytes) {
            Ok(()) => panic!("{target}/{name} was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(
            message.contains("bad file"),
            "{target}/{name} does not name the file: {message}"
        );
        assert!(message.len() < 600, "{target}/{name}: {message}");
        messages.insert(name.as_str(), message);
    }
    for (name, fragments) in reasons {
        let message = messages
            .get(name)
            .unwrap_or_else(|| panic!("no seed {target}/{name}"));
        for fragment in *fragments {
            assert!(message.contains(fragment), "{target}/{name}: {message}");
        }
    }
}

#[test]
fn safetensors_seeds_are_refused() {
    refuses(
        "safetensors",
        safetensors,
        &[
            ("empty", &["0 bytes"]),
            ("huge_header_length", &["18446744073709551615", "100000000"]),
            ("header_longer_than_file", &["truncated", "90000000"]),
            ("data_cut", &["truncated: expected", "half-downloaded"]),
            ("data_too_long", &["1 bytes after the last tensor"]),
            ("not_json", &["header is not valid"]),
            ("overlap", &["\"b\"", "overlaps"]),
            ("same_bytes", &["overlaps"]),
            ("gap", &["\"b\"", "gap"]),
            ("gap_at_start", &["gap"]),
            ("misaligned", &["\"b\"", "not a multiple of 4"]),
            ("backwards", &["before its start"]),
            ("wrong_size", &["needs 12 bytes", "hold 8"]),
            ("shape_overflow", &["\"a\"", "overflows"]),
            ("shape_overflow_zero", &["overflows"]),
            ("offset_overflow", &["offsets", "overflow"]),
            ("unknown_type", &["\"a\"", "Q7"]),
            ("float8", &["8-bit floats (F8_E5M2)"]),
            ("missing_offsets", &["\"a\"", "data_offsets"]),
            ("duplicate_name", &["\"a\"", "twice"]),
            ("deep_json", &["header is not valid"]),
        ],
    );
}

#[test]
fn index_seeds_are_refused() {
    let bare: &[&str] = &["bare file name"];
    refuses(
        "index",
        index,
        &[
            ("no_weight_map", &["weight_map"]),
            ("empty_weight_map", &["empty"]),
            ("duplicate_name", &["\"a\"", "twice"]),
            (
                "shard_traversal",
                &["../secret.safetensors", "bare file name"],
            ),
            ("shard_traversal_inside", bare),
            ("shard_absolute", bare),
            ("shard_subfolder", bare),
            ("shard_backslash", bare),
            ("shard_drive", bare),
            ("shard_dot_dot", bare),
            ("shard_dot", bare),
            ("shard_nothing", bare),
            ("shard_control", bare),
            ("shard_absent", &["model-1.safetensors", "half-downloaded"]),
        ],
    );
}

#[test]
fn pickle_seeds_are_refused() {
    refuses(
        "pickle",
        pickle,
        &[
            ("legacy", &["legacy"]),
            ("system_0", &["pickle byte 0", "posix.system"]),
            (
                "system_2",
                &["pickle byte 2", "posix.system", "never runs code"],
            ),
            ("system_4", &["posix.system"]),
            ("system_5", &["posix.system"]),
            ("eval_2", &["__builtin__.eval"]),
            ("eval_4", &["builtins.eval"]),
            ("inst", &["pickle byte 1", "text opcode"]),
            ("getattr", &["builtins.getattr"]),
            ("torch_load", &["torch.load"]),
            ("dotted_name", &["OrderedDict.fromkeys"]),
            ("no_pickle", &["without data.pkl"]),
            ("two_pickles", &["more than one data.pkl"]),
            ("compressed", &["compressed (method 8)"]),
            ("bomb", &["compressed (method 8)"]),
            ("not_a_dict", &["not a dict"]),
            ("no_stop", &["pickle byte 3", "stream ends"]),
            ("stack_underflow", &["pickle byte 2", "stack is empty"]),
            ("mark_underflow", &["no mark"]),
            ("memo_empty", &["memo slot 5"]),
            ("odd_items", &["key without a value"]),
            ("long_string_claim", &["4294967295 bytes expected"]),
            ("protocol_9", &["protocol 9"]),
            ("self_reference", &["nested more than 32 deep"]),
            ("call_none", &["calling None"]),
            ("build_list", &["attributes of a list"]),
            ("absent_storage", &["data/7", "missing"]),
            ("storage_traversal", &["missing"]),
            ("storage_too_short", &["should have 8 bytes, found 7"]),
            ("storage_overflow", &["overflows"]),
            (
                "shape_outside",
                &["\"a\"", "leaves its storage of 2 elements"],
            ),
            ("stride_outside", &["leaves its storage"]),
            ("offset_outside", &["leaves its storage"]),
            ("offset_overflow", &["leaves its storage"]),
            ("shape_overflow", &["overflows"]),
            ("expanded_bomb", &["repeats a storage of 8 bytes"]),
            ("negative_stride", &["-1"]),
            ("shape_rank", &["2 sizes and 1 strides"]),
            ("complex", &["complex"]),
            ("big_endian", &["little endian"]),
            ("torchscript", &["TorchScript"]),
            ("lying_size", &["claims 2147483647 bytes"]),
            ("lying_stored_size", &["claims 8 bytes but stores 4"]),
            ("overlapping_entries", &["another name"]),
            ("zip64_without_field", &["zip64"]),
            ("encrypted", &["encrypted"]),
            ("directory_outside", &["directory claims"]),
            ("entry_count", &["claims 9 entries, found 2"]),
            ("no_local_header", &["no local header"]),
            ("other_local_name", &["another name"]),
            ("zip64_locator", &["zip"]),
        ],
    );
}

fn good_safetensors() -> Vec<u8> {
    let tensor = |name: &str, dtype: Dtype, count: usize| OutTensor {
        name: name.into(),
        dtype,
        shape: vec![count],
        data: vec![1; count * dtype.size()].into(),
    };
    let tensors = [
        tensor("a.weight", Dtype::F32, 3),
        tensor("b", Dtype::BF16, 2),
    ];
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors_bytes(&tensors, &metadata).unwrap()
}

/// Cuts at every length must be refused, and no changed byte may panic.
fn survives_damage(good: &[u8], read: impl Fn(&[u8]) -> Result<()>) {
    read(good).expect("the undamaged file is fine");
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_err(), "cut to {length} bytes");
    }
    let mut damaged = good.to_vec();
    for position in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff, good[position] ^ 1] {
            damaged[position] = value;
            let _ = read(&damaged);
        }
        damaged[position] = good[position];
    }
}

#[test]
fn damaged_safetensors_never_panic() {
    survives_damage(&good_safetensors(), safetensors);
}

#[test]
fn damaged_checkpoints_never_panic() {
    survives_damage(include_bytes!("data/torch.pth"), pickle);
}

#[test]
fn errors_keep_their_kind() {
    let error = pickle(&seeds("pickle")["system_2"]).unwrap_err();
    assert!(
        matches!(error, Error::Pickle { offset: 2, .. }),
        "{error:?}"
    );
    // The magic number of the format alone.
    let error = pickle(&seeds("pickle")["legacy"]).unwrap_err();
    assert!(
        matches!(error, Error::Pickle { offset: 15, .. }),
        "{error:?}"
    );
}
