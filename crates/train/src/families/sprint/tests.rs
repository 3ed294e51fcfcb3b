//! The objective against its statement in PyTorch, and the wrapped transformer.

use brisk_models::sana::{
    CaptionContext, ForwardExtras, SanaConfig, SanaTransformer, compact_text,
};
use brisk_nn::{Tensor, Trace, Weights, ops};
use brisk_store::{ModelFolder, TensorSource, open_weights};
use brisk_testkit::{Golden, fixtures_dir};
use candle_core::Var;
use candle_core::backprop::GradStore;

use super::draws::{DiscriminatorDraws, Draw, StudentDraws};
use super::networks::Networks;
use super::objective::{LossWeights, Samples};
use super::probe::ScmProbe;
use crate::loss::Loss;
use crate::objectives::ladd::Discriminator;
use crate::objectives::{Angles, LogVariance, TrigFlow};
use crate::rng::Rng;
use crate::tensors::{self, NamedArray};

const TOLERANCE: f64 = 1e-4;

fn folder() -> std::path::PathBuf {
    fixtures_dir().join("sana_sprint/distillation")
}

/// The golden's inputs as a weights file in memory.
fn inputs(golden: &Golden, keep: impl Fn(&str) -> bool) -> std::sync::Arc<dyn TensorSource> {
    let names = golden.names("inputs.");
    let arrays = names.iter().filter_map(|full| {
        let name = full.strip_prefix("inputs.").filter(|name| keep(name))?;
        let tensor = golden.get(full);
        Some(NamedArray {
            name: name.to_owned(),
            shape: tensor.dims().to_vec(),
            values: brisk_testkit::values(&tensor),
        })
    });
    tensors::memory_source(&arrays.collect::<Vec<_>>(), "", false).unwrap()
}

#[test]
fn the_consistency_loss_agrees_with_pytorch() {
    let mut golden = Golden::open("sana_sprint/distillation/scm.safetensors");
    let source = inputs(&golden, |_| true);
    let model = ModelFolder::Disk(folder());
    let outputs = ScmProbe::run(&model, None, &*source, "inputs").unwrap();
    let wanted = golden.names("outputs.");
    for (name, tensor) in outputs.iter() {
        let full = format!("outputs.{name}");
        assert!(wanted.contains(&full), "{name} is not expected");
        assert!(golden.compare(&full, tensor, TOLERANCE));
    }
    assert_eq!(golden.summary().1, wanted.len(), "{wanted:?}");
    golden.report();
}

#[test]
fn a_probe_refuses_what_does_not_fit() {
    let golden = Golden::open("sana_sprint/distillation/scm.safetensors");
    let model = ModelFolder::Disk(folder());
    let run = |source: &dyn TensorSource| ScmProbe::run(&model, None, source, "given");
    let missing = run(&*inputs(&golden, |name| name != "warmup")).unwrap_err();
    assert!(missing.to_string().contains("warmup"), "{missing}");
    let zero = NamedArray {
        name: "t".to_owned(),
        shape: vec![3],
        values: vec![0.5, 0.0, 1.0],
    };
    let mut arrays = vec![zero];
    for name in golden
        .names("inputs.")
        .iter()
        .filter(|name| *name != "inputs.t")
    {
        let tensor = golden.get(name);
        arrays.push(NamedArray {
            name: name.trim_start_matches("inputs.").to_owned(),
            shape: tensor.dims().to_vec(),
            values: brisk_testkit::values(&tensor),
        });
    }
    let refused = run(&*tensors::memory_source(&arrays, "", false).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("\"t\" holds 0"), "{refused}");
    let folder = ModelFolder::Disk(fixtures_dir().join("sana_transformer/t3_sprint"));
    assert!(ScmProbe::run(&folder, None, &*inputs(&golden, |_| true), "given").is_err());
}

/// Networks of the fixture with the discriminator's parameters as the golden has them.
struct Step {
    golden: Golden,
    networks: Networks<SanaTransformer>,
    variables: Vec<(String, Var)>,
}

fn config(part: &str) -> SanaConfig {
    let bytes = std::fs::read(folder().join(part).join("config.json")).unwrap();
    SanaConfig::from_json(&bytes, part).unwrap()
}

