//! The stages of a request.

use std::time::Instant;

use brisk_media::{Clip, Picture, signed_to_byte};
use brisk_models::clip::ClipText;
use brisk_models::component::LoadSettings;
use brisk_models::hunyuan_video::autoencoder::{VideoAutoencoder, VideoHalves};
use brisk_models::hunyuan_video::transformer::{
    VideoConditioning, VideoSampler, VideoTransformer, video_sigmas,
};
use brisk_models::hunyuan_video::{to_channels_first, to_channels_last};
use brisk_models::llava::Llava;
use brisk_nn::{InputWatcher, Tensor, Trace};

use super::load::{Files, LoadOptions};
use super::memory::STRIP;
use super::picture::{beginning, fitted, signed};
use super::plan::ClipPlan;
use super::text::{Text, conditioning, every, pooled};
use crate::diffusion::noise::TorchGenerator;
use crate::error::{Error, Result};
use crate::events::{Control, Event, StepClock, Work, timed};
use crate::options::{ClipLatents, Options};
use crate::request::{GeneratedClip, StageMemory};

/// States of a picture that the transformer is shown against another text: one of so many.
const EVERY_AGAINST: usize = 2;
/// Embedded strengths are in thousandths.
const EMBEDDED: f32 = 1000.0;

/// A model of the family.
pub(super) struct VideoPipeline {
    pub files: Files,
    pub options: LoadOptions,
    /// The options of opening as they were given, for descriptions.
    pub opened: Options,
    pub text: Option<Llava>,
    pub pooled: Option<ClipText>,
    pub encoder: Option<VideoAutoencoder>,
    pub transformer: Option<VideoTransformer>,
    pub decoder: Option<VideoAutoencoder>,
    /// What sees the inputs of the transformer's layers.
    pub watcher: Option<InputWatcher>,
}

/// What each step is led by, and what it is led away from.
struct Led {
    by: VideoConditioning,
    against: Option<VideoConditioning>,
}

impl VideoPipeline {
    /// Carries a plan out.
    pub fn run(
        &mut self,
        plan: &ClipPlan,
        memory: &[StageMemory],
        control: &Control,
    ) -> Result<GeneratedClip> {
        let started = Instant::now();
        let available = crate::memory::available();
        let keep = self
            .options
            .residency
            .keeps(self.resident_bytes(), available);
        control.memory(memory, available);
        if !keep {
            // What one part took goes back to the system before the next needs it.
            control.send(Event::SaveMemory);
        }
        let [mut text, mut encode, mut denoise, mut decode] = [0.0; 4];
        let led = timed(&mut text, || self.read(plan, control))?;
        if !keep {
            self.text = None;
            self.pooled = None;
        }
        let given = match &plan.picture {
            Some(picture) => Some(timed(&mut encode, || self.encode(plan, picture, control))?),
            None => None,
        };
        if !keep {
            self.encoder = None;
        }
        let latent = timed(&mut denoise, || {
            self.denoise(plan, &led, given.as_ref(), control)
        })?;
        drop(led);
        if !keep {
            self.transformer = None;
        }
        let frames = timed(&mut decode, || self.decode(plan, &latent, control))?;
        if !keep {
            self.decoder = None;
        }
        control.send(Event::Done {
            results: 1,
            seconds: started.elapsed().as_secs_f64(),
        });
        let mut seconds = vec![("text", text), ("denoise", denoise), ("decode", decode)];
        if given.is_some() {
            seconds.insert(1, ("encode", encode));
        }
        Ok(GeneratedClip {
            clip: Clip::new(frames, plan.rate)?,
            latents: to_planes(&latent)?,
            seconds,
        })
    }

    /// Texts and picture to what leads the steps.
    fn read(&mut self, plan: &ClipPlan, control: &Control) -> Result<Led> {
        if self.text.is_none() || self.pooled.is_none() {
            control.stage("text encoder", Work::Load, 0);
        }
        let files = &self.files;
        let text = match self.text.take() {
            Some(loaded) => loaded,
            None => {
                let weights = files
                    .text
                    .parameters(&self.options.text_settings())?
                    .build()?;
                Llava::load(&files.text.config, &weights)?
            }
        };
        let text = &*self.text.insert(text);
        let whole = match self.pooled.take() {
            Some(loaded) => loaded,
            None => {
                let weights = files.pooled.parameters(&LoadSettings::default())?.build()?;
                ClipText::load(&files.pooled.config, &weights)?
            }
        };
        let whole = &*self.pooled.insert(whole);
        control.stage("text", Work::Run, 1 + usize::from(plan.negative.is_some()));
        let mut clock = StepClock::new(1 + usize::from(plan.negative.is_some()));
        let guidance = files
            .config
            .guidance_embeds
            .then_some(plan.guidance * EMBEDDED);
        let own = Text {
            prompt: &plan.prompt,
            picture: plan.prompt_picture.as_deref(),
            every: every(files.condition()),
        };
        let rows = own.rows(files, text)?;
        let by = conditioning(
            rows,
            pooled(&files.pooled_tokenizer, whole, &plan.prompt)?,
            guidance,
        );
        clock.step(control);
        let against = match &plan.negative {
            None => None,
            Some(negative) => {
                control.check()?;
                // Nothing is shown with it: a black picture.
                let black = Picture::filled(plan.size[0], plan.size[1], [0; 3]);
                let other = Text {
                    prompt: negative,
                    picture: plan.picture.is_some().then_some(&black),
                    every: EVERY_AGAINST,
                };
                let rows = other.rows(files, text)?;
                let whole = pooled(&files.pooled_tokenizer, whole, negative)?;
                clock.step(control);
                Some(conditioning(rows, whole, guidance))
            }
        };
        Ok(Led { by, against })
    }

