//! The transformer's ways to run: one evaluation, and the loop.

use brisk_nn::{Tensor, Trace};

use super::{VideoConditioning, VideoSampler, VideoTransformer, video_sigmas};
use crate::component::{
    Entry, NamedTensors, Port, PrepareResult, Runnable, Setting, SizeName, Sizes, pass,
};
use crate::hunyuan_video::clip::{to_channels_first, to_channels_last};
use crate::{Error, Result};

pub(super) const HIDDEN: Port = Port::float("hidden_states", &["B", "C", "F", "H", "W"]);
pub(super) const TIMESTEP: Port = Port::float("timestep", &["B"]);
pub(super) const TEXT: Port = Port::float("encoder_hidden_states", &["B", "L", "D"]);
pub(super) const TEXT_MASK: Port = Port::mask("encoder_attention_mask", &["B", "L"]);
pub(super) const POOLED: Port = Port::float("pooled_projections", &["B", "P"]);
pub(super) const GUIDANCE: Port = Port::float("guidance", &["B"]).optional();
pub(super) const SAMPLE: Port = Port::float("sample", &["B", "C_out", "F", "H", "W"]);

/// What both ways honour.
const SETTINGS: &[Setting] = &[
    Setting::Quantization,
    Setting::Activations,
    Setting::RandomLowBit,
];

pub(super) const TRANSFORMER: Entry = Entry {
    name: "transformer",
    about: "Evaluate a transformer over clips once",
    inputs: &[HIDDEN, TIMESTEP, TEXT, TEXT_MASK, POOLED, GUIDANCE],
    outputs: &[SAMPLE],
    sizes: &[FRAMES, HEIGHT, WIDTH, TOKENS],
    settings: SETTINGS,
};

pub(super) const FRAMES: SizeName = SizeName {
    name: "frames",
    unit: "N",
    about: "Latent frames of the clip (default: 1)",
    usual: Some(1),
    smallest: 1,
    largest: 4096,
    of_inputs: true,
};
pub(super) const HEIGHT: SizeName = SizeName {
    name: "height",
    unit: "PIXELS",
    about: "Height of the clip in pixels (default: 544)",
    usual: Some(544),
    smallest: 1,
    largest: 8192,
    of_inputs: true,
};
pub(super) const WIDTH: SizeName = SizeName {
    name: "width",
    unit: "PIXELS",
    about: "Width of the clip in pixels (default: 960)",
    usual: Some(960),
    ..HEIGHT
};
pub(super) const TOKENS: SizeName = SizeName {
    name: "tokens",
    unit: "N",
    about: "Tokens of the text (default: 402, of which 146 are a picture's)",
    usual: Some(402),
    smallest: 1,
    largest: 65_536,
    of_inputs: true,
};

pub(super) const LATENTS: Port = Port::float("latents", &["B", "C_out", "F", "H", "W"]);
pub(super) const IMAGE_LATENTS: Port =
    Port::float("image_latents", &["B", "C_out", "given", "H", "W"]);
pub(super) const STEPS: Port = Port::ids("steps", &["1"], "steps");
pub(super) const SHIFT: Port = Port::scalar("shift");
const STRENGTH: Port = Port::scalar("guidance").optional();
/// What guidance leads away from: text, its mask, the whole.
pub(super) const NEGATIVE: [Port; 3] = [
    Port::float("negative_encoder_hidden_states", &["B", "L_negative", "D"]).optional(),
    Port::mask("negative_encoder_attention_mask", &["B", "L_negative"]).optional(),
    Port::float("negative_pooled_projections", &["B", "P"]).optional(),
];
const AFTER: Port = Port::float("latents.", &["B", "C_out", "F", "H", "W"]);

/// Most steps of the loop.
pub(super) const MOST_STEPS: usize = 10_000;

pub(super) const SAMPLER: Entry = Entry {
    name: "sampler",
    about: "Walk from noise to a latent",
    inputs: &[
        LATENTS,
        STEPS,
        SHIFT,
        STRENGTH,
        TEXT,
        TEXT_MASK,
        POOLED,
        IMAGE_LATENTS,
        NEGATIVE[0],
        NEGATIVE[1],
        NEGATIVE[2],
    ],
    outputs: &[SAMPLE, AFTER],
    ..TRANSFORMER
};

/// Valid tokens of each text: they come first.
pub(super) fn lengths(inputs: &NamedTensors, name: &str) -> Result<Vec<usize>> {
    let mask = inputs.mask(name)?.unwrap_or_default();
    let length = |(row, mask): (usize, &Vec<bool>)| {
        let count = mask.iter().take_while(|keep| **keep).count();
        let all = mask.iter().filter(|keep| **keep).count();
        match count == all && count > 0 {
            true => Ok(count),
            false => Err(Error::Shape(format!(
                "row {row} of \"{name}\" keeps {all} tokens, {count} of them from the first on; expected at least \
                 one, and none behind a hidden one"
            ))),
        }
    };
    mask.iter().enumerate().map(length).collect()
}

/// Steps of the loop, where the inputs say them.
pub(super) fn steps(inputs: &NamedTensors) -> Result<Option<usize>> {
    let Some(tensor) = inputs.get(STEPS.name) else {
        return Ok(None);
    };
    match tensor.to_vec1::<u32>()?[..] {
        [steps] if steps > 0 => Ok(Some(steps as usize)),
        _ => Err(Error::Shape(format!(
            "\"{}\" is 0; expected 1 to {MOST_STEPS}",
            STEPS.name
        ))),
    }
}