fn stored(part: &str) -> std::sync::Arc<dyn TensorSource> {
    let file = folder()
        .join(part)
        .join("diffusion_pytorch_model.safetensors");
    open_weights(&file).unwrap()
}

impl Step {
    fn new() -> Self {
        let golden = Golden::open("sana_sprint/distillation/steps.safetensors");
        let scm = Golden::open("sana_sprint/distillation/scm.safetensors");
        let of_student = Weights::trainable(Some(stored("transformer")), 0);
        let student = SanaTransformer::load(&config("transformer"), &of_student).unwrap();
        let logvar = inputs(&scm, |name| name.starts_with("logvar."));
        let of_variance = Weights::trainable(Some(logvar), 0);
        let heads = inputs(&golden, |name| name.starts_with("heads."));
        let of_heads = Weights::trainable(Some(heads), 0);
        let teacher = Weights::from_source(stored("teacher"));
        let networks = Networks {
            student,
            variance: LogVariance::load(&of_variance.pp("logvar"), 16).unwrap(),
            teacher: SanaTransformer::load(&config("teacher"), &teacher).unwrap(),
            discriminator: Some(Discriminator::load(&of_heads, 2, 16).unwrap()),
            head_blocks: vec![0, 1],
        };
        let mut variables = of_student.variables();
        variables.extend(of_variance.variables());
        variables.extend(of_heads.variables());
        Self {
            golden,
            networks,
            variables,
        }
    }

    fn latents(&self) -> Tensor {
        ops::to_nhwc(&self.golden.get("inputs.latents")).unwrap()
    }

    fn captions(&self, model: &SanaTransformer, text: &str) -> CaptionContext {
        let mask = self.golden.mask("inputs.encoder_attention_mask");
        let shape = self.golden.get("inputs.encoder_hidden_states");
        let text = self.golden.get(&format!("inputs.{text}"));
        let text = text
            .broadcast_as(shape.shape().clone())
            .unwrap()
            .contiguous()
            .unwrap();
        let (text, lengths) = compact_text(&text, &mask).unwrap();
        model.encode_caption(&text, &lengths).unwrap()
    }

    fn samples(&self) -> Samples<SanaTransformer> {
        let text = "encoder_hidden_states";
        Samples {
            latents: self.latents(),
            student: self.captions(&self.networks.student, text),
            teacher: self.captions(&self.networks.teacher, text),
        }
    }

    fn draw(&self, name: &str) -> Draw {
        let noise = self.golden.get(&format!("inputs.{name}.noise"));
        Draw {
            angles: self.list(&format!("{name}.t")),
            noise: tensors::values(&ops::to_nhwc(&noise).unwrap()).unwrap(),
        }
    }

    fn list(&self, name: &str) -> Vec<f64> {
        let values = brisk_testkit::values(&self.golden.get(&format!("inputs.{name}")));
        values.into_iter().map(f64::from).collect()
    }

    fn one(&mut self, name: &str, value: f64) {
        let found = Tensor::from_vec(vec![value as f32], 1).unwrap();
        assert!(
            self.golden
                .compare(&format!("outputs.{name}"), &found, TOLERANCE)
        );
    }

    /// Compares the gradients of all that has one; nothing else may have any.
    fn gradients(&mut self, store: &GradStore, prefix: &str) {
        let mut wanted = self.golden.names(&format!("outputs.{prefix}"));
        for (name, variable) in &self.variables {
            let full = format!("outputs.{prefix}{name}");
            let Some(gradient) = store.get(variable.as_tensor()) else {
                assert!(!wanted.contains(&full), "{name} has no gradient");
                continue;
            };
            let before_norm = [".main.0.0.bias", ".main.1.fn.0.bias"];
            if before_norm.iter().any(|end| name.ends_with(end)) {
                // The norm takes it away again: both have what rounding leaves.
                let found = brisk_testkit::values(&gradient.into());
                assert!(found.iter().all(|g| g.abs() < 1e-6), "{name}: {found:?}");
            } else {
                let found: Tensor = gradient.into();
                assert!(self.golden.compare(&full, &found, TOLERANCE), "{name}");
            }
            wanted.retain(|name| *name != full);
        }
        assert!(wanted.is_empty(), "{wanted:?}");
        self.golden.report();
    }
}

