//! Words become masks of their characters, whatever the words are like. The networks are random ones: what is seen here
//! is what is done with a word, not how well.

use std::sync::Arc;

use brisk_media::Picture;
use brisk_pipelines::options::{Options, word_keys};
use brisk_pipelines::request::{FoundWord, GeneratedMasks, MaskModel, Word, WordCharacter};
use brisk_pipelines::{Control, MaskRequest, OpenSettings, registry};
use brisk_store::ModelFolder;
use brisk_testkit::fixtures_dir;

fn model(options: Options) -> Box<dyn MaskModel> {
    let folder = ModelFolder::Disk(fixtures_dir().join("sam/base"));
    registry::open_masks(&folder, &OpenSettings::new(options)).unwrap()
}

fn networks() -> Options {
    Options::new()
        .with(&word_keys::DETECTOR, fixtures_dir().join("craft/base"))
        .with(&word_keys::RECOGNISER, fixtures_dir().join("crnn/base"))
}

fn picture() -> Arc<Picture> {
    let pixels = (0..160 * 100 * 3usize)
        .map(|at| (at * at / 53 % 256) as u8)
        .collect();
    Arc::new(Picture::new(160, 100, pixels).unwrap())
}

fn word(polygon: &[[f64; 2]], text: Option<&str>) -> Word {
    Word {
        polygon: polygon.to_vec(),
        text: text.map(str::to_owned),
        ..Word::default()
    }
}

fn upright([left, top, right, bottom]: [f64; 4], text: Option<&str>) -> Word {
    word(
        &[[left, top], [right, top], [right, bottom], [left, bottom]],
        text,
    )
}

fn find(model: &mut dyn MaskModel, words: Vec<Word>, options: Options) -> GeneratedMasks {
    let request = MaskRequest {
        words: Some(words),
        options,
        ..MaskRequest::new(picture())
    };
    model.find(&request, &Control::silent()).unwrap()
}

fn words(found: &GeneratedMasks) -> &[FoundWord] {
    found.words.as_deref().unwrap()
}

#[test]
fn every_character_has_a_mask_and_no_pixel_is_in_two() {
    let bent = [
        [80.0, 60.0],
        [110.0, 50.0],
        [150.0, 60.0],
        [150.0, 90.0],
        [110.0, 80.0],
        [80.0, 90.0],
    ];
    let given = vec![
        upright([5.0, 5.0, 75.0, 35.0], Some("Ab 1")),
        word(
            &[[90.0, 10.0], [150.0, 30.0], [145.0, 48.0], [85.0, 28.0]],
            Some("turn"),
        ),
        word(&bent, Some("arc")),
    ];
    for options in [Options::new(), networks()] {
        let mut model = model(options);
        let found = find(&mut *model, given.clone(), Options::new());
        let counts: Vec<usize> = words(&found)
            .iter()
            .map(|word| word.characters.len())
            .collect();
        assert_eq!(counts, [3, 4, 3]);
        assert_eq!(found.masks.len(), 10);
        let classes: String = words(&found)[0]
            .characters
            .iter()
            .filter_map(|one| one.class)
            .collect();
        assert_eq!(classes, "Ab1");
        let mut seen = vec![false; 160 * 100];
        for mask in &found.masks {
            for (seen, own) in seen.iter_mut().zip(mask.mask().pixels()) {
                assert!(!(*seen && *own));
                *seen |= own;
            }
        }
        let all: usize = words(&found).iter().map(|word| word.runs.area()).sum();
        assert!(all >= seen.iter().filter(|inside| **inside).count());
    }
}

