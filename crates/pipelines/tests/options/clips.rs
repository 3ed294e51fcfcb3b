//! Options of models that make clips.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use brisk_media::{Picture, encode_png};
use brisk_pipelines::options::Scope;
use brisk_pipelines::{Control, Event, OpenSettings, Result, ResultKind, VideoRequest, registry};
use brisk_store::{Dtype, ModelFolder, OutTensor, write_safetensors};

use crate::{
    Case, GivenOptions, check, check_complete, copy, fixture, hash, options, other_weights, text,
};

/// Makes a clip twice and sums up its frames, its rate, and what was loaded.
fn make(folder: &Path, given: &GivenOptions) -> Result<String> {
    let options = options(ResultKind::Clips, given)?;
    let settings = OpenSettings::new(options.of_scope(Scope::Open));
    let mut model = registry::open_video(&ModelFolder::Disk(folder.to_owned()), &settings)?;
    let request = VideoRequest {
        prompt: "a red heart jumps".to_owned(),
        options: options.of_scope(Scope::Request),
    };
    let (sender, receiver) = mpsc::channel();
    let control = Control::new(move |event| drop(sender.send(event)));
    let mut summary = String::new();
    for _ in 0..2 {
        let plan = model.plan(&request)?;
        let made = model.generate(&plan, &control)?;
        summary += &format!("{} a second", made.clip.rate());
        for frame in made.clip.frames() {
            let pixels = hash(frame.pixels.iter().copied());
            summary += &format!(" {}x{} {pixels:x}", frame.width, frame.height);
        }
    }
    for event in receiver.try_iter() {
        if let Event::Stage { name, work, .. } = event {
            summary += &format!("\n{name} {work:?}");
        }
    }
    Ok(summary)
}

#[test]
fn every_option_of_clips_changes_the_clip_or_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name);
    let mut picture = Picture::filled(40, 30, [20, 120, 220]);
    picture.pixels[..1800].fill(250);
    std::fs::write(file("image.png"), encode_png(&picture, &[]).unwrap()).unwrap();
    let noise = (0..4 * 2 * 4 * 4).flat_map(|at| (at as f32 * 0.7).sin().to_le_bytes());
    let latents = OutTensor {
        name: "latents".to_owned(),
        dtype: Dtype::F32,
        shape: vec![1, 4, 2, 4, 4],
        data: noise.collect::<Vec<u8>>().into(),
    };
    let noise = file("latents.safetensors");
    write_safetensors(&noise, &[latents], &Default::default()).unwrap();
    let folder = |case: &str| fixture(&format!("pipelines/hunyuan_video_{case}"));
    let varied = copy(&folder("text"), &file("varied"));
    let weights = varied.join("transformer/diffusion_pytorch_model.safetensors");
    other_weights(&weights, &weights.with_extension("fp16.safetensors"));
    let first = ("image", text(folder("concat").join("first.png")));
    let of = |folder: PathBuf, more: &[(&'static str, String)]| {
        let usual = [
            ("frames", "5"),
            ("width", "32"),
            ("height", "32"),
            ("steps", "2"),
        ];
        let usual = usual.map(|(name, value)| (name, value.to_owned()));
        let with = [&usual[..], more].concat();
        move |option: &'static str, value: &str| Case {
            option,
            value: value.to_owned(),
            with: with.clone(),
            folder: folder.clone(),
        }
    };
    let from_text = of(folder("text"), &[]);
    let from_picture = of(folder("concat"), std::slice::from_ref(&first));
    let guided = of(folder("concat"), &[first, ("guidance", "3".to_owned())]);
    // Of a model that draws place by place.
    let place_by_place = |option: &'static str, value: &str| Case {
        option,
        value: value.to_owned(),
        with: Vec::new(),
        folder: fixture("vila_u/least"),
    };
    let other = |part: &str| text(folder("replace").join(part));
    let cases = [
        from_text("frames", "9"),
        from_text("width", "48"),
        from_text("height", "48"),
        from_text("fps", "8"),
        from_text("seed", "1"),
        from_text("steps", "3"),
        from_text("guidance", "3"),
        from_text("shift", "2"),
        from_text("latents", &text(noise)),
        from_text("vae", &other("vae")),
        from_text("text-encoder", &other("text_encoder")),
        from_text("text-encoder-2", &other("text_encoder_2")),
        from_text("quantize-text-encoder", "4bit"),
        from_text("quantize-transformer", "8bit"),
        // Without 4-bit layers it is refused; its effect on them stands in the test of quantized clips.
        from_text("activations", "4"),
        from_text("residency", "one"),
        from_text("image", &text(file("image.png"))),
        from_picture("image", &text(file("image.png"))),
        from_picture("prompt-image", &text(file("image.png"))),
        from_picture("guidance", "3"),
        guided("negative-prompt", "heart"),
        of(varied, &[])("variant", "fp16"),
        place_by_place("frames", "2"),
        place_by_place("guidance", "9"),
        place_by_place("greedy", "true"),
        place_by_place("top-k", "1"),
        place_by_place("top-p", "0.001"),
        place_by_place("temperature", "90"),
    ];
    for case in &cases {
        check(case, make);
    }
    check_complete(ResultKind::Clips, &cases);
}
