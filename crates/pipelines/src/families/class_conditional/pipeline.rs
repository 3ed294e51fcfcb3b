//! Networks that are loaded when their stage begins, and a plan carried out.

use std::ops::Range;
use std::time::Instant;

use brisk_models::class_conditional::ClassConditionalTransformer;
use brisk_models::class_conditional::sampler::Guided;
use brisk_models::dcae::{Autoencoder, Halves};
use brisk_nn::{Tensor, Trace};

use super::load::{Files, LoadOptions};
use super::plan::ClassPlan;
use crate::diffusion::DecodeMode;
use crate::diffusion::latents::{Noise, from_planes, to_planes};
use crate::error::{Error, Result};
use crate::events::{Control, Event, StepClock, Work, timed};
use crate::families::decode;
use crate::options::Options;
use crate::request::{GeneratedImage, StageMemory};

/// What a network shows last of an evaluation.
const LAST: [&str; 2] = ["decoder_pred", "final_layer"];

/// A model of the family.
pub(super) struct ClassPipeline {
    pub files: Files,
    pub options: LoadOptions,
    /// The options of opening as they were given, for descriptions.
    pub opened: Options,
    pub transformer: Option<ClassConditionalTransformer>,
    pub decoder: Option<Autoencoder>,
}

impl ClassPipeline {
    /// Carries a plan out: all pictures of the first prompt, then those of the next.
    pub fn run(
        &mut self,
        plan: &ClassPlan,
        memory: &[StageMemory],
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let started = Instant::now();
        let available = self.available();
        let keep = self.keeps_networks(available);
        control.memory(memory, available);
        let mut seconds = 0.0;
        let latents = timed(&mut seconds, || self.denoise(plan, control))?;
        if !keep {
            self.transformer = None;
        }
        let images = self.decode_all(plan, &latents, seconds, control)?;
        if !keep {
            self.decoder = None;
        }
        control.send(Event::Done {
            results: images.len(),
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(images)
    }

    fn load_transformer(&mut self, control: &Control) -> Result<&ClassConditionalTransformer> {
        let transformer = match self.transformer.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("transformer", Work::Load, 0);
                let files = &self.files.transformer;
                let settings = self.options.transformer_settings();
                let weights = files.parameters(&settings)?.build()?;
                ClassConditionalTransformer::load(&files.config, &weights)?
            }
        };
        Ok(self.transformer.insert(transformer))
    }

    fn load_decoder(&mut self, control: &Control) -> Result<&Autoencoder> {
        let decoder = match self.decoder.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("decoder", Work::Load, 0);
                let files = &self.files.vae;
                let settings = self.options.autoencoder_settings();
                let weights = files.parameters(&settings)?.build()?;
                Autoencoder::load(&files.config, &weights, Halves::DecoderOnly)?
            }
        };
        Ok(self.decoder.insert(decoder))
    }

    /// A latent `[1,n,n,C]` of each picture, as the network sees it.
    fn denoise(&mut self, plan: &ClassPlan, control: &Control) -> Result<Vec<Tensor>> {
        let model = self.load_transformer(control)?;
        let total = plan.evaluations.unwrap_or(0) * plan.images();
        control.stage("denoise", Work::Run, total);
        let mut clock = StepClock::new(total);
        let mut latents = Vec::with_capacity(plan.images());
        for group in plan.groups() {
            let drawn = draw(model, plan, group.clone(), &mut |rows| {
                // Without a number of steps there is no telling how far it is.
                if total > 0 {
                    clock.steps(rows, control);
                }
            })?;
            for index in 0..group.len() {
                latents.push(drawn.narrow(0, index, 1)?.contiguous()?);
            }
        }
        Ok(latents)
    }

    fn decode_all(
        &mut self,
        plan: &ClassPlan,
        latents: &[Tensor],
        mut denoise: f64,
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let side = self.files.pixels();
        let decoder = self.load_decoder(control)?;
        control.stage("decode", Work::Run, latents.len());
        if plan.decode == DecodeMode::Strips {
            control.send(Event::SaveMemory);
        }
        let mut clock = StepClock::new(latents.len());
        let mut images = Vec::with_capacity(latents.len());
        for (index, latent) in latents.iter().enumerate() {
            let mut seconds = 0.0;
            let picture = timed(&mut seconds, || {
                decode::decode(decoder, latent, plan.decode, (side, side))
            })?;
            clock.step(control);
            images.push(GeneratedImage {
                picture,
                latents: Some(to_planes(latent)?),
                codes: None,
                seed: plan.seeds[index],
                prompt: plan.prompts[index].clone(),
                seconds: vec![("denoise", denoise), ("decode", seconds)],
            });
            // The first bears what all share.
            denoise = 0.0;
        }
        Ok(images)
    }
}

/// Latents `[B,n,n,C]` of some of the pictures; `evaluated` hears of their number after each evaluation. Noise is each
/// picture's own stream: first what the sampler starts from, unless that is given, then what it draws on the way.
fn draw(
    model: &ClassConditionalTransformer,
    plan: &ClassPlan,
    pictures: Range<usize>,
    evaluated: &mut dyn FnMut(usize),
) -> Result<Tensor> {
    let config = model.config();
    let (side, channels) = (config.input_size, config.in_channels);
    let shape = (pictures.len(), side, side, channels);
    let mut noise = Noise::of_each(&plan.seeds[pictures.clone()]);
    let start = match &plan.latents {
        Some(given) => from_planes(given.values.clone(), given.shape)?
            .narrow(0, pictures.start, pictures.len())?
            .contiguous()?,
        None => noise.draw(shape)?,
    };
    let guided = Guided::new(model, &plan.classes[pictures.clone()], plan.guidance)?;
    let mut see = |name: &str, _: &Tensor| {
        if LAST.contains(&name) {
            evaluated(pictures.len());
        }
    };
    let mut failed = None;
    let mut drawn = |_: usize| {
        noise.draw(shape).map_err(|error| {
            let told = brisk_nn::Error::Config(error.to_string());
            failed = Some(error);
            told
        })
    };
    let found = plan.sampler.run(
        &guided,
        &start,
        &mut drawn,
        &mut |_, _| Ok(()),
        &mut Trace::parts(&mut see),
    );
    match (found, failed) {
        (Err(_), Some(error)) => Err(error),
        (found, _) => found.map_err(Error::from),
    }
}
