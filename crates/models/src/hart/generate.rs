//! Drawing: codes scale by scale, then what they leave (sections 3.2 and 3.3 of the paper).

use brisk_nn::{DType, KeyValueType, Tensor, Trace, check_finite, logits};

use super::tokenizer::Tokenizer;
use super::transformer::{DiffusionSchedule, Transformer};
use crate::{Error, Result};

/// What the diffusion head's values are smaller by than what they stand for.
pub const RESIDUAL_SCALE: f64 = 0.6;
/// Scales that choose among more codes.
const EARLY_SCALES: usize = 7;

/// A scale whose codes are to be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Which.
    pub scale: usize,
    /// How far along it is, 0 to 1; the last scale counts as the one before it.
    pub progress: f64,
    /// Strength of guidance: logits are `(1 + g)·with text − g·without`.
    pub guidance: f64,
    /// Most codes that come into question.
    pub top_k: usize,
    /// Temperature where codewords are mixed.
    pub temperature: f64,
}

impl Stage {
    /// Of scale `scale` of `count` under guidance that grows up to `guidance`.
    pub fn new(scale: usize, count: usize, guidance: f64) -> Self {
        let steps = count.saturating_sub(1).max(1);
        let progress = scale.min(count.saturating_sub(2)) as f64 / steps as f64;
        Self {
            scale,
            progress,
            guidance: guidance * progress,
            top_k: if scale < EARLY_SCALES { 600 } else { 300 },
            temperature: (0.27 * (1.0 - progress * 0.95)).max(0.005),
        }
    }

    /// Turns a row of logits, what does not come into question left out (−∞), into the shares of a mixture
    /// of codewords. The `noise` of each code is added first.
    pub fn mix(&self, row: &mut [f32], noise: impl Fn(usize) -> f32) {
        let (sharpness, temperature) = (1.0 + self.progress, self.temperature);
        for (code, value) in row.iter_mut().enumerate() {
            if *value > f32::NEG_INFINITY {
                let sharp = *value * sharpness as f32 + noise(code);
                *value = sharp / temperature as f32;
            }
        }
        logits::softmax(row);
    }
}

/// What was chosen for a scale.
#[derive(Debug)]
pub struct Chosen {
    /// Codes `[B·n]`.
    pub codes: Vec<u32>,
    /// Shares of all codewords `[B·n,V]`, where mixtures go on instead of the codes' own.
    pub shares: Option<Tensor>,
}

/// Who decides what the model leaves open.
pub trait Chooser {
    /// Chooses by guided logits `[B,n,V]`.
    ///
    /// # Errors
    /// Logits that cannot be read.
    fn choose(&mut self, stage: &Stage, logits: &Tensor) -> Result<Chosen>;

    /// Standard normal values `[B,n,z]`: what the diffusion head starts from (`step` 0), and what is added
    /// after its first step, its second, … (1, 2, …).
    ///
    /// # Errors
    /// Values that cannot be made.
    fn noise(&mut self, step: usize, shape: [usize; 3]) -> Result<Tensor>;
}

/// The likeliest code everywhere; noise that was given.
#[derive(Debug, Clone)]
pub struct Greedy {
    /// Whether codewords are mixed by the logits, without noise.
    pub smooth: bool,
    /// What the diffusion head starts from, then what is added step by step; zeros where none is left.
    pub noise: Vec<Tensor>,
}

impl Chooser for Greedy {
    fn choose(&mut self, stage: &Stage, logits: &Tensor) -> Result<Chosen> {
        let (batch, count, width) = logits.dims3()?;
        let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
        let mut codes = Vec::with_capacity(batch * count);
        for row in values.chunks_exact_mut(width) {
            codes.push(logits::likeliest(row));
            if self.smooth {
                logits::keep_largest(row, stage.top_k);
                stage.mix(row, |_| 0.0);
            }
        }
        let shares = match self.smooth {
            true => Some(Tensor::from_vec(values, (batch * count, width))?),
            false => None,
        };
        Ok(Chosen { codes, shares })
    }

    fn noise(&mut self, step: usize, shape: [usize; 3]) -> Result<Tensor> {
        match self.noise.get(step) {
            Some(noise) if noise.dims() == shape => Ok(noise.clone()),
            Some(noise) => Err(Error::Shape(format!(
                "noise {step} of shape {:?}, expected {shape:?}",
                noise.dims()
            ))),
            None => Tensor::zeros(shape.as_slice(), DType::F32),
        }
    }
}

