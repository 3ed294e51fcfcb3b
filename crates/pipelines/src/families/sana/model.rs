//! The pipeline as a model that draws.

use std::sync::Arc;

use brisk_nn::LoraFile;
use brisk_store::ModelFolder;
use serde_json::{Map, Value, json};

use super::load::LoadOptions;
use super::options as own;
use super::pipeline::SanaPipeline;
use super::plan::{SanaPlan, plan};
use crate::block_importance::BlockWatcher;
use crate::device::location;
use crate::error::{Error, Result};
use crate::events::Control;
use crate::known_prompts::KnownPrompts;
use crate::low_bit_settings;
use crate::options::{OptionValue, Options, Scope, Support, keys};
use crate::quantize::Quantizable;
use crate::registry;
use crate::request::{
    Decisions, GeneratedImage, ImageModel, ImagePlan, ImageRequest, OpenSettings, PlannedImage,
    StageCost, WeightBytes, entries,
};
use crate::residency::Residency;

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn ImageModel>> {
    let options = LoadOptions::read(settings)?;
    if options.transformer_file.is_some() && !folder.exists(super::index::INDEX) {
        let lacking: Vec<String> = [&keys::VAE, &keys::TEXT_ENCODER]
            .into_iter()
            .filter(|key| !settings.options.has(key.definition()))
            .map(|key| format!("`{}`", key.name()))
            .collect();
        if !lacking.is_empty() {
            return Err(Error::request(
                own::TRANSFORMER.name(),
                format!(
                    "needs {} too, or the folder of a model that has the other components",
                    lacking.join(" and ")
                ),
            ));
        }
    }
    let mut pipeline = SanaPipeline::load(folder.clone(), &options)?;
    pipeline.opened = settings.options.of_scope(Scope::Open);
    let support = pipeline.files.kind.support();
    support.check(&folder.label(), Scope::Open, &settings.options)?;
    Ok(Box::new(pipeline))
}

impl ImageModel for SanaPipeline {
    fn label(&self) -> &str {
        &self.files.label
    }

    fn support(&self) -> &'static Support {
        self.files.kind.support()
    }

    fn known_prompts(&self) -> Option<&KnownPrompts> {
        self.files.known_prompts.as_ref()
    }

    fn notes(&self) -> Vec<String> {
        self.files.notes.clone()
    }

    fn usual_size(&self) -> (usize, usize) {
        let side = self.files.transformer.config.sample_size * self.files.vae.config.ratio();
        (side, side)
    }

    fn plan(&self, request: &ImageRequest) -> Result<ImagePlan> {
        let mut decided = plan(request, &self.capabilities())?;
        let (mode, memory) = self.plan_memory(&decided)?;
        decided.decode = mode;
        let mut warnings =
            self.warnings(&decided, request.options.has(own::INSTRUCTION.definition()));
        warnings.extend(self.notes());
        if let Some(published) = registry::published(&self.files.label)
            && published.discouraged
        {
            warnings.push(format!("{}: {}", published.id, published.note));
        }
        Ok(ImagePlan {
            model: self.files.label.clone(),
            request: request.clone(),
            opened: self.opened.clone(),
            images: (0..decided.images)
                .map(|index| PlannedImage {
                    prompt: decided.prompts[index / decided.images_per_prompt].clone(),
                    seed: decided.seed_of(index),
                })
                .collect(),
            // Latents that were given are not a seed's.
            independent: !decided.one_generator && decided.latents.is_none(),
            width: decided.output_width,
            height: decided.output_height,
            generated_width: decided.width,
            generated_height: decided.height,
            steps: decided.steps,
            settings: settings(&decided, &request.options),
            memory,
            warnings,
            decisions: Arc::new(Decisions::new(decided)),
        })
    }

    fn generate(&mut self, plan: &ImagePlan, control: &Control) -> Result<Vec<GeneratedImage>> {
        if plan.model != self.files.label {
            return Err(Error::ForeignPlan {
                model: self.files.label.clone(),
            });
        }
        let decided: &SanaPlan = plan.decisions.of(&self.files.label)?;
        control.drive(|| self.run(decided, &plan.memory, control))
    }

    fn cost(&self, plan: &ImagePlan) -> Result<Vec<StageCost>> {
        self.stage_costs(plan.decisions.of(&self.files.label)?)
    }

    fn prompt_tokens(&self, plan: &ImagePlan) -> Result<usize> {
        self.tokens_of_prompts(plan.decisions.of(&self.files.label)?)
    }

    fn weight_bytes(&self) -> WeightBytes {
        self.resident_bytes()
    }

    fn denoiser_bytes(&self) -> u64 {
        self.transformer_bytes()
    }

    fn is_low_bit(&self) -> bool {
        self.files.transformer.is_low_bit()
    }

    fn quantizable(&mut self) -> Option<&mut dyn Quantizable> {
        Some(self)
    }

    fn watch_blocks(&mut self, watcher: BlockWatcher) -> bool {
        self.block_watcher = Some(watcher);
        true
    }

    fn release(&mut self) {
        Self::release(self);
    }
}

