//! Clips, through the verbs.

use brisk_media::{Picture, decode_clip, psnr, read_picture};
use brisk_pipelines::{EvaluationClips, KnownClip};

use crate::harness::{Place, fixture};

/// Two steps of five small frames.
const SMALL: [&str; 8] = [
    "--frames", "5", "--width", "32", "--height", "32", "--steps", "2",
];

fn clip(place: &Place, name: &str) -> brisk_media::Clip {
    decode_clip(&std::fs::read(place.path(name)).unwrap(), name).unwrap()
}

#[test]
fn a_text_becomes_a_clip_in_every_format() {
    let (place, model) = (Place::new(), fixture("pipelines/hunyuan_video_text"));
    let video = [
        &["video", "a red heart jumps", "--model", &model][..],
        &SMALL,
    ]
    .concat();
    place.ok(&video);
    let more = [
        "-o",
        "heart.png",
        "--strip",
        "strip.png",
        "--save-latents",
        "l.safetensors",
        "--json",
    ];
    let told = place.ok(&[&video[..], &more].concat()).json();
    assert_eq!(
        (&told["frames_written"], &told["width"]),
        (&5.into(), &32.into())
    );
    assert_eq!(told["prompt"], "a red heart jumps");
    place.ok(&[&video[..], &["-o", "frames"]].concat());
    // Of 256 colours each, and of all.
    let (palette, whole) = (clip(&place, "brisk.gif"), clip(&place, "heart.png"));
    assert_eq!((palette.frames().len(), whole.frames().len()), (5, 5));
    let second = read_picture(&place.path("frames/0001.png")).unwrap();
    assert_eq!(second, whole.frames()[1]);
    assert!(read_picture(&place.path("strip.png")).unwrap().width > 5 * 32);
    // The same noise makes the same clip.
    let inspected = place.ok(&["inspect", "heart.png", "--json"]).stdout;
    assert!(inspected.contains("a red heart jumps"), "{inspected}");
    // Nothing temporary stays.
    let names = std::fs::read_dir(place.path("")).unwrap();
    assert_eq!(names.count(), 5);
}

#[test]
fn the_first_frame_is_given_or_drawn() {
    let (place, model) = (Place::new(), fixture("pipelines/hunyuan_video_replace"));
    let drawer = fixture("pipelines/sprint");
    let video = [
        &["video", "a red heart jumps", "--model", &model][..],
        &SMALL,
    ]
    .concat();
    let first = fixture("pipelines/hunyuan_video_replace/first.png");
    place.ok(&[&video[..], &["--image", &first, "-o", "given.png"]].concat());
    place.ok(&[&video[..], &["--image-model", &drawer, "-o", "drawn.png"]].concat());
    assert_ne!(clip(&place, "given.png"), clip(&place, "drawn.png"));
}

#[test]
fn windows_follow_one_another() {
    let (place, model) = (Place::new(), fixture("pipelines/hunyuan_video_replace"));
    let first = fixture("pipelines/hunyuan_video_replace/first.png");
    let video = [
        "video",
        "a red heart jumps",
        "--model",
        &model,
        "--image",
        &first,
    ];
    let video = [&video[..], &SMALL].concat();
    let windows = [
        "--windows",
        "3",
        "--overlap",
        "1",
        "-o",
        "long.png",
        "--strip",
        "strip.png",
    ];
    let told = place
        .ok(&[&video[..], &windows, &["--json"]].concat())
        .json();
    assert_eq!(told["frames_written"], 5 + 4 + 4 - 2);
    assert_eq!(clip(&place, "long.png").frames().len(), 11);
    // Every fourth frame begins a run, and the last ends the clip.
    let drift = place
        .ok(&["eval", "drift", "long.png", "--every", "4", "--json"])
        .json();
    let frames = drift["drift"].as_array().unwrap();
    let numbers: Vec<u64> = frames
        .iter()
        .filter_map(|one| one["frame"].as_u64())
        .collect();
    assert_eq!(numbers, [4, 8, 10]);
    assert!(drift["most"]["features"].as_f64().unwrap() > 0.0, "{drift}");
    let shown = place.ok(&["eval", "drift", "long.png"]).stdout;
    assert!(
        shown.contains("contrast") && shown.contains("most"),
        "{shown}"
    );
    place.fails(
        2,
        &["strip.png", "one frame"],
        &["eval", "drift", "strip.png"],
    );
    place.fails(
        2,
        &["--every"],
        &["eval", "drift", "long.png", "--every", "0"],
    );
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 2);
    for (words, more) in [
        (
            &["--overlap", "fewer"][..],
            &["--windows", "2", "--overlap", "4", "-o", "a.gif"][..],
        ),
        (&["--windows", "--output"], &["--windows", "2"]),
        (&["--overlap", "--windows"], &["--overlap", "2"]),
        (
            &["--save-latents"],
            &[
                "--windows",
                "2",
                "-o",
                "a.gif",
                "--save-latents",
                "l.safetensors",
            ],
        ),
    ] {
        place.fails(2, words, &[&video[..], more].concat());
    }
}

