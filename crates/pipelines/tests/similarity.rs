//! Judges that compare pictures with texts: CLIP against scores by transformers' tokenizer, picture processor and model.

use brisk_media::Picture;
use brisk_pipelines::families::similarity::Scorer;
use brisk_pipelines::judging::Judge;
use brisk_pipelines::options::Options;
use brisk_pipelines::{Control, OpenSettings, registry};
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};
use brisk_testkit::fixtures_dir;

fn folder() -> ModelFolder {
    ModelFolder::Disk(fixtures_dir().join("clip/model"))
}

fn pictures(golden: &SafetensorsFile) -> Vec<Picture> {
    let picture = |index: usize| {
        let view = golden
            .view(&format!("inputs.pictures.{index}"))
            .unwrap()
            .unwrap();
        Picture::new(view.shape[1], view.shape[0], view.data.to_vec()).unwrap()
    };
    (0..3).map(picture).collect()
}

#[test]
fn scores_are_those_of_the_reference() {
    let file = |name: &str| fixtures_dir().join("clip/model").join(name);
    let golden = SafetensorsFile::open(&file("golden_scores.safetensors")).unwrap();
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file("prompts.json")).unwrap()).unwrap();
    let prompts = said["prompts"].as_array().unwrap().iter();
    let prompts: Vec<&str> = prompts.map(|prompt| prompt.as_str().unwrap()).collect();
    let pictures = pictures(&golden);
    let mut scorer = Scorer::open(&folder(), &OpenSettings::default()).unwrap();
    let control = Control::silent();
    let scores = scorer.scores(&pictures, &prompts, &control).unwrap();
    let wanted = golden.view("outputs.scores").unwrap().unwrap();
    assert_eq!(wanted.shape, [pictures.len(), prompts.len()]);
    let wanted = wanted.to_f32().unwrap();
    for (found, wanted) in scores.concat().iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1e-2, "{scores:?} {wanted:?}");
    }
    assert!(scorer.scores(&[], &prompts, &control).unwrap().is_empty());

    let judged = scorer.judge(prompts[0], &pictures, &control).unwrap();
    let by_judge: Vec<f64> = judged.iter().map(|one| one.score).collect();
    let column: Vec<f64> = scores.iter().map(|row| f64::from(row[0])).collect();
    assert_eq!(by_judge, column);
    assert!(!scorer.decides());
}

#[test]
fn it_is_opened_as_a_judge_and_as_nothing_else() {
    let settings = OpenSettings::new(Options::new());
    let judge = registry::open_judge(&folder(), &settings, None).unwrap();
    assert!(judge.name().ends_with("model"));
    let asked = registry::open_judge(&folder(), &settings, Some("is it {prompt}?".into()));
    let refused = asked.err().unwrap().to_string();
    assert!(refused.contains("judge-template"), "{refused}");
    let refused = registry::open_image(&folder(), &settings)
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("judgements of pictures"), "{refused}");
}

#[test]
fn a_preparation_for_other_pictures_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures_dir().join("clip/model")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, place.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(
        place.path().join("preprocessor_config.json"),
        r#"{"size": 224}"#,
    )
    .unwrap();
    let model = ModelFolder::Disk(place.path().to_owned());
    let refused = Scorer::open(&model, &OpenSettings::default())
        .err()
        .unwrap();
    let refused = refused.to_string();
    assert!(
        refused.contains("preprocessor_config.json") && refused.contains("12 pixels"),
        "{refused}"
    );
}