/// One row of a tensor.
fn row(x: &Tensor, row: usize) -> Result<Tensor> {
    x.narrow(0, row, 1)?.contiguous()
}

/// What each clip is made by: text, its mask and the whole, with the strength of guidance that is embedded.
fn conditioning(
    inputs: &NamedTensors,
    [text, mask, pooled]: [&Port; 3],
    guidance: &[Option<f32>],
) -> Result<Vec<VideoConditioning>> {
    let mask = mask.name;
    let (text, pooled) = (inputs.required(text.name)?, inputs.required(pooled.name)?);
    let lengths = lengths(inputs, mask)?.into_iter().enumerate();
    let one = |(index, length): (usize, usize)| {
        Ok(VideoConditioning {
            tokens: row(text, index)?.narrow(1, 0, length)?.contiguous()?,
            pooled: row(pooled, index)?,
            guidance: guidance.get(index).copied().flatten(),
        })
    };
    lengths.map(one).collect()
}

impl Runnable for VideoTransformer {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let hidden = to_channels_last(inputs.required(HIDDEN.name)?)?;
        let times: Vec<f32> = inputs.required(TIMESTEP.name)?.to_vec1()?;
        let guidance = match inputs.get(GUIDANCE.name) {
            Some(guidance) => guidance.to_vec1::<f32>()?.into_iter().map(Some).collect(),
            None => Vec::new(),
        };
        let by = conditioning(inputs, [&TEXT, &TEXT_MASK, &POOLED], &guidance)?;
        Ok(pass(
            move |trace| {
                let clips = by.iter().zip(&times).enumerate();
                let clips = clips.map(|(index, (by, time))| {
                    self.forward(&row(&hidden, index)?, *time, by, trace)
                });
                Tensor::cat(&clips.collect::<Result<Vec<_>>>()?, 0)
            },
            |sample| {
                let sample = to_channels_first(sample)?;
                Ok([(SAMPLE.name.to_owned(), sample)].into_iter().collect())
            },
        ))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

/// Blocks of a kind are one part.
fn part(traced: &str) -> &str {
    match traced.split('.').next() {
        Some("norm_out") => "proj_out",
        Some("time_text_embed") => "x_embedder",
        Some(kind) => kind,
        None => traced,
    }
}

/// The transformer in its loop.
pub(super) struct Sampler(pub VideoTransformer);

impl Runnable for Sampler {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let embeds = self.0.config().guidance_embeds;
        let strength = inputs.scalar(STRENGTH.name)?;
        let latents = to_channels_last(inputs.required(LATENTS.name)?)?;
        let batch = latents.dim(0)?;
        let given = match inputs.get(IMAGE_LATENTS.name) {
            Some(given) => Some(to_channels_last(given)?),
            None => None,
        };
        // Embedded strengths are in thousandths.
        let embedded = vec![strength.filter(|_| embeds).map(|w| w * 1000.0); batch];
        let by = conditioning(inputs, [&TEXT, &TEXT_MASK, &POOLED], &embedded)?;
        let [text, mask, pooled] = &NEGATIVE;
        let others = NEGATIVE
            .iter()
            .filter(|port| inputs.get(port.name).is_some());
        let against = match others.count() {
            0 => None,
            3 => Some(conditioning(inputs, [text, mask, pooled], &embedded)?),
            some => {
                return Err(Error::Shape(format!(
                    "{some} of the tensors \"negative_…\"; expected all three or none"
                ))
                .into());
            }
        };
        if strength.is_none() && (embeds || against.is_some()) {
            let message = format!("there is no tensor \"{}\"", STRENGTH.name);
            return Err(Error::Shape(message).into());
        }
        let steps = steps(inputs)?.unwrap_or(1);
        let shift = inputs.scalar(SHIFT.name)?.unwrap_or(1.0);
        if shift <= 0.0 {
            let message = format!("\"{}\" is {shift}; expected a positive value", SHIFT.name);
            return Err(Error::Shape(message).into());
        }
        let sigmas = video_sigmas(steps, f64::from(shift));
        let run = move |trace: &mut Trace| {
            let mut clips = Vec::with_capacity(batch);
            for index in 0..batch {
                let given = match &given {
                    Some(given) => Some(row(given, index)?),
                    None => None,
                };
                let against = match (&against, strength) {
                    (Some(against), Some(strength)) => Some((&against[index], strength)),
                    _ => None,
                };
                let sampler = VideoSampler::new(
                    &self.0,
                    &by[index],
                    against,
                    given.as_ref(),
                    sigmas.clone(),
                )?;
                let mut x = row(&latents, index)?;
                let mut after = Vec::with_capacity(steps);
                for step in 0..sampler.steps() {
                    x = sampler.step(step, &x, trace)?;
                    after.push(x.clone());
                }
                clips.push(after);
            }
            let after = (0..steps).map(|step| {
                let all: Vec<&Tensor> = clips.iter().map(|clip| &clip[step]).collect();
                Tensor::cat(&all, 0)
            });
            after.collect::<Result<Vec<_>>>()
        };
        Ok(pass(run, |after: &Vec<Tensor>| {
            let mut outputs = NamedTensors::default();
            for (step, latents) in after.iter().enumerate() {
                outputs.insert(format!("{}{step}", AFTER.name), to_channels_first(latents)?);
            }
            if let Some(last) = after.last() {
                outputs.insert(SAMPLE.name, to_channels_first(last)?);
            }
            Ok(outputs)
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}
