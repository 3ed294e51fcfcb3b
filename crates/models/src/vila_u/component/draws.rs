//! The language model's entries at work.

use brisk_nn::{KeyValueCache, Tensor, Trace, ops};

use super::super::generate::{Generator, Greedy, Request};
use super::language::{CODES, EMBEDS, FEATURES, GUIDANCE, HIDDEN, IDS, IMAGE, LOGITS, MASK};
use crate::component::{NamedTensors, PrepareResult, Prepared, Runnable, Sizes, floats, not_run};
use crate::language_model::{LanguageModel, Place, Rows};
use crate::{Error, Result};

/// What traces call logits of tokens.
const HEAD: &str = "head";

/// The part that a value of this name ends.
fn part(traced: &str) -> &str {
    if let Some(("depth" | "decoder", _)) = traced.split_once('.') {
        return match traced.starts_with("depth") {
            true => "depth",
            false => "decode",
        };
    }
    match traced.rsplit_once('.').map_or(traced, |(_, inner)| inner) {
        "embedding" => "embedding",
        "keys" => "qkv",
        "attention" => "attention",
        "mlp" => "mlp",
        HEAD => HEAD,
        "post_quant_conv" => "decode",
        _ => "between",
    }
}

/// The rows of a mask, or of none.
fn mask(inputs: &NamedTensors, rows: usize, tokens: usize) -> Result<Vec<Vec<bool>>> {
    let whole = || vec![vec![true; tokens]; rows];
    let mask = inputs.mask(MASK.name)?.unwrap_or_else(whole);
    match mask.iter().position(|row| !row.contains(&true)) {
        Some(row) => Err(Error::Shape(format!(
            "{} hides every token of row {row}; expected at least one to keep",
            MASK.name
        ))),
        None => Ok(mask),
    }
}

/// Predicts next tokens.
pub(super) struct Reads(pub LanguageModel);

impl Runnable for Reads {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let (rows, embedded) = match (inputs.get(IDS.name), inputs.get(EMBEDS.name)) {
            (Some(ids), None) => {
                let flat = ids.flatten_all()?.to_vec1::<u32>()?;
                (ids.dim(0)?, self.0.embed(&flat)?)
            }
            (None, Some(embeds)) => {
                let (rows, tokens, width) = embeds.dims3()?;
                (rows, embeds.reshape((rows * tokens, width))?)
            }
            _ => {
                let problem = format!("expected \"{}\" or \"{}\"", IDS.name, EMBEDS.name);
                return Err(Error::Shape(problem).into());
            }
        };
        let tokens = embedded.dim(0)? / rows;
        let mask = mask(inputs, rows, tokens)?;
        let kept = mask.iter().flatten().enumerate();
        let kept: Vec<u32> = kept
            .filter_map(|(at, keep)| keep.then_some(at as u32))
            .collect();
        let chosen = Tensor::from_slice(&kept, kept.len())?;
        Ok(Box::new(Reading {
            model: &self.0,
            embedded: embedded.index_select(&chosen, 0)?,
            mask,
            outputs: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

struct Reading<'a> {
    model: &'a LanguageModel,
    /// Rows of the kept tokens.
    embedded: Tensor,
    mask: Vec<Vec<bool>>,
    /// Logits and hidden states of the kept tokens.
    outputs: Option<[Tensor; 2]>,
}

impl Prepared for Reading<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let places: Vec<Place> = self
            .mask
            .iter()
            .map(|row| Place {
                tokens: row.iter().filter(|keep| **keep).count(),
                start: 0,
                pad: 0,
            })
            .collect();
        let mut caches: Vec<Option<&mut KeyValueCache>> = places.iter().map(|_| None).collect();
        let hidden =
            self.model
                .hidden_of(&self.embedded, &places, &mut caches, Rows::All, trace)?;
        let logits = self.model.logits(&hidden)?;
        trace.see(HEAD, &logits);
        self.outputs = Some([logits, hidden]);
        Ok(())
    }

    /// Rows of hidden tokens are zero.
    fn outputs(&self) -> Result<NamedTensors> {
        let found = self.outputs.as_ref().ok_or_else(not_run)?;
        let (rows, tokens) = (self.mask.len(), self.mask.first().map_or(0, Vec::len));
        let mut outputs = NamedTensors::default();
        for (port, kept) in [LOGITS, HIDDEN].iter().zip(found) {
            let width = kept.dim(1)?;
            let mut kept = kept.to_vec2::<f32>()?.into_iter();
            let mut values = Vec::with_capacity(rows * tokens * width);
            for keep in self.mask.iter().flatten() {
                let row = if *keep { kept.next() } else { None };
                values.extend(row.unwrap_or_else(|| vec![0.0; width]));
            }
            outputs.insert(port.name, floats(values, &[rows, tokens, width])?);
        }
        Ok(outputs)
    }
}

/// Draws.
pub(super) struct Draws(pub Generator);

impl Runnable for Draws {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let ([rows, tokens], ids) = inputs.ids(IDS.name)?;
        if !rows.is_multiple_of(2) {
            return Err(Error::Shape(format!(
                "\"{}\" has {rows} rows; expected an even number, those with a prompt before those without",
                IDS.name
            ))
            .into());
        }
        let mask = mask(inputs, rows, tokens)?;
        let prompts = ids.chunks(tokens.max(1)).zip(&mask).map(|(row, mask)| {
            let kept = row.iter().zip(mask).filter(|(_, keep)| **keep);
            kept.map(|(id, _)| *id).collect()
        });
        Ok(Box::new(Drawing {
            model: &self.0,
            prompts: prompts.collect(),
            guidance: f64::from(inputs.scalar(GUIDANCE.name)?.unwrap_or(1.0)),
            outputs: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

struct Drawing<'a> {
    model: &'a Generator,
    /// Those with a prompt, then those without.
    prompts: Vec<Vec<u32>>,
    guidance: f64,
    outputs: Option<NamedTensors>,
}

impl Prepared for Drawing<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let (prompts, without) = self.prompts.split_at(self.prompts.len() / 2);
        let config = self.model.tower().config();
        let (count, places) = (prompts.len(), config.places());
        let request = Request {
            prompts,
            unconditional: Some(without),
            guidance: self.guidance,
            places,
            given: &[],
        };
        let mut go_on = |_| Ok(());
        let drawn = self.model.draw(&request, &mut Greedy, &mut go_on, trace)?;
        let image = self.model.pictures(&drawn.sums, trace)?;
        let mut outputs = NamedTensors::default();
        let shape = [count, places, config.depth];
        outputs.insert_ids(CODES.name, &shape, drawn.codes.concat())?;
        let shape = (count, config.grid, config.grid, config.embed_dim);
        outputs.insert(FEATURES.name, drawn.sums.reshape(shape)?);
        outputs.insert(IMAGE.name, ops::to_nchw(&image)?);
        self.outputs = Some(outputs);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        self.outputs.clone().ok_or_else(not_run)
    }
}