#[test]
fn a_model_is_measured_by_the_clips_that_it_brings() {
    let place = Place::new();
    let model = place.copy("pipelines/hunyuan_video_replace", "model");
    let usual = r#"{"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 1, "guidance_scale": 1.0}"#;
    std::fs::write(model.join("generation_config.json"), usual).unwrap();
    let eval = ["eval", "video", "--model", "model"];
    let reproduce = ["reproduce", "magic141", "--model", "model"];
    let with_teacher = [&reproduce[..], &["--beside", "model"]].concat();
    place.fails(2, &["evaluation_clips.json", "--npm"], &eval);
    let words = ["evaluation_clips.json", "brisk distill dmd"];
    place.fails(1, &words, &with_teacher);
    let write = |side: usize, motion: &str| {
        let clips = (0..50).map(|index| KnownClip {
            caption: "a red heart jumps".to_owned(),
            motion: motion.to_owned(),
            held_out: index % 2 == 0,
            frames: vec![Picture::filled(side, side, [index, 7, 9]); 5],
        });
        for (name, bytes) in EvaluationClips(clips.collect()).to_files().unwrap() {
            std::fs::write(model.join(name), bytes).unwrap();
        }
    };
    write(16, "jumps");
    place.fails(1, &["16x16", "draws 32x32"], &with_teacher);
    write(32, "hops");
    place.fails(1, &["\"hops\"", "jumps", "spins"], &eval);
    write(32, "jumps");
    place.fails(
        2,
        &["--count 30", "50 clips"],
        &[&eval[..], &["--count", "30"]].concat(),
    );
    let told = place.ok(&[&eval[..], &["--json"]].concat()).json();
    assert_eq!(told["held_out"]["clips"], 25);
    assert!(told["frechet_distance"].as_f64().unwrap() > 0.0, "{told}");
    assert!(told["truth_frechet_distance"].is_null());
}

#[test]
fn bad_requests_are_refused_by_name() {
    let place = Place::new();
    let [text, picture] =
        ["text", "concat"].map(|case| fixture(&format!("pipelines/hunyuan_video_{case}")));
    let sana = fixture("pipelines/sana");
    let video = |model: &'static str| ["video", "x", "--model", model];
    let first = &*format!("{picture}/first.png").leak();
    let (text, picture, sana) = (&*text.leak(), &*picture.leak(), &*sana.leak());
    for (code, words, run) in [
        (
            2,
            &["--frames", "9 and 13"][..],
            [&video(text)[..], &["--frames", "10"]].concat(),
        ),
        (
            2,
            &["--frames", "0"],
            [&video(text)[..], &["--frames", "0"]].concat(),
        ),
        (
            2,
            &["--width", "nearest"],
            [&video(text)[..], &["--width", "33"]].concat(),
        ),
        (
            2,
            &["--image", "text alone"],
            [&video(text)[..], &["--image", first]].concat(),
        ),
        (
            2,
            &["--image-model", "no picture"],
            [&video(text)[..], &["--image-model", sana]].concat(),
        ),
        (
            2,
            &["animated"],
            [&video(text)[..], &["-o", "a.jpg"]].concat(),
        ),
        (
            1,
            &["make it first"],
            [&video(text)[..], &["-o", "absent/a.gif"]].concat(),
        ),
        (
            2,
            &["--frames", "nearest"],
            [
                &video(picture)[..],
                &["--frames", "7", "--image-model", sana],
            ]
            .concat(),
        ),
        (2, &["brisk image"], video(sana).to_vec()),
        (
            2,
            &["--guidance"],
            [&video(text)[..], &["--guidance", "-1"]].concat(),
        ),
    ] {
        place.fails(code, words, &run);
    }
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0);
}

#[test]
fn a_model_of_clips_is_quantized_and_draws() {
    let place = Place::new();
    let model = place.copy("pipelines/hunyuan_video_replace", "model");
    let usual = r#"{"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 1, "guidance_scale": 1.0}"#;
    std::fs::write(model.join("generation_config.json"), usual).unwrap();
    let quantize = ["quantize", "model", "-o", "small", "--json"];
    let quick = [
        "--method",
        "rtn",
        "--rows",
        "32",
        "--prompts",
        "prompts.txt",
    ];
    let quantize = [&quantize[..], &quick].concat();
    std::fs::write(place.path("prompts.txt"), "red heart\npizza\n").unwrap();
    place.fails(2, &["image"], &quantize);
    let first = ["--image", "model/first.png"];
    let report = place.ok(&[&quantize[..], &first].concat()).json();
    assert_eq!(report["layers"].as_object().unwrap().len(), 8 + 2 * 3);
    let drawn = |model: &str, output: &str, more: &[&str]| {
        let video = ["video", "a red heart jumps", "--model", model, "-o", output];
        place.ok(&[&video[..], &first, more].concat());
        clip(&place, output).frames()[4].clone()
    };
    let full = drawn("model", "full.png", &[]);
    let small = drawn("small", "small.png", &[]);
    let four = drawn("small", "four.png", &["--activations", "4"]);
    let near = |picture: &Picture| (15.0..99.0).contains(&psnr(picture, &full).unwrap());
    assert!(near(&small) && near(&four) && small != four);
    let file = "small/transformer/diffusion_pytorch_model.safetensors";
    let inspected = place.ok(&["inspect", file]).stdout;
    assert!(inspected.contains("quantized by SVDQuant"), "{inspected}");
    let refused = ["video", "x", "--model", "model", "--activations", "4"];
    place.fails(
        2,
        &["--activations", "4-bit"],
        &[&refused[..], &first].concat(),
    );
    let of_pictures = ["quantize", "sana-emoji", "-o", "no"];
    place.fails(
        2,
        &["--image", "sana-emoji"],
        &[&of_pictures[..], &first].concat(),
    );
}
