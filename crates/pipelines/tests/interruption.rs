//! Jobs that are stopped anywhere, and jobs that compute in turn.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use brisk_nn::{Checkpoint, with_checkpoint};
use brisk_pipelines::events::Work;
use brisk_pipelines::options::{Options, keys, text_keys};
use brisk_pipelines::{
    Control, Error, Event, ImageModel, ImageRequest, OpenSettings, RandomWeights, Result,
    TextModel, TextPrompt, TextRequest, Turns, registry,
};
use brisk_store::ModelFolder;
use brisk_testkit::fixtures_dir;

/// Counts the questions, and answers one of them with no.
struct Counter {
    asked: AtomicUsize,
    no_at: usize,
}

impl Counter {
    fn no_at(no_at: usize) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            no_at,
        })
    }
}

impl Checkpoint for Counter {
    fn go_on(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) != self.no_at
    }
}

/// Stops `work` at several places, after which it gives what it gave before.
fn stops_anywhere<T: PartialEq>(label: &str, mut work: impl FnMut(&Control) -> Result<T>) {
    let silent = Control::silent();
    let counter = Counter::no_at(usize::MAX);
    let whole = with_checkpoint(counter.clone(), || work(&silent)).unwrap();
    let asked = counter.asked.load(Ordering::Relaxed);
    assert!(asked > 50, "{label}: {asked} operations");
    for no_at in [0, asked / 7, asked / 2, asked - asked / 10 - 1] {
        let stopped = with_checkpoint(Counter::no_at(no_at), || work(&silent));
        assert!(
            matches!(stopped, Err(Error::Cancelled)),
            "{label}: at {no_at} of {asked}: {:?}",
            stopped.err()
        );
    }
    assert!(work(&silent).unwrap() == whole, "{label}: after all that");
}

fn image_model(name: &str) -> Box<dyn ImageModel> {
    let folder = ModelFolder::Disk(fixtures_dir().join(name));
    registry::open_image(&folder, &OpenSettings::default()).unwrap()
}

fn text_model(name: &str) -> Box<dyn TextModel> {
    let folder = ModelFolder::Disk(fixtures_dir().join(name));
    let options = Options::new().with(&text_keys::WITHOUT_TOKENIZER, true);
    registry::open_text(&folder, &OpenSettings::new(options)).unwrap()
}

/// The pixels of every picture.
fn draw(
    model: &mut dyn ImageModel,
    request: &ImageRequest,
    control: &Control,
) -> Result<Vec<Vec<u8>>> {
    let images = model.draw(request, control)?;
    Ok(images
        .into_iter()
        .map(|image| image.picture.pixels)
        .collect())
}

fn small_sana() -> ImageRequest {
    ImageRequest::new("a red circle")
        .with(&keys::WIDTH, 64)
        .with(&keys::HEIGHT, 64)
        .with(&keys::STEPS, 2)
}

#[test]
fn pictures_stop_at_any_operation() {
    for (name, request) in [
        ("pipelines/sana", small_sana()),
        ("pipelines/sprint", small_sana()),
        ("hart_pipeline/model", ImageRequest::new("a red heart")),
        ("vila_u/base", ImageRequest::new("a red heart")),
    ] {
        let mut model = image_model(name);
        stops_anywhere(name, |control| {
            // Loading is stopped too.
            model.release();
            draw(&mut *model, &request, control)
        });
    }
}

#[test]
fn texts_stop_at_any_operation() {
    for name in ["language_models/llada_0", "language_models/sdar_0"] {
        let model = text_model(name);
        let request = TextRequest::of(vec![TextPrompt::Tokens(vec![3, 9, 27])])
            .with(&text_keys::GEN_LENGTH, 16);
        stops_anywhere(name, |control| {
            let texts = model.write(&request, control)?;
            Ok(texts
                .into_iter()
                .map(|text| text.tokens)
                .collect::<Vec<_>>())
        });
    }
}

/// Pictures and texts of several threads come out as alone, whoever computes in between.
#[test]
fn jobs_in_turn_give_what_they_give_alone() {
    let request = small_sana().with(&keys::STEPS, 6);
    let alone = draw(
        &mut *image_model("pipelines/sana"),
        &request,
        &Control::silent(),
    )
    .unwrap();
    let question =
        TextRequest::of(vec![TextPrompt::Tokens(vec![5, 8, 7])]).with(&text_keys::GEN_LENGTH, 32);
    let text = text_model("language_models/llada_0");
    let written = text.write(&question, &Control::silent()).unwrap();
    let turns = Arc::<Turns>::default();
    let control = || Control::silent().with_turns(turns.clone());
    std::thread::scope(|scope| {
        let drawing: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| draw(&mut *image_model("pipelines/sana"), &request, &control()))
            })
            .collect();
        for _ in 0..4 {
            assert_eq!(text.write(&question, &control()).unwrap(), written);
        }
        for drawn in drawing {
            assert!(drawn.join().unwrap().unwrap() == alone);
        }
    });
    assert_eq!(turns.waiting(), 0);
}

