//! The SANA transformer against diffusers' `SanaTransformer2DModel`, block by block.

mod common;

use brisk_models::sana::{
    CaptionContext, ForwardExtras, Numerics, Perturbed, SanaConfig, SanaTransformer, compact_text,
};
use brisk_nn::{Lora, Tensor, Trace, Weights};
use brisk_testkit::{Golden, assert_close, fixtures_dir};
use common::{
    Inputs, TOLERANCE, config, golden, load, nchw, run, wanted_block, weights, weights_builder,
};
use std::sync::Arc;

fn agrees(case: &str) {
    let mut golden = golden(case);
    let inputs = Inputs::read(&golden);
    let model = load(case);
    let mut compared = Vec::new();
    let mut compare = |name: &str, x: &Tensor| {
        let (wanted, x) = wanted_block(name, x);
        if golden.compare(&wanted, &x, TOLERANCE) {
            compared.push(wanted);
        }
    };
    let caption = model
        .encode_caption_traced(
            &inputs.text,
            &inputs.lengths,
            &mut Trace::parts(&mut compare),
        )
        .unwrap();
    let out = model
        .forward_traced(
            &inputs.latent,
            &inputs.timestep,
            inputs.guidance.as_ref(),
            &caption,
            &ForwardExtras::default(),
            &mut Trace::details(&mut compare),
        )
        .unwrap();
    compared.sort();
    let mut expected = golden.names("blocks.");
    // A block's input is the one before's output.
    expected.retain(|name| !(name.matches('.').count() == 2 && name.ends_with(".input")));
    assert_eq!(compared, expected, "blocks never compared");
    assert!(golden.compare("outputs.sample", &nchw(&out), TOLERANCE));
    // Unwatched, additions run inside the parts.
    let out = run(&model, &inputs, &ForwardExtras::default());
    assert!(golden.compare("outputs.sample", &out, TOLERANCE));
    golden.report();
}

#[test]
fn base_agrees() {
    agrees("t1_base");
}

#[test]
fn qk_norm_agrees() {
    agrees("t2_qk_norm");
}

#[test]
fn sprint_agrees() {
    agrees("t3_sprint");
}

#[test]
fn positions_agree() {
    agrees("t4_position");
}

#[test]
fn patch_size_2_agrees() {
    agrees("t5_patch2");
}

#[test]
fn learned_sigma_agrees() {
    agrees("t7_learned_sigma");
}

#[test]
fn lora_agrees() {
    let mut golden = Golden::open("lora/t1_base/golden.safetensors");
    let inputs = Inputs::read(&golden);
    let file = fixtures_dir().join("lora/t1_base/pytorch_lora_weights.safetensors");
    let extras = ForwardExtras::default();
    let plain = run(&load("t1_base"), &inputs, &extras);
    assert!(golden.compare("outputs.without", &plain, TOLERANCE));
    for (name, scale) in [("outputs.scale1", 1.0), ("outputs.scale0.5", 0.5)] {
        let lora = Arc::new(Lora::open(&file).unwrap());
        let weights = weights_builder("t1_base")
            .lora(lora, scale)
            .build()
            .unwrap();
        let model = SanaTransformer::load(&config("t1_base"), &weights).unwrap();
        assert!(golden.compare(name, &run(&model, &inputs, &extras), TOLERANCE));
    }
    golden.report();
}

/// The golden sees what this setting changes.
#[test]
fn position_scale_matters() {
    let golden = golden("t4_position");
    let inputs = Inputs::read(&golden);
    let changed = SanaConfig {
        interpolation_scale: Some(1.0),
        ..config("t4_position")
    };
    let model = SanaTransformer::load(&changed, &weights("t4_position")).unwrap();
    let out = run(&model, &inputs, &ForwardExtras::default());
    let distance = (out - golden.get("outputs.sample"))
        .unwrap()
        .abs()
        .unwrap()
        .max_all()
        .unwrap();
    assert!(distance.to_scalar::<f32>().unwrap() > 1e-3);
}

