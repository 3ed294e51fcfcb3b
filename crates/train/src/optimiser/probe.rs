//! An optimiser on given parameters and gradients, step by step, to be held to another implementation.

use std::collections::{BTreeMap, BTreeSet};

use brisk_store::{Dtype, OutTensor, TensorSource, shown};
use candle_core::{Device, Var};

use super::came::{Came, CameOptions};
use super::momentum::{BlockRule, EightBit, NamedCodes};
use super::{Gradients, Optimiser};
use crate::error::{Error, Result};
use crate::tensors::{self, NamedArray};

/// An optimiser that runs on given gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// CAME.
    Came,
    /// CAME with its momentum in 8 bits.
    Came8bit,
}

/// What [`Probed::run`] gives: `param.STEP.NAME` after each step, and the last state.
#[derive(Debug)]
pub struct ProbeOutputs {
    arrays: Vec<NamedArray>,
    codes: Vec<NamedCodes>,
}

impl ProbeOutputs {
    /// For a weight file.
    pub fn tensors(&self) -> Vec<OutTensor<'_>> {
        let arrays = self.arrays.iter().map(NamedArray::to_f32_tensor);
        arrays
            .chain(self.codes.iter().map(NamedCodes::to_tensor))
            .collect()
    }
}

/// Names of one-element inputs.
const SETTINGS: [&str; 11] = [
    "lr",
    "weight_decay",
    "beta1",
    "beta2",
    "beta3",
    "eps1",
    "eps2",
    "clip",
    "block_size",
    "min_8bit_size",
    "block_rows",
];

