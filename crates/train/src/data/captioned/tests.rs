use super::*;
use brisk_media::encode_png;
use brisk_store::ModelFolder;

fn beside(side_files: SideFiles, cut: Cut) -> CaptionedOptions<'static> {
    CaptionedOptions {
        side_files,
        cut,
        scorer: None,
    }
}

fn stripes(width: usize, height: usize) -> Picture {
    let pixel = |at: usize| {
        let (x, y) = (at % width, at / width);
        // The middle square is red, what is cut off is blue.
        let side = width.min(height);
        let inside = (x + side / 2 >= width / 2 && x < width / 2 + side / 2)
            && (y + side / 2 >= height / 2 && y < height / 2 + side / 2);
        if inside { [200, 10, 10] } else { [10, 10, 200] }
    };
    Picture {
        width,
        height,
        pixels: (0..width * height).flat_map(pixel).collect(),
    }
}

#[test]
fn pictures_are_cut_in_the_middle_and_described_by_their_texts() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    for (name, width, height) in [("wide.png", 60, 20), ("tall.PNG", 20, 40)] {
        let png = encode_png(&stripes(width, height), &[]).unwrap();
        std::fs::write(place(name), png).unwrap();
    }
    std::fs::write(place("wide.txt"), "A Wide Thing\r\n\r\nred\n flat \n").unwrap();
    std::fs::write(place("notes.md"), "no picture").unwrap();
    let mut options = PrepareOptions::new(place("data.safetensors"));
    options.size = 8;
    let error = prepare_captioned(
        folder.path(),
        &CaptionedOptions::default(),
        &options,
        &Control::silent(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("tall.txt"), "{error}");
    std::fs::write(place("tall.txt"), "tall").unwrap();
    let report = prepare_captioned(
        folder.path(),
        &CaptionedOptions::default(),
        &options,
        &Control::silent(),
    )
    .unwrap();
    assert_eq!((report.pictures, report.per_set[&PictureSet::Own]), (2, 2));
    let data = PictureData::open(&options.out).unwrap();
    let wide = data
        .entries()
        .iter()
        .position(|entry| entry.name == "a wide thing")
        .unwrap();
    assert_eq!(data.entries()[wide].tags, ["red", "flat"]);
    for index in 0..2 {
        let picture = data.picture(index).unwrap();
        let red = picture
            .pixels
            .chunks(3)
            .filter(|pixel| pixel[0] > 150)
            .count();
        assert!(red >= 56, "{red} of 64 pixels are of the middle");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(
        prepare_captioned(
            empty.path(),
            &CaptionedOptions::default(),
            &options,
            &Control::silent()
        )
        .is_err()
    );
}

#[test]
fn pictures_of_several_shapes_are_kept_apart_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let sizes = [
        ("a", 90, 160),
        ("b", 100, 100),
        ("c", 160, 90),
        ("d", 120, 118),
        ("e", 320, 180),
    ];
    for (name, width, height) in sizes {
        let png = encode_png(&stripes(width, height), &[]).unwrap();
        std::fs::write(place(&format!("{name}.png")), png).unwrap();
        std::fs::write(place(&format!("{name}.txt")), name).unwrap();
    }
    let mut options = PrepareOptions::new(place("data.safetensors"));
    options.size = 50;
    let prepare = |options: &PrepareOptions| {
        let none = SideFiles::default();
        prepare_captioned(
            folder.path(),
            &beside(none.clone(), Cut::AspectBuckets),
            options,
            &Control::silent(),
        )
    };
    let refused = prepare(&options).unwrap_err().to_string();
    assert!(refused.contains("multiple of 32"), "{refused}");
    options.size = 64;
    let report = prepare(&options).unwrap();
    let told: Vec<String> = report
        .shapes
        .iter()
        .map(|(shape, count)| format!("{shape} {count}"))
        .collect();
    assert_eq!(told, ["64x64 2", "64x96 2", "96x64 1"]);
    let data = PictureData::open(&options.out).unwrap();
    let names: Vec<&str> = data
        .entries()
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(names, ["b", "d", "c", "e", "a"]);
    for index in 0..data.len() {
        let (shape, picture) = (data.shape(index).unwrap(), data.picture(index).unwrap());
        assert_eq!((picture.height, picture.width), (shape.height, shape.width));
        let middle = picture.pixel(shape.width / 2, shape.height / 2).unwrap();
        assert!(middle[0] > 150, "{middle:?}");
    }
    assert_eq!(data.side(), None);
    let refused = data.required_side().unwrap_err().to_string();
    assert!(
        refused.contains("3 shapes (64x64, 64x96, 96x64"),
        "{refused}"
    );
    let twice = [options.out.clone(), options.out.clone()];
    let twice = PictureData::open_all(&twice).unwrap();
    assert_eq!(twice.len(), 10);
    assert_eq!(twice.picture(9), data.picture(4));
}

