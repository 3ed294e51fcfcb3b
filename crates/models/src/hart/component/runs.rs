//! The transformer's entries at work.

use brisk_nn::{KeyValueType, Tensor, Trace, ops};

use super::super::Scales;
use super::super::generate::{Generator, Greedy, Request};
use super::super::tokenizer::Tokenizer;
use super::super::transformer::Transformer;
use super::entries::*;
use crate::component::{NamedTensors, PrepareResult, Prepared, Runnable, Sizes, not_run};
use crate::{Error, Result};

/// The part that a value of this name ends; `blocks.3.attn.qkv_proj` is one of all blocks' own.
fn part(traced: &str) -> &str {
    let inner = match traced.strip_prefix("blocks.") {
        Some(rest) => rest.split_once('.').map_or("between", |(_, inner)| inner),
        None => traced,
    };
    match inner.split_once('.') {
        // Whatever the tokenizer shows.
        Some(("decoder", _)) => "decode",
        _ if inner == "post_quant_conv" => "decode",
        _ => inner,
    }
}

/// Predicts codes from those before them.
pub(super) struct Taught {
    pub transformer: Transformer,
    pub tokenizer: Tokenizer,
}

impl Runnable for Taught {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let context = inputs.required(CONTEXT.name)?.clone();
        let batch = context.dim(0)?;
        let scales = self.transformer.scales();
        let codes = codes(scales, inputs, batch)?;
        Ok(Box::new(Lesson {
            model: self,
            masks: inputs.mask(MASK.name)?.unwrap_or_default(),
            context,
            taught: self.tokenizer.quantizer().taught(scales, &codes, batch)?,
            outputs: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

/// Codes of all scales, or of all but the last, which nothing follows.
fn codes(scales: &Scales, inputs: &NamedTensors, batch: usize) -> Result<Vec<Vec<u32>>> {
    let given = inputs.series(CODES.name);
    let enough = [scales.count() - 1, scales.count()];
    if !enough.contains(&given.len()) {
        return Err(Error::Shape(format!(
            "codes of {} scales; `patch_nums` {:?} give {}, of which the last may be left out",
            given.len(),
            scales.sides(),
            scales.count()
        )));
    }
    let pairs = given.iter().zip(scales.sides()).enumerate();
    pairs
        .map(|(scale, (codes, side))| {
            if codes.dims() != [batch, side * side] {
                return Err(Error::Shape(format!(
                    "\"{}{scale}\" has shape {:?}; expected [{batch}, {}], a grid of {side}×{side}",
                    CODES.name,
                    codes.dims(),
                    side * side
                )));
            }
            codes.flatten_all()?.to_vec1()
        })
        .collect()
}

struct Lesson<'a> {
    model: &'a Taught,
    context: Tensor,
    masks: Vec<Vec<bool>>,
    taught: Vec<Tensor>,
    /// Logits and hidden states.
    outputs: Option<(Tensor, Tensor)>,
}

impl Prepared for Lesson<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let model = &self.model.transformer;
        let (mut progress, first) =
            model.begin(&self.context, &self.masks, false, KeyValueType::F32, trace)?;
        let mut hidden = vec![first];
        for input in &self.taught {
            hidden.push(model.next(&mut progress, input, trace)?);
        }
        let hidden = Tensor::cat(&hidden, 1)?;
        let logits = model.logits(&progress, &hidden, trace)?;
        self.outputs = Some((logits, hidden));
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let (logits, hidden) = self.outputs.clone().ok_or_else(not_run)?;
        let named = [(LOGITS.name, logits), (HIDDEN.name, hidden)];
        Ok(named
            .map(|(name, x)| (name.to_owned(), x))
            .into_iter()
            .collect())
    }
}

/// The diffusion head alone.
pub(super) struct Head(pub Transformer);

impl Runnable for Head {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let times = inputs.required(TIMESTEP.name)?.clone();
        let listed = times.to_vec1::<f32>()?;
        if let Some(time) = listed.iter().find(|time| !(0.0..1000.0).contains(*time)) {
            return Err(Error::Shape(format!(
                "\"{}\" holds {time}; expected 0 to 999",
                TIMESTEP.name
            ))
            .into());
        }
        let noisy = inputs.required(NOISY.name)?.clone();
        let (found, wanted) = (noisy.dim(1)?, self.0.codewords().width);
        if found != wanted {
            return Err(Error::Shape(format!(
                "\"{}\" has {found} channels; the codewords that the head was made for have {wanted}",
                NOISY.name
            ))
            .into());
        }
        Ok(Box::new(Places {
            model: &self.0,
            noisy,
            condition: inputs.required(CONDITION.name)?.clone(),
            times,
            sample: None,
        }))
    }

