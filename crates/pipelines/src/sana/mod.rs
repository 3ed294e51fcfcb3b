//! SANA, SANA-1.5 and SANA-Sprint: from a request to pictures.
//!
//! ```text
//! prompts ──text encoder──▶ caption rows ──transformer──▶ keys and values, once per prompt
//! init / control picture ──encoder──▶ latent
//! noise [B, C, h, w] ──(steps × guidance branches) transformer──▶ latent ──decoder──▶ picture
//! ```
//!
//! Components are loaded when their stage begins and, unless memory is plentiful, dropped when it ends:
//! the text encoder is larger than most of the transformers.
//!
//! Noise is drawn for all pictures of a request at once in the shape `[B, C, h, w]`, as diffusers draws it
//! from a CPU generator; SANA-Sprint draws again at every step.

mod component;
mod cost;
mod decode;
mod denoise;
mod load;
mod memory;
mod quantize;
mod text;

pub use crate::random_weights::RandomWeights;
pub use cost::StageCost;
pub use load::{LoadOptions, Residency};
pub(crate) use quantize::low_bit_layout;

use std::sync::Arc;
use std::time::Instant;

use brisk_media::Picture;
use brisk_models::dcae::{Autoencoder, Halves};
use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::sana::{SanaConfig, SanaTransformer};
use brisk_models::sana_controlnet::SanaControlNet;
use brisk_nn::{InputWatcher, Tensor, Weights};
use brisk_store::{ModelFolder, TensorSource};

use crate::error::{Error, Result};
use crate::events::{Control, Event};
use crate::noise::TorchGenerator;
use crate::request::{
    Capabilities, DecodeMode, ImageRequest, Instruction, Latents, ModelKind, Plan, start_index,
};
use crate::schedulers::scm::Scm;
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use denoise::{Contexts, Denoiser, Done, Job, Steering};
use load::Files;
use text::{Captions, TextJob};

/// Seconds that the stages of a request took. Shared stages count once for all its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// Loading and running the text encoder.
    pub text: f64,
    /// Encoding the initial and the control picture.
    pub encode: f64,
    /// Loading and running the transformer.
    pub denoise: f64,
    /// Loading the decoder (first picture only) and decoding this picture.
    pub decode: f64,
}

/// One result.
#[derive(Debug, Clone)]
pub struct GeneratedImage {
    /// The picture, at the size asked for.
    pub picture: Picture,
    /// What was decoded: `[1, C, h, w]`, scaled as the transformer sees it.
    pub latents: Latents,
    /// Seed of the request's noise.
    pub seed: u64,
    /// Its prompt, as given.
    pub prompt: String,
    /// Seconds by stage.
    pub timings: Timings,
}

/// A text-to-image pipeline of the SANA family.
pub struct SanaPipeline {
    files: Files,
    options: LoadOptions,
    text: Option<Gemma2Model>,
    transformer: Option<SanaTransformer>,
    controlnet: Option<SanaControlNet>,
    encoder: Option<Autoencoder>,
    decoder: Option<Autoencoder>,
    watcher: Option<InputWatcher>,
    text_watcher: Option<InputWatcher>,
    warned: bool,
}