/// What is drawn.
pub struct Request<'a> {
    /// Texts `[B,L,D]`.
    pub context: &'a Tensor,
    /// Their real rows.
    pub masks: &'a [Vec<bool>],
    /// Guidance of the last scales; 0 goes without, in half the time.
    pub guidance: f64,
    /// Codes `[B·side²]` of the first scales, which are taken as they are.
    pub given: &'a [Vec<u32>],
    /// Whether the diffusion head adds what the codes leave.
    pub residual: bool,
    /// Steps of the diffusion head, 2 to 1000.
    pub steps: usize,
    /// What keys and values are kept as.
    pub kept_as: KeyValueType,
}

/// What came of it.
#[derive(Debug)]
pub struct Drawn {
    /// Codes `[B·side²]` of every scale.
    pub codes: Vec<Vec<u32>>,
    /// The final sum `[B,H,H,z]`.
    pub latent: Tensor,
}

/// Transformer and tokenizer together.
#[derive(Debug)]
pub struct Generator {
    transformer: Transformer,
    tokenizer: Tokenizer,
}

impl Generator {
    /// Of a transformer and a tokenizer that have the same codewords.
    pub fn new(transformer: Transformer, tokenizer: Tokenizer) -> Self {
        Self {
            transformer,
            tokenizer,
        }
    }

    /// The transformer.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Draws latents. `scale_done` is told of each scale, with the sum `[B,H,H,z]` so far, and may stop the run
    /// by an error. `trace` sees what
    /// [`Transformer`] shows, `f_hat` after each scale, and `diffusion_head` after each of its steps.
    ///
    /// # Errors
    /// Sizes that do not fit, given codes outside the codebook, a non-finite activation, or what `chooser`
    /// and `scale_done` report.
    pub fn draw(
        &self,
        request: &Request,
        chooser: &mut dyn Chooser,
        scale_done: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
        trace: &mut Trace,
    ) -> Result<Drawn> {
        let transformer = &self.transformer;
        let (scales, quantizer) = (transformer.scales(), self.tokenizer.quantizer());
        let batch = request.context.dim(0)?;
        let guided = request.guidance != 0.0;
        let (mut progress, mut hidden) = transformer.begin(
            request.context,
            request.masks,
            guided,
            request.kept_as,
            trace,
        )?;
        let mut codes: Vec<Vec<u32>> = Vec::with_capacity(scales.count());
        let mut sum: Option<Tensor> = None;
        for (scale, side) in scales.sides().iter().copied().enumerate() {
            if let Some(sum) = &sum {
                let input = quantizer.input(scales, scale, sum)?;
                hidden = transformer.next(&mut progress, &input, trace)?;
            }
            let stage = Stage::new(scale, scales.count(), request.guidance);
            let chosen = match request.given.get(scale) {
                Some(codes) => Chosen {
                    codes: codes.clone(),
                    shares: None,
                },
                None => {
                    let logits = transformer.logits(&progress, &hidden, trace)?;
                    chooser.choose(&stage, &guide(&logits, batch, stage.guidance)?)?
                }
            };
            let hard = quantizer.codewords(&chosen.codes, batch, side)?;
            let mut words = match &chosen.shares {
                Some(shares) => quantizer.codebook().mix(shares)?.reshape(hard.dims())?,
                None => hard.clone(),
            };
            if scales.is_last(scale) && request.residual {
                let residual =
                    self.residual(&hidden, &hard, stage.guidance, request, chooser, trace)?;
                words = (words + residual)?;
            }
            let added = quantizer.spread(scales, scale, &words)?;
            let total = match sum {
                Some(sum) => (sum + added)?,
                None => added,
            };
            trace.see("f_hat", &total);
            codes.push(chosen.codes);
            scale_done(scale, &total)?;
            sum = Some(total);
        }
        let latent = sum.ok_or_else(|| Error::Config("there are no scales".into()))?;
        Ok(Drawn { codes, latent })
    }

    /// Latent `[B,H,H,z]` to picture `[B,r·H,r·H,3]` in 0..1.
    ///
    /// # Errors
    /// A non-finite activation.
    pub fn picture(&self, latent: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        self.tokenizer.picture(latent, trace)?.affine(0.5, 0.5)
    }