    /// The latent of the first frame, `[1,1,h,w,C]`, in the scale that the transformer sees.
    fn encode(&mut self, plan: &ClipPlan, picture: &Picture, control: &Control) -> Result<Tensor> {
        let encoder = match self.encoder.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("encoder", Work::Load, 0);
                self.load_autoencoder(VideoHalves::EncoderOnly)?
            }
        };
        let encoder = self.encoder.insert(encoder);
        control.stage("encode", Work::Run, 0);
        let frame = fitted(picture, plan.size[0], plan.size[1])?;
        let latent = encoder.encode(&signed(&frame)?, &mut Trace::none())?;
        Ok(latent.affine(self.files.autoencoder_config.scaling_factor, 0.0)?)
    }

    fn load_autoencoder(&self, halves: VideoHalves) -> Result<VideoAutoencoder> {
        let weights = self
            .files
            .autoencoder
            .parameters(&LoadSettings::default())?
            .build()?;
        Ok(VideoAutoencoder::load(
            &self.files.autoencoder_config,
            &weights,
            halves,
        )?)
    }

    /// From noise to a latent `[1,F,h,w,C]`.
    fn denoise(
        &mut self,
        plan: &ClipPlan,
        led: &Led,
        given: Option<&Tensor>,
        control: &Control,
    ) -> Result<Tensor> {
        let transformer = match self.transformer.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("transformer", Work::Load, 0);
                self.files.load_transformer(&self.options, &self.watcher)?
            }
        };
        let transformer = &*self.transformer.insert(transformer);
        let [channels, frames, rows, columns] = plan.latent_shape(&self.files);
        let shape = [1, channels, frames, rows, columns];
        let noise = match &plan.latents {
            Some(given) => given.values.clone(),
            None => TorchGenerator::new(plan.seed).randn(shape.iter().product()),
        };
        let noise = to_channels_last(&Tensor::from_vec(noise, shape.to_vec())?)?;
        let mut latent = beginning(&noise, given)?;
        let against = led.against.as_ref().map(|against| (against, plan.guidance));
        let sigmas = video_sigmas(plan.steps, plan.shift);
        let sampler = VideoSampler::new(transformer, &led.by, against, given, sigmas)?;
        control.stage("denoise", Work::Run, sampler.steps());
        let mut clock = StepClock::new(sampler.steps());
        for step in 0..sampler.steps() {
            control.check()?;
            latent = sampler.step(step, &latent, &mut Trace::none())?;
            clock.step(control);
        }
        Ok(latent)
    }

    /// The frames of a latent.
    fn decode(
        &mut self,
        plan: &ClipPlan,
        latent: &Tensor,
        control: &Control,
    ) -> Result<Vec<Picture>> {
        let decoder = match self.decoder.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("decoder", Work::Load, 0);
                self.load_autoencoder(VideoHalves::DecoderOnly)?
            }
        };
        let decoder = &*self.decoder.insert(decoder);
        control.stage("decode", Work::Run, plan.frames);
        let mut clock = StepClock::new(plan.frames);
        let scaled = latent.affine(self.files.autoencoder_config.scaling_factor.recip(), 0.0)?;
        let mut frames = Vec::with_capacity(plan.frames);
        let mut failed = None;
        decoder
            .decode_pieces(&scaled, STRIP, |index, frame| {
                if let Err(error) = control.check() {
                    failed = Some(error);
                    return Err(brisk_nn::Error::Config("stopped".into()));
                }
                clock.step(control);
                if index >= plan.dropped {
                    frames.push(picture(&frame)?);
                }
                Ok(())
            })
            .map_err(|error| failed.take().unwrap_or_else(|| Error::from(error)))?;
        Ok(frames)
    }
}

/// A frame `[1,H,W,3]` in −1..1.
fn picture(frame: &Tensor) -> brisk_nn::Result<Picture> {
    let (_, height, width, _) = frame.dims4()?;
    let values = frame.flatten_all()?.to_vec1::<f32>()?;
    Ok(Picture {
        width,
        height,
        pixels: values.into_iter().map(signed_to_byte).collect(),
    })
}

/// A latent `[1,F,h,w,C]` as values in the order of `[1,C,F,h,w]`.
fn to_planes(latent: &Tensor) -> Result<ClipLatents> {
    let planes = to_channels_first(latent)?;
    let shape: [usize; 5] = planes.dims().try_into().unwrap_or([0; 5]);
    Ok(ClipLatents {
        shape,
        values: planes.flatten_all()?.to_vec1()?,
    })
}
