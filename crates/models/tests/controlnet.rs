//! SANA's ControlNet in both wirings, block by block.

mod common;

use brisk_models::sana::{ControlWiring, ForwardExtras, SanaConfig, SanaTransformer};
use brisk_models::sana_controlnet::{ControlStart, SanaControlNet, SanaControlNetConfig, native};
use brisk_nn::{Tensor, Trace, Weights};
use brisk_testkit::{Golden, assert_close, fixtures_dir};
use common::{Inputs, TOLERANCE, nchw, nhwc, wanted_block};

fn load_diffusers() -> (SanaTransformer, SanaControlNet) {
    let folder = fixtures_dir().join("sana_controlnet/diffusers");
    let read = |part: &str| {
        let config = std::fs::read(folder.join(part).join("config.json")).unwrap();
        let file = folder
            .join(part)
            .join("diffusion_pytorch_model.safetensors");
        (
            config,
            Weights::from_source(brisk_store::open_weights(&file).unwrap()),
        )
    };
    let (config, weights) = read("transformer");
    let config = SanaConfig::from_json(&config, "transformer/config.json").unwrap();
    let base = SanaTransformer::load(&config, &weights).unwrap();
    let (config, weights) = read("controlnet");
    let config = SanaControlNetConfig::from_json(&config, "controlnet/config.json").unwrap();
    (base, SanaControlNet::load(&config, &weights).unwrap())
}

fn load_native() -> (SanaTransformer, SanaControlNet) {
    let file = fixtures_dir().join("native/controlnet/model.pth");
    let heads = brisk_models::sana::native::NativeHeads {
        attention: 3,
        cross_attention: 2,
    };
    let parts = native::split(brisk_store::open_weights(&file).unwrap(), Some(heads)).unwrap();
    assert_eq!(parts.base_config.num_layers, 4);
    assert_eq!(parts.config.transformer.num_layers, 2);
    let weights = |source| Weights::from_source(std::sync::Arc::new(source));
    (
        SanaTransformer::load(&parts.base_config, &weights(parts.base)).unwrap(),
        SanaControlNet::load(&parts.config, &weights(parts.controlnet)).unwrap(),
    )
}

fn scale(golden: &Golden) -> f64 {
    f64::from(brisk_testkit::values(&golden.get("inputs.conditioning_scale"))[0])
}

#[test]
fn diffusers_wiring_agrees() {
    let mut golden = Golden::open("sana_controlnet/diffusers/golden.safetensors");
    let inputs = Inputs::read(&golden);
    let control = nhwc(&golden.get("inputs.controlnet_cond"));
    let scale = scale(&golden);
    let (base, net) = load_diffusers();
    let mut compared = Vec::new();
    let mut compare = |name: &str, x: &Tensor| {
        let (wanted, x) = wanted_block(name, x);
        // The reference embeds the latent, then the control latent; the golden has the second.
        let wanted = match name {
            "patch_embed" => return,
            "patch_embed.control" => "blocks.controlnet.patch_embed".into(),
            _ => wanted.replacen("blocks.", "blocks.controlnet.", 1),
        };
        if golden.compare(&wanted, &x, TOLERANCE) {
            compared.push(wanted);
        }
    };
    let caption = net
        .encode_caption_traced(
            &inputs.text,
            &inputs.lengths,
            &mut Trace::parts(&mut compare),
        )
        .unwrap();
    let residuals = net
        .forward_traced(
            ControlStart::Latent(&inputs.latent),
            &control,
            &inputs.timestep,
            None,
            &caption,
            scale,
            &mut Trace::details(&mut compare),
        )
        .unwrap();
    compared.sort();
    assert_eq!(compared, golden.names("blocks."), "blocks never compared");
    for (i, residual) in residuals.iter().enumerate() {
        assert!(golden.compare(&format!("outputs.block_samples.{i}"), residual, TOLERANCE));
    }
    let caption = base.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let extras = ForwardExtras {
        residuals: &residuals,
        ..Default::default()
    };
    let out = base
        .forward(&inputs.latent, &inputs.timestep, None, &caption, &extras)
        .unwrap();
    assert!(golden.compare("outputs.sample", &nchw(&out), TOLERANCE));
    golden.report();

    // The golden tells the wirings apart.
    let residual_wiring = ControlWiring::Native;
    let extras = ForwardExtras {
        residuals: &residuals,
        residual_wiring,
        ..Default::default()
    };
    let other = base
        .forward(&inputs.latent, &inputs.timestep, None, &caption, &extras)
        .unwrap();
    let difference = (out - other).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f32>().unwrap() > 1e-3);
}