#[test]
fn captions_get_scores_of_clip() {
    let (folder, options) = one();
    let said = r#"{"a": {"one": "an apple pie", "two": "Words about nothing"}}"#;
    std::fs::write(folder.path().join("a_said.json"), said).unwrap();
    let model = ModelFolder::Disk(brisk_testkit::fixtures_dir().join("clip/model"));
    let scorer = Scorer::open(&model, &Default::default()).unwrap();
    let prepare = |least_score| {
        let captioned = CaptionedOptions {
            side_files: SideFiles {
                captions: vec!["_said".to_owned()],
                scores: Vec::new(),
                least_score,
            },
            scorer: Some(&scorer),
            ..CaptionedOptions::default()
        };
        prepare_captioned(folder.path(), &captioned, &options, &Control::silent())
    };
    prepare(None).unwrap();
    let data = PictureData::open(&options.out).unwrap();
    let scored = &data.entries()[0].captions;
    let mut texts: Vec<&str> = scored.iter().map(|one| one.text.as_str()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["an apple", "an apple pie", "words about nothing"]);
    assert!(scored.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let picture = data.picture(0).unwrap();
    let again = scorer
        .scores(&[picture], &[&scored[0].text], &Control::silent())
        .unwrap();
    assert!((f64::from(again[0][0]) - scored[0].score).abs() < 1e-3);
    let refused = prepare(Some(scored[0].score + 1.0))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("best score is below"), "{refused}");
}

/// A folder of one picture and its text.
fn one() -> (tempfile::TempDir, PrepareOptions) {
    let folder = tempfile::tempdir().unwrap();
    let png = encode_png(&stripes(9, 9), &[]).unwrap();
    std::fs::write(folder.path().join("a.png"), png).unwrap();
    std::fs::write(folder.path().join("a.TXT"), "an apple").unwrap();
    let mut options = PrepareOptions::new(folder.path().join("data.safetensors"));
    options.size = 8;
    (folder, options)
}

#[test]
fn files_of_no_use_are_told_once() {
    let (folder, options) = one();
    for name in ["b.txt", "c.gif", ".hidden"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    std::fs::create_dir(folder.path().join("more")).unwrap();
    // The second time its own output lies there.
    for _ in 0..2 {
        let (sender, receiver) = std::sync::mpsc::channel();
        let control = Control::new(move |event| {
            if let brisk_pipelines::Event::Warning(text) = event {
                sender.send(text).unwrap();
            }
        });
        prepare_captioned(
            folder.path(),
            &CaptionedOptions::default(),
            &options,
            &control,
        )
        .unwrap();
        drop(control);
        let warnings: Vec<String> = receiver.iter().collect();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("files and folders left out: 3,"),
            "{warnings:?}"
        );
    }
}