impl SanaPipeline {
    /// Reads configurations and opens weight files of a pipeline folder; weights themselves are read
    /// by [`Self::generate`].
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
            text: None,
            transformer: None,
            controlnet: None,
            encoder: None,
            decoder: None,
            watcher: None,
            text_watcher: None,
            warned: false,
        })
    }

    /// What requests this pipeline can serve.
    pub fn capabilities(&self) -> Capabilities {
        let ratio = self.files.vae_config.ratio();
        let transformer = &self.files.transformer_config;
        Capabilities {
            model: self.files.label.clone(),
            kind: self.files.kind,
            multiple: ratio * transformer.patch_size,
            ratio,
            latent_channels: transformer.in_channels,
            sample_size: transformer.sample_size,
            blocks: transformer.num_layers,
            controlnet: self.files.control.is_some(),
            guidance: self.files.guidance,
        }
    }

    /// The scheduler settings of the folder.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.files.scheduler
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
        &self.files.text_config
    }

    /// The text encoder's stored weights; `None` where they are made up.
    pub fn text_source(&self) -> Option<&Arc<dyn TensorSource>> {
        self.files.text.stored()
    }

    /// The transformer's settings.
    pub fn transformer_config(&self) -> &SanaConfig {
        &self.files.transformer_config
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

    /// Draws the pictures of a request: all pictures of the first prompt, then those of the next.
    ///
    /// # Errors
    /// A request this model can't serve, too little memory, unfit weights, values that are not finite,
    /// or [`Error::Cancelled`].
    pub fn generate(
        &mut self,
        request: &ImageRequest,
        control: &mut Control,
    ) -> Result<Vec<GeneratedImage>> {
        self.generate_traced(request, control, &mut |_, _| ())
    }

    /// As [`Self::generate`]; `trace` sees the number of every finished step, from 1, and the latents
    /// `[B, h, w, C]` of all pictures after it.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_traced(
        &mut self,
        request: &ImageRequest,
        control: &mut Control,
        trace: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<Vec<GeneratedImage>> {
        let started = Instant::now();
        let plan = request.validate(&self.capabilities())?;
        let available = crate::memory::available();
        let keep = self.keeps_components(available);
        let mode = self.check_memory(request, &plan, available, keep, control)?;
        control.check()?;
        self.warn(request, control);

        let mut timings = Timings::default();
        let captions = timed(&mut timings.text, || {
            self.encode_text(request, &plan, control)
        })?;
        if !keep {
            self.text = None;
        }
        let (init, steering) = timed(&mut timings.encode, || {
            self.encode_pictures(request, &plan, control)
        })?;
        if !keep {
            self.encoder = None;
        }
        let latents = timed(&mut timings.denoise, || {
            self.denoise(
                request, &plan, &captions, init, steering, mode, control, trace,
            )
        })?;
        if !keep {
            self.transformer = None;
            self.controlnet = None;
        }

        control.send(Event::Stage {
            name: "decode",
            total: plan.images,
        });
        if mode == DecodeMode::Strips {
            control.send(Event::SaveMemory);
        }
        let mut clock = StepClock::new(plan.images);
        let mut images = Vec::with_capacity(plan.images);
        for index in 0..plan.images {
            control.check()?;
            let latent = latents.narrow(0, index, 1)?.contiguous()?;
            let mut timings = timings;
            let picture = timed(&mut timings.decode, || {
                let decoder = self.load_decoder()?;
                decode::decode(
                    decoder,
                    &latent,
                    mode,
                    (plan.output_height, plan.output_width),
                )
            })?;
            clock.step(control);
            images.push(GeneratedImage {
                picture,
                latents: to_latents(&latent)?,
                seed: request.seed,
                prompt: request.prompts[index / request.images_per_prompt].clone(),
                timings,
            });
        }
        if !keep {
            self.decoder = None;
        }
        control.send(Event::Done {
            images: images.len(),
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(images)
    }

    /// What the user should know before the first run.
    fn warn(&mut self, request: &ImageRequest, control: &mut Control) {
        if std::mem::replace(&mut self.warned, true) {
            return;
        }
        let chosen = request
            .instruction
            .as_ref()
            .unwrap_or(&self.options.instruction);
        if *chosen == Instruction::Default && self.files.instruction.is_none() {
            control.send(Event::Warning(format!(
                "the model's folder has no {}; brisk's own instruction is put before prompts \
                 (--instruction FILE gives another, --instruction none turns it off)",
                load::INSTRUCTION_FILE
            )));
        }
        if self
            .files
            .label
            .trim_end_matches('/')
            .ends_with("Sana_1600M_1024px_diffusers")
        {
            control.send(Event::Warning(
                "Sana_1600M_1024px gives blurred blobs in every implementation; \
                 Sana_1600M_1024px_BF16 or a SANA-1.5 model draws better"
                    .to_owned(),
            ));
        }
    }

    fn guided(&self, plan: &Plan) -> bool {
        self.files.kind == ModelKind::Sana && plan.guidance > 1.0
    }

    /// The text put before every prompt of a request.
    fn instruction_of<'a>(&'a self, request: &'a ImageRequest) -> Option<&'a str> {
        let chosen = request
            .instruction
            .as_ref()
            .unwrap_or(&self.options.instruction);
        let text = match chosen {
            Instruction::None => None,
            Instruction::Text(text) => Some(text.as_str()),
            Instruction::Default => Some(
                self.files
                    .instruction
                    .as_deref()
                    .unwrap_or(brisk_text::sana_prompt::DEFAULT_INSTRUCTION),
            ),
        };
        text.filter(|text| !text.is_empty())
    }

    fn encode_text(
        &mut self,
        request: &ImageRequest,
        plan: &Plan,
        control: &mut Control,
    ) -> Result<Captions> {
        if self.text.is_none() {
            let mut weights = self.files.text.text_encoder()?;
            if let Some(watcher) = &self.text_watcher {
                weights = weights.with_watcher(watcher.clone());
            }
            let weights = weights.quantised(self.options.text_quantisation, None);
            self.text = Some(Gemma2Model::load(&self.files.text_config, &weights)?);
        }
        let negative = self
            .guided(plan)
            .then(|| request.negative_prompt.as_deref().unwrap_or(""));
        let job = TextJob {
            prompts: &request.prompts,
            instruction: self.instruction_of(request),
            max_tokens: request.max_sequence_length,
            negative,
            native: self.options.native,
        };
        match &self.text {
            Some(model) => job.run(&self.files.tokenizer, model, control),
            None => Err(Error::folder(
                &self.files.label,
                "the text encoder is not loaded",
            )),
        }
    }

    /// Latents `[1, h, w, C]` of the initial and of the control picture.
    fn encode_pictures(
        &mut self,
        request: &ImageRequest,
        plan: &Plan,
        control: &mut Control,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let init = request.init.as_ref().map(|init| &init.picture);
        let steering = request.control.as_ref().map(|control| &control.picture);
        let total = usize::from(init.is_some()) + usize::from(steering.is_some());
        if total == 0 {
            return Ok((None, None));
        }
        control.send(Event::Stage {
            name: "encode",
            total,
        });
        let mut clock = StepClock::new(total);
        if self.encoder.is_none() {
            self.encoder = Some(self.load_half(Halves::EncoderOnly)?);
        }
        let mut encode = |picture: Option<&Picture>| -> Result<Option<Tensor>> {
            let (Some(picture), Some(encoder)) = (picture, &self.encoder) else {
                return Ok(None);
            };
            control.check()?;
            let latent = decode::encode(encoder, picture, plan.height, plan.width)?;
            clock.step(control);
            Ok(Some(latent))
        };
        Ok((encode(init)?, encode(steering)?))
    }

    fn load_half(&self, half: Halves) -> Result<Autoencoder> {
        let weights = self.files.vae.weights().exact(self.options.exact);
        Ok(Autoencoder::load(&self.files.vae_config, &weights, half)?)
    }

    fn load_decoder(&mut self) -> Result<&Autoencoder> {
        let loaded = match self.decoder.take() {
            Some(decoder) => decoder,
            None => self.load_half(Halves::DecoderOnly)?,
        };
        Ok(self.decoder.insert(loaded))
    }

    fn load_transformer(&mut self, control: &mut Control) -> Result<()> {
        if self.transformer.is_none() {
            control.send(Event::Stage {
                name: "transformer",
                total: 0,
            });
            let files = &self.files;
            let config = &files.transformer_config;
            let mut weights = files.transformer.transformer(config, files.activations)?;
            if let Some(watcher) = &self.watcher {
                weights = weights.with_watcher(watcher.clone());
            }
            if let Some((lora, scale)) = &self.files.lora {
                weights = weights.with_lora(lora.clone(), *scale)?;
            }
            let weights = weights.quantised(self.options.transformer_quantisation, None);
            self.transformer = Some(SanaTransformer::load(
                &self.files.transformer_config,
                &weights,
            )?);
        }
        if let (None, Some(files)) = (&self.controlnet, &self.files.control) {
            let weights = Weights::from_source(files.weights.clone());
            self.controlnet = Some(SanaControlNet::load(&files.config, &weights)?);
        }
        Ok(())
    }

    /// Clean latents `[B, h, w, C]` of all pictures.
    #[allow(clippy::too_many_arguments)]
    fn denoise(
        &mut self,
        request: &ImageRequest,
        plan: &Plan,
        captions: &Captions,
        init: Option<Tensor>,
        steering: Option<Tensor>,
        mode: DecodeMode,
        control: &mut Control,
        trace: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<Tensor> {
        self.load_transformer(control)?;
        if request.preview_interval.is_some() {
            self.load_decoder()?;
        }
        control.check()?;
        let Some(transformer) = &self.transformer else {
            return Err(Error::folder(
                &self.files.label,
                "the transformer is not loaded",
            ));
        };
        let steering = match (
            &self.controlnet,
            &self.files.control,
            &request.control,
            steering,
        ) {
            (Some(model), Some(files), Some(asked), Some(latent)) => Some(Steering {
                model,
                latent,
                scale: asked.scale,
                wiring: files.wiring,
            }),
            _ => None,
        };
        let control_contexts = match &steering {
            Some(steering) => Some(Contexts::encode(captions, |text, lengths| {
                steering.model.encode_caption(text, lengths)
            })?),
            None => None,
        };
        let shape = self.latent_shape(plan);
        let job = Job {
            contexts: Contexts::encode(captions, |text, lengths| {
                transformer.encode_caption(text, lengths)
            })?,
            control_contexts,
            steering,
            images: plan.images,
            images_per_prompt: request.images_per_prompt,
            tokens: self.tokens(plan),
            pag: plan.pag.clone(),
        };
        let denoiser = Denoiser::new(transformer, job)?;

        let mut generator = TorchGenerator::new(request.seed);
        let noise = match &request.latents {
            Some(latents) => {
                let [batch, channels, height, width] = latents.shape;
                denoise::from_planes(latents.values.clone(), (batch, channels, height, width))?
            }
            None => denoise::draw(&mut generator, shape)?,
        };
        let decoder = self.decoder.as_ref();
        let mut after = |done: &Done, control: &mut Control| -> Result<()> {
            trace(done.index, done.latents);
            if let (Some(interval), Some(decoder)) = (request.preview_interval, decoder)
                && done.index < done.total
                && done.index.is_multiple_of(interval)
            {
                let first = done.clean.narrow(0, 0, 1)?.contiguous()?;
                let picture = decode::decode(
                    decoder,
                    &first,
                    mode,
                    (plan.output_height, plan.output_width),
                )?;
                control.send(Event::Preview(picture));
            }
            Ok(())
        };

        match (self.files.kind, &self.files.scheduler) {
            (ModelKind::Sprint, SchedulerConfig::Scm(config)) => {
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
                denoiser.run_scm(&scm, latents, guidance, &mut generator, control, &mut after)
            }
            (_, scheduler) => {
                let kind = request.scheduler.or(self
                    .options
                    .native
                    .then_some(SchedulerKind::DpmSolverNative));
                let mut sampler = scheduler.flow_sampler(kind, request.shift, plan.steps)?;
                let start = plan
                    .strength
                    .map_or(0, |strength| start_index(plan.steps, strength));
                let mut latents = noise;
                if let Some(init) = init {
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

    /// `(B, h, w, C)` of the request's latents.
    fn latent_shape(&self, plan: &Plan) -> (usize, usize, usize, usize) {
        let ratio = self.files.vae_config.ratio();
        (
            plan.images,
            plan.height / ratio,
            plan.width / ratio,
            self.files.transformer_config.in_channels,
        )
    }

    fn tokens(&self, plan: &Plan) -> usize {
        let (_, height, width, _) = self.latent_shape(plan);
        let patch = self.files.transformer_config.patch_size;
        (height / patch) * (width / patch)
    }
}

/// A latent `[1, h, w, C]` as values in the order of `[1, C, h, w]`.
fn to_latents(latent: &Tensor) -> Result<Latents> {
    let (batch, height, width, channels) = latent.dims4()?;
    let values = latent
        .permute((0, 3, 1, 2))?
        .contiguous()?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(Latents {
        shape: [batch, channels, height, width],
        values,
    })
}

fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let result = work();
    *seconds += started.elapsed().as_secs_f64();
    result
}

/// Times the steps of a stage.
struct StepClock {
    index: usize,
    total: usize,
    last: Instant,
}

impl StepClock {
    fn new(total: usize) -> Self {
        Self {
            index: 0,
            total,
            last: Instant::now(),
        }
    }

    fn step(&mut self, control: &mut Control) {
        self.index += 1;
        let seconds = self.last.elapsed().as_secs_f64();
        control.send(Event::Step {
            index: self.index,
            total: self.total,
            seconds,
        });
        self.last = Instant::now();
    }
}
