//! Defaults, sizes, and values out of range.

use super::*;

fn model(kind: ModelKind) -> Capabilities {
    Capabilities {
        model: "test".to_owned(),
        kind,
        multiple: 32,
        ratio: 32,
        latent_channels: 32,
        guidance: 4.5,
        sample_size: 32,
        blocks: 20,
        controlnet: false,
        scheduler: match kind {
            ModelKind::Sana => SchedulerKind::DpmSolver,
            ModelKind::Sprint => SchedulerKind::Scm,
        },
        scheduler_problem: None,
        shift: Some(3.0),
        instruction: None,
    }
}

fn picture() -> Arc<Picture> {
    Arc::new(Picture {
        width: 2,
        height: 2,
        pixels: vec![0; 12],
    })
}

fn fox() -> ImageRequest {
    ImageRequest::new("a fox")
}

#[test]
fn defaults_by_family() {
    let decided = plan(&fox(), &model(ModelKind::Sana)).unwrap();
    assert_eq!(
        (
            decided.steps,
            decided.height,
            decided.width,
            decided.guidance,
            decided.images
        ),
        (20, 1024, 1024, 4.5, 1)
    );
    assert_eq!((decided.angles, decided.pag), (None, None));
    let decided = plan(&fox(), &model(ModelKind::Sprint)).unwrap();
    assert_eq!(
        (decided.steps, decided.angles),
        (2, Some(vec![scm::MAX_ANGLE, 1.3, 0.0]))
    );
}

#[test]
fn values_out_of_range_name_their_option() {
    let sana = model(ModelKind::Sana);
    let latents = Latents {
        shape: [1, 32, 16, 32],
        values: vec![0.0; 32 * 512],
    };
    let init = || fox().with(&keys::INIT_IMAGE, picture());
    let none = ImageRequest::default();
    let cases: Vec<(&str, ImageRequest)> = vec![
        ("steps", fox().with(&keys::STEPS, 0)),
        ("steps", fox().with(&keys::STEPS, 10_000)),
        ("width", fox().with(&keys::WIDTH, 1000)),
        ("height", fox().with(&keys::HEIGHT, 0)),
        ("height", fox().with(&keys::HEIGHT, 1 << 40)),
        ("guidance", fox().with(&keys::GUIDANCE, f32::NAN)),
        ("guidance", fox().with(&keys::GUIDANCE, -1.0)),
        ("images", fox().with(&keys::IMAGES, 0)),
        ("images", fox().with(&keys::IMAGES, usize::MAX)),
        ("prompt", none),
        (
            "prompt",
            ImageRequest::new("x".repeat(crate::request::MAX_PROMPT_BYTES + 1)),
        ),
        (
            "pag-layers",
            fox()
                .with(&own::PAG_SCALE, 1.0)
                .with(&own::PAG_LAYERS, vec![20]),
        ),
        ("pag-layers", fox().with(&own::PAG_LAYERS, vec![2])),
        ("shift", fox().with(&own::SHIFT, 0.0)),
        (
            "max-sequence-length",
            fox().with(&own::MAX_SEQUENCE_LENGTH, 1),
        ),
        ("preview-interval", fox().with(&keys::PREVIEW_INTERVAL, 0)),
        ("strength", init().with(&keys::STRENGTH, 0.0)),
        ("strength", init().with(&keys::STRENGTH, 1e-30)),
        ("strength", fox().with(&keys::STRENGTH, 0.5)),
        ("scheduler", fox().with(&own::SCHEDULER, "ddim".to_owned())),
        ("decode", fox().with(&own::DECODE, "half".to_owned())),
        ("latents", fox().with(&keys::LATENTS, Arc::new(latents))),
    ];
    for (option, request) in cases {
        match plan(&request, &sana) {
            Err(Error::Request { option: found, .. }) => assert_eq!(found, option),
            other => panic!("{option}: {other:?}"),
        }
    }
}

#[test]
fn what_a_kind_does_not_honour_is_refused_though_it_equals_the_default() {
    let refused = |request: ImageRequest, kind| match plan(&request, &model(kind)) {
        Err(Error::Unsupported { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    let request = fox().with(&keys::NEGATIVE_PROMPT, String::new());
    assert_eq!(refused(request, ModelKind::Sprint), "negative-prompt");
    let request = fox()
        .with(&keys::INIT_IMAGE, picture())
        .with(&own::STRENGTH_ON_GRID, false);
    assert_eq!(refused(request, ModelKind::Sana), "strength-on-grid");
    let request = fox().with(&own::CONTROL_IMAGE, picture());
    assert_eq!(refused(request, ModelKind::Sana), "control-image");
}

#[test]
fn a_wrong_size_comes_with_the_nearest_right_one() {
    let message = |width: usize| {
        plan(&fox().with(&keys::WIDTH, width), &model(ModelKind::Sana))
            .unwrap_err()
            .to_string()
    };
    assert!(
        message(1000).contains("992") || message(1000).contains("1024"),
        "{}",
        message(1000)
    );
    assert!(message(1001).contains("992"), "{}", message(1001));
    assert!(message(5).contains("32"), "{}", message(5));
}

#[test]
fn sizes_go_to_the_nearest_trained_one() {
    let request = fox().with(&keys::WIDTH, 1280).with(&keys::HEIGHT, 704);
    let decided = plan(&request, &model(ModelKind::Sana)).unwrap();
    assert_eq!(
        (
            decided.height,
            decided.width,
            decided.output_height,
            decided.output_width
        ),
        (768, 1344, 704, 1280)
    );
    let exact = request.clone().with(&own::NO_BINNING, true);
    let decided = plan(&exact, &model(ModelKind::Sana)).unwrap();
    assert_eq!((decided.height, decided.width), (704, 1280));
    let small = Capabilities {
        sample_size: 8,
        ..model(ModelKind::Sana)
    };
    let decided = plan(&request, &small).unwrap();
    assert_eq!((decided.height, decided.width), (704, 1280));
}

#[test]
fn strength_skips_the_share_the_reference_skips() {
    assert_eq!(start_index(20, 1.0), 0);
    assert_eq!(start_index(20, 0.6), 8);
    assert_eq!(start_index(2, 0.6), 0);
    assert_eq!(start_index(2, 0.5), 1);
}
