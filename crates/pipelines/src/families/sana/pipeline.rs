//! The pipeline: networks that are loaded when their stage begins, and a plan carried out.

use std::sync::Arc;
use std::time::Instant;

use brisk_media::Picture;
use brisk_models::dcae::{Autoencoder, Halves};
use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::sana::{SanaConfig, SanaTransformer};
use brisk_models::sana_controlnet::SanaControlNet;
use brisk_nn::{InputWatcher, Tensor, WeightsBuilder};
use brisk_store::{ModelFolder, TensorSource};

use super::load::{Files, LoadOptions};
use super::plan::{Capabilities, SanaPlan};
use super::text::{Captions, TextJob};
use super::velocity::{Contexts, SanaVelocity, Steering};
use crate::block_importance::BlockWatcher;
use crate::diffusion::latents::{Noise, from_planes, to_planes};
use crate::diffusion::schedulers::SchedulerConfig;
use crate::diffusion::schedulers::scm::Scm;
use crate::diffusion::{DecodeMode, Denoiser, Done, start_index};
use crate::error::{Error, Result};
use crate::events::{Control, Event, StepClock, Work, timed};
use crate::families::decode;
use crate::low_bit_settings::watched;
use crate::options::Options;
use crate::request::{GeneratedImage, StageMemory};

/// Seconds that the stages of a request, or those of one of its pictures, took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Seconds {
    text: f64,
    encode: f64,
    denoise: f64,
    decode: f64,
}

impl Seconds {
    fn listed(self) -> Vec<(&'static str, f64)> {
        vec![
            ("text", self.text),
            ("encode", self.encode),
            ("denoise", self.denoise),
            ("decode", self.decode),
        ]
    }
}

/// A text-to-image pipeline of the SANA family.
pub struct SanaPipeline {
    pub(super) files: Files,
    pub(super) options: LoadOptions,
    /// The options of opening as they were given, for descriptions.
    pub(super) opened: Options,
    pub(super) text: Option<Gemma2Model>,
    pub(super) transformer: Option<SanaTransformer>,
    pub(super) controlnet: Option<SanaControlNet>,
    pub(super) encoder: Option<Autoencoder>,
    pub(super) decoder: Option<Autoencoder>,
    watcher: Option<InputWatcher>,
    text_watcher: Option<InputWatcher>,
    pub(super) block_watcher: Option<BlockWatcher>,
}

impl SanaPipeline {
    /// Reads configurations and opens weight files of a pipeline folder; weights themselves are read
    /// when they are first needed.
    ///
    /// Without a `model_index.json` the folder must hold, or the options must give, every part:
    /// a `.pth` transformer, an autoencoder, a text encoder.
    ///
    /// # Errors
    /// Another kind of pipeline, missing or unreadable parts, settings that are not implemented, and
    /// parts that don't fit together.
    pub fn load(folder: ModelFolder, options: &LoadOptions) -> Result<Self> {
        Ok(Self {
            files: Files::open(&folder, options)?,
            options: options.clone(),
            opened: Options::new(),
            text: None,
            transformer: None,
            controlnet: None,
            encoder: None,
            decoder: None,
            watcher: None,
            text_watcher: None,
            block_watcher: None,
        })
    }

    /// What requests this pipeline can serve.
    pub fn capabilities(&self) -> Capabilities {
        let files = &self.files;
        let ratio = files.vae.config.ratio();
        let transformer = &files.transformer.config;
        Capabilities {
            model: files.label.clone(),
            kind: files.kind,
            multiple: ratio * transformer.patch_size,
            ratio,
            latent_channels: transformer.in_channels,
            sample_size: transformer.sample_size,
            blocks: transformer.num_layers,
            controlnet: files.control.is_some(),
            guidance: files.guidance,
            scheduler: files.scheduler_kind(self.options.native),
            scheduler_problem: files.scheduler_problem.clone(),
            shift: files.scheduler.shift(),
            instruction: Some(files.instruction().to_owned()),
        }
    }

    /// Lets `watcher` see what goes into every linear layer of the transformer from now on.
    pub fn watch_transformer(&mut self, watcher: InputWatcher) {
        self.transformer = None;
        self.watcher = Some(watcher);
    }

