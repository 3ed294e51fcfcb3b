//! Clips of motion as an autoencoder sees them: encoded once, kept in the run's folder.

use std::path::Path;

use brisk_models::hunyuan_video::autoencoder::VideoAutoencoder;
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_store::Fingerprint;

use super::pool::Source;
use crate::error::{JsonContext, Result};
use crate::families::video_autoencoder::clips::{self, MotionClip};
use crate::inputs::Inputs;
use crate::kept::Kept;
use crate::rng::Rng;
use crate::tensors;

/// The file in a run's folder.
const FILE: &str = "latents.safetensors";
/// Told from other draws of a run's seed.
const NOISE: u64 = 0x6e6f_6973_6521;
/// Clips that are encoded together.
const BATCH: usize = 8;

/// Where encodings are kept, and the fingerprints of what they are made of besides the clips.
#[derive(Clone, Copy)]
pub(crate) struct Keep<'a> {
    pub out: &'a Path,
    pub inputs: &'a Inputs,
}

/// All clips of a run, one after another.
pub(super) struct Encodings {
    /// `[clips,F,h,w,C]`, scaled.
    pub latents: Vec<f32>,
    /// Those of the first frames by themselves, `[clips,1,h,w,C]`, where the transformer is shown them.
    pub given: Vec<f32>,
    /// The same of the frames with noise, in some versions.
    pub noisy: Vec<Vec<f32>>,
}

impl Encodings {
    /// Those of the source's clips, whose first frames are `firsts`: what the run's folder holds of the same clips by the
    /// same autoencoder, else they are drawn and encoded, and kept there.
    ///
    /// # Errors
    /// A drawing that cannot be rendered, a cancellation, or a file that cannot be written.
    pub fn of(
        source: &Source,
        firsts: &[MotionClip],
        autoencoder: &VideoAutoencoder,
        shape: [usize; 4],
        keep: Option<Keep>,
        control: &Control,
    ) -> Result<Self> {
        let [frames, rows, columns, channels] = shape;
        let of = |frames: usize| vec![source.count, frames, rows, columns, channels];
        let mut tensors = vec![("latents".to_owned(), of(frames))];
        let versions = source.noise.map_or(0, |noise| noise.versions);
        if source.seen.is_some() {
            tensors.push(("first_frames".to_owned(), of(1)));
        }
        let noisy = (0..versions).map(|version| format!("first_frames.noisy.{version}"));
        tensors.extend(noisy.map(|name| (name, of(1))));
        let kept = keep.map(|keep| keep.kept(source, firsts)).transpose()?;
        if let Some(values) = kept.as_ref().and_then(|kept| kept.read(&tensors)) {
            return Ok(Self::from_values(values, source.seen.is_some()));
        }
        let mut values = vec![Vec::new(); tensors.len()];
        control.stage("encoding the clips", Work::Run, source.count);
        let mut clock = StepClock::new(source.count);
        for (batch, firsts) in firsts.chunks(BATCH).enumerate() {
            control.check()?;
            let first = (batch * BATCH) as u64;
            let numbers = first..first + firsts.len() as u64;
            let of = (source.seed, source.split);
            let drawn = clips::draw(source.drawings, of, numbers, source.frames, source.size)?;
            let mut encoded = vec![latents(autoencoder, &clips::tensor(&drawn)?)?];
            if source.seen.is_some() {
                encoded.push(latents(autoencoder, &clips::tensor(firsts)?)?);
            }
            encoded.extend(noisy_firsts(autoencoder, firsts, source, first)?);
            for (all, own) in values.iter_mut().zip(encoded) {
                all.extend(own);
            }
            clock.steps(drawn.len(), control);
        }
        if let Some(kept) = kept {
            kept.write(&tensors, &values)?;
        }
        Ok(Self::from_values(values, source.seen.is_some()))
    }

    fn from_values(values: Vec<Vec<f32>>, is_shown: bool) -> Self {
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or_default();
        Self {
            latents: next(),
            given: if is_shown { next() } else { Vec::new() },
            noisy: values.collect(),
        }
    }
}

impl Keep<'_> {
    fn kept(self, source: &Source, firsts: &[MotionClip]) -> Result<Kept> {
        let mut found = Fingerprint::default();
        let numbers = [source.seed, source.frames as u64, source.size as u64];
        for number in numbers {
            found.add(&number.to_le_bytes());
        }
        found.add(&serde_json::to_vec(&source.noise).in_document(FILE)?);
        for clip in firsts {
            found.add(&serde_json::to_vec(&clip.scene).in_document(FILE)?);
            for frame in &clip.frames {
                found.add(&frame.pixels);
            }
        }
        let inputs = serde_json::to_string(self.inputs).in_document(FILE)?;
        let made_of = [("inputs", inputs), ("clips", found.text())];
        Ok(Kept::new(self.out, FILE, &made_of))
    }
}

/// The latents of clips `[B,F,H,W,3]`, scaled, one after another.
fn latents(autoencoder: &VideoAutoencoder, clips: &Tensor) -> Result<Vec<f32>> {
    let latent = autoencoder.encode(clips, &mut Trace::none())?;
    let scale = autoencoder.config().scaling_factor;
    tensors::values(&latent.affine(scale, 0.0)?)
}

/// The latents of first frames in every version of the source's noise; `first` is the number of the first clip.
fn noisy_firsts(
    autoencoder: &VideoAutoencoder,
    firsts: &[MotionClip],
    source: &Source,
    first: u64,
) -> Result<Vec<Vec<f32>>> {
    let Some(noise) = source.noise else {
        return Ok(Vec::new());
    };
    let frames = clips::tensor(firsts)?;
    let clean = tensors::values(&frames)?;
    let each = clean.len() / firsts.len().max(1);
    let versions = (0..noise.versions).map(|version| {
        let values = clean
            .chunks(each.max(1))
            .enumerate()
            .flat_map(|(index, pixels)| {
                let number = (first + index as u64) * noise.versions as u64 + version as u64;
                let mut rng = Rng::stream(source.seed ^ NOISE, number);
                let scale =
                    (noise.log_mean + noise.log_deviation * rng.normal_pair().0).exp() as f32;
                let normals = rng.normals(pixels.len());
                let pairs = pixels.iter().zip(normals);
                pairs
                    .map(move |(pixel, normal)| pixel + scale * normal)
                    .collect::<Vec<_>>()
            });
        let noisy = Tensor::from_vec(values.collect(), frames.dims().to_vec())?;
        latents(autoencoder, &noisy)
    });
    versions.collect()
}