/// The golden notices weights that sit in each other's place.
#[test]
fn swapped_weights_are_noticed() {
    let golden = golden("t3_sprint");
    let inputs = Inputs::read(&golden);
    let wanted = golden.get("outputs.sample");
    let file =
        fixtures_dir().join("sana_transformer/t3_sprint/diffusion_pytorch_model.safetensors");
    let source = brisk_store::open_weights(&file).unwrap();
    for (one, other) in [
        (
            "transformer_blocks.0.attn1.to_q",
            "transformer_blocks.0.attn1.to_k",
        ),
        (
            "transformer_blocks.0.attn2.to_k",
            "transformer_blocks.0.attn2.to_v",
        ),
        ("transformer_blocks.0.ff.", "transformer_blocks.1.ff."),
        (
            "time_embed.timestep_embedder",
            "time_embed.guidance_embedder",
        ),
    ] {
        let swap = |name: &str| match (name.strip_prefix(one), name.strip_prefix(other)) {
            (Some(rest), _) => format!("{other}{rest}"),
            (_, Some(rest)) => format!("{one}{rest}"),
            _ => name.to_owned(),
        };
        let names = source.names().into_iter();
        let names = names
            .map(|name| (swap(&name), brisk_store::Slice::whole(name)))
            .collect();
        let swapped = brisk_store::MappedSource::new(source.clone(), names).unwrap();
        let weights = Weights::from_source(std::sync::Arc::new(swapped));
        let model = SanaTransformer::load(&config("t3_sprint"), &weights).unwrap();
        let out = run(&model, &inputs, &ForwardExtras::default());
        let values = brisk_testkit::values;
        let distance = brisk_testkit::relative_l2(&values(&out), &values(&wanted));
        assert!(distance > 10.0 * TOLERANCE, "{one}: {distance}");
    }
}

#[test]
fn native_numerics_differ_slightly() {
    let inputs = Inputs::read(&golden("t2_qk_norm"));
    let native = SanaConfig {
        numerics: Numerics::Native,
        ..config("t2_qk_norm")
    };
    let native = SanaTransformer::load(&native, &weights("t2_qk_norm")).unwrap();
    let extras = ForwardExtras::default();
    let (a, b) = (
        run(&native, &inputs, &extras),
        run(&load("t2_qk_norm"), &inputs, &extras),
    );
    assert_close("native numerics", &a, &b, 1e-3);
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f32>().unwrap() > 0.0);
}

/// A caption of one row takes the short way; adding a masked row must not change the result, and
/// neither must the company it is in.
#[test]
fn constant_captions_and_batches_agree_with_single_runs() {
    let inputs = Inputs::read(&golden("t2_qk_norm"));
    let model = load("t2_qk_norm");
    let extras = ForwardExtras::default();
    let row = |x: &Tensor, i: usize| x.narrow(0, i, 1).unwrap().contiguous().unwrap();
    let caption = |i: usize, length: usize| {
        model
            .encode_caption(&row(&inputs.text, i), &[length])
            .unwrap()
    };
    let single = |i: usize, caption: &CaptionContext| {
        model
            .forward(
                &row(&inputs.latent, i),
                &row(&inputs.timestep, i),
                None,
                caption,
                &extras,
            )
            .unwrap()
    };
    let (short, long) = (caption(0, 1), caption(1, 4));
    // Rows in the order short, long take the constant path for the first row only; in the order
    // long, short both are computed in full.
    for order in [[0, 1], [1, 0]] {
        let pick = |x: &Tensor| Tensor::cat(&[row(x, order[0]), row(x, order[1])], 0).unwrap();
        let captions = [&short, &long];
        let joined = CaptionContext::concat(&[captions[order[0]], captions[order[1]]]).unwrap();
        assert_eq!(joined.batch(), 2);
        let out = model
            .forward(
                &pick(&inputs.latent),
                &pick(&inputs.timestep),
                None,
                &joined,
                &extras,
            )
            .unwrap();
        for (place, i) in order.into_iter().enumerate() {
            let wanted = single(i, captions[i]);
            assert_close(
                &format!("{order:?} row {place}"),
                &row(&out, place),
                &wanted,
                1e-5,
            );
        }
    }
    let twice = CaptionContext::concat(&[&short, &long])
        .unwrap()
        .repeat(2)
        .unwrap();
    assert_eq!(twice.lengths(), [1, 1, 4, 4]);
}

