//! What is learned of every picture: its codes, the sums that they come to, and what they leave.

use brisk_models::hart::tokenizer::{Parts, Quantizer};
use brisk_models::hart::{RESIDUAL_SCALE, Scales};
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::Control;

use super::TokenizerFiles;
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::eval::BATCH;
use crate::pictures;
use crate::tensors;

/// Share of values beyond the diffusion head's reach from which it is said.
const MOST_BEYOND: f64 = 0.05;

/// A picture's codes.
pub(super) struct Lesson {
    /// Codes of all scales, place after place.
    pub codes: Vec<u32>,
    /// Sums so far on the grids of the second scale to the last, `[places, z]`.
    pub inputs: Vec<f32>,
    /// What the scales before the last leave on its places, `[side², z]`.
    pub rest: Vec<f32>,
}

/// Those of all training pictures.
pub(super) struct Lessons {
    pub scales: Scales,
    /// Channels of a codeword.
    pub width: usize,
    /// All codewords, `[codes, z]`.
    pub codewords: Vec<f32>,
    pub all: Vec<Lesson>,
}

impl Lessons {
    /// Encodes the pictures `training`.
    pub fn new(
        files: &TokenizerFiles,
        scales: &Scales,
        data: &PictureData,
        training: &[usize],
        control: &Control,
    ) -> Result<Self> {
        files.check(scales, data.required_side()?)?;
        let tokenizer = files.load(Parts::Encoder)?;
        let quantizer = tokenizer.quantizer();
        let width = files.config.z_channels;
        let count = files.config.vocab_size;
        let codewords = quantizer
            .codebook()
            .lookup(&(0..count as u32).collect::<Vec<_>>())?;
        let mut lessons = Self {
            scales: scales.clone(),
            width,
            codewords: tensors::values(&codewords)?,
            all: Vec::with_capacity(training.len()),
        };
        for indices in training.chunks(BATCH) {
            control.check()?;
            let shown = pictures::batch(data, indices)?;
            let latent = tokenizer.latent(&shown, &mut Trace::none())?;
            lessons.add(quantizer, &latent, indices.len())?;
        }
        let beyond = lessons.beyond();
        if beyond > MOST_BEYOND {
            control.warn(format!(
                "{:.0} % of what the codes leave lies beyond ±{RESIDUAL_SCALE}, which is the most that the diffusion \
                 head gives; take a tokenizer of `brisk train tokenizer`, which are scaled to it",
                100.0 * beyond
            ));
        }
        Ok(lessons)
    }

    fn add(&mut self, quantizer: &Quantizer, latent: &Tensor, count: usize) -> Result<()> {
        let scales = &self.scales;
        let encoded = quantizer.encode(scales, latent)?;
        let sums = quantizer.taught(scales, &encoded.codes, count)?;
        let sums: Vec<Vec<f32>> = sums.iter().map(tensors::values).collect::<Result<_>>()?;
        let rest = tensors::values(&encoded.rest)?;
        for picture in 0..count {
            let mut codes = Vec::with_capacity(scales.codes());
            for scale in &encoded.codes {
                let each = scale.len() / count;
                codes.extend(&scale[picture * each..(picture + 1) * each]);
            }
            let mut inputs = Vec::new();
            for scale in &sums {
                let each = scale.len() / count;
                inputs.extend(&scale[picture * each..(picture + 1) * each]);
            }
            let each = rest.len() / count;
            self.all.push(Lesson {
                codes,
                inputs,
                rest: rest[picture * each..(picture + 1) * each].to_vec(),
            });
        }
        Ok(())
    }

    /// A codeword's values.
    pub fn codeword(&self, code: u32) -> &[f32] {
        &self.codewords[code as usize * self.width..][..self.width]
    }

    /// Places of the last scale, and channels of each.
    pub fn last(&self) -> [usize; 2] {
        [self.scales.side().pow(2), self.width]
    }

    /// Codes of the scales before the last.
    pub fn earlier(&self) -> usize {
        self.scales.codes() - self.scales.side().pow(2)
    }

    /// Share of what the true codes leave that lies beyond what the diffusion head gives.
    fn beyond(&self) -> f64 {
        let (mut beyond, mut all) = (0usize, 0usize);
        for lesson in &self.all {
            let places = lesson.rest.chunks_exact(self.width);
            for (rest, code) in places.zip(&lesson.codes[self.earlier()..]) {
                let left = rest.iter().zip(self.codeword(*code)).map(|(a, b)| a - b);
                beyond += left
                    .filter(|value| f64::from(value.abs()) > RESIDUAL_SCALE)
                    .count();
                all += self.width;
            }
        }
        beyond as f64 / all.max(1) as f64
    }
}
