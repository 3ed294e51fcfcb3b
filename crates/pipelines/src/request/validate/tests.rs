//! Every option on every kind of model, and values out of range.

use super::*;
use crate::request::{ControlImage, DecodeMode, InitImage, Instruction, Latents};

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
    }
}

fn picture() -> Picture {
    Picture {
        width: 2,
        height: 2,
        pixels: vec![0; 12],
    }
}

/// A request with exactly this option given.
fn with_option(name: &str) -> ImageRequest {
    let mut request = ImageRequest::new("a fox");
    match name {
        "prompt" => (),
        "negative-prompt" => request.negative_prompt = Some("blurry".to_owned()),
        "width" => request.width = Some(512),
        "height" => request.height = Some(512),
        "steps" => request.steps = Some(3),
        "guidance" => request.guidance = Some(2.0),
        "seed" => request.seed = 5,
        "images" => request.images_per_prompt = 2,
        "scheduler" => request.scheduler = Some(SchedulerKind::FlowEuler),
        "shift" => request.shift = Some(6.0),
        "pag-scale" => request.pag_scale = Some(2.0),
        "pag-layers" => (request.pag_scale, request.pag_layers) = (Some(2.0), Some(vec![3])),
        "pag-adaptive" => (request.pag_scale, request.pag_adaptive) = (Some(2.0), Some(0.1)),
        "control-image" => {
            request.control = Some(ControlImage {
                picture: picture(),
                scale: 1.0,
            })
        }
        "control-scale" => {
            request.control = Some(ControlImage {
                picture: picture(),
                scale: 0.5,
            })
        }
        "init-image" => {
            request.init = Some(InitImage {
                picture: picture(),
                strength: None,
                on_grid: false,
            })
        }
        "strength" => {
            request.init = Some(InitImage {
                picture: picture(),
                strength: Some(0.5),
                on_grid: false,
            })
        }
        "strength-on-grid" => {
            request.init = Some(InitImage {
                picture: picture(),
                strength: None,
                on_grid: true,
            });
        }
        "scm-timesteps" => request.scm_timesteps = Some(vec![1.5, 1.0]),
        "max-sequence-length" => request.max_sequence_length = 77,
        "instruction" => request.instruction = Some(Instruction::None),
        "no-binning" => request.binning = Some(false),
        "latents" => {
            request.latents = Some(Latents {
                shape: [1, 32, 32, 32],
                values: vec![0.0; 32 * 1024],
            });
        }
        "decode" => request.decode = DecodeMode::Tiled,
        "preview-interval" => request.preview_interval = Some(1),
        other => panic!("option {other} has no test"),
    }
    request
}

#[test]
fn every_option_is_honoured_or_refused_by_name() {
    for kind in [ModelKind::Sana, ModelKind::Sprint] {
        for info in OPTIONS {
            let request = with_option(info.name);
            assert!(
                request.given().contains(&info.name),
                "{} is not reported as given",
                info.name
            );
            let mut model = model(kind);
            model.controlnet = kind == ModelKind::Sana && info.name.starts_with("control");
            let result = request.validate(&model);
            let honoured = if kind == ModelKind::Sana {
                info.sana
            } else {
                info.sprint
            };
            match result {
                Ok(_) => assert!(honoured, "{} passed on {kind:?}", info.name),
                Err(Error::Unsupported { option, .. }) => {
                    assert!(!honoured, "{} refused on {kind:?}", info.name);
                    assert!(
                        info.name == option
                            || info.name.split('-').next() == option.split('-').next()
                    );
                }
                Err(error) => panic!("{}: {error}", info.name),
            }
        }
    }
    let known: Vec<_> = OPTIONS.iter().map(|info| info.name).collect();
    for name in &known {
        assert!(
            with_option(name)
                .given()
                .iter()
                .all(|given| known.contains(given))
        );
    }
}

#[test]
fn defaults_by_family() {
    let request = ImageRequest::new("a fox");
    let plan = request.validate(&model(ModelKind::Sana)).unwrap();
    assert_eq!(
        (
            plan.steps,
            plan.height,
            plan.width,
            plan.guidance,
            plan.images
        ),
        (20, 1024, 1024, 4.5, 1)
    );
    assert_eq!((plan.angles, plan.pag), (None, None));
    let plan = request.validate(&model(ModelKind::Sprint)).unwrap();
    assert_eq!(
        (plan.steps, plan.angles),
        (2, Some(vec![scm::MAX_ANGLE, 1.3, 0.0]))
    );
}