#[test]
fn compact_text_drops_masked_rows_wherever_they_are() {
    let inputs = Inputs::read(&golden("t1_base"));
    let model = load("t1_base");
    let extras = ForwardExtras::default();
    let out = run(&model, &inputs, &extras);
    // Row 0 has three valid rows at the front: move them apart.
    let places = Tensor::new(&[3u32, 0, 1, 4, 2, 5, 6, 7, 8, 9]).unwrap();
    let scattered = inputs
        .text
        .reshape((10, 16))
        .unwrap()
        .index_select(&places, 0)
        .unwrap();
    let scattered = scattered.reshape((2, 5, 16)).unwrap();
    let mask = vec![vec![false, true, true, false, true], vec![true; 5]];
    let (text, lengths) = compact_text(&scattered, &mask).unwrap();
    assert_eq!(lengths, [3, 5]);
    let caption = model.encode_caption(&text, &lengths).unwrap();
    let again = model
        .forward(&inputs.latent, &inputs.timestep, None, &caption, &extras)
        .unwrap();
    assert_close("scattered", &nchw(&again), &out, 1e-6);
    let (cut, lengths) = compact_text(
        &inputs.text,
        &vec![vec![true, true, false, false, false]; 2],
    )
    .unwrap();
    assert_eq!((cut.dims(), lengths), ([2, 2, 16].as_slice(), vec![2, 2]));
    assert!(compact_text(&inputs.text, &vec![vec![false; 5]; 2]).is_err());
    assert!(compact_text(&inputs.text, &[vec![true; 5]]).is_err());
}

#[test]
fn perturbed_rows_skip_attention_and_others_do_not_change() {
    let inputs = Inputs::read(&golden("t2_qk_norm"));
    let model = load("t2_qk_norm");
    let plain = run(&model, &inputs, &ForwardExtras::default());
    let perturb = |layers: Vec<usize>, rows| {
        let perturbed = Some(Perturbed { layers, rows });
        run(
            &model,
            &inputs,
            &ForwardExtras {
                perturbed,
                ..Default::default()
            },
        )
    };
    let row = |x: &Tensor, i: usize| x.narrow(0, i, 1).unwrap();
    let out = perturb(vec![1], 1..2);
    assert_close("row 0", &row(&out, 0), &row(&plain, 0), 1e-6);
    let moved = (row(&out, 1) - row(&plain, 1))
        .unwrap()
        .abs()
        .unwrap()
        .max_all()
        .unwrap();
    assert!(
        moved.to_scalar::<f32>().unwrap() > 1e-3,
        "row 1 was not perturbed"
    );
    assert_close(
        "both rows",
        &row(&perturb(vec![1], 0..2), 1),
        &row(&out, 1),
        1e-6,
    );
    assert_close("no rows", &perturb(vec![0, 1], 1..1), &plain, 1e-6);

    // The identity: attn1's output is to_out(to_v(input)).
    let mut attended = None;
    let mut input = None;
    let caption = model.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let perturbed = Some(Perturbed {
        layers: vec![1],
        rows: 0..2,
    });
    let extras = ForwardExtras {
        perturbed,
        ..Default::default()
    };
    let mut keep = |name: &str, x: &Tensor| match name {
        "transformer_blocks.1.attn1" => attended = Some(x.clone()),
        "transformer_blocks.1.attn1.input" => input = Some(x.clone()),
        _ => {}
    };
    model
        .forward_traced(
            &inputs.latent,
            &inputs.timestep,
            None,
            &caption,
            &extras,
            &mut Trace::details(&mut keep),
        )
        .unwrap();
    let attn1 = weights("t2_qk_norm").pp("transformer_blocks.1.attn1");
    let linear = |name: &str, bias| {
        let init = brisk_nn::Init::Zeros;
        brisk_nn::Linear::load(&attn1.pp(name), 24, 24, bias, init).unwrap()
    };
    let values = linear("to_v", false).forward(&input.unwrap()).unwrap();
    let wanted = linear("to_out.0", true).forward(&values).unwrap();
    assert_close("identity", &attended.unwrap(), &wanted, 1e-6);
}

