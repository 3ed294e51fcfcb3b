//! The networks' ways to run: one evaluation, and the whole way from noise.

use brisk_nn::{Tensor, Trace, ops};

use super::sampler::{Guided, Sampler};
use super::{ClassConditionalConfig, ClassConditionalTransformer};
use crate::component::{Entry, NamedTensors, Port, PrepareResult, Runnable, Setting, Sizes, pass};
use crate::{Error, Result};

pub(super) const HIDDEN: Port = Port::float("hidden_states", &["B", "C", "H", "W"]);
pub(super) const TIMESTEP: Port = Port::float("timestep", &["B"]);
pub(super) const CLASSES: Port = Port::ids("class_labels", &["B"], "class");
const PREDICTED: Port = Port::float("sample", &["B", "C_out", "H", "W"]);

pub(super) const TRANSFORMER: Entry = Entry {
    name: "transformer",
    about: "Evaluate a class-conditional transformer once",
    inputs: &[HIDDEN, TIMESTEP, CLASSES],
    outputs: &[PREDICTED],
    sizes: &[],
    settings: &[Setting::Quantization, Setting::Device],
};

pub(super) const LATENTS: Port = Port::float("latents", &["B", "C", "H", "W"]);
pub(super) const STEPS: Port = Port::ids("steps", &["1"], "steps");
pub(super) const GUIDANCE: Port = Port::scalar("guidance");
pub(super) const NOISE: Port = Port::float("noise.", &["B", "C", "H", "W"]);
const SAMPLE: Port = Port::float("sample", &["B", "C", "H", "W"]);

pub(super) const SAMPLER: Entry = Entry {
    name: "sampler",
    about: "Walk from noise to a latent of a class",
    inputs: &[LATENTS, STEPS, GUIDANCE, CLASSES, NOISE],
    outputs: &[SAMPLE],
    ..TRANSFORMER
};

fn classes(inputs: &NamedTensors) -> Result<Vec<u32>> {
    inputs.required(CLASSES.name)?.to_vec1()
}

/// The way that the inputs ask for, its steps, and the strength of guidance.
pub(super) fn given_sampler(
    config: &ClassConditionalConfig,
    inputs: &NamedTensors,
) -> Result<(Sampler, usize, f32)> {
    let steps: Vec<u32> = inputs.required(STEPS.name)?.to_vec1()?;
    let steps = steps.first().copied().unwrap_or(0) as usize;
    let sampler = Sampler::new(config, Some(steps))
        .map_err(|error| Error::Shape(format!("\"{}\": {error}", STEPS.name)))?;
    let guidance = inputs.scalar(GUIDANCE.name)?.unwrap_or(1.0);
    Ok((sampler, steps, guidance))
}

/// Blocks of a kind are one part, and so is what lies before them.
fn part(traced: &str) -> &str {
    match traced.split('.').next() {
        Some("t_embedder") => "x_embedder",
        Some(kind) => kind,
        None => traced,
    }
}

impl Runnable for ClassConditionalTransformer {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let hidden = ops::to_nhwc(inputs.required(HIDDEN.name)?)?;
        let times = inputs.required(TIMESTEP.name)?.clone();
        let classes = classes(inputs)?;
        Ok(pass(
            move |trace| self.forward_traced(&hidden, &times, &classes, trace),
            |sample| {
                let sample = ops::to_nchw(sample)?;
                Ok([(PREDICTED.name.to_owned(), sample)].into_iter().collect())
            },
        ))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

/// A network in its loop.
pub(super) struct SamplerRun(pub ClassConditionalTransformer);

impl Runnable for SamplerRun {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let (sampler, steps, guidance) = given_sampler(self.0.config(), inputs)?;
        let model = Guided::new(&self.0, &classes(inputs)?, guidance)?;
        let latents = ops::to_nhwc(inputs.required(LATENTS.name)?)?;
        let noise = inputs.series(NOISE.name);
        let draws = sampler.draws();
        // The authors draw once more than they use.
        if noise.len() != draws && noise.len() != draws + 1 {
            let name = NOISE.name;
            return Err(Error::Shape(format!(
                "there are {} tensors \"{name}I\"; {steps} steps draw {draws} of them, from \"{name}0\" on",
                noise.len()
            ))
            .into());
        }
        let noise = noise.iter().map(ops::to_nhwc);
        let noise: Vec<Tensor> = noise.collect::<Result<_>>()?;
        let run = move |trace: &mut Trace| {
            let mut draw = |index: usize| {
                let drawn = noise.get(index).cloned();
                drawn.ok_or_else(|| Error::Shape(format!("there is no noise of step {index}")))
            };
            sampler.run(&model, &latents, &mut draw, &mut |_, _| Ok(()), trace)
        };
        Ok(pass(run, |sample: &Tensor| {
            let sample = ops::to_nchw(sample)?;
            Ok([(SAMPLE.name.to_owned(), sample)].into_iter().collect())
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}
