use super::*;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;

/// A folder with tiny packages: a heart, an arrow to the right that is a mirrored alias, a second name for the
/// heart's drawing, a skin tone, and a variant with skin tone.
fn packages() -> (tempfile::TempDir, EmojiSources) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: Value| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    };
    write(
        "base/meta/groups.json",
        json!({"groups": {"2": "component", "8": "symbols"}}),
    );
    write(
        "base/en/data.json",
        json!([
            {"label": "Red Heart", "hexcode": "2764-FE0F", "tags": ["love"], "group": 8},
            {"label": "right arrow", "hexcode": "27A1", "group": 8, "skins": [{"hexcode": "27A1-1F3FB"}]},
            {"label": "heart suit", "hexcode": "2665", "tags": [], "group": 8},
            {"label": "light skin tone", "hexcode": "1F3FB", "group": 2},
            {"label": "regional indicator A", "hexcode": "1F1E6"},
            {"label": "not drawn", "hexcode": "1F4A9", "group": 8}
        ]),
    );
    let red = "<path fill=\"#f00\" d=\"M0 0h10v10H0z\"/>";
    let left = "<path fill=\"#00f\" d=\"M0 0h5v10H0z\"/>";
    write(
        "noto/icons.json",
        json!({"width": 10, "height": 10,
            "icons": {"red-heart": {"body": red}, "suit": {"body": red}, "left": {"body": left},
                "tone": {"body": left}, "wide": {"body": left, "width": 20}},
            "aliases": {"right": {"parent": "left", "hFlip": true}}}),
    );
    write(
        "noto/chars.json",
        json!({"2764": "red-heart", "27a1": "right", "2665": "suit", "1f3fb": "tone", "1f1e6": "tone",
            "27a1-1f3fb": "left"}),
    );
    let sources = EmojiSources {
        noto: folder.path().join("noto"),
        fluent: None,
        twemoji: None,
        emojibase: folder.path().join("base"),
    };
    (folder, sources)
}

#[test]
fn renders_and_reads_back() {
    let (folder, sources) = packages();
    let options = PrepareOptions {
        size: 50,
        out: folder.path().join("out.safetensors"),
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let control = Control::new(move |event| {
        if let brisk_pipelines::Event::Step { index, total, .. } = event {
            sender.send((index, total)).unwrap();
        }
    });
    let report = prepare(&sources, &options, &control).unwrap();
    drop(control);
    let calls: Vec<_> = receiver.iter().collect();
    assert_eq!(report.pictures, 2);
    assert_eq!(
        report.duplicates, 1,
        "the heart suit looks like the red heart"
    );
    assert_eq!(report.per_set, BTreeMap::from([(PictureSet::Noto, 2)]));
    assert_eq!(calls, [(3, 3)]);

    let data = PictureData::open(&options.out).unwrap();
    assert_eq!((data.len(), data.side()), (2, Some(50)));
    let heart = &data.entries()[0];
    assert_eq!(
        (
            heart.name.as_str(),
            heart.hexcode.as_str(),
            heart.group.as_str()
        ),
        ("red heart", "2764", "symbols")
    );
    assert_eq!(heart.tags, ["love"]);
    let picture = data.picture(0).unwrap();
    assert_eq!(picture.pixel(25, 25), Some([255, 0, 0]));
    assert_eq!(picture.pixel(0, 25), Some([255; 3]), "a margin is left");
    assert_eq!(
        picture.pixel(2, 25),
        Some([255, 0, 0]),
        "and it is 4 % wide"
    );
    let arrow = data.picture(1).unwrap();
    assert_eq!(arrow.pixel(10, 25), Some([255; 3]), "the alias is mirrored");
    assert_eq!(arrow.pixel(40, 25), Some([0, 0, 255]));
    assert!(data.picture(2).is_none());
}

#[test]
fn broken_sources_are_errors_that_name_the_file() {
    let (folder, mut sources) = packages();
    let options = PrepareOptions::new(folder.path().join("out.safetensors"));
    let fails = |sources: &EmojiSources, options: &PrepareOptions| {
        prepare(sources, options, &Control::silent())
            .unwrap_err()
            .to_string()
    };
    assert!(
        fails(
            &sources,
            &PrepareOptions {
                size: 4,
                ..options.clone()
            }
        )
        .contains("4 pixels")
    );
    let icons = folder.path().join("noto/icons.json");
    let good = std::fs::read_to_string(&icons).unwrap();
    let circle = good
        .replace("\"parent\":\"left\"", "\"parent\":\"right\"")
        .replace("\"left\"", "\"gone\"");
    std::fs::write(&icons, circle).unwrap();
    assert!(fails(&sources, &options).contains("circle"));
    std::fs::write(&icons, good.replace("<path", "<image")).unwrap();
    assert!(fails(&sources, &options).contains("<image>"));
    std::fs::write(&icons, "{").unwrap();
    assert!(fails(&sources, &options).contains("icons.json"));
    sources.emojibase = folder.path().join("nowhere");
    assert!(fails(&sources, &options).contains("groups.json"));
    assert!(!options.out.exists(), "nothing is written on failure");
}