#[test]
fn pictures_are_not_written_over() {
    let (folder, mut options) = one();
    for name in ["a.png", "a.TXT"] {
        options.out = folder.path().join(name);
        let error = prepare_captioned(
            folder.path(),
            &CaptionedOptions::default(),
            &options,
            &Control::silent(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("is the input"), "{error}");
    }
    assert!(read_picture(&folder.path().join("a.png")).is_ok());
}

#[cfg(unix)]
#[test]
fn pipes_are_not_waited_for() {
    for name in ["b.png", "a.txt"] {
        let (folder, options) = one();
        let pipe = folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let error = prepare_captioned(
            folder.path(),
            &CaptionedOptions::default(),
            &options,
            &Control::silent(),
        )
        .unwrap_err();
        let error = error.to_string();
        assert!(error.contains(name) && error.contains("pipe"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_named() {
    let (folder, options) = one();
    std::os::unix::fs::symlink("nowhere", folder.path().join("b.png")).unwrap();
    std::fs::write(folder.path().join("b.txt"), "x").unwrap();
    let error = prepare_captioned(
        folder.path(),
        &CaptionedOptions::default(),
        &options,
        &Control::silent(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("b.png"), "{error}");
}

/// A tar file of members.
fn shard(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    std::fs::write(path, builder.into_inner().unwrap()).unwrap();
}

#[test]
fn shards_and_files_beside_them_give_captions_with_scores() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let png = encode_png(&stripes(9, 9), &[]).unwrap();
    let json = br#"{"prompt": "A Dog", "height": 9, "width": 9, "short": "dog"}"#;
    shard(
        &place("00.tar"),
        &[
            ("a/0001.png", &png),
            ("a/0001.json", json),
            ("a/0001.cls", b"7"),
            ("a/0002.txt", b"cat\nstriped"),
            ("a/0002.jpg", &png),
            ("a/0003.json", br#"{"prompt": "blurred"}"#),
            ("a/0003.png", &png),
        ],
    );
    let write = |name: &str, text: &str| std::fs::write(place(name), text).unwrap();
    write(
        "00_long.json",
        r#"{"a/0001": {"long": "A dog on grass", "none": null}}"#,
    );
    write(
        "00_score.json",
        r#"{"a/0001": {"short": "27.5", "long": 31, "unknown": 40}, "a/0003": {"prompt": 20}}"#,
    );
    std::fs::write(place("own.png"), &png).unwrap();
    write("own.txt", "own");
    write("own_long.json", r#"{"own": {"long": "my own"}}"#);
    write("own_score.json", r#"{"own": {"long": 26}}"#);
    let side_files = SideFiles {
        captions: vec!["_long".to_owned()],
        scores: vec!["_score".to_owned()],
        least_score: Some(22.0),
    };
    let mut options = PrepareOptions::new(place("data.safetensors"));
    options.size = 8;
    let (sender, receiver) = std::sync::mpsc::channel();
    let control = Control::new(move |event| {
        if let brisk_pipelines::Event::Warning(text) = event {
            sender.send(text).unwrap();
        }
    });
    let report = prepare_captioned(
        folder.path(),
        &beside(side_files.clone(), Cut::Square),
        &options,
        &control,
    )
    .unwrap();
    drop(control);
    let warnings: Vec<String> = receiver.iter().collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("0001.cls"),
        "{warnings:?}"
    );
    assert_eq!((report.pictures, report.low_scores), (3, 1));
    let data = PictureData::open(&options.out).unwrap();
    let of = |entry: &PictureEntry| {
        let scored = entry.captions.iter();
        let scored: Vec<(String, f64)> = scored.map(|one| (one.text.clone(), one.score)).collect();
        (entry.hexcode.clone(), entry.name.clone(), scored)
    };
    let found: Vec<_> = data.entries().iter().map(of).collect();
    let scored = |text: &str, score: f64| (text.to_owned(), score);
    assert_eq!(
        found,
        [
            (
                "own.png".to_owned(),
                "own".to_owned(),
                vec![scored("my own", 26.0)]
            ),
            (
                "00.tar/a/0001".to_owned(),
                "a dog".to_owned(),
                vec![scored("a dog on grass", 31.0), scored("dog", 27.5)],
            ),
            ("00.tar/a/0002".to_owned(), "cat".to_owned(), Vec::new()),
        ]
    );
    assert_eq!(data.entries()[2].tags, ["striped"]);
    let none = SideFiles {
        least_score: Some(99.0),
        ..side_files
    };
    std::fs::remove_file(place("00.tar")).unwrap();
    let error = prepare_captioned(
        folder.path(),
        &beside(none.clone(), Cut::Square),
        &options,
        &Control::silent(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("below 99"), "{error}");
}

#[test]
fn shards_that_cannot_be_read_are_named() {
    let png = encode_png(&stripes(9, 9), &[]).unwrap();
    let refused = |members: &[(&str, &[u8])], cut: usize, words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00.tar");
        shard(&path, members);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        let mut options = PrepareOptions::new(folder.path().join("data.safetensors"));
        options.size = 8;
        let none = SideFiles::default();
        let error = prepare_captioned(
            folder.path(),
            &beside(none.clone(), Cut::Square),
            &options,
            &Control::silent(),
        );
        let error = error.unwrap_err().to_string();
        for word in words.iter().chain(&["00.tar"]) {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(!options.out.exists());
    };
    refused(&[("1.png", &png)], 0, &["1", "neither a .txt"]);
    refused(
        &[("1.png", &png), ("1.json", b"[]")],
        0,
        &["1.json", "object"],
    );
    refused(
        &[("1.npy", b"x"), ("1.png", &png)],
        0,
        &["1.npy", "latents"],
    );
    refused(&[("1.txt", b"x"), ("1.png", b"no picture")], 0, &["1.png"]);
    refused(&[("1.txt", b"x"), ("1.png", &png)], 1400, &["tar"]);
}