/// Picture i of n has the seed + i, and is the picture that it gives alone.
#[test]
fn a_picture_is_drawn_by_its_own_seed() {
    for name in ["pipelines/sana", "pipelines/sprint"] {
        let mut model = image_model(name);
        let mut many = small_sana().with(&keys::IMAGES, 2).with(&keys::SEED, 40);
        many.prompts.push("two blue squares".to_owned());
        let plan = model.plan(&many).unwrap();
        let together = model.generate(&plan, &Control::silent()).unwrap();
        for (index, image) in together.iter().enumerate() {
            assert_eq!(image.seed, 40 + index as u64);
            assert_eq!(plan.images[index].seed, image.seed);
            let described = plan.describe(index);
            assert_eq!(described["seed"], image.seed);
            assert_eq!(
                (&described["index"], &described["images"]),
                (&0.into(), &1.into())
            );
            let alone = small_sana().with(&keys::SEED, image.seed);
            let alone = ImageRequest {
                prompts: vec![image.prompt.clone()],
                ..alone
            };
            let alone = model.draw(&alone, &Control::silent()).unwrap();
            let pairs = alone[0].picture.pixels.iter().zip(&image.picture.pixels);
            // Products of more rows may round differently in their last bits.
            let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(1), "{name} {index}: {worst:?}");
        }
        assert_ne!(together[0].picture, together[1].picture);
        // One generator gives the first picture that noise, and the second another.
        let option = registry::option(brisk_pipelines::ResultKind::Pictures, "one-generator");
        many.options.read(option.unwrap(), "true").unwrap();
        let plan = model.plan(&many).unwrap();
        let stream = model.generate(&plan, &Control::silent()).unwrap();
        assert_eq!(stream[1].seed, 40);
        assert_ne!(stream[1].picture, together[1].picture);
        let described = plan.describe(1);
        assert_eq!(
            (&described["index"], &described["images"]),
            (&1.into(), &4.into())
        );
        assert_eq!(described["one_generator"], true);
    }
}

/// How long after the flag is set a run ends, in every stage of a request at a published shape.
///
/// `cargo test --release -p brisk-pipelines --test interruption -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes and gigabytes"]
#[allow(clippy::print_stdout)] // what it measures
fn published_shapes_stop_within_a_second() {
    let configs = fixtures_dir().join("../bench/configs/sana-0.6b");
    let settings = OpenSettings {
        random: Some(RandomWeights {
            seed: 1,
            storage: brisk_nn::Storage::Bf16,
            low_bit: false,
        }),
        ..OpenSettings::default()
    };
    let mut model = registry::open_image(&ModelFolder::Disk(configs), &settings).unwrap();
    let request = ImageRequest::new("a red heart").with(&keys::STEPS, 2);
    let mut worst = Vec::new();
    for (name, work, delays) in [
        ("text encoder", Work::Load, [50, 400, 900]),
        ("text", Work::Run, [10, 200, 500]),
        ("transformer", Work::Load, [50, 200, 400]),
        ("denoise", Work::Run, [100, 900, 2500]),
        ("decode", Work::Run, [100, 2000, 5000]),
    ] {
        for delay in delays {
            let set = Arc::new(Mutex::new(None));
            let flag = Arc::new(AtomicBool::new(false));
            let (told, stop) = (set.clone(), flag.clone());
            let control = Control::new(move |event| {
                let Event::Stage {
                    name: stage,
                    work: done,
                    ..
                } = event
                else {
                    return;
                };
                if (stage, done) == (name, work) {
                    let (told, stop) = (told.clone(), stop.clone());
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(delay));
                        *told.lock().unwrap() = Some(Instant::now());
                        stop.store(true, Ordering::Relaxed);
                    });
                }
            })
            .with_cancel(flag);
            let ended = model.draw(&request, &control);
            let now = Instant::now();
            match (ended, *set.lock().unwrap()) {
                (Err(Error::Cancelled), Some(set)) => {
                    let seconds = (now - set).as_secs_f64();
                    println!("{name} {work:?} after {delay} ms: {seconds:.3} s");
                    worst.push(seconds);
                }
                (ended, _) => {
                    println!("{name} {work:?}: over before {delay} ms, {:?}", ended.err())
                }
            }
            if work == Work::Load {
                model.release();
            }
        }
    }
    assert!(worst.iter().all(|seconds| *seconds < 1.0), "{worst:?}");
}
