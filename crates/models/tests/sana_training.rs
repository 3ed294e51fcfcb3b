//! Gradients of the whole transformer, and how a fresh one starts.

mod common;

use brisk_models::sana::{ForwardExtras, SanaTransformer};
use brisk_nn::{Tensor, Weights};
use brisk_testkit::{assert_close, fixtures_dir, relative_l2, values};
use common::{Inputs, TOLERANCE, config, golden, load, run};

#[test]
fn every_variable_has_a_gradient() {
    for case in ["t2_qk_norm", "t3_sprint", "t5_patch2"] {
        let inputs = Inputs::read(&golden(case));
        let file = fixtures_dir().join("sana_transformer").join(case);
        let file = file.join("diffusion_pytorch_model.safetensors");
        let source = brisk_store::open_weights(&file).unwrap();
        let variables = Weights::trainable(Some(source), 7);
        let model = SanaTransformer::load(&config(case), &variables).unwrap();
        let out = run(&model, &inputs, &ForwardExtras::default());
        let wanted = golden(case).get("outputs.sample");
        assert_close("trainable forward", &out, &wanted, TOLERANCE);
        let loss = out.sqr().unwrap().sum_all().unwrap();
        let gradients = loss.host().unwrap().backward().unwrap();
        let variables = variables.variables();
        assert_eq!(
            model.parameters(),
            variables
                .iter()
                .map(|(_, v)| v.elem_count() as u64)
                .sum::<u64>()
        );
        for (name, variable) in variables {
            let gradient = gradients.get(variable.as_tensor());
            let gradient = gradient.unwrap_or_else(|| panic!("{case}: {name} has no gradient"));
            let size = gradient
                .abs()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            assert!(
                size.is_finite() && size > 0.0,
                "{case}: gradient of {name} is {size}"
            );
        }
    }
}