#[test]
fn a_bad_word_is_flagged_and_the_others_are_found() {
    let mut model = model(Options::new());
    let ignored = Word {
        ignored: true,
        ..upright([10.0, 60.0, 60.0, 80.0], None)
    };
    let given = vec![
        upright([500.0, 5.0, 560.0, 35.0], Some("out")),
        word(
            &[[5.0, 5.0], [60.0, 30.0], [60.0, 5.0], [5.0, 30.0]],
            Some("bow"),
        ),
        upright([20.0, 20.0, 20.0, 40.0], Some("I")),
        upright([70.0, 5.0, 78.0, 13.0], Some("much too long")),
        upright([90.0, 5.0, 91.0, 6.0], Some("i")),
        upright([90.0, 40.0, 150.0, 60.0], Some("漢字")),
        ignored,
        upright([-40.0, 80.0, 60.0, 140.0], Some("edge")),
        upright([100.0, 70.0, 150.0, 95.0], None),
    ];
    let found = find(&mut *model, given, Options::new());
    let flags = |index: usize| {
        let word = &words(&found)[index];
        let of_characters = word.characters.iter().flat_map(|one| &one.flags);
        word.flags
            .iter()
            .chain(of_characters)
            .copied()
            .collect::<Vec<_>>()
            .join("; ")
    };
    for (index, wanted) in [
        (0, "outside of the picture"),
        (1, "outline crosses itself"),
        (2, "outline without area"),
        (3, "text longer than its box holds"),
        (4, "too low"),
        (5, "no letter of a font"),
        (6, "unreadable"),
        (7, "no detector"),
        (8, "no recogniser"),
    ] {
        assert!(flags(index).contains(wanted), "{index}: {}", flags(index));
    }
    assert!(words(&found)[0].characters.is_empty() && words(&found)[2].characters.is_empty());
    assert_eq!(words(&found)[7].characters.len(), 4);
    assert_eq!(words(&found)[6].characters.len(), 1);
}

#[test]
fn given_boxes_are_taken_as_they_are() {
    let mut model = model(Options::new());
    let mut given = upright([5.0, 5.0, 75.0, 35.0], Some("ab"));
    for (text, left) in [("a", 6.0), ("b", 40.0)] {
        let polygon = upright([left, 8.0, left + 20.0, 30.0], None).polygon;
        given.characters.push(WordCharacter {
            text: text.to_owned(),
            polygon,
        });
    }
    let options = Options::new().with(&word_keys::PROMPT, "char-gt".to_owned());
    let found = find(&mut *model, vec![given.clone()], options.clone());
    let quad = words(&found)[0].characters[1].quad;
    assert!((quad[0][0] - 40.0).abs() < 1e-6 && (quad[2][1] - 30.0).abs() < 1e-6);
    given.characters.clear();
    let request = MaskRequest {
        words: Some(vec![given]),
        options,
        ..MaskRequest::new(picture())
    };
    let message = model
        .find(&request, &Control::silent())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("prompt") && message.contains("come with none"),
        "{message}"
    );
}

#[test]
fn another_handle_finds_the_same() {
    let mut model = model(networks());
    let given = vec![upright([5.0, 5.0, 75.0, 35.0], Some("Ab"))];
    let mut other = model.another().unwrap();
    let (one, two) = std::thread::scope(|scope| {
        let (first, second) = (given.clone(), given.clone());
        let one = scope.spawn(move || find(&mut *model, first, Options::new()));
        let two = scope.spawn(move || find(&mut *other, second, Options::new()));
        (one.join().unwrap(), two.join().unwrap())
    });
    let runs = |found: &GeneratedMasks| {
        found
            .masks
            .iter()
            .map(|mask| mask.runs.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(runs(&one), runs(&two));
}

#[test]
fn words_that_cannot_be_found_or_read_are_refused() {
    let auto = |model: &dyn MaskModel, options: Options| {
        let request = MaskRequest {
            options,
            ..MaskRequest::new(picture())
        };
        model
            .plan(&request)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let words = Options::new().with(&word_keys::WORDS, "auto".into());
    let message = auto(&*model(Options::new()), words.clone()).unwrap_err();
    assert!(
        message.contains("words") && message.contains("`detector`"),
        "{message}"
    );
    assert!(auto(&*model(networks()), words).is_ok());
    let message = auto(
        &*model(Options::new()),
        Options::new().with(&word_keys::WORDS, "nowhere.json".into()),
    );
    assert!(message.unwrap_err().contains("nowhere.json"));
    // A network in another's place.
    let folder = ModelFolder::Disk(fixtures_dir().join("sam/base"));
    let wrong = Options::new().with(&word_keys::DETECTOR, fixtures_dir().join("crnn/base"));
    let message = registry::open_masks(&folder, &OpenSettings::new(wrong))
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("detector") && message.contains("another model"),
        "{message}"
    );
}
