//! The pipeline as a model that draws.

use std::sync::Arc;

use brisk_store::ModelFolder;
use serde_json::{Map, Value, json};

use super::load::{Files, LoadOptions};
use super::pipeline::ClassPipeline;
use super::plan::{ClassPlan, plan, sampler_name, support};
use crate::error::{Error, Result};
use crate::events::Control;
use crate::folder::unread_warning;
use crate::known_prompts::KnownPrompts;
use crate::options::{OptionValue, Scope, Support};
use crate::request::{
    Decisions, GeneratedImage, ImageModel, ImagePlan, ImageRequest, OpenSettings, StageCost,
    WeightBytes, entries,
};

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn ImageModel>> {
    let options = LoadOptions::read(settings)?;
    let files = Files::open(folder, settings, &options)?;
    support(&files.transformer.config).check(&files.label, Scope::Open, &settings.options)?;
    Ok(Box::new(ClassPipeline {
        files,
        options,
        opened: settings.options.of_scope(Scope::Open),
        transformer: None,
        decoder: None,
    }))
}

impl ImageModel for ClassPipeline {
    fn label(&self) -> &str {
        &self.files.label
    }

    fn support(&self) -> &'static Support {
        support(&self.files.transformer.config)
    }

    fn known_prompts(&self) -> Option<&KnownPrompts> {
        self.files.known_prompts.as_ref()
    }

    /// The number of a class, which there is whether classes have names or not.
    fn example_prompt(&self) -> &str {
        "0"
    }

    fn notes(&self) -> Vec<String> {
        unread_warning(&self.files.unread_keys)
            .into_iter()
            .collect()
    }

    fn usual_size(&self) -> (usize, usize) {
        (self.files.pixels(), self.files.pixels())
    }

    fn plan(&self, request: &ImageRequest) -> Result<ImagePlan> {
        let mut decided = plan(request, &self.files)?;
        let (mode, memory) = self.plan_memory(&decided)?;
        decided.decode = mode;
        let side = self.files.pixels();
        Ok(ImagePlan {
            model: self.files.label.clone(),
            request: request.clone(),
            opened: self.opened.clone(),
            images: request.planned_images(),
            independent: true,
            width: side,
            height: side,
            generated_width: side,
            generated_height: side,
            steps: decided.steps.unwrap_or(0),
            settings: effective(&decided),
            memory,
            warnings: self.notes(),
            decisions: Arc::new(Decisions::new(decided)),
        })
    }

    fn generate(&mut self, plan: &ImagePlan, control: &Control) -> Result<Vec<GeneratedImage>> {
        if plan.model != self.files.label {
            return Err(Error::ForeignPlan {
                model: self.files.label.clone(),
            });
        }
        let decided: &ClassPlan = plan.decisions.of(&self.files.label)?;
        control.drive(|| self.run(decided, &plan.memory, control))
    }

    fn cost(&self, plan: &ImagePlan) -> Result<Vec<StageCost>> {
        Ok(self.stage_costs(plan.decisions.of(&self.files.label)?))
    }

    fn weight_bytes(&self) -> WeightBytes {
        self.resident_bytes()
    }

    fn denoiser_bytes(&self) -> u64 {
        self.transformer_bytes()
    }

    fn release(&mut self) {
        self.transformer = None;
        self.decoder = None;
    }
}

/// Effective values, for metadata.
fn effective(plan: &ClassPlan) -> Map<String, Value> {
    entries(json!({
        "guidance": plan.guidance.into_value().to_json(),
        "sampler": sampler_name(plan.scheduler),
    }))
}