    /// What the codewords `[B,H,H,z]` of the last scale leave, from noise, by the hidden states
    /// `[rows,H²,C]`.
    fn residual(
        &self,
        hidden: &Tensor,
        words: &Tensor,
        guidance: f64,
        request: &Request,
        chooser: &mut dyn Chooser,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let (rows, count, width) = hidden.dims3()?;
        let (batch, .., channels) = words.dims4()?;
        let words = words.reshape((batch * count, channels))?;
        // The reference goes without guidance at exactly 1.
        let guided = rows > batch && guidance != 1.0;
        let (words, hidden) = match guided {
            true => (Tensor::cat(&[&words, &words], 0)?, hidden.clone()),
            false => (words, hidden.narrow(0, 0, batch)?.contiguous()?),
        };
        let hidden = hidden.reshape((words.dim(0)?, width))?;
        let condition = self.transformer.condition(&hidden, &words)?;
        let head = self.transformer.diffusion();
        let condition = head.condition(&condition)?;
        let shape = [batch, count, channels];
        let rows = batch * count;
        let noise = |chooser: &mut dyn Chooser, step: usize| {
            chooser.noise(step, shape)?.reshape((rows, channels))
        };
        let mut x = noise(chooser, 0)?;
        let schedule = DiffusionSchedule::cosine(request.steps);
        for (done, step) in schedule.steps().iter().rev().enumerate() {
            let time = Tensor::from_vec(vec![step.time as f32], 1)?;
            let both = match guided {
                true => Tensor::cat(&[&x, &x], 0)?,
                false => x.clone(),
            };
            let predicted = head.forward(&both, &time, &condition, &mut Trace::none())?;
            let own = predicted.narrow(0, 0, rows)?;
            let mut eps = own.narrow(1, 0, channels)?;
            if guided {
                let other = predicted.narrow(0, rows, rows)?.narrow(1, 0, channels)?;
                eps = ((eps * (1.0 + guidance))? - (other * guidance)?)?;
            }
            let clean = step.clean(&x, &eps)?.clamp(-1.0, 1.0)?;
            x = step.mean(&x, &clean)?;
            if done + 1 < schedule.steps().len() {
                let deviation = step.deviation(&own.narrow(1, channels, channels)?)?;
                x = (x + (deviation * noise(chooser, done + 1)?)?)?;
            }
            trace.see("diffusion_head", &x);
            check_finite(&x, "diffusion head", &format!("step {done}"))?;
        }
        (x * RESIDUAL_SCALE)?.reshape(words_shape(batch, count, channels))
    }
}

/// The shape `[B,H,H,z]` of `count` = H² places.
fn words_shape(batch: usize, count: usize, channels: usize) -> (usize, usize, usize, usize) {
    let side = count.isqrt();
    (batch, side, side, channels)
}

/// Guided logits `[B,n,V]` of those with the text and, behind them, those without.
fn guide(logits: &Tensor, batch: usize, guidance: f64) -> Result<Tensor> {
    let own = logits.narrow(0, 0, batch)?.contiguous()?;
    if logits.dim(0)? == batch || guidance == 0.0 {
        return Ok(own);
    }
    let other = logits.narrow(0, batch, batch)?;
    (own * (1.0 + guidance))? - (other * guidance)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_those_published() {
        let first = Stage::new(0, 14, 4.5);
        assert_eq!(
            (first.guidance, first.temperature, first.top_k),
            (0.0, 0.27, 600)
        );
        // The last scale is treated as the one before it.
        let (before, last) = (Stage::new(12, 14, 4.5), Stage::new(13, 14, 4.5));
        assert_eq!(before.progress, last.progress);
        assert!((last.guidance - 4.153_846).abs() < 1e-6, "{last:?}");
        assert_eq!(last.top_k, 300);
        let small = Stage::new(3, 4, 4.5);
        assert_eq!((small.guidance, small.top_k), (3.0, 600));
        assert!((small.temperature - 0.099).abs() < 1e-9, "{small:?}");
    }

    #[test]
    fn mixtures_leave_out_what_does_not_come_into_question() {
        let stage = Stage::new(0, 4, 1.0);
        let mut row = [1.0, f32::NEG_INFINITY, 1.0, 0.0];
        stage.mix(&mut row, |_| 0.0);
        assert_eq!((row[0], row[1]), (row[2], 0.0));
        assert!(row[3] > 0.0 && row[3] < row[0], "{row:?}");
    }
}