impl Probed {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Came, Self::Came8bit];

    /// Its name as a component.
    pub fn name(self) -> &'static str {
        match self {
            Self::Came => "optimiser.came",
            Self::Came8bit => "optimiser.came8bit",
        }
    }

    /// What it takes and gives, in a line.
    pub fn ports(self) -> &'static str {
        match self {
            Self::Came => {
                "param.NAME, grad.STEP.NAME, lr [1], weight_decay?, beta1-3?, eps1-2?, clip? \
                 -> param.STEP.NAME, exp_avg.NAME, ..."
            }
            Self::Came8bit => {
                "the same, block_size?, min_8bit_size?, block_rows? -> exp_avg.NAME.data"
            }
        }
    }

    /// Runs over the gradients of `source` in the order of their steps; no model is needed.
    ///
    /// # Errors
    /// Tensors that are missing, of no use, of another shape than their parameter's, or not finite.
    pub fn run(self, source: &dyn TensorSource) -> Result<ProbeOutputs> {
        let mut parameters: Vec<(String, Var)> = Vec::new();
        let mut steps: BTreeSet<(u64, String)> = BTreeSet::new();
        for name in source.names() {
            let refuse = |message: &str| Err(refusal(source, &name, message));
            if let Some(parameter) = name.strip_prefix("param.") {
                let shape = source.info(&name).map_or_else(Vec::new, |(_, shape)| shape);
                if shape.contains(&0) {
                    return refuse("is empty");
                }
                let values = tensors::read(source, &name, &shape)?;
                let variable = Var::from_vec(values, shape, &Device::Cpu)?;
                parameters.push((parameter.to_owned(), variable));
            } else if let Some(gradient) = name.strip_prefix("grad.") {
                let place = gradient.split_once('.');
                let step = place.and_then(|(step, _)| step.parse::<u64>().ok().map(|n| (n, step)));
                match step {
                    // Outputs are named by the step as it is written.
                    Some((number, step)) if number.to_string() == step => {
                        steps.insert((number, step.to_owned()));
                    }
                    _ => return refuse("has no step; expected grad.STEP.NAME"),
                }
            } else if !SETTINGS.contains(&name.as_str()) {
                return refuse(&format!(
                    "is of no use; expected param.NAME, grad.STEP.NAME and {}",
                    SETTINGS.join(", ")
                ));
            }
        }
        let (options, rate) = self.options(source)?;
        if parameters.is_empty() || steps.is_empty() {
            return Err(refusal(
                source,
                "param.NAME",
                "and grad.STEP.NAME are needed",
            ));
        }
        for name in source.names() {
            let of = name
                .strip_prefix("grad.")
                .and_then(|rest| rest.split_once('.'));
            if let Some((_, of)) = of
                && !parameters.iter().any(|(name, _)| name == of)
            {
                return Err(refusal(
                    source,
                    &name,
                    &format!("has no param.{}", shown(of)),
                ));
            }
        }
        let mut optimiser = Came::new(parameters.clone(), options);
        let mut arrays = Vec::new();
        for (_, step) in &steps {
            let mut gradients = Vec::with_capacity(parameters.len());
            for (name, variable) in &parameters {
                let name = format!("grad.{step}.{name}");
                let gradient = match source.info(&name) {
                    Some(_) => Some(tensors::read(source, &name, variable.dims())?),
                    None => None,
                };
                gradients.push(gradient);
            }
            if optimiser.step(Gradients::of(gradients), rate)?.skipped {
                return Err(refusal(source, &format!("grad.{step}"), "is not finite"));
            }
            for (name, variable) in &parameters {
                arrays.push(NamedArray::of_variable(
                    &format!("param.{step}.{name}"),
                    variable,
                )?);
            }
        }
        arrays.extend(optimiser.state());
        let codes = optimiser.codes();
        Ok(ProbeOutputs { arrays, codes })
    }

    /// The constants with the learning rate.
    fn options(self, source: &dyn TensorSource) -> Result<(CameOptions, f64)> {
        let mut found: BTreeMap<&str, f64> = BTreeMap::new();
        for name in SETTINGS {
            if let Some(value) = setting(source, name)? {
                found.insert(name, value);
            }
        }
        let defaults = CameOptions::default();
        let get = |name: &str, default: f64| found.get(name).copied().unwrap_or(default);
        let of_blocks = ["block_size", "min_8bit_size", "block_rows"];
        let eight_bit = match self {
            Self::Came => {
                if let Some(name) = of_blocks.iter().find(|name| found.contains_key(*name)) {
                    return Err(refusal(source, name, "is for optimiser.came8bit alone"));
                }
                None
            }
            Self::Came8bit => {
                let default = EightBit::default();
                let count = |name: &str, least: f64, default: usize| {
                    let value = get(name, default as f64);
                    match value >= least && value <= 1e12 && value.fract() == 0.0 {
                        true => Ok(value as usize),
                        false => Err(refusal(source, name, "is no whole number that fits")),
                    }
                };
                Some(EightBit {
                    block_size: count("block_size", 1.0, default.block_size)?,
                    blocks: match count("block_rows", 0.0, 0)? {
                        0 => BlockRule::Elements,
                        1 => BlockRule::Rows,
                        _ => return Err(refusal(source, "block_rows", "is neither 0 nor 1")),
                    },
                    min_8bit_size: count("min_8bit_size", 0.0, default.min_8bit_size)?,
                })
            }
        };
        let Some(rate) = found.get("lr").copied() else {
            return Err(refusal(source, "lr", "is missing"));
        };
        let options = CameOptions {
            betas: (
                get("beta1", defaults.betas.0),
                get("beta2", defaults.betas.1),
                get("beta3", defaults.betas.2),
            ),
            epsilons: (
                get("eps1", defaults.epsilons.0),
                get("eps2", defaults.epsilons.1),
            ),
            update_bound: get("clip", defaults.update_bound),
            weight_decay: get("weight_decay", 0.0),
            clip: None,
            eight_bit,
        };
        let decays = [options.betas.0, options.betas.1, options.betas.2];
        let within = decays.iter().all(|beta| (0.0..1.0).contains(beta));
        if !within || options.update_bound.is_nan() || options.update_bound <= 0.0 {
            return Err(refusal(
                source,
                "beta1-3, clip",
                "are not 0 to below 1, and above 0",
            ));
        }
        Ok((options, rate))
    }
}

/// A one-element input. What F32 rounds a decimal number to is read as that number, so that `1 - beta` has the
/// digits of the one that was meant.
fn setting(source: &dyn TensorSource, name: &str) -> Result<Option<f64>> {
    let Some(view) = source.view(name)? else {
        return Ok(None);
    };
    if view.elements()? != 1 {
        return Err(refusal(source, name, "is not one number"));
    }
    let value = match (view.dtype, <[u8; 8]>::try_from(&*view.data)) {
        (Dtype::F64, Ok(bytes)) => f64::from_le_bytes(bytes),
        _ => view.to_f32()?[0].to_string().parse().unwrap_or(f64::NAN),
    };
    match value.is_finite() {
        true => Ok(Some(value)),
        false => Err(refusal(source, name, "is not finite")),
    }
}

fn refusal(source: &dyn TensorSource, name: &str, message: &str) -> Error {
    Error::Data(format!(
        "{}: {} {message}",
        source.origin(name),
        shown(name)
    ))
}
