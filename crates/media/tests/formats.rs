//! Picture files of many kinds, read as Pillow reads them (`reference/picture_formats.py`), and refused
//! when they are cut or damaged.

use std::collections::BTreeMap;
use std::path::PathBuf;

use brisk_media::{decode_clip, decode_picture, read_png_metadata};
use safetensors::SafeTensors;

fn files() -> BTreeMap<String, Vec<u8>> {
    folder("../../fixtures/media/formats")
}

fn folder(name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), name].iter().collect();
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

/// Files that are read.
fn good() -> BTreeMap<String, Vec<u8>> {
    let mut files = files();
    files.retain(|name, _| !name.starts_with("refused") && name != "expected.safetensors");
    assert!(files.len() > 15);
    files
}

#[test]
fn every_kind_is_read_as_pillow_reads_it() {
    let expected = files().remove("expected.safetensors").unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    for (name, bytes) in good() {
        let picture = decode_picture(&bytes, &name).unwrap();
        let view = expected.tensor(&name).unwrap();
        assert_eq!(view.shape(), [picture.height, picture.width, 3], "{name}");
        // Decoders of lossy formats may differ in the last bits.
        let most = match name.rsplit_once('.').unwrap() {
            (_, "jpg") => 3,
            ("lossy", _) => 6,
            _ => 0,
        };
        let worst = picture
            .pixels
            .iter()
            .zip(view.data())
            .map(|(found, wanted)| found.abs_diff(*wanted))
            .max();
        assert!(worst.unwrap() <= most, "{name}: {worst:?}");
    }
}

#[test]
fn what_is_not_read_is_named() {
    let files = files();
    for (file, named) in [
        ("refused.gif", "it is Gif, expected PNG, JPEG or WebP"),
        ("refused_cmyk.jpg", "CMYK"),
    ] {
        let message = decode_picture(&files[file], file).unwrap_err().to_string();
        assert!(
            message.contains(file) && message.contains(named),
            "{message}"
        );
    }
    for (bytes, named) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"[..],
            "git lfs pull",
        ),
        (b"<!DOCTYPE html>", "web page"),
        (b"<svg xmlns=''/>", "SVG"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"", "empty"),
        (b"words", "none of the formats"),
    ] {
        let message = decode_picture(bytes, "x.png").unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    for (name, bytes) in good() {
        for length in 0..bytes.len() {
            // A WebP may be padded to an even length.
            if name.ends_with(".webp") && length + 1 == bytes.len() {
                continue;
            }
            let Err(error) = decode_picture(&bytes[..length], &name) else {
                panic!("{name} cut to {length} of {} bytes was read", bytes.len());
            };
            let message = error.to_string();
            assert!(message.contains(&name), "{message}");
            if length > bytes.len() / 2 {
                assert!(
                    message.contains("ends in the middle of the picture"),
                    "{name}: {message}"
                );
            }
        }
    }
}

#[test]
fn what_follows_a_picture_does_not_matter() {
    for (name, mut bytes) in good() {
        bytes.extend_from_slice(b"trailing bytes of a camera");
        decode_picture(&bytes, &name).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn damage_is_refused_or_read_but_never_a_panic() {
    let mut refused = 0;
    for (name, good) in good() {
        let mut bytes = good.clone();
        for at in 0..good.len() {
            for value in [0, 0xff, good[at] ^ 0x10] {
                bytes[at] = value;
                refused += usize::from(decode_picture(&bytes, &name).is_err());
                if name.ends_with(".png") {
                    let _ = read_png_metadata(&bytes);
                }
            }
            bytes[at] = good[at];
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn damaged_codes_of_a_jpeg_are_refused() {
    let files = good();
    for name in ["baseline.jpg", "progressive.jpg"] {
        let mut bytes = files[name].clone();
        let scan = bytes
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .unwrap();
        // Ones alone are no code; a 255 is written with a zero behind it.
        for pair in bytes[scan + 40..scan + 60].as_chunks_mut::<2>().0 {
            *pair = [0xff, 0];
        }
        let message = match decode_picture(&bytes, name) {
            Ok(_) => panic!("{name} was read"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains("damaged"), "{name}: {message}");
    }
}

#[test]
fn picture_seeds_are_refused() {
    let seeds = folder("../../fuzz/seeds/picture");
    let message = |name: &str| decode_picture(&seeds[name], name).unwrap_err().to_string();
    for name in seeds.keys() {
        assert!(message(name).contains(name.as_str()), "{}", message(name));
        let _ = read_png_metadata(&seeds[name]);
    }
    for (name, reason) in [
        ("cut_jpeg", "ends in the middle"),
        ("cut_webp", "ends in the middle"),
        ("wide_png", "65535x1"),
        ("wide_jpeg", "65500x65500"),
        ("damaged_text", "ends in the middle"),
    ] {
        assert!(message(name).contains(reason), "{}", message(name));
    }
    assert!(read_png_metadata(&seeds["damaged_text"]).is_err());
}

#[test]
fn clip_seeds_are_read_or_refused() {
    let seeds = folder("../../fuzz/seeds/clip");
    for (name, bytes) in &seeds {
        match (name.starts_with("good_"), decode_clip(bytes, name)) {
            (true, read) => assert_eq!(read.unwrap().frames().len(), 2, "{name}"),
            (false, read) => {
                let message = read.unwrap_err().to_string();
                assert!(message.contains(name.as_str()), "{message}");
            }
        }
    }
}