    fn part<'a>(&self, _traced: &'a str) -> &'a str {
        "diffusion_head"
    }
}

struct Places<'a> {
    model: &'a Transformer,
    noisy: Tensor,
    times: Tensor,
    condition: Tensor,
    sample: Option<Tensor>,
}

impl Prepared for Places<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let head = self.model.diffusion();
        let condition = head.condition(&self.condition)?;
        trace.see("cond_embed", &condition);
        self.sample = Some(head.forward(&self.noisy, &self.times, &condition, trace)?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let sample = self.sample.clone().ok_or_else(not_run)?;
        Ok([(SAMPLE.name.to_owned(), sample)].into_iter().collect())
    }
}

/// Draws.
pub(super) struct Draws(pub Generator);

impl Runnable for Draws {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let mut noise = vec![inputs.required(LATENTS.name)?.clone()];
        noise.extend(inputs.series(NOISE.name));
        let most = self.0.transformer().config().num_sampling_steps;
        if noise.len() > most {
            return Err(Error::Shape(format!(
                "\"{}\" of {} steps; `num_sampling_steps` is {most}, and nothing is added after the last",
                NOISE.name,
                noise.len() - 1
            ))
            .into());
        }
        let smooth = inputs.scalar(SMOOTH.name)?.unwrap_or(0.0);
        if smooth != 0.0 && smooth != 1.0 {
            let problem = format!("\"{}\" is {smooth}; expected 0 or 1", SMOOTH.name);
            return Err(Error::Shape(problem).into());
        }
        Ok(Box::new(Drawing {
            model: &self.0,
            context: inputs.required(CONTEXT.name)?.clone(),
            masks: inputs.mask(MASK.name)?.unwrap_or_default(),
            guidance: f64::from(inputs.scalar(GUIDANCE.name)?.unwrap_or(0.0)),
            chooser: Greedy {
                smooth: smooth == 1.0,
                noise,
            },
            outputs: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

struct Drawing<'a> {
    model: &'a Generator,
    context: Tensor,
    masks: Vec<Vec<bool>>,
    guidance: f64,
    chooser: Greedy,
    outputs: Option<NamedTensors>,
}

impl Prepared for Drawing<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let request = Request {
            context: &self.context,
            masks: &self.masks,
            guidance: self.guidance,
            given: &[],
            residual: true,
            steps: self.model.transformer().config().num_sampling_steps,
            kept_as: KeyValueType::F32,
        };
        let mut done = |_, _: &Tensor| Ok(());
        let drawn = self
            .model
            .draw(&request, &mut self.chooser, &mut done, trace)?;
        let image = self.model.picture(&drawn.latent, trace)?;
        let batch = self.context.dim(0)?;
        let mut outputs = NamedTensors::default();
        for (scale, codes) in drawn.codes.into_iter().enumerate() {
            let count = codes.len() / batch;
            outputs.insert_ids(&format!("{}{scale}", CODES.name), &[batch, count], codes)?;
        }
        outputs.insert(LATENT.name, ops::to_nchw(&drawn.latent)?);
        outputs.insert(IMAGE.name, ops::to_nchw(&image)?);
        self.outputs = Some(outputs);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        self.outputs.clone().ok_or_else(not_run)
    }
}
