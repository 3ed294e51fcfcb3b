//! Samples of a student in training, by the loop of inference.

use brisk_models::dcae::Autoencoder;
use brisk_models::sana::{CaptionContext, ForwardExtras, SanaTransformer};
use brisk_nn::Tensor;
use brisk_pipelines::diffusion::latents::Noise;
use brisk_pipelines::diffusion::schedulers::scm::{Scm, ScmConfig, default_angles};
use brisk_pipelines::diffusion::{Denoiser, Row, VelocityModel};
use brisk_pipelines::{Control, Result as PipelineResult};

use super::SprintRecipe;
use super::texts::Texts;
use crate::error::Result;
use crate::families::image::Latents;
use crate::objectives::SIGMA_DATA;
use crate::session::Session;
use crate::{pictures, sheet};

/// Pictures of a row of a sample sheet.
const COLUMNS: usize = 4;

/// The student with the captions of a sheet.
struct Captioned<'a> {
    student: &'a SanaTransformer,
    prompts: Vec<CaptionContext>,
}

impl VelocityModel for Captioned<'_> {
    type Rows = CaptionContext;

    fn rows(&self, rows: &[Row]) -> PipelineResult<CaptionContext> {
        // Guidance is inside the student: every row is a prompt's.
        let captions = rows.iter().map(|row| &self.prompts[row.image]);
        Ok(CaptionContext::concat(&captions.collect::<Vec<_>>())?)
    }

    fn velocity(
        &self,
        captions: &CaptionContext,
        latents: &Tensor,
        time: f32,
        guidance: Option<f32>,
    ) -> PipelineResult<Tensor> {
        let column = |value: f32| Tensor::full(value, captions.batch());
        let (time, guidance) = (column(time)?, guidance.map(column).transpose()?);
        let extras = ForwardExtras::default();
        Ok(self
            .student
            .forward(latents, &time, guidance.as_ref(), captions, &extras)?)
    }
}

/// Writes what the student draws of the recipe's prompts, always from the same noise.
pub(super) fn write_sheet(
    session: &mut Session,
    student: &SanaTransformer,
    autoencoder: &Autoencoder,
    texts: &Texts,
    recipe: &SprintRecipe,
    latents: &Latents,
) -> Result<()> {
    let prompts = recipe.sample_prompts.iter().map(|text| {
        let (rows, lengths) = texts.encode(&[texts.tokens(text)?])?;
        Ok(student.encode_caption(&rows, &lengths)?)
    });
    let prompts = prompts.collect::<Result<Vec<_>>>()?;
    let (count, side) = (prompts.len(), latents.side);
    let captioned = Captioned { student, prompts };
    let mut noise = Noise::of_all(recipe.training.seed);
    let start = noise.draw((count, side, side, latents.channels))?;
    let config = ScmConfig {
        sigma_data: SIGMA_DATA as f32,
    };
    let scm = Scm::new(&config, default_angles(recipe.sample_steps)?);
    let denoiser = Denoiser::new(captioned, count, side * side, false, None)?;
    let strength = recipe.guidance * student.config().guidance_embeds_scale;
    // A sheet is a part of an update: it is neither shown step by step nor left half-way.
    let drawn = denoiser.run_scm(
        &scm,
        (start * SIGMA_DATA)?,
        Some(strength as f32),
        &mut noise,
        &Control::silent(),
        &mut |_| Ok(()),
    )?;
    let decoded = autoencoder.decode(&(drawn / autoencoder.scaling_factor())?)?;
    let cells = pictures::to_pictures(&decoded)?.into_iter();
    let cells: Vec<_> = cells.zip(recipe.sample_prompts.iter().cloned()).collect();
    let path = session.sample_path()?;
    sheet::write(&path, &cells, COLUMNS)?;
    session.sample_written(path);
    Ok(())
}