/// Effective values, for metadata.
fn settings(plan: &SanaPlan, given: &Options) -> Map<String, Value> {
    let pag = plan.pag.as_ref();
    entries(json!({
        "negative_prompt": given.get(&keys::NEGATIVE_PROMPT),
        "guidance": plan.guidance.into_value().to_json(),
        "scheduler": plan.scheduler.name(),
        "shift": plan.shift,
        "pag_scale": pag.map(|pag| pag.scale),
        "pag_adaptive": pag.map(|pag| pag.adaptive),
        "pag_layers": pag.map(|pag| &pag.layers),
        "angles": plan.angles,
        "strength": plan.init.as_ref().map(|init| init.strength),
        "one_generator": (plan.images > 1).then_some(plan.one_generator),
        "control_scale": plan.control.as_ref().map(|control| control.scale),
        "decode": plan.decode.name(),
    }))
}

impl LoadOptions {
    /// Reads the options of opening.
    pub(super) fn read(settings: &OpenSettings) -> Result<Self> {
        let asked = &settings.options;
        let heads = match asked.get(&own::HEADS).as_deref() {
            None => None,
            Some(&[attention, cross_attention]) => Some(brisk_models::sana::native::NativeHeads {
                attention,
                cross_attention,
            }),
            Some(other) => {
                return Err(Error::request(
                    own::HEADS.name(),
                    format!(
                        "{other:?}: expected two numbers SELF,CROSS, of self-attention and of \
                         cross-attention, such as 36,16"
                    ),
                ));
            }
        };
        let wiring = asked.get(&own::CONTROL_WIRING).map(|name| match &*name {
            "native" => brisk_models::sana::ControlWiring::Native,
            _ => brisk_models::sana::ControlWiring::Diffusers,
        });
        let quantize = |key| -> Result<brisk_nn::Quantization> {
            let name = asked.get(key).unwrap_or_else(|| "none".to_owned());
            Ok(brisk_nn::Quantization::from_name(&name)?)
        };
        let place = asked.get(&keys::DEVICE).unwrap_or_else(|| "cpu".to_owned());
        let location = location(&place, asked.get(&keys::PRECISE).unwrap_or(false))?;
        let scale = asked.get(&keys::LORA_SCALE).unwrap_or(1.0);
        let loras = asked.get(&keys::LORA).unwrap_or_default().into_iter();
        let loras = loras.map(|path| {
            let file = LoraFile::parse(&path)
                .map_err(|error| Error::request(keys::LORA.name(), error.to_string()))?;
            Ok(LoraFile {
                path: settings.file(keys::LORA.name(), &file.path)?,
                scale: file.scale * scale,
            })
        });
        Ok(Self {
            variant: asked.get(&keys::VARIANT),
            loras: loras.collect::<Result<_>>()?,
            controlnet: settings.folder(&own::CONTROLNET)?,
            control_wiring: wiring,
            native: asked.get(&own::NATIVE).unwrap_or(false),
            exact: asked.get(&keys::EXACT).unwrap_or(false),
            transformer_file: asked
                .get(&own::TRANSFORMER)
                .map(|path| settings.file(own::TRANSFORMER.name(), &path))
                .transpose()?,
            heads,
            vae: settings.folder(&keys::VAE)?,
            preview_decoder: asked
                .get(&own::PREVIEW_DECODER)
                .map(|path| settings.file(own::PREVIEW_DECODER.name(), &path))
                .transpose()?,
            text_encoder: settings.folder(&keys::TEXT_ENCODER)?,
            residency: Residency::asked(asked),
            random: settings.random,
            activations: low_bit_settings::activations(asked),
            location,
            text_quantization: quantize(&keys::QUANTIZE_TEXT_ENCODER)?,
            transformer_quantization: quantize(&keys::QUANTIZE_TRANSFORMER)?,
        })
    }
}
