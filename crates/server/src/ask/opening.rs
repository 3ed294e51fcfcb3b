//! First frames of clips that a request gives none for.

use std::sync::Arc;

use brisk::options::video_keys::{HEIGHT, IMAGE, WIDTH};
use brisk::{FirstFrame, ImageModel, ImagePlan, Picture, ResultKind, StageCost, VideoRequest};

use super::Context;
use super::images::refusal;
use crate::error::{ApiError, Result};
use crate::fields::field_of_option;
use crate::served::Served;

/// A first frame that is drawn before its clip.
#[derive(Debug)]
pub struct Opening {
    /// By which model of pictures.
    pub drawer: Arc<Served>,
    frame: FirstFrame,
    size: (usize, usize),
    seed: u64,
    /// Bytes of the stage that needs most, the model's own among them.
    pub memory: u64,
    /// What it computes, stage by stage.
    pub costs: Vec<StageCost>,
}

impl Opening {
    /// The first frame of a clip of `model`, drawn by the first model here that gives pictures. The request gets a blank
    /// one, by which the clip is planned.
    pub(super) fn read(
        context: Context<'_>,
        model: &Served,
        request: &mut VideoRequest,
        seed: u64,
    ) -> Result<Self> {
        let drawer = context.models.wanted(None, ResultKind::Pictures);
        let (Ok(drawer), Some((frame, usual))) = (drawer, model.first_frame(&request.prompt))
        else {
            let problem = format!(
                "is missing; {} begins a clip with a picture, and no model here draws one: give it as a data URL, or as a \
                 file of a form",
                model.id
            );
            let field = field_of_option(IMAGE.name());
            return Err(ApiError::invalid(&field, problem));
        };
        let options = &request.options;
        let size = (
            options.get(&WIDTH).unwrap_or(usual.0),
            options.get(&HEIGHT).unwrap_or(usual.1),
        );
        let planned = drawer.plan_first_frame(&frame, size, seed);
        let planned = planned.map_err(|error| refusal(context, &error))?;
        let memory = context.room_for(&planned.plan.memory)?;
        let blank = Picture::filled(size.0, size.1, [0; 3]);
        request.options.set(&IMAGE, blank.into());
        Ok(Self {
            drawer,
            frame,
            size,
            seed,
            memory,
            costs: planned.costs,
        })
    }

    /// Plans it by the model that draws it.
    ///
    /// # Errors
    /// What the model refuses.
    pub fn planned(&self, drawer: &dyn ImageModel) -> brisk::Result<ImagePlan> {
        brisk::plan_first_frame(drawer, &self.frame, self.size, self.seed)
    }

    /// The frame with what was drawn.
    ///
    /// # Errors
    /// A picture that cannot be resized.
    pub fn placed(&self, picture: Picture) -> brisk::Result<Picture> {
        brisk::place_first_frame(picture, &self.frame, self.size)
    }
}