    /// As [`SanaPipeline::watch_transformer`], for the text encoder.
    pub fn watch_text_encoder(&mut self, watcher: InputWatcher) {
        self.text = None;
        self.text_watcher = Some(watcher);
    }

    /// The text encoder's settings.
    pub fn text_config(&self) -> &Gemma2Config {
        &self.files.text.config
    }

    /// The text encoder's stored weights; `None` where they are made up.
    pub fn text_source(&self) -> Option<&Arc<dyn TensorSource>> {
        self.files.text.stored()
    }

    /// The transformer's settings.
    pub fn transformer_config(&self) -> &SanaConfig {
        &self.files.transformer.config
    }

    /// The transformer's stored weights; `None` where they are made up.
    pub fn transformer_source(&self) -> Option<&Arc<dyn TensorSource>> {
        self.files.transformer.stored()
    }

    /// Drops every component that is in memory.
    pub fn release(&mut self) {
        self.text = None;
        self.transformer = None;
        self.controlnet = None;
        self.encoder = None;
        self.decoder = None;
    }

    /// Carries a plan out: all pictures of the first prompt, then those of the next.
    ///
    /// # Errors
    /// Unfit weights, values that are not finite, or [`Error::Cancelled`].
    pub(super) fn run(
        &mut self,
        plan: &SanaPlan,
        memory: &[StageMemory],
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let started = Instant::now();
        let available = self.available();
        let keep = self.keeps_components(available);
        control.memory(memory, available);
        self.check_weights(plan)?;

        let mut seconds = Seconds::default();
        let captions = timed(&mut seconds.text, || self.encode_text(plan, control))?;
        if !keep {
            self.text = None;
        }
        let (init, steering) = timed(&mut seconds.encode, || self.encode_pictures(plan, control))?;
        if !keep {
            self.encoder = None;
        }
        let latents = timed(&mut seconds.denoise, || {
            self.denoise(plan, &captions, init, steering, control)
        })?;
        if !keep {
            self.transformer = None;
            self.controlnet = None;
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

    fn decode_all(
        &mut self,
        plan: &SanaPlan,
        latents: &Tensor,
        shared: Seconds,
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        control.stage("decode", Work::Run, plan.images);
        if plan.decode == DecodeMode::Strips {
            control.send(Event::SaveMemory);
        }
        let mut clock = StepClock::new(plan.images);
        let mut images = Vec::with_capacity(plan.images);
        for index in 0..plan.images {
            let latent = latents.narrow(0, index, 1)?.contiguous()?;
            let mut seconds = if index == 0 {
                shared
            } else {
                Seconds::default()
            };
            let picture = timed(&mut seconds.decode, || {
                self.load_decoder()?;
                let decoder = self.decoder()?;
                decode::decode(
                    decoder,
                    &latent,
                    plan.decode,
                    (plan.output_height, plan.output_width),
                )
            })?;
            clock.step(control);
            images.push(GeneratedImage {
                picture,
                latents: Some(to_planes(&latent)?),
                codes: None,
                seed: plan.seed_of(index),
                prompt: plan.prompts[index / plan.images_per_prompt].clone(),
                seconds: seconds.listed(),
            });
        }
        Ok(images)
    }

    fn encode_text(&mut self, plan: &SanaPlan, control: &Control) -> Result<Captions> {
        if self.text.is_none() {
            control.stage("text encoder", Work::Load, 0);
            let weights = self.text_weights()?.build()?;
            self.text = Some(Gemma2Model::load(&self.files.text.config, &weights)?);
        }
        let model = loaded(&self.text, "text encoder", &self.files.label)?;
        TextJob::of(plan, self.options.native).run(&self.files.tokenizer, model, control)
    }

    /// Latents `[1, h, w, C]` of the initial and of the control picture.
    fn encode_pictures(
        &mut self,
        plan: &SanaPlan,
        control: &Control,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let init = plan.init.as_ref().map(|init| &*init.picture);
        let steering = plan.control.as_ref().map(|control| &*control.picture);
        let total = usize::from(init.is_some()) + usize::from(steering.is_some());
        if total == 0 {
            return Ok((None, None));
        }
        if self.encoder.is_none() {
            control.stage("encoder", Work::Load, 0);
            self.encoder = Some(self.load_half(Halves::EncoderOnly)?);
        }
        control.stage("encode", Work::Run, total);
        let mut clock = StepClock::new(total);
        let encoder = loaded(&self.encoder, "encoder", &self.files.label)?;
        let mut encode = |picture: Option<&Picture>| -> Result<Option<Tensor>> {
            let Some(picture) = picture else {
                return Ok(None);
            };
            let latent = decode::encode(encoder, picture)?;
            clock.step(control);
            Ok(Some(latent))
        };
        Ok((encode(init)?, encode(steering)?))
    }

    fn load_half(&self, half: Halves) -> Result<Autoencoder> {
        let weights = self.autoencoder_weights()?.build()?;
        Ok(Autoencoder::load(&self.files.vae.config, &weights, half)?)
    }

    pub(super) fn autoencoder_weights(&self) -> Result<WeightsBuilder> {
        let settings = self.options.autoencoder_settings();
        self.files.vae.parameters(&settings)
    }

    pub(super) fn text_weights(&self) -> Result<WeightsBuilder> {
        let settings = self.options.text_settings();
        Ok(watched(
            self.files.text.parameters(&settings)?,
            &self.text_watcher,
        ))
    }

    pub(super) fn transformer_weights(&self) -> Result<WeightsBuilder> {
        let settings = self.options.transformer_settings();
        let mut weights = watched(self.files.transformer.parameters(&settings)?, &self.watcher);
        for (lora, scale) in &self.files.loras {
            weights = weights.lora(lora.clone(), *scale);
        }
        Ok(weights)
    }

    fn load_decoder(&mut self) -> Result<()> {
        if self.decoder.is_none() {
            self.decoder = Some(self.load_half(Halves::DecoderOnly)?);
        }
        Ok(())
    }

    fn decoder(&self) -> Result<&Autoencoder> {
        loaded(&self.decoder, "decoder", &self.files.label)
    }

    fn load_transformer(&mut self, control: &Control) -> Result<()> {
        if self.transformer.is_none() {
            control.stage("transformer", Work::Load, 0);
            let weights = self.transformer_weights()?.build()?;
            let config = &self.files.transformer.config;
            self.transformer = Some(SanaTransformer::load(config, &weights)?);
        }
        if let (None, Some(files)) = (&self.controlnet, &self.files.control) {
            let weights = files.weights()?.build()?;
            self.controlnet = Some(SanaControlNet::load(&files.network.config, &weights)?);
        }
        Ok(())
    }

    /// Clean latents `[B, h, w, C]` of all pictures.
    fn denoise(
        &mut self,
        plan: &SanaPlan,
        captions: &Captions,
        init: Option<Tensor>,
        steering: Option<Tensor>,
        control: &Control,
    ) -> Result<Tensor> {
        self.load_transformer(control)?;
        if plan.shows_whole_previews(&self.files) {
            self.load_decoder()?;
        }
        let transformer = loaded(&self.transformer, "transformer", &self.files.label)?;
        let steering = match (
            &self.controlnet,
            &self.files.control,
            &plan.control,
            steering,
        ) {
            (Some(model), Some(files), Some(asked), Some(latent)) => {
                let contexts = Contexts::encode(captions, |text, lengths| {
                    model.encode_caption(text, lengths)
                })?;
                let steering = Steering {
                    model,
                    latent,
                    scale: asked.scale,
                    wiring: files.wiring,
                };
                Some((steering, contexts))
            }
            _ => None,
        };
        let velocity = SanaVelocity {
            transformer,
            contexts: Contexts::encode(captions, |text, lengths| {
                transformer.encode_caption(text, lengths)
            })?,
            steering,
            images_per_prompt: plan.images_per_prompt,
            perturbed_layers: plan
                .pag
                .as_ref()
                .map(|pag| pag.layers.clone())
                .unwrap_or_default(),
            blocks: self.block_watcher.clone(),
        };
        let denoiser = Denoiser::new(
            velocity,
            plan.images,
            self.tokens(plan),
            plan.negative.is_some(),
            plan.pag.clone(),
        )?;

        let mut stream = match plan.one_generator {
            true => Noise::of_all(plan.seed),
            false => Noise::of_each(&plan.seeds()),
        };
        let noise = match &plan.latents {
            Some(latents) => from_planes(latents.values.clone(), latents.shape)?,
            None => stream.draw(self.latent_shape(plan))?,
        };
        let mut after = |done: &Done| self.after_step(plan, done, control);
        match &self.files.scheduler {
            SchedulerConfig::Scm(config) => {
                let scm = Scm::new(config, plan.angles.clone().unwrap_or_default());
                let sigma_data = f64::from(scm.sigma_data());
                let mut latents = noise.affine(sigma_data, 0.0)?;
                if let Some(init) = init {
                    // cos t · x0 + sin t · σ_d z, with x0 scaled to the deviation σ_d too.
                    let angle = scm.angles()[0];
                    let clean = init
                        .affine(sigma_data, 0.0)?
                        .affine(f64::from(angle.cos()), 0.0)?;
                    latents = latents
                        .affine(f64::from(angle.sin()), 0.0)?
                        .broadcast_add(&clean)?;
                }
                let config = transformer.config();
                let strength = plan.guidance * config.guidance_embeds_scale as f32;
                let guidance = config.guidance_embeds.then_some(strength);
                denoiser.run_scm(&scm, latents, guidance, &mut stream, control, &mut after)
            }
            scheduler => {
                let mut sampler =
                    scheduler.flow_sampler(Some(plan.scheduler), plan.shift, plan.steps)?;
                let mut start = 0;
                let mut latents = noise;
                if let (Some(init), Some(asked)) = (init, &plan.init) {
                    start = start_index(plan.steps, asked.strength);
                    let sigma = f64::from(sampler.sigmas()[start]);
                    let clean = init.affine(1.0 - sigma, 0.0)?;
                    latents = latents.affine(sigma, 0.0)?.broadcast_add(&clean)?;
                }
                denoiser.run_flow(
                    sampler.as_mut(),
                    start,
                    latents,
                    plan.guidance,
                    control,
                    &mut after,
                )
            }
        }
    }

    /// Shows what was asked to be shown of a step.
    fn after_step(&self, plan: &SanaPlan, done: &Done, control: &Control) -> Result<()> {
        if control.wants_latents() {
            control.send(Event::Latents {
                step: done.index,
                latents: to_planes(done.latents)?,
            });
        }
        if done.index == done.total || !plan.preview_steps.contains(&done.index) {
            return Ok(());
        }
        // The whole decoder is too dear for more than one picture.
        let shown = match self.files.preview {
            Some(_) => plan.images,
            None => 1,
        };
        for image in 0..shown {
            let clean = done.clean.narrow(0, image, 1)?.contiguous()?;
            let picture = match &self.files.preview {
                Some(small) => small.picture(&clean)?,
                None => {
                    let size = (plan.output_height, plan.output_width);
                    decode::decode(self.decoder()?, &clean, plan.decode, size)?
                }
            };
            control.send(Event::Preview {
                image,
                step: done.index,
                picture,
            });
        }
        Ok(())
    }

    /// `(B, h, w, C)` of the request's latents.
    pub(super) fn latent_shape(&self, plan: &SanaPlan) -> (usize, usize, usize, usize) {
        let ratio = self.files.vae.config.ratio();
        (
            plan.images,
            plan.height / ratio,
            plan.width / ratio,
            self.files.transformer.config.in_channels,
        )
    }

    pub(super) fn tokens(&self, plan: &SanaPlan) -> usize {
        let (_, height, width, _) = self.latent_shape(plan);
        let patch = self.files.transformer.config.patch_size;
        (height / patch) * (width / patch)
    }
}

fn loaded<'a, T>(part: &'a Option<T>, name: &str, label: &str) -> Result<&'a T> {
    part.as_ref()
        .ok_or_else(|| Error::folder(label, format!("the {name} is not loaded")))
}