#[test]
fn bad_input_is_an_error() {
    let inputs = Inputs::read(&golden("t1_base"));
    let model = load("t1_base");
    let caption = model.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let extras = ForwardExtras::default();
    let (z, t) = (&inputs.latent, &inputs.timestep);
    let message = |r: brisk_models::Result<Tensor>| r.unwrap_err().to_string();
    let one = t.narrow(0, 0, 1).unwrap();
    assert!(message(model.forward(z, &one, None, &caption, &extras)).contains("timestep"));
    assert!(message(model.forward(z, t, Some(t), &caption, &extras)).contains("guidance"));
    let wrong = z.narrow(3, 0, 3).unwrap();
    assert!(message(model.forward(&wrong, t, None, &caption, &extras)).contains("latent"));
    let single = z.narrow(0, 0, 1).unwrap();
    assert!(message(model.forward(&single, &one, None, &caption, &extras)).contains("captions"));
    let perturbed = Some(Perturbed {
        layers: vec![9],
        rows: 0..1,
    });
    let bad = ForwardExtras {
        perturbed,
        ..Default::default()
    };
    assert!(message(model.forward(z, t, None, &caption, &bad)).contains("layer 9"));
    let nan = (z * f64::NAN).unwrap();
    let error = message(model.forward(&nan, t, None, &caption, &extras));
    assert!(error.contains("transformer_blocks.0"), "{error}");
    assert!(model.encode_caption(&inputs.text, &[0, 5]).is_err());
    assert!(model.encode_caption(&inputs.text, &[3, 6]).is_err());
    assert!(model.encode_caption(&inputs.text, &[3]).is_err());
    assert!(CaptionContext::concat(&[]).is_err());
    let sprint = load("t3_sprint");
    let caption = sprint
        .encode_caption(&inputs.text, &inputs.lengths)
        .unwrap();
    assert!(message(sprint.forward(z, t, None, &caption, &extras)).contains("guidance"));
}

#[test]
fn wrong_weights_are_reported_together() {
    let changed = SanaConfig {
        num_layers: 3,
        qk_norm: None,
        ..config("t2_qk_norm")
    };
    let error = SanaTransformer::load(&changed, &weights("t2_qk_norm"))
        .unwrap_err()
        .to_string();
    for part in [
        "transformer_blocks.2.",
        "norm_q.weight",
        "missing",
        "unexpected",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn configuration_errors_name_the_key() {
    let error = |json: &str| {
        SanaConfig::from_json(json.as_bytes(), "c.json")
            .unwrap_err()
            .to_string()
    };
    assert!(error(r#"{"num_layers": -1}"#).contains("`num_layers`"));
    assert!(error(r#"{"num_layers": 0}"#).contains("`num_layers`"));
    assert!(error(r#"{"qk_norm": "layer_norm"}"#).contains("`qk_norm`"));
    assert!(error(r#"{"cross_attention_dim": 5}"#).contains("`cross_attention_dim`"));
    assert!(error(r#"{"mlp_ratio": -2.5}"#).contains("`mlp_ratio`"));
    assert!(error(r#"{"interpolation_scale": 0}"#).contains("`interpolation_scale`"));
    let huge = r#"{"num_attention_heads": 4294967296, "attention_head_dim": 4294967296}"#;
    assert!(error(huge).contains("`num_attention_heads`"));
}

/// Counts of instantiated reference models, and the reference's own accounting of compute.
#[test]
fn published_sizes_and_costs() {
    let large = SanaConfig::default();
    let small = SanaConfig {
        num_attention_heads: 36,
        num_layers: 28,
        num_cross_attention_heads: 16,
        cross_attention_head_dim: 72,
        cross_attention_dim: 1152,
        ..SanaConfig::default()
    };
    let qk_norm = Some(brisk_models::sana::QkNorm::RmsNormAcrossHeads);
    let sized = |base: &SanaConfig, num_layers, guidance_embeds| {
        SanaConfig {
            num_layers,
            qk_norm,
            guidance_embeds,
            ..base.clone()
        }
        .parameters()
    };
    assert_eq!(small.parameters(), 591_747_872);
    assert_eq!(large.parameters(), 1_604_462_752);
    assert_eq!(sized(&large, 20, false), 1_604_641_952);
    assert_eq!(sized(&large, 60, false), 4_721_825_952);
    assert_eq!(sized(&small, 28, true), 593_501_216);
    assert_eq!(sized(&large, 20, true), 1_610_237_472);
    let tera = |config: &SanaConfig, side| config.flops(1, side, side, 300, false) as f64 / 2e12;
    assert!(
        (tera(&small, 32) - 0.561).abs() < 0.002,
        "{}",
        tera(&small, 32)
    );
    assert!(
        (tera(&large, 32) - 1.483).abs() < 0.004,
        "{}",
        tera(&large, 32)
    );
    assert!(
        (tera(&large, 128) - 22.8).abs() < 0.1,
        "{}",
        tera(&large, 128)
    );
}
