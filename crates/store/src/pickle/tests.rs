//! Streams and archives that no file of the fixtures holds: limits, zip64, opcodes.

use super::*;

/// A zip of stored entries; with `large`, sizes and offsets are in zip64 fields as PyTorch writes them.
fn archive(files: &[(&str, &[u8])], large: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in files {
        let offset = bytes.len() as u64;
        let size = data.len() as u32;
        let lengths = (name.len() as u16).to_le_bytes();
        bytes.extend_from_slice(b"PK\x03\x04\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&lengths);
        bytes.extend_from_slice(&4u16.to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"FB\0\0"); // padding field
        bytes.extend_from_slice(data);

        let (size, place) = if large {
            (u32::MAX, u32::MAX)
        } else {
            (size, offset as u32)
        };
        let mut extra = Vec::new();
        if large {
            extra.extend_from_slice(b"XX\x01\0?\x01\0\x18\0");
            for value in [data.len() as u64, data.len() as u64, offset] {
                extra.extend_from_slice(&value.to_le_bytes());
            }
        }
        directory.extend_from_slice(b"PK\x01\x02\x2d\0\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend_from_slice(&size.to_le_bytes());
        directory.extend_from_slice(&size.to_le_bytes());
        directory.extend_from_slice(&lengths);
        directory.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&place.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        directory.extend_from_slice(&extra);
    }
    let start = bytes.len() as u64;
    let size = directory.len() as u64;
    bytes.extend_from_slice(&directory);
    let count = files.len() as u16;
    let mut counts = (count, size as u32, start as u32);
    if large {
        let end = bytes.len() as u64;
        bytes.extend_from_slice(b"PK\x06\x06");
        bytes.extend_from_slice(&44u64.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        for value in [u64::from(count), count.into(), size, start] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        bytes.extend_from_slice(&end.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        counts = (u16::MAX, u32::MAX, u32::MAX);
    }
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&counts.0.to_le_bytes());
    bytes.extend_from_slice(&counts.0.to_le_bytes());
    bytes.extend_from_slice(&counts.1.to_le_bytes());
    bytes.extend_from_slice(&counts.2.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes
}

/// Pushes a tensor of two f32 on storage 0, every opcode of the short binary kind.
const TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n\
    U\x010U\x03cpuK\x02tQK\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR";

const STORAGE: [u8; 8] = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40];

fn open(stream: &[&[u8]]) -> Result<PickleFile> {
    let stream = stream.concat();
    let files: [(&str, &[u8]); 2] = [("x/data.pkl", &stream), ("x/data/0", &STORAGE)];
    PickleFile::from_bytes(archive(&files, false), "test")
}

fn problem(stream: &[&[u8]]) -> String {
    open(stream).err().expect("refused").to_string()
}

#[test]
fn zip64_is_read() {
    let stream = [b"\x80\x02}U\x01a", TENSOR, b"s."].concat();
    let files: [(&str, &[u8]); 3] = [
        ("x/data.pkl", &stream),
        ("x/byteorder", b"little"),
        ("x/data/0", &STORAGE),
    ];
    for large in [false, true] {
        let file = PickleFile::from_bytes(archive(&files, large), "test").unwrap();
        let view = file.view("a").unwrap().unwrap();
        assert_eq!(view.to_f32().unwrap(), [1.0, 2.0], "zip64: {large}");
    }
}

#[test]
fn zip_entries_may_not_repeat_or_overlap() {
    let twice = archive(&[("x/data.pkl", b"}."), ("x/data.pkl", b"}.")], false);
    let error = PickleFile::from_bytes(twice, "test")
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("twice"), "{error}");
    // The second entry, header and all, lies inside the first one's data.
    let inner = archive(&[("b", b"data")], false);
    let mut bytes = archive(&[("a", &inner), ("b", b"data")], false);
    let inside = 30 + 1 + 4;
    let record = bytes
        .windows(4)
        .rposition(|part| part == b"PK\x01\x02")
        .unwrap();
    bytes[record + 42..record + 46].copy_from_slice(&(inside as u32).to_le_bytes());
    let error = PickleFile::from_bytes(bytes, "test")
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("overlap"), "{error}");
}

#[test]
fn containers_become_names() {
    let file = open(&[
        b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94(\x8c\x04list](",
        TENSOR,
        b"NeK\x07}U\x01w",
        TENSOR,
        b"sG\x3f\xf0\0\0\0\0\0\0(",
        TENSOR,
        b"\x88t\x8c\x05bytesC\x02\xff\xfe",
        b"u.",
    ])
    .unwrap();
    assert_eq!(file.names(), ["1.0", "7.w", "list.0"]);
}

#[test]
fn only_a_state_dict_at_the_top_is_unwrapped() {
    let nested = open(&[
        b"\x80\x02}(U\x0astate_dict}U\x01a",
        TENSOR,
        b"sU\x01b",
        TENSOR,
        b"u.",
    ]);
    assert_eq!(nested.unwrap().names(), ["a"]);
    let deeper = open(&[b"\x80\x02}U\x03ema}U\x0astate_dict}U\x01a", TENSOR, b"sss."]).unwrap();
    assert_eq!(deeper.names(), ["ema.state_dict.a"]);
    let number = open(&[b"\x80\x02}(U\x0astate_dictK\x01U\x01b", TENSOR, b"u."]).unwrap();
    assert_eq!(number.names(), ["b"]);
}

/// Averages of the same tensors, by decay or by themselves, go before what they average; others do not.
#[test]
fn running_averages_go_first() {
    let at = TENSOR
        .windows(4)
        .position(|four| four == b"K\0K\x02")
        .unwrap();
    let mut last = TENSOR.to_vec();
    last[at..at + 4].copy_from_slice(b"K\x01K\x01");
    let of = |ema: &[&[u8]]| {
        let start: [&[u8]; 3] = [b"\x80\x02}(U\x0astate_dict}U\x01a", TENSOR, b"sU\x03ema"];
        let file = open(&[&start.concat(), &ema.concat(), b"u."]).unwrap();
        assert_eq!(file.names(), ["a"]);
        file.view("a").unwrap().unwrap().to_f32().unwrap()
    };
    assert_eq!(of(&[b"}U\x01a", &last, b"s"]), [2.0]);
    assert_eq!(of(&[b"}G\x3f\xf0\0\0\0\0\0\0}U\x01a", &last, b"ss"]), [2.0]);
    assert_eq!(
        of(&[b"}G\x3f\xf0\0\0\0\0\0\0}U\x01b", &last, b"ss"]),
        [1.0, 2.0]
    );
    assert_eq!(of(&[b"K\x01"]), [1.0, 2.0]);
}

#[test]
fn equal_names_are_refused() {
    let error = problem(&[b"\x80\x02}(U\x011", TENSOR, b"K\x01", TENSOR, b"u."]);
    assert!(error.contains("\"1\" is there twice"), "{error}");
}

#[test]
fn nesting_is_limited_and_does_not_recurse() {
    let deep = [&b"]".repeat(200_000)[..], &b"a".repeat(199_999)].concat();
    let error = problem(&[b"\x80\x02}U\x01a", &deep, b"s."]);
    assert!(error.contains("nested more than 32 deep"), "{error}");
}

#[test]
fn shared_containers_cannot_multiply_without_end() {
    // Each list holds the one before twice: 2^30 paths in 200 bytes.
    let mut stream = b"\x80\x02}U\x01a]q\x00".to_vec();
    for level in 0..29u8 {
        stream.extend_from_slice(&[
            b'0',
            b']',
            b'(',
            b'h',
            level,
            b'h',
            level,
            b'e',
            b'q',
            level + 1,
        ]);
    }
    let error = problem(&[&stream, b"s."]);
    assert!(
        error.contains("repeat without end") || error.contains("names of more"),
        "{error}"
    );
}

#[test]
fn repeated_calls_cannot_multiply_memory() {
    // One list of 3000 pairs, copied into a dict by four bytes each time.
    let mut stream = b"\x80\x02](".to_vec();
    stream.extend_from_slice(&b"NN\x86".repeat(3000));
    stream.extend_from_slice(b"e\x85q\x00ccollections\nOrderedDict\nq\x01");
    stream.extend_from_slice(&b"h\x01h\x00R".repeat(10_000));
    let error = problem(&[&stream, b"."]);
    assert!(error.contains("copied elements"), "{error}");
}

#[test]
fn a_distant_memo_slot_claims_no_memory() {
    let file = open(&[
        b"\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xff\x30U\x01a",
        TENSOR,
        b"s.",
    ]);
    assert_eq!(file.unwrap().names(), ["a"]);
}

#[test]
fn numbers_of_every_length() {
    let loaded = vm::load(b"\x80\x02(J\xfe\xff\xff\xff\x8a\0\x8a\x01\x80\x8a\x02\xff\0t.").unwrap();
    let Value::Tuple(items) = loaded.get(loaded.root) else {
        panic!("not a tuple")
    };
    let ints: Vec<i64> = items
        .iter()
        .map(|&item| match loaded.get(item) {
            Value::Int(value) => *value,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ints, [-2, 0, -128, 255]);
}

#[test]
fn every_opcode_is_read_or_refused_with_its_offset() {
    for opcode in 0..=255u8 {
        match vm::load(&[0x80, 2, opcode]) {
            Ok(_) => panic!("0x{opcode:02x} cannot end a stream that holds nothing"),
            Err(fault) => assert!(fault.offset == 2 || fault.offset == 3, "0x{opcode:02x}"),
        }
    }
}

#[test]
fn strides_are_followed_and_checked() {
    assert!(is_contiguous(&[2, 3], &[3, 1]));
    assert!(is_contiguous(&[2, 1, 3], &[3, 99, 1]));
    assert!(!is_contiguous(&[2, 3], &[1, 2]));
    let entry = Entry {
        dtype: Dtype::U8,
        shape: vec![2, 2, 2],
        strides: vec![1, 4, 2],
        offset: 1,
        storage: 0..8,
        contiguous: false,
    };
    let storage: Vec<u8> = (0..9).collect();
    assert_eq!(
        entry.gather(&storage).unwrap().as_ref(),
        [1, 3, 5, 7, 2, 4, 6, 8]
    );
    assert!(entry.gather(&storage[..8]).is_none());
}