fn term(terms: &[(&'static str, f64)], key: &str) -> f64 {
    let found = terms.iter().find(|(known, _)| *known == key);
    found.unwrap_or_else(|| panic!("no {key}")).1
}

#[test]
fn a_step_of_the_student_agrees_with_pytorch() {
    let mut step = Step::new();
    let draws = StudentDraws {
        guidance: step.list("guidance"),
        points: step.draw("points"),
        drawn: Some(step.draw("drawn")),
        seen: step.draw("seen"),
    };
    let weights = LossWeights {
        consistency: 1.0,
        adversarial: 0.5,
        tangent: 1.0,
    };
    let empty = step.captions(&step.networks.teacher, "null_encoder_hidden_states");
    let discriminator = step.networks.discriminator.as_ref().unwrap();
    let normalised = discriminator.normalise().unwrap();
    let (loss, terms): (Loss, _) = step
        .networks
        .student_loss(&step.samples(), &empty, &draws, Some(&normalised), weights)
        .unwrap();
    let (consistency, adversarial) = (
        term(&terms, "consistency_loss"),
        term(&terms, "adversarial_loss"),
    );
    assert!((loss.value - consistency - 0.5 * adversarial).abs() < 1e-9);
    step.one("consistency_loss", consistency);
    step.one("adversarial_loss", adversarial);
    step.gradients(&loss.surrogate.backward().unwrap(), "student.grad.");
}

#[test]
fn a_step_of_the_discriminator_agrees_with_pytorch() {
    let mut step = Step::new();
    let draws = DiscriminatorDraws {
        guidance: step.list("guidance"),
        drawn: step.draw("drawn"),
        fake: step.draw("fake"),
        real: step.draw("real").noise,
        misaligned: Some(step.draw("misaligned")),
    };
    let latents = step.latents();
    let count = latents.dim(0).unwrap();
    let rolled = [
        latents.narrow(0, count - 1, 1).unwrap(),
        latents.narrow(0, 0, count - 1).unwrap(),
    ];
    let neighbours = Tensor::cat(&rolled, 0).unwrap();
    let discriminator = step.networks.discriminator.as_ref().unwrap();
    let both = [
        discriminator.normalise().unwrap(),
        discriminator.normalise().unwrap(),
    ];
    let both = [&both[0], &both[1]];
    let (loss, terms) = step
        .networks
        .discriminator_loss(&step.samples(), &neighbours, &draws, both)
        .unwrap();
    step.one("discriminator_loss", term(&terms, "discriminator_loss"));
    step.gradients(&loss.surrogate.backward().unwrap(), "discriminator.grad.");
}

#[test]
fn batches_that_no_groups_divide_are_refused() {
    let weights = Weights::trainable(None, 1);
    let discriminator = Discriminator::load(&weights, 1, 4).unwrap();
    let normalised = discriminator.normalise().unwrap();
    let logits = |batch: usize, tokens: usize| {
        let x = Rng::new(2).normals(batch * tokens * 4);
        let x = Tensor::from_vec(x, (batch, tokens, 4)).unwrap();
        discriminator.logits(&[x], &normalised, true)
    };
    assert_eq!(logits(8, 5).unwrap().dims(), [8, 5]);
    assert!(logits(9, 5).is_err(), "two groups do not divide 9");
    assert!(logits(2, 3).is_err(), "a circle of 3 tokens is too small");
}

fn model() -> SanaTransformer {
    let config = SanaConfig {
        in_channels: 4,
        out_channels: Some(4),
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 2,
        num_cross_attention_heads: 2,
        cross_attention_head_dim: 8,
        cross_attention_dim: 16,
        caption_channels: 6,
        ..SanaConfig::default()
    };
    SanaTransformer::load(&config, &Weights::trainable(None, 5)).unwrap()
}

fn list(x: &Tensor) -> Vec<f64> {
    let values = crate::tensors::values(x).unwrap();
    values.into_iter().map(f64::from).collect()
}

/// Euler's steps from noise to data go to the same place in both parameterisations, and the prediction is the rate
/// of change of the angle's sample.
#[test]
fn the_wrapped_teacher_walks_the_flow_of_its_own() {
    let model = model();
    let mut rng = Rng::new(8);
    let shape = (2, 3, 3, 4);
    let x = Tensor::from_vec(rng.normals(72), shape).unwrap();
    let text = Tensor::from_vec(rng.normals(36), (2, 3, 6)).unwrap();
    let caption = model.encode_caption(&text, &[3, 2]).unwrap();
    let velocity = |x: &Tensor, s: f64| {
        let time = Tensor::full(s as f32, 2).unwrap();
        let extras = ForwardExtras::default();
        model.forward(x, &time, None, &caption, &extras).unwrap()
    };
    // F is dx/dt of x(t) = x_fm(s(t))/λ(t): a small step by either leads to the same sample.
    for t in [0.2, 0.7, 1.2, 1.5] {
        let flow = |t: f64| (t.sin() / (t.sin() + t.cos()), 1.0 / (t.sin() + t.cos()));
        let angles = [t; 2];
        let predicted = TrigFlow(&model).predict(
            &x,
            &Angles::fixed(&angles),
            None,
            &caption,
            &mut Trace::none(),
        );
        let predicted = list(&predicted.unwrap());
        let (s, lambda) = flow(t);
        let scaled = (&x * lambda).unwrap();
        let v = list(&velocity(&scaled, s));
        let h = 1e-4;
        let (next, next_lambda) = flow(t + h);
        for ((f, v), x) in predicted.iter().zip(&v).zip(list(&x)) {
            let by_flow = (lambda * x + (next - s) * v) / next_lambda;
            assert!(
                ((by_flow - x) / h - f).abs() < 2e-3 * (1.0 + f.abs()),
                "{t}"
            );
        }
        // The form of the paper's equation.
        let norm = (s * s + (1.0 - s) * (1.0 - s)).sqrt();
        for ((f, v), x) in predicted.iter().zip(&v).zip(list(&scaled)) {
            let wanted = ((1.0 - 2.0 * s) * x + (1.0 - 2.0 * s + 2.0 * s * s) * v) / norm;
            assert!((f - wanted).abs() < 1e-5 * (1.0 + wanted.abs()), "{t}");
        }
    }
}

#[test]
fn tangents_agree_with_differences() {
    let model = model();
    let mut rng = Rng::new(9);
    let shape = (2, 3, 3, 4);
    let mut draw = || Tensor::from_vec(rng.normals(72), shape).unwrap();
    let (x, along) = (draw(), draw());
    let text = Tensor::from_vec(Rng::new(1).normals(36), (2, 3, 6)).unwrap();
    let caption = model.encode_caption(&text, &[3, 2]).unwrap();
    let (angles, rates) = ([0.4, 1.2], [0.3, 0.25]);
    let at = |h: f64| {
        let moved = [0, 1].map(|i| angles[i] + h * rates[i]);
        let x = (&x + (&along * h).unwrap()).unwrap();
        let angles = Angles::fixed(&moved);
        let trace = &mut Trace::none();
        list(
            &TrigFlow(&model)
                .predict(&x, &angles, None, &caption, trace)
                .unwrap(),
        )
    };
    let moving = Angles {
        values: &angles,
        rates: Some(&rates),
    };
    let x = x.with_tangent(&along).unwrap();
    let trace = &mut Trace::none();
    let dual = TrigFlow(&model)
        .predict(&x, &moving, None, &caption, trace)
        .unwrap();
    assert!(
        list(&dual.primal())
            .iter()
            .zip(at(0.0))
            .all(|(a, b)| (a - b).abs() < 1e-5)
    );
    // Small: a query whose ReLU empties makes linear attention jump.
    let h = 3e-4;
    let (mut far, mut size) = (0.0, 0.0);
    for ((plus, minus), rate) in at(h).iter().zip(at(-h)).zip(list(&dual.tangent().unwrap())) {
        far += ((plus - minus) / (2.0 * h) - rate).powi(2);
        size += rate.powi(2);
    }
    assert!((far / size).sqrt() < 2e-3, "{}", (far / size).sqrt());
}
