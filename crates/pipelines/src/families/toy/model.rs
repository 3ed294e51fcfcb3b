//! The pipeline.

use std::sync::Arc;
use std::time::Instant;

use brisk_media::{Picture, signed_to_byte};
use brisk_models::Cost;
use brisk_models::component::LoadSettings;
use brisk_models::toy::{LEVELS, ToyConfig, ToyModel};
use brisk_nn::Tensor;
use brisk_store::ModelFolder;
use serde_json::{Map, json};

use super::options::{BRIGHTNESS, TOY};
use super::plan::{ToyPlan, plan};
use crate::diffusion::latents::{Noise, to_planes};
use crate::diffusion::schedulers::flow_euler::{FlowEuler, FlowEulerConfig};
use crate::diffusion::{Denoiser, Row, VelocityModel};
use crate::error::{Error, Result};
use crate::events::{Control, Event, Work};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::options::{Options, Scope, Support, keys};
use crate::request::{
    Decisions, GeneratedImage, ImageModel, ImagePlan, ImageRequest, OpenSettings, PlannedImage,
    StageCost, StageMemory, WeightBytes,
};

/// The one stage.
const STAGE: &str = "denoise";

/// Folder of the network.
const NETWORK: &str = "velocity_model";

struct ToyPipeline {
    label: String,
    opened: Options,
    network: Opened<ToyConfig>,
    loaded: Option<ToyModel>,
}

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn ImageModel>> {
    TOY.check(&folder.label(), Scope::Open, &settings.options)?;
    let wanted = Wanted {
        variant: settings.options.get(&keys::VARIANT),
        random: settings.random,
        ..Wanted::default()
    };
    let network = ComponentFolder::new(folder, NETWORK).open(
        |bytes, label| ToyConfig::from_json(bytes, label).map(Box::new),
        &wanted.without_low_bit(),
    )?;
    Ok(Box::new(ToyPipeline {
        label: folder.label(),
        opened: settings.options.of_scope(Scope::Open),
        network,
        loaded: None,
    }))
}

/// The network with the pictures that are asked of it.
struct Asked<'a> {
    model: &'a ToyModel,
    words: &'a [u32],
}

impl VelocityModel for Asked<'_> {
    type Rows = Tensor;

    fn rows(&self, rows: &[Row]) -> Result<Tensor> {
        let words: Vec<u32> = rows.iter().map(|row| self.words[row.image]).collect();
        Ok(self.model.pictures(&words)?)
    }

    fn velocity(
        &self,
        pictures: &Tensor,
        latents: &Tensor,
        time: f32,
        _guidance: Option<f32>,
    ) -> Result<Tensor> {
        let times = vec![time; latents.dim(0)?];
        Ok(self.model.forward(latents, &times, pictures)?)
    }
}

impl ImageModel for ToyPipeline {
    fn label(&self) -> &str {
        &self.label
    }

    fn support(&self) -> &'static Support {
        &TOY
    }

    fn usual_size(&self) -> (usize, usize) {
        (self.network.config.side, self.network.config.side)
    }

    fn plan(&self, request: &ImageRequest) -> Result<ImagePlan> {
        let decided = plan(request, &self.label, &self.network.config.words)?;
        let (width, height) = self.usual_size();
        let per_prompt = request.images_per_prompt();
        let planned = |index: usize| PlannedImage {
            prompt: request.prompts[index / per_prompt].clone(),
            seed: decided.seed_of(index),
        };
        let values = (decided.words.len() * self.network.config.values()) as u64;
        let warning = |prompt: &String| {
            let words = self.network.config.words.join(", ");
            format!("{prompt:?} names none of the words that this model knows ({words})")
        };
        Ok(ImagePlan {
            model: self.label.clone(),
            request: request.clone(),
            opened: self.opened.clone(),
            images: (0..decided.words.len()).map(planned).collect(),
            independent: true,
            width,
            height,
            generated_width: width,
            generated_height: height,
            steps: decided.steps,
            settings: Map::from_iter([(
                BRIGHTNESS.definition().field_name(),
                json!(decided.brightness),
            )]),
            memory: vec![StageMemory {
                stage: STAGE,
                needed: self.network.bytes() + 16 * values,
            }],
            warnings: decided.unknown.iter().map(warning).collect(),
            decisions: Arc::new(Decisions::new(decided)),
        })
    }

    fn generate(&mut self, plan: &ImagePlan, control: &Control) -> Result<Vec<GeneratedImage>> {
        if plan.model != self.label {
            return Err(Error::ForeignPlan {
                model: self.label.clone(),
            });
        }
        let decided: &ToyPlan = plan.decisions.of(&self.label)?;
        control.drive(|| self.run(plan, decided, control))
    }

    fn cost(&self, plan: &ImagePlan) -> Result<Vec<StageCost>> {
        let decided: &ToyPlan = plan.decisions.of(&self.label)?;
        let step = Cost::sum(STAGE, &self.network.config.step_cost(decided.words.len()));
        Ok(vec![StageCost {
            cost: step.repeated(decided.steps as u64),
            weight_bytes: self.network.bytes_per_value(),
        }])
    }

    fn weight_bytes(&self) -> WeightBytes {
        WeightBytes::of(&[(self.network.bytes(), self.loaded.is_some())])
    }

    fn denoiser_bytes(&self) -> u64 {
        self.network.bytes()
    }

    fn release(&mut self) {
        self.loaded = None;
    }
}

impl ToyPipeline {
    fn run(
        &mut self,
        plan: &ImagePlan,
        decided: &ToyPlan,
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let started = Instant::now();
        if self.loaded.is_none() {
            control.stage("network", Work::Load, 0);
            let weights = self.network.parameters(&LoadSettings::default())?.build()?;
            self.loaded = Some(ToyModel::load(&self.network.config, &weights)?);
        }
        let Some(model) = &self.loaded else {
            return Err(Error::folder(&self.label, "the network is not loaded"));
        };
        let (side, count) = (self.network.config.side, decided.words.len());
        let asked = Asked {
            model,
            words: &decided.words,
        };
        let grid = FlowEulerConfig {
            shift: 1.0,
            train_timesteps: LEVELS as usize,
        };
        let mut sampler = FlowEuler::new(&grid, decided.steps);
        let seeds: Vec<u64> = plan.images.iter().map(|image| image.seed).collect();
        let noise = Noise::of_each(&seeds).draw((count, side, side, 3))?;
        let denoiser = Denoiser::new(asked, count, side * side, false, None)?;
        let clean = denoiser.run_flow(&mut sampler, 0, noise, 1.0, control, &mut |_| Ok(()))?;
        let seconds = started.elapsed().as_secs_f64();
        let mut images = Vec::with_capacity(count);
        for (index, planned) in plan.images.iter().enumerate() {
            let one = clean.narrow(0, index, 1)?.contiguous()?;
            let values = one.flatten_all()?.to_vec1::<f32>()?;
            let brighter = values.iter().map(|value| value + decided.brightness);
            images.push(GeneratedImage {
                picture: Picture {
                    width: side,
                    height: side,
                    pixels: brighter.map(signed_to_byte).collect(),
                },
                latents: Some(to_planes(&one)?),
                codes: None,
                seed: planned.seed,
                prompt: planned.prompt.clone(),
                seconds: vec![(STAGE, seconds)],
            });
        }
        control.send(Event::Done {
            results: count,
            seconds,
        });
        Ok(images)
    }
}
