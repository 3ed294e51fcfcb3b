//! VILA-U's clips, seen and made, against its reference (`reference/vila_u.py`) and against itself.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_media::{Clip, Picture, encode_png};
use brisk_nn::{Tensor, ops};
use brisk_pipelines::families::vila_u::options::{PICTURE, VIDEO};
use brisk_pipelines::options::{Options, keys, text_keys, video_keys};
use brisk_pipelines::request::{GeneratedClip, TextPrompt, TextRequest};
use brisk_pipelines::{
    Control, OpenSettings, ResultKind, TextModel, VideoModel, VideoRequest, registry,
};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, fixtures_dir, values};

const CASES: [&str; 4] = ["base", "wide", "least", "deep_mlp"];
/// Frames of the reference's clips.
const FRAMES: usize = 3;

fn path(case: &str) -> PathBuf {
    fixtures_dir().join("vila_u").join(case)
}

fn filmer(case: &str) -> Box<dyn VideoModel> {
    registry::open_video(&ModelFolder::Disk(path(case)), &OpenSettings::default()).unwrap()
}

fn writer(case: &str) -> Box<dyn TextModel> {
    registry::open_text(&ModelFolder::Disk(path(case)), &OpenSettings::default()).unwrap()
}

fn film(model: &mut dyn VideoModel, request: &VideoRequest) -> GeneratedClip {
    let plan = model.plan(request).unwrap();
    model.generate(&plan, &Control::silent()).unwrap()
}

#[test]
fn greedy_clips_are_those_of_the_reference() {
    for case in CASES {
        let mut golden = Golden::open(&format!("vila_u/{case}/golden_video.safetensors"));
        let guidance = values(&golden.get("inputs.guidance"))[0];
        let request = VideoRequest::new("a red heart")
            .with(&video_keys::FRAMES, FRAMES)
            .with(&keys::GREEDY, true)
            .with(&keys::GUIDANCE, guidance);
        let mut model = filmer(case);
        let plan = model.plan(&request).unwrap();
        assert!(
            plan.warnings[0].contains("clips of 8"),
            "{:?}",
            plan.warnings
        );
        let made = film(&mut *model, &request);
        let [_, _, frames, height, width] = made.latents.shape;
        assert_eq!(frames, FRAMES);
        assert_eq!(plan.steps, frames * height * width);
        let shape = made.latents.shape.to_vec();
        let sums = Tensor::from_vec(made.latents.values, shape).unwrap();
        let sums = sums.squeeze(0).unwrap().permute((1, 2, 3, 0)).unwrap();
        let sums = sums.contiguous().unwrap();
        assert!(golden.compare("outputs.features", &sums, 1e-4), "{case}");
        let shown: Vec<Tensor> = made.clip.frames().iter().map(between).collect();
        let shown = ops::to_nchw(&Tensor::cat(&shown, 0).unwrap()).unwrap();
        assert!(golden.compare("outputs.image", &shown, 0.01), "{case}");
    }
}

/// A frame in 0..1; values are cut down to bytes: off by half of one on average.
fn between(frame: &Picture) -> Tensor {
    let pixels = frame.pixels.iter();
    let pixels = pixels.map(|byte| (f32::from(*byte) + 0.5) / 255.0);
    Tensor::from_vec(pixels.collect(), (1, frame.height, frame.width, 3)).unwrap()
}

#[test]
fn a_clip_is_as_long_and_as_fast_as_the_model_or_the_request_says() {
    let mut model = filmer("least");
    let usual = film(&mut *model, &VideoRequest::new("a red heart"));
    assert_eq!((usual.clip.frames().len(), usual.clip.rate()), (8, 4.0));
    let again = film(&mut *filmer("least"), &VideoRequest::new("a red heart"));
    assert_eq!(again.clip, usual.clip);
    let request = VideoRequest::new("a red heart")
        .with(&keys::SEED, 1)
        .with(&video_keys::FRAME_RATE, 2.0);
    let other = film(&mut *model, &request);
    assert_eq!(other.clip.rate(), 2.0);
    assert_ne!(other.clip.frames(), usual.clip.frames());
}