#[test]
fn values_out_of_range_name_their_option() {
    let sana = model(ModelKind::Sana);
    let cases: Vec<(&str, ImageRequest)> = vec![
        (
            "steps",
            ImageRequest {
                steps: Some(0),
                ..ImageRequest::new("x")
            },
        ),
        (
            "steps",
            ImageRequest {
                steps: Some(10_000),
                ..ImageRequest::new("x")
            },
        ),
        (
            "width",
            ImageRequest {
                width: Some(1000),
                ..ImageRequest::new("x")
            },
        ),
        (
            "height",
            ImageRequest {
                height: Some(0),
                ..ImageRequest::new("x")
            },
        ),
        (
            "height",
            ImageRequest {
                height: Some(1 << 40),
                ..ImageRequest::new("x")
            },
        ),
        (
            "guidance",
            ImageRequest {
                guidance: Some(f32::NAN),
                ..ImageRequest::new("x")
            },
        ),
        (
            "images",
            ImageRequest {
                images_per_prompt: 0,
                ..ImageRequest::new("x")
            },
        ),
        (
            "images",
            ImageRequest {
                images_per_prompt: usize::MAX,
                ..ImageRequest::new("x")
            },
        ),
        ("prompt", ImageRequest::default()),
        (
            "prompt",
            ImageRequest::new("x".repeat(MAX_PROMPT_BYTES + 1)),
        ),
        (
            "pag-layers",
            ImageRequest {
                pag_scale: Some(1.0),
                pag_layers: Some(vec![20]),
                ..ImageRequest::new("x")
            },
        ),
        (
            "pag-layers",
            ImageRequest {
                pag_layers: Some(vec![2]),
                ..ImageRequest::new("x")
            },
        ),
        (
            "shift",
            ImageRequest {
                shift: Some(0.0),
                ..ImageRequest::new("x")
            },
        ),
        (
            "max-sequence-length",
            ImageRequest {
                max_sequence_length: 1,
                ..ImageRequest::new("x")
            },
        ),
        (
            "preview-interval",
            ImageRequest {
                preview_interval: Some(0),
                ..ImageRequest::new("x")
            },
        ),
        (
            "strength",
            ImageRequest {
                init: Some(InitImage {
                    picture: picture(),
                    strength: Some(0.0),
                    on_grid: false,
                }),
                ..ImageRequest::new("x")
            },
        ),
        (
            "strength",
            ImageRequest {
                init: Some(InitImage {
                    picture: picture(),
                    strength: Some(1e-30),
                    on_grid: false,
                }),
                ..ImageRequest::new("x")
            },
        ),
        (
            "latents",
            ImageRequest {
                latents: Some(Latents {
                    shape: [1, 32, 16, 32],
                    values: vec![0.0; 32 * 512],
                }),
                ..ImageRequest::new("x")
            },
        ),
    ];
    for (option, request) in cases {
        match request.validate(&sana) {
            Err(Error::Request { option: found, .. }) => assert_eq!(found, option),
            other => panic!("{option}: {other:?}"),
        }
    }
}

#[test]
fn a_wrong_size_comes_with_the_nearest_right_one() {
    let request = |width| ImageRequest {
        width: Some(width),
        ..ImageRequest::new("x")
    };
    let message = |width| {
        request(width)
            .validate(&model(ModelKind::Sana))
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
fn binning_needs_a_table() {
    let request = ImageRequest {
        width: Some(1280),
        height: Some(704),
        ..ImageRequest::new("x")
    };
    let plan = request.validate(&model(ModelKind::Sana)).unwrap();
    assert_eq!(
        (
            plan.height,
            plan.width,
            plan.output_height,
            plan.output_width
        ),
        (768, 1344, 704, 1280)
    );
    let small = Capabilities {
        sample_size: 8,
        ..model(ModelKind::Sana)
    };
    let plan = request.validate(&small).unwrap();
    assert_eq!((plan.height, plan.width), (704, 1280));
    assert!(
        ImageRequest {
            binning: Some(true),
            ..request
        }
        .validate(&small)
        .is_err()
    );
}

#[test]
fn strength_skips_the_share_the_reference_skips() {
    assert_eq!(start_index(20, 1.0), 0);
    assert_eq!(start_index(20, 0.6), 8);
    assert_eq!(start_index(2, 0.6), 0);
    assert_eq!(start_index(2, 0.5), 1);
}
