//! The pipeline as a model that draws.

use std::sync::Arc;

use brisk_nn::KeyValueType;
use brisk_store::ModelFolder;
use serde_json::{Map, Value, json};

use super::load::{Files, LoadOptions, SYSTEM_PROMPT_FILE};
use super::options::{self as own, HART};
use super::pipeline::HartPipeline;
use super::plan::{HartPlan, plan};
use crate::error::{Error, Result};
use crate::events::Control;
use crate::known_prompts::KnownPrompts;
use crate::options::{OptionValue, Options, Scope, Support};
use crate::request::{
    Decisions, GeneratedImage, ImageModel, ImagePlan, ImageRequest, OpenSettings, StageCost,
    WeightBytes, entries,
};
use crate::tokenizer::truncated_warning;

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn ImageModel>> {
    HART.check(&folder.label(), Scope::Open, &settings.options)?;
    let options = LoadOptions::read(settings)?;
    Ok(Box::new(HartPipeline {
        files: Files::open(folder, settings, &options)?,
        options,
        opened: settings.options.of_scope(Scope::Open),
        text: None,
        generator: None,
        decoder: None,
    }))
}

impl ImageModel for HartPipeline {
    fn label(&self) -> &str {
        &self.files.label
    }

    fn support(&self) -> &'static Support {
        &HART
    }

    fn known_prompts(&self) -> Option<&KnownPrompts> {
        self.files.known_prompts.as_ref()
    }

    fn usual_size(&self) -> (usize, usize) {
        (self.files.pixels(), self.files.pixels())
    }

    fn plan(&self, request: &ImageRequest) -> Result<ImagePlan> {
        let decided = plan(request, &self.files)?;
        let memory = self.plan_memory(&decided)?;
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
            steps: decided.steps,
            settings: effective(&decided),
            memory,
            warnings: self.warnings(&decided, &request.options)?,
            decisions: Arc::new(Decisions::new(decided)),
        })
    }

    fn generate(&mut self, plan: &ImagePlan, control: &Control) -> Result<Vec<GeneratedImage>> {
        if plan.model != self.files.label {
            return Err(Error::ForeignPlan {
                model: self.files.label.clone(),
            });
        }
        let decided: &HartPlan = plan.decisions.of(&self.files.label)?;
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

    fn release(&mut self) {
        self.text = None;
        self.generator = None;
        self.decoder = None;
    }
}

/// Effective values, for metadata.
fn effective(plan: &HartPlan) -> Map<String, Value> {
    entries(json!({
        "guidance": plan.guidance.into_value().to_json(),
        "smooth": plan.how.smooth,
        "residual": plan.residual,
        "top_p": (plan.how.top_p < 1.0).then_some(plan.how.top_p),
        "given_scales": (!plan.given.is_empty()).then_some(plan.given.len()),
        "cache_type": match plan.kept_as {
            KeyValueType::F32 => "f32",
            KeyValueType::F16 => "f16",
        },
    }))
}

impl HartPipeline {
    /// What a user should know of a plan before it runs.
    fn warnings(&self, plan: &HartPlan, given: &Options) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if !plan.draws(&self.files) {
            return Ok(warnings);
        }
        if self.files.system.is_none() && !given.has(own::SYSTEM_PROMPT.definition()) {
            warnings.push(format!(
                "the model's folder has no {SYSTEM_PROMPT_FILE}; published models were trained with a system \
                 prompt before every prompt (`llm_system_prompt` of the authors' code), which the option \
                 `{}` takes from a file",
                own::SYSTEM_PROMPT.name()
            ));
        }
        let length = self.files.config.context_token;
        let job = self.text_job(plan)?;
        for (text, prompt) in plan.prompts.iter().zip(&job.prompts) {
            if prompt.truncated {
                warnings.push(truncated_warning(text, length));
            }
        }
        let prompts = plan.prompts.iter().map(String::as_str);
        warnings.extend(
            self.files
                .known_prompts
                .as_ref()
                .and_then(|known| known.warning(prompts)),
        );
        if !self.files.unread_keys.is_empty() {
            warnings.push(format!(
                "nothing reads {} of the model's configuration; the reference may compute something by it",
                self.files.unread_keys.join(", ")
            ));
        }
        Ok(warnings)
    }
}
