//! Networks that are loaded when their stage begins, and a plan carried out.

use std::time::Instant;

use brisk_media::Picture;
use brisk_models::hart::tokenizer::{Parts, Tokenizer};
use brisk_models::hart::transformer::Transformer;
use brisk_models::hart::{Generator, Request};
use brisk_models::qwen2::Qwen2Encoder;
use brisk_nn::{Tensor, Trace, check_finite};

use super::codes::of_picture;
use super::draws::Draws;
use super::load::{Files, LoadOptions};
use super::plan::HartPlan;
use super::text::{Contexts, TextJob};
use crate::diffusion::latents::{from_planes, to_planes};
use crate::error::{Error, Result};
use crate::events::{Control, Event, StepClock, Work, timed};
use crate::options::{Codes, Options, keys};
use crate::request::{GeneratedImage, StageMemory};

/// Places along a side from which on what a scale took, or a level of the decoder, is given back before the
/// next, whose maps are of another size.
const LARGE: usize = 32;

/// Seconds that the stages took for all pictures.
#[derive(Debug, Clone, Copy, Default)]
struct Seconds {
    text: f64,
    generate: f64,
}

/// A picture before it is decoded.
struct Undecoded {
    /// `[1,H,H,z]`
    latent: Tensor,
    codes: Codes,
}

/// A model of the family.
pub(super) struct HartPipeline {
    pub files: Files,
    pub options: LoadOptions,
    /// The options of opening as they were given, for descriptions.
    pub opened: Options,
    pub text: Option<Qwen2Encoder>,
    pub generator: Option<Generator>,
    pub decoder: Option<Tokenizer>,
}

impl HartPipeline {
    /// Carries a plan out: all pictures of the first prompt, then those of the next.
    pub fn run(
        &mut self,
        plan: &HartPlan,
        memory: &[StageMemory],
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let started = Instant::now();
        let available = crate::memory::available();
        let keep = self.keeps_components(available);
        control.memory(memory, available);
        if !keep {
            // What one part took goes back to the system before the next needs it.
            control.send(Event::SaveMemory);
        }
        let mut seconds = Seconds::default();
        let undecoded = if plan.draws(&self.files) {
            let contexts = timed(&mut seconds.text, || self.encode_text(plan, control))?;
            if !keep {
                self.text = None;
            }
            timed(&mut seconds.generate, || {
                self.generate(plan, &contexts, control)
            })?
        } else {
            timed(&mut seconds.generate, || self.sum_codes(plan, control))?
        };
        if !keep {
            self.generator = None;
        }
        let images = self.decode_all(plan, undecoded, seconds, control)?;
        if !keep {
            self.decoder = None;
        }
        control.send(Event::Done {
            results: images.len(),
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(images)
    }

    /// The tokens of a plan's prompts.
    pub fn text_job(&self, plan: &HartPlan) -> Result<TextJob> {
        let Some(text) = &self.files.text else {
            return Err(Error::request(
                keys::TEXT_ENCODER.name(),
                "the model was opened without one",
            ));
        };
        let system = plan.system.as_deref();
        let length = self.files.config.context_token;
        TextJob::new(&text.tokenizer, &plan.prompts, system, length)
    }

    fn encode_text(&mut self, plan: &HartPlan, control: &Control) -> Result<Contexts> {
        let job = self.text_job(plan)?;
        let model = match (self.text.take(), &self.files.text) {
            (None, Some(files)) => {
                control.stage("text encoder", Work::Load, 0);
                let settings = self.options.text_settings();
                let weights = files.network.parameters(&settings)?.build()?;
                Qwen2Encoder::load(&files.network.config.0, &weights)?
            }
            (Some(loaded), _) => loaded,
            (None, None) => return Err(Error::folder(&self.files.label, "no text encoder")),
        };
        job.run(self.text.insert(model), control)
    }

    /// The transformer, with the tokenizer's codebook.
    fn load_generator(&mut self, control: &Control) -> Result<&Generator> {
        let generator = match self.generator.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("transformer", Work::Load, 0);
                let files = &self.files;
                let tokenizer = files.load_tokenizer(&self.options, Parts::Quantizer)?;
                let settings = self.options.transformer_settings();
                let weights = files.transformer.parameters(&settings)?.build()?;
                let transformer = Transformer::load(&files.config, files.codewords(), &weights)?;
                Generator::new(transformer, tokenizer)
            }
        };
        Ok(self.generator.insert(generator))
    }

