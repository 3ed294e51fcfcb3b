//! Parameters that an optimiser changes.

use super::init::{Init, fans};
use super::ledger::lock;
use crate::error::Result;
use crate::random::{SplitMix64, hash};
use crate::tensor::{Tensor, training_device};
use candle_core::Var;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The variables of a model by full name, made when they are first asked for.
#[derive(Default)]
pub(super) struct Variables(Mutex<BTreeMap<String, Var>>);

impl Variables {
    /// The variable at `path`; `start` gives its first values.
    pub fn get_or_make(
        &self,
        path: &str,
        start: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        if let Some(variable) = lock(&self.0).get(path) {
            return Ok(variable.as_tensor().into());
        }
        let start = start()?
            .on_host("training")?
            .to_device(&training_device())?;
        let variable = Var::from_tensor(&start)?;
        let tensor = variable.as_tensor().into();
        lock(&self.0).insert(path.to_owned(), variable);
        Ok(tensor)
    }

    /// Shape of a variable that was made.
    pub fn shape(&self, path: &str) -> Option<Vec<usize>> {
        let variables = lock(&self.0);
        variables.get(path).map(|variable| variable.dims().to_vec())
    }

    /// All of them, sorted by name.
    pub fn all(&self) -> Vec<(String, Var)> {
        let variables = lock(&self.0);
        let all = variables.iter().map(|(n, v)| (n.clone(), v.clone()));
        all.collect()
    }
}

/// Starting values: a generator of its own for each name, so that adding a layer elsewhere
/// changes nothing here.
pub(super) fn initial(path: &str, seed: u64, shape: &[usize], init: Init) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let (inputs, outputs) = fans(shape);
    let mut random = SplitMix64::new(hash(path, seed));
    let mut uniforms = |bound: f32| (0..count).map(|_| uniform(&mut random) * bound).collect();
    let values: Vec<f32> = match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Constant(value) => vec![value; count],
        Init::XavierUniform => uniforms((6.0 / (inputs + outputs) as f32).sqrt()),
        Init::KaimingUniform => uniforms((1.0 / inputs.max(1) as f32).sqrt()),
        Init::Normal(deviation) => (0..count)
            .map(|_| normal(&mut random) * deviation)
            .collect(),
        Init::FanIn(scale) => {
            let deviation = scale / (inputs.max(1) as f32).sqrt();
            (0..count)
                .map(|_| normal(&mut random) * deviation)
                .collect()
        }
    };
    Tensor::from_vec(values, shape)
}

/// In −1..1.
fn uniform(random: &mut SplitMix64) -> f32 {
    ((random.next_u64() >> 40) as f32 / (1u64 << 23) as f32) - 1.0
}

fn normal(random: &mut SplitMix64) -> f32 {
    let u = ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let v = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