/// A gradient of the whole model against a central difference.
#[test]
fn gradient_agrees_with_a_finite_difference() {
    let case = "t3_sprint";
    let inputs = Inputs::read(&golden(case));
    let file =
        fixtures_dir().join("sana_transformer/t3_sprint/diffusion_pytorch_model.safetensors");
    let weights = Weights::trainable(Some(brisk_store::open_weights(&file).unwrap()), 7);
    let model = SanaTransformer::load(&config(case), &weights).unwrap();
    let loss = || {
        let out = run(&model, &inputs, &ForwardExtras::default());
        out.sqr().unwrap().mean_all().unwrap()
    };
    let gradients = loss().host().unwrap().backward().unwrap();
    for (name, variable) in weights.variables() {
        let start = variable.as_tensor().copy().unwrap();
        let gradient = gradients.get(variable.as_tensor()).unwrap();
        let norm = gradient
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
            .sqrt();
        // Small: a query whose ReLU empties makes linear attention jump, as in the reference.
        let step = 3e-4f64;
        let direction = (gradient * (1.0 / f64::from(norm))).unwrap();
        let at = |amount: f64| {
            variable
                .set(&(&start + (&direction * amount).unwrap()).unwrap())
                .unwrap();
            f64::from(loss().to_scalar::<f32>().unwrap())
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        variable.set(&start).unwrap();
        let error = (slope - f64::from(norm)).abs();
        assert!(
            error < 0.005 * f64::from(norm) + 5e-4,
            "{name}: slope {slope}, gradient {norm}"
        );
    }
}

/// Value and rate of change along one direction of latent, time and guidance, from one pass of the same code.
#[test]
fn tangent_agrees_with_central_differences() {
    for (case, frozen) in [
        ("t1_base", true),
        ("t2_qk_norm", false),
        ("t3_sprint", true),
        ("t3_sprint", false),
    ] {
        let inputs = Inputs::read(&golden(case));
        let model = match frozen {
            true => load(case),
            false => {
                let file = fixtures_dir().join("sana_transformer").join(case);
                let file = file.join("diffusion_pytorch_model.safetensors");
                let source = brisk_store::open_weights(&file).unwrap();
                let weights = Weights::trainable(Some(source), 7);
                SanaTransformer::load(&config(case), &weights).unwrap()
            }
        };
        let wave = |x: &Tensor, scale: f64| {
            let count = x.elem_count();
            let values: Vec<f32> = (0..count).map(|i| ((i * i) as f32 * 0.7).sin()).collect();
            (Tensor::from_vec(values, x.dims()).unwrap() * scale).unwrap()
        };
        let (latent, time) = (&inputs.latent, &inputs.timestep);
        let along = (
            wave(latent, 1.0),
            wave(time, if case == "t3_sprint" { 0.3 } else { 3.0 }),
        );
        let strength = inputs.guidance.as_ref().map(|x| (x, wave(x, 0.2)));
        let caption = model.encode_caption(&inputs.text, &inputs.lengths).unwrap();
        let extras = ForwardExtras::default();
        let run = |latent: &Tensor, time: &Tensor, guidance: Option<&Tensor>| {
            model
                .forward(latent, time, guidance, &caption, &extras)
                .unwrap()
        };
        let strength_rate = strength
            .as_ref()
            .map(|(x, rate)| x.with_tangent(rate).unwrap());
        let result = run(
            &latent.with_tangent(&along.0).unwrap(),
            &time.with_tangent(&along.1).unwrap(),
            strength_rate.as_ref(),
        );
        assert!(!result.track_op(), "{case}: tangents are constants");
        let plain = run(latent, time, inputs.guidance.as_ref());
        assert_close(case, &result.primal(), &plain.detach(), 1e-5);
        let shifted = |by: f64| {
            let moved = |x: &Tensor, rate: &Tensor| (x + (rate * by).unwrap()).unwrap();
            let guidance = strength.as_ref().map(|(x, rate)| moved(x, rate));
            run(
                &moved(latent, &along.0),
                &moved(time, &along.1),
                guidance.as_ref(),
            )
        };
        let found = values(&result.tangent().unwrap());
        let far = |h: f64| {
            let slope = ((shifted(h) - shifted(-h)).unwrap() / (2.0 * h)).unwrap();
            relative_l2(&found, &values(&slope.detach()))
        };
        // A query whose ReLU empties makes linear attention jump, as in the reference: a long step may go over such a
        // place, and of a short one rounding leaves less.
        let nearest = [1e-3, 5e-4, 2e-4]
            .map(far)
            .into_iter()
            .fold(f64::INFINITY, f64::min);
        assert!(nearest < 1e-2, "{case}: {nearest:.1e}");
    }
}

#[test]
fn fresh_model_starts_as_specified() {
    let weights = Weights::trainable(None, 3);
    let model = SanaTransformer::load(&config("t3_sprint"), &weights).unwrap();
    let inputs = Inputs::read(&golden("t3_sprint"));
    run(&model, &inputs, &ForwardExtras::default());
    let variables = weights.variables();
    let values = |name: &str| {
        let found = variables.iter().find(|(n, _)| n == name);
        let (_, variable) = found.unwrap_or_else(|| panic!("no variable {name}"));
        brisk_testkit::values(&variable.as_tensor().into())
    };
    assert!(values("caption_norm.weight").iter().all(|x| *x == 0.01));
    assert!(
        values("transformer_blocks.0.attn1.norm_q.weight")
            .iter()
            .all(|x| *x == 1.0)
    );
    assert!(values("proj_out.weight").iter().any(|x| *x != 0.0));
    assert!(values("proj_out.bias").iter().all(|x| *x == 0.0));
    assert!(
        values("time_embed.guidance_embedder.linear_2.weight")
            .iter()
            .all(|x| *x == 0.0)
    );
    assert!(
        values("time_embed.timestep_embedder.linear_2.weight")
            .iter()
            .any(|x| *x != 0.0)
    );
}