#[test]
fn native_wiring_agrees_from_pth() {
    let mut golden = Golden::open("sana_controlnet/native/golden.safetensors");
    let inputs = Inputs::read(&golden);
    let control = nhwc(&golden.get("inputs.controlnet_cond"));
    let (base, net) = load_native();
    let caption = base.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let plain = ForwardExtras::default();
    let first = base
        .first_block(&inputs.latent, &inputs.timestep, None, &caption, &plain)
        .unwrap();
    let control_caption = net.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    for (scale, name) in [
        (scale(&golden), "outputs.sample"),
        (1.0, "outputs.sample_scale1"),
    ] {
        let residuals = net
            .forward(
                ControlStart::FirstBlock(&first),
                &control,
                &inputs.timestep,
                None,
                &control_caption,
                scale,
            )
            .unwrap();
        let extras = ForwardExtras {
            residuals: &residuals,
            residual_wiring: ControlWiring::Native,
            after_first_block: Some(&first),
            ..Default::default()
        };
        let mut compare = |trace: &str, x: &Tensor| {
            let Some(index) = trace.strip_prefix("transformer_blocks.") else {
                return;
            };
            if name == "outputs.sample" {
                golden.compare(&format!("blocks.base.{index}"), x, TOLERANCE);
            }
        };
        let out = base
            .forward_traced(
                &inputs.latent,
                &inputs.timestep,
                None,
                &caption,
                &extras,
                &mut Trace::details(&mut compare),
            )
            .unwrap();
        if name == "outputs.sample" {
            for (i, residual) in residuals.iter().enumerate() {
                assert!(golden.compare(&format!("blocks.residual.{i}"), residual, TOLERANCE));
            }
        }
        assert!(golden.compare(name, &nchw(&out), TOLERANCE));
        let extras = ForwardExtras {
            after_first_block: None,
            ..extras
        };
        let again = base
            .forward(&inputs.latent, &inputs.timestep, None, &caption, &extras)
            .unwrap();
        assert_close("without the first block given", &again, &out, 1e-6);
    }
    assert_eq!(golden.summary().1, 7);
    golden.report();
}

#[test]
fn fresh_controlnet_changes_nothing() {
    let golden = Golden::open("sana_controlnet/diffusers/golden.safetensors");
    let inputs = Inputs::read(&golden);
    let (_, net) = load_diffusers();
    let fresh = SanaControlNet::load(net.config(), &Weights::trainable(None, 5)).unwrap();
    let caption = fresh.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let (z, t) = (&inputs.latent, &inputs.timestep);
    let residuals = fresh
        .forward(ControlStart::Latent(z), z, t, None, &caption, 1.0)
        .unwrap();
    assert_eq!(residuals.len(), 2);
    for residual in residuals {
        assert_eq!(
            residual
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap(),
            0.0
        );
    }
}

#[test]
fn mismatched_inputs_are_errors() {
    let golden = Golden::open("sana_controlnet/diffusers/golden.safetensors");
    let inputs = Inputs::read(&golden);
    let (base, net) = load_diffusers();
    let (z, t) = (&inputs.latent, &inputs.timestep);
    let caption = net.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let small = z.narrow(1, 0, 3).unwrap().contiguous().unwrap();
    let error = net
        .forward(ControlStart::Latent(z), &small, t, None, &caption, 1.0)
        .unwrap_err();
    assert!(error.to_string().contains("control latent"), "{error}");
    // A caption encoded by the other model has another number of blocks.
    let foreign = base
        .forward(z, t, None, &caption, &ForwardExtras::default())
        .unwrap_err();
    assert!(
        foreign
            .to_string()
            .contains("encoded by a model of 2 blocks"),
        "{foreign}"
    );
    let caption = base.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let many = vec![Tensor::zeros((2, 48, 24), z.dtype()).unwrap(); 4];
    let extras = ForwardExtras {
        residuals: &many,
        ..Default::default()
    };
    let error = base.forward(z, t, None, &caption, &extras).unwrap_err();
    assert!(
        error.to_string().contains("4 ControlNet residuals"),
        "{error}"
    );
}

#[test]
fn published_sizes() {
    let large = SanaControlNetConfig::from_json(b"{}", "config.json").unwrap();
    assert_eq!(large.transformer.num_layers, 7);
    assert_eq!(large.parameters(), 631_576_960);
    let json = br#"{"num_attention_heads": 36, "num_cross_attention_heads": 16,
        "cross_attention_head_dim": 72, "cross_attention_dim": 1152}"#;
    let small = SanaControlNetConfig::from_json(json, "config.json").unwrap();
    assert_eq!(small.parameters(), 168_765_696);
}