    fn load_decoder(&mut self, control: &Control) -> Result<&Tokenizer> {
        let decoder = match self.decoder.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("decoder", Work::Load, 0);
                self.files.load_tokenizer(&self.options, Parts::Decoder)?
            }
        };
        Ok(self.decoder.insert(decoder))
    }

    /// Latents and codes of all pictures, some pictures at a time.
    fn generate(
        &mut self,
        plan: &HartPlan,
        contexts: &Contexts,
        control: &Control,
    ) -> Result<Vec<Undecoded>> {
        self.load_generator(control)?;
        if !plan.preview_steps.is_empty() {
            self.load_decoder(control)?;
        }
        let Some(generator) = &self.generator else {
            return Err(Error::folder(
                &self.files.label,
                "the transformer is not loaded",
            ));
        };
        let scales = &self.files.scales;
        let total = plan.images() * scales.codes();
        control.stage("generate", Work::Run, total);
        let mut clock = StepClock::new(total);
        let mut undecoded = Vec::with_capacity(plan.images());
        for first in (0..plan.images()).step_by(plan.at_once) {
            let pictures = first..(first + plan.at_once).min(plan.images());
            let rows: Vec<usize> = pictures
                .clone()
                .map(|index| plan.prompt_of(index))
                .collect();
            let context = select(&contexts.rows, &rows)?;
            let masks: Vec<Vec<bool>> = rows
                .iter()
                .map(|row| contexts.masks[*row].clone())
                .collect();
            let given = plan
                .given
                .iter()
                .map(|scale| scale[pictures.clone()].concat());
            let given: Vec<Vec<u32>> = given.collect();
            let request = Request {
                context: &context,
                masks: &masks,
                guidance: f64::from(plan.guidance),
                given: &given,
                residual: plan.residual,
                steps: plan.steps,
                kept_as: plan.kept_as,
            };
            let start = self.start(plan, pictures.clone())?;
            let mut draws = Draws::new(plan.how, &plan.seeds[pictures.clone()], start);
            let mut failed = None;
            let mut done = |scale: usize, sum: &Tensor| {
                let side = scales.sides()[scale];
                clock.steps(pictures.len() * side * side, control);
                if side >= LARGE {
                    control.send(Event::SaveMemory);
                }
                let result = match plan.preview_steps.contains(&(scale + 1)) {
                    true => self.preview(sum, pictures.start, scale + 1, control),
                    false => Ok(()),
                };
                result.map_err(|error| {
                    let told = brisk_nn::Error::Config(error.to_string());
                    failed = Some(error);
                    told
                })
            };
            let drawn = generator.draw(&request, &mut draws, &mut done, &mut Trace::none());
            let drawn = match (drawn, failed) {
                (Err(_), Some(error)) => return Err(error),
                (drawn, _) => drawn?,
            };
            for index in 0..pictures.len() {
                undecoded.push(Undecoded {
                    latent: drawn.latent.narrow(0, index, 1)?.contiguous()?,
                    codes: of_picture(&drawn.codes, pictures.len(), index),
                });
            }
        }
        Ok(undecoded)
    }

    /// What the diffusion head starts from for some pictures, where that is given: place by place.
    fn start(&self, plan: &HartPlan, pictures: std::ops::Range<usize>) -> Result<Option<Vec<f32>>> {
        let Some(latents) = &plan.latents else {
            return Ok(None);
        };
        let all = from_planes(latents.values.clone(), latents.shape)?;
        let own = all
            .narrow(0, pictures.start, pictures.len())?
            .contiguous()?;
        Ok(Some(own.flatten_all()?.to_vec1()?))
    }

    /// Shows what the pictures from number `first` on would be if drawing stopped here.
    fn preview(&self, sum: &Tensor, first: usize, step: usize, control: &Control) -> Result<()> {
        if let Some(decoder) = &self.decoder {
            for index in 0..sum.dim(0)? {
                let latent = sum.narrow(0, index, 1)?.contiguous()?;
                control.send(Event::Preview {
                    image: first + index,
                    step,
                    picture: picture(decoder, &latent, control)?,
                });
            }
        }
        Ok(())
    }

    /// Latents of codes that are all given.
    fn sum_codes(&mut self, plan: &HartPlan, control: &Control) -> Result<Vec<Undecoded>> {
        let count = plan.images();
        let codes: Vec<Vec<u32>> = plan.given.iter().map(|scale| scale.concat()).collect();
        self.load_decoder(control)?;
        let Some(decoder) = &self.decoder else {
            return Err(Error::folder(
                &self.files.label,
                "the decoder is not loaded",
            ));
        };
        let sum = decoder.quantizer().sum(&self.files.scales, &codes, count)?;
        let each = (0..count).map(|index| {
            Ok(Undecoded {
                latent: sum.narrow(0, index, 1)?.contiguous()?,
                codes: of_picture(&codes, count, index),
            })
        });
        each.collect()
    }

    fn decode_all(
        &mut self,
        plan: &HartPlan,
        undecoded: Vec<Undecoded>,
        mut seconds: Seconds,
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let decoder = self.load_decoder(control)?;
        control.stage("decode", Work::Run, undecoded.len());
        let mut clock = StepClock::new(undecoded.len());
        let mut images = Vec::with_capacity(undecoded.len());
        for (index, Undecoded { latent, codes }) in undecoded.into_iter().enumerate() {
            let mut decode = 0.0;
            let picture = timed(&mut decode, || picture(decoder, &latent, control))?;
            clock.step(control);
            images.push(GeneratedImage {
                picture,
                latents: Some(to_planes(&latent)?),
                codes: Some(codes),
                seed: plan.seeds[index],
                prompt: plan.prompts[plan.prompt_of(index)].clone(),
                seconds: vec![
                    ("text", seconds.text),
                    ("generate", seconds.generate),
                    ("decode", decode),
                ],
            });
            // The first bears what all share.
            seconds = Seconds::default();
        }
        Ok(images)
    }
}

/// Rows of `[n,L,D]`.
fn select(rows: &Tensor, wanted: &[usize]) -> Result<Tensor> {
    let wanted: Vec<u32> = wanted.iter().map(|row| *row as u32).collect();
    Ok(rows.index_select(&Tensor::new(wanted)?, 0)?)
}

/// A latent `[1,H,H,z]` as a picture; values are cut down to bytes, as the reference does.
pub(super) fn picture(decoder: &Tokenizer, latent: &Tensor, control: &Control) -> Result<Picture> {
    let side = latent.dim(1)?;
    // Maps of the next level are of another size, and those of this one would stand beside them.
    let mut see = |name: &str, _: &Tensor| {
        if side >= LARGE && name.ends_with(".upsample") {
            control.send(Event::SaveMemory);
        }
    };
    let sample = decoder.picture(latent, &mut Trace::parts(&mut see))?;
    check_finite(&sample, "decode", "picture")?;
    let (_, height, width, _) = sample.dims4()?;
    let values = sample.flatten_all()?.to_vec1::<f32>()?;
    let byte = |value: f32| ((value + 1.0) / 2.0 * 255.0) as u8;
    Ok(Picture {
        width,
        height,
        pixels: values.into_iter().map(byte).collect(),
    })
}
