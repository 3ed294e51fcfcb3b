//! Every kernel against its plain statement, on whatever a device stands for: small and ragged sizes for the
//! emulator, the sizes of real models for a card, where each is timed too.
//!
//! A case says what an operation should give at one place of its result, in f64. Results of every case are compared
//! there (all places of small ones, some of large ones), and a second run must give the same bits.

mod attention;
mod few_bits;
mod layers;
mod rows;
mod tiles;

use half::bf16;

use crate::device::{Device, Precision};
use crate::error::Result;
use crate::tensor::{Element, Tensor};

/// Relative L2 distance of a kernel whose values are bf16: one rounding of the result.
pub const TOLERANCE: f64 = 4e-3;
/// The same where everything is f32.
pub const TOLERANCE_SINGLE: f64 = 1e-5;
/// Places of a large result that are compared.
const PLACES: usize = 2048;
/// Runs of which the median is the time.
const RUNS: usize = 20;

/// How large the operands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A few tiles, and sizes that no tile divides.
    Small,
    /// Those of published models.
    Real,
}

/// One operation with its operands, ready to run.
struct Ready {
    run: Box<dyn Fn() -> Result<Tensor>>,
    /// The value at a place of the result, counted over all its values.
    wanted: Box<dyn Fn(usize) -> f64>,
    /// Floating-point operations.
    operations: f64,
    /// Bytes that must move.
    bytes: f64,
    /// Whether nothing is rounded on the way.
    exact: bool,
}

impl Ready {
    fn new(
        run: impl Fn() -> Result<Tensor> + 'static,
        wanted: impl Fn(usize) -> f64 + 'static,
        (operations, bytes): (usize, usize),
    ) -> Self {
        Self {
            run: Box::new(run),
            wanted: Box::new(wanted),
            operations: operations as f64,
            bytes: bytes as f64,
            exact: false,
        }
    }

    /// The same, where the result must be equal.
    fn exactly(self) -> Self {
        Self {
            exact: true,
            ..self
        }
    }
}

/// A case of the suite.
pub struct Case {
    /// What is run, with what of it is tried.
    pub name: &'static str,
    /// The kernel files that it needs.
    pub files: &'static [&'static str],
    make: fn(&Setting) -> Result<Ready>,
}

/// Where and how large cases are.
struct Setting {
    device: Device,
    size: Size,
}

/// How a case went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case.
    pub name: &'static str,
    /// Relative L2 distance from what was wanted.
    pub distance: f64,
    /// Whether that may be no more than zero.
    pub exact: bool,
    /// Whether a second run gave the same bits.
    pub repeats: bool,
    /// Seconds of a run, where it was timed.
    pub seconds: Option<f64>,
    /// Floating-point operations of a run.
    pub operations: f64,
    /// Bytes that a run must move.
    pub bytes: f64,
}

impl Outcome {
    /// Whether it is right, for values kept so.
    pub fn passes(&self, precision: Precision) -> bool {
        let limit = match precision {
            Precision::Half => TOLERANCE,
            Precision::Single => TOLERANCE_SINGLE,
        };
        // NaN is below no limit.
        self.repeats
            && if self.exact {
                self.distance == 0.0
            } else {
                self.distance < limit
            }
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    [
        layers::CASES,
        tiles::CASES,
        few_bits::CASES,
        rows::CASES,
        attention::CASES,
    ]
    .concat()
    .into_iter()
    .map(|(name, files, make)| Case { name, files, make })
    .collect()
}

type Listed = (
    &'static str,
    &'static [&'static str],
    fn(&Setting) -> Result<Ready>,
);

impl Case {
    /// Runs it, and times it where asked.
    ///
    /// # Errors
    /// What the driver says.
    pub fn run(&self, device: &Device, size: Size, timed: bool) -> Result<Outcome> {
        let setting = Setting {
            device: device.clone(),
            size,
        };
        let ready = (self.make)(&setting)?;
        let (first, second) = ((ready.run)()?, (ready.run)()?);
        let (found, again) = (first.to_f32()?, second.to_f32()?);
        let repeats = found
            .iter()
            .zip(&again)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        let step = found.len().div_ceil(PLACES).max(1);
        // An odd step meets all channels of a layer in time.
        let step = step | 1;
        let (mut error, mut all) = (0.0, 0.0);
        for at in (0..found.len()).step_by(step) {
            let wanted = (ready.wanted)(at);
            error += (f64::from(found[at]) - wanted).powi(2);
            all += wanted.powi(2);
        }
        let seconds = match timed {
            false => None,
            true => {
                let mut times = Vec::with_capacity(RUNS);
                for _ in 0..RUNS {
                    times.push(device.time(|| (ready.run)().map(drop))?);
                }
                times.sort_by(f64::total_cmp);
                Some(times[RUNS / 2])
            }
        };
        Ok(Outcome {
            name: self.name,
            distance: (error / f64::max(all, f64::MIN_POSITIVE)).sqrt(),
            exact: ready.exact,
            repeats,
            seconds,
            operations: ready.operations,
            bytes: ready.bytes,
        })
    }
}

/// Random values on both sides.
#[derive(Clone)]
struct Values {
    host: std::rc::Rc<[f32]>,
    tensor: Tensor,
}

impl Values {
    fn at(&self, place: usize) -> f64 {
        f64::from(self.host[place])
    }
}

impl Setting {
    fn pick<T>(&self, small: T, real: T) -> T {
        match self.size {
            Size::Small => small,
            Size::Real => real,
        }
    }

    /// Bytes of so many values of the device's type.
    fn bytes(&self, values: usize) -> usize {
        values * self.device.element().bytes()
    }

    /// Uniform values of −1..1 that both types hold, of the device's type.
    fn noise(&self, seed: u64, dims: &[usize]) -> Result<Values> {
        self.filled(
            dims,
            self.device.element(),
            noise(seed, dims.iter().product()),
        )
    }

    /// The same in f32, as biases and factors are.
    fn vector(&self, seed: u64, dims: &[usize]) -> Result<Values> {
        self.filled(dims, Element::F32, noise(seed, dims.iter().product()))
    }

    fn filled(&self, dims: &[usize], element: Element, host: Vec<f32>) -> Result<Values> {
        let tensor = match element {
            Element::Bf16 => {
                let halves: Vec<bf16> = host.iter().map(|value| bf16::from_f32(*value)).collect();
                self.device.upload_bf16(&halves, dims)?
            }
            _ => self.device.upload(&host, dims)?,
        };
        Ok(Values {
            host: host.into(),
            tensor,
        })
    }
}

/// Uniform values of −1..1 that bf16 holds, the same ones of a seed.
pub fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bf16::from_f32((state >> 40) as f32 / (1 << 23) as f32 - 1.0).to_f32()
    };
    (0..count).map(|_| next()).collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}
