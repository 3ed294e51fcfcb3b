//! Codes of several scales, in and out of the verb that draws.

use brisk_media::Picture;
use brisk_pipelines::{EvaluationPictures, NamedPicture};
use brisk_testkit::{load_tensors, values};

use crate::harness::{Place, fixture};

#[test]
fn codes_of_every_picture_are_kept_and_taken_back() {
    let (place, model) = (Place::new(), fixture("hart_pipeline/model"));
    let image = ["image", "--model", &model, "--no-smooth", "--no-residual"];
    let draw = |more: &[&str]| place.ok(&[&image[..], more].concat());
    let saved = [
        "--save-codes",
        "codes.safetensors",
        "-o",
        "two.png",
        "--json",
    ];
    let two = [&["a red heart", "--images", "2", "--seed", "3"], &saved[..]].concat();
    let json = draw(&two).json();
    assert_eq!(json["codes"], "codes.safetensors");
    // One tensor a scale, one row a picture.
    let codes = load_tensors(place.path("codes.safetensors"));
    for (scale, codes) in (0..codes.len()).map(|scale| (scale, &codes[&format!("codes.{scale}")])) {
        let [pictures, places] = codes.dims() else {
            panic!("codes.{scale} has shape {:?}", codes.dims())
        };
        assert_eq!((*pictures, places.isqrt().pow(2)), (2, *places));
    }
    let first = values(&codes["codes.1"]);
    let (own, other) = first.split_at(first.len() / 2);
    assert_ne!(own, other, "each picture has its own");
    // Drawn again, they are the same; taken back, they are only decoded.
    let alone = [
        "a red heart",
        "--seed",
        "4",
        "--save-codes",
        "second.safetensors",
        "-o",
        "second.png",
    ];
    draw(&alone);
    let second = values(&load_tensors(place.path("second.safetensors"))["codes.1"]);
    assert_eq!(second, other);
    draw(&["x", "--codes", "second.safetensors", "-o", "again.png"]);
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert!(read("second.png") == read("again.png"));

    let sana = [
        "image",
        "red heart",
        "--steps",
        "1",
        "--save-codes",
        "no.safetensors",
        "-o",
        "no.png",
    ];
    place.fails(2, &["--save-codes", "without codes"], &sana);
    let wrong = ["a", "--save-codes", "codes.json", "-o", "no.png"];
    place.fails(
        2,
        &["--save-codes", "codes.json"],
        &[&image[..], &wrong].concat(),
    );
    assert!(!place.path("no.png").exists() && !place.path("no.safetensors").exists());
}

#[test]
fn a_model_is_measured_by_pictures_that_fit_it() {
    let place = Place::new();
    let model = place.copy("hart_pipeline/model", "model");
    let reproduce = ["reproduce", "hart", "--model", "model"];
    let words = ["evaluation_pictures.json", "brisk train image"];
    place.fails(1, &words, &reproduce);
    let named = |side: usize| NamedPicture {
        prompt: "a red heart".to_owned(),
        picture: Picture::filled(side, side, [9; 3]),
    };
    for (trained, held_out, words) in [
        (
            vec![named(12)],
            vec![named(12)],
            &["12 pixels", "draws 10"][..],
        ),
        (vec![named(10)], Vec::new(), &["held_out"]),
    ] {
        let pictures = EvaluationPictures { trained, held_out };
        for (name, bytes) in pictures.to_files().unwrap() {
            std::fs::write(model.join(name), bytes).unwrap();
        }
        place.fails(
            1,
            &[words, &["evaluation_pictures.png"]].concat(),
            &reproduce,
        );
    }
}
