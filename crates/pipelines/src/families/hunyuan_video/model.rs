//! The pipeline as a model that makes clips.

use std::sync::Arc;

use brisk_store::ModelFolder;

use super::load::{Files, LoadOptions};
use super::options::HUNYUAN_VIDEO;
use super::pipeline::VideoPipeline;
use super::plan::{ClipPlan, plan};
use super::prompt::LONGEST;
use super::text::encode;
use crate::error::Result;
use crate::events::Control;
use crate::folder::unread_warning;
use crate::options::{Scope, Support};
use crate::quantize::Quantizable;
use crate::request::{
    Decisions, FirstFrame, GeneratedClip, OpenSettings, StageCost, VideoModel, VideoPlan,
    VideoRequest, WeightBytes,
};
use crate::tokenizer::truncated_warning;

/// Width and height of a clip that nothing decides.
const USUAL: (usize, usize) = (960, 544);

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn VideoModel>> {
    HUNYUAN_VIDEO.check(&folder.label(), Scope::Open, &settings.options)?;
    let options = LoadOptions::read(settings)?;
    Ok(Box::new(VideoPipeline {
        files: Files::open(folder, settings, &options)?,
        options,
        opened: settings.options.of_scope(Scope::Open),
        text: None,
        pooled: None,
        encoder: None,
        transformer: None,
        decoder: None,
        watcher: None,
    }))
}

impl VideoModel for VideoPipeline {
    fn label(&self) -> &str {
        &self.files.label
    }

    fn support(&self) -> &'static Support {
        &HUNYUAN_VIDEO
    }

    fn needs_image(&self) -> bool {
        self.files.condition().is_some()
    }

    fn usual_size(&self) -> (usize, usize) {
        let [width, height] = self.files.defaults.size;
        (width.unwrap_or(USUAL.0), height.unwrap_or(USUAL.1))
    }

    fn first_frame(&self, prompt: &str) -> FirstFrame {
        self.files.defaults.first_frame(prompt)
    }

    fn plan(&self, request: &VideoRequest) -> Result<VideoPlan> {
        let decided = plan(request, &self.files)?;
        let memory = self.plan_memory(&decided)?;
        let mut warnings: Vec<String> = unread_warning(&self.files.unread_keys)
            .into_iter()
            .collect();
        for text in [Some(&decided.prompt), decided.negative.as_ref()]
            .into_iter()
            .flatten()
        {
            if encode(&self.files, text, decided.picture.is_some())?.truncated {
                warnings.push(truncated_warning(text, LONGEST));
            }
        }
        Ok(VideoPlan {
            model: self.files.label.clone(),
            request: request.clone(),
            opened: self.opened.clone(),
            seed: decided.seed,
            width: decided.size[0],
            height: decided.size[1],
            frames: decided.frames - decided.dropped,
            given_frames: decided.given_frames(),
            rate: decided.rate,
            steps: decided.steps,
            settings: decided.settings(),
            memory,
            warnings,
            decisions: Arc::new(Decisions::new(decided)),
        })
    }

    fn generate(&mut self, plan: &VideoPlan, control: &Control) -> Result<GeneratedClip> {
        let decided: &ClipPlan = plan.decided(&self.files.label)?;
        control.drive(|| self.run(decided, &plan.memory, control))
    }

    fn cost(&self, plan: &VideoPlan) -> Result<Vec<StageCost>> {
        self.stage_costs(plan.decided(&self.files.label)?)
    }

    fn quantizable(&mut self) -> Option<&mut dyn Quantizable> {
        Some(self)
    }

    fn weight_bytes(&self) -> WeightBytes {
        self.resident_bytes()
    }

    fn release(&mut self) {
        self.text = None;
        self.pooled = None;
        self.encoder = None;
        self.transformer = None;
        self.decoder = None;
    }
}