/// Frames that differ.
fn clip(count: usize) -> Clip {
    let frame =
        |at: usize| Picture::filled(20, 14, [(at * 37 % 256) as u8, (at * 91 % 256) as u8, 9]);
    Clip::new((0..count).map(frame).collect(), 10.0).unwrap()
}

fn question(text: &str) -> TextRequest {
    TextRequest::of(vec![TextPrompt::Question(text.to_owned())])
        .with(&text_keys::TEMPERATURE, 0.0)
        .with(&text_keys::GEN_LENGTH, 6)
}

#[test]
fn a_question_about_a_clip_is_one_about_eight_of_its_frames() {
    let model = writer("wide");
    let write = |request: &TextRequest| {
        let found = model.write(request, &Control::silent()).unwrap().remove(0);
        found.tokens
    };
    let clip = clip(15);
    let frames = (0..8).map(|at| Arc::new(clip.frames()[2 * at].clone()));
    let by_pictures = question("what moves?").with(&PICTURE, frames.collect::<Vec<_>>());
    let by_clip = question("what moves?").with(&VIDEO, Arc::new(clip.clone()));
    let wanted = write(&by_pictures);
    assert_eq!(write(&by_clip), wanted);
    // As a file, and as a folder of its frames.
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("clip.png");
    std::fs::write(&file, clip.encode_apng(&[]).unwrap()).unwrap();
    let folder = place.path().join("frames");
    std::fs::create_dir(&folder).unwrap();
    for (at, frame) in clip.frames().iter().enumerate() {
        let png = encode_png(frame, &[]).unwrap();
        std::fs::write(folder.join(format!("{at:02}.png")), png).unwrap();
    }
    for path in [file, folder] {
        let mut request = question("what moves?");
        let given = path.display().to_string();
        registry::give(&mut request.options, ResultKind::Text, "video", &given).unwrap();
        assert_eq!(write(&request), wanted, "{given}");
    }
    let mut options = Options::new();
    let missing = place.path().join("missing").display().to_string();
    let error = registry::give(&mut options, ResultKind::Text, "video", &missing).unwrap_err();
    assert!(error.to_string().starts_with("video: "), "{error}");
}

#[test]
fn what_cannot_be_served_is_refused_by_name_with_its_numbers() {
    let model = filmer("base");
    let refused = |request: VideoRequest| model.plan(&request).unwrap_err().to_string();
    let request = || VideoRequest::new("a red heart");
    let long = refused(request().with(&video_keys::FRAMES, 5000));
    assert!(
        long.starts_with("frames: 5000") && long.contains("1200 positions"),
        "{long}"
    );
    let most: usize = long.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(
        model
            .plan(&request().with(&video_keys::FRAMES, most))
            .is_ok()
    );
    let more = refused(request().with(&video_keys::FRAMES, most + 1));
    assert!(more.starts_with("frames: "), "{more}");
    let wide = refused(request().with(&video_keys::WIDTH, 64));
    assert!(wide.starts_with("width: 64 pixels"), "{wide}");
    let first = Arc::new(Picture::filled(8, 8, [1, 2, 3]));
    let image = refused(request().with(&video_keys::IMAGE, first.clone()));
    assert!(image.starts_with("image is not available"), "{image}");
    let both = refused(request().with(&keys::GREEDY, true).with(&keys::TOP_K, 5));
    assert!(both.starts_with("top-k: has no effect"), "{both}");
    let request = question("what?").with(&VIDEO, Arc::new(clip(3)));
    let writer = writer("base");
    let error = |request: &TextRequest| writer.plan(request).unwrap_err().to_string();
    let beside = error(&request.clone().with(&PICTURE, vec![first]));
    assert!(
        beside.starts_with("video: ") && beside.contains("`picture`"),
        "{beside}"
    );
    let places = error(&question("is <image> red?").with(&VIDEO, Arc::new(clip(3))));
    assert!(places.contains("8 pictures"), "{places}");
}
