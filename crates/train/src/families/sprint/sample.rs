//! Samples of a student in training, by the loop of inference.

use brisk_models::dcae::Autoencoder;
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::diffusion::latents::Noise;
use brisk_pipelines::diffusion::schedulers::scm::{Scm, ScmConfig, default_angles};
use brisk_pipelines::diffusion::{Denoiser, Row, VelocityModel};
use brisk_pipelines::{Control, Error as PipelineError, Result as PipelineResult};

use super::SprintRecipe;
use super::steered::{Steered, SteeredCaption};
use super::texts::Texts;
use crate::error::{Error, Result};
use crate::families::image::controlnet::Sketches;
use crate::latents::Latents;
use crate::objectives::{FlowNetwork, SIGMA_DATA};
use crate::session::Session;
use crate::{pictures, sheet};

/// Pictures of a row of a sample sheet.
const COLUMNS: usize = 4;

/// The student with the captions of a sheet.
struct Captioned<'a> {
    student: &'a Steered,
    prompts: Vec<SteeredCaption>,
}

impl VelocityModel for Captioned<'_> {
    type Rows = (SteeredCaption, usize);

    fn rows(&self, rows: &[Row]) -> PipelineResult<Self::Rows> {
        // Guidance is inside the student: every row is a prompt's.
        let captions: Vec<_> = rows.iter().map(|row| &self.prompts[row.image]).collect();
        Ok((Steered::join(&captions).map_err(failed)?, rows.len()))
    }

    fn velocity(
        &self,
        (captions, count): &Self::Rows,
        latents: &Tensor,
        time: f32,
        guidance: Option<f32>,
    ) -> PipelineResult<Tensor> {
        let column = |value: f32| Tensor::full(value, *count);
        let (time, guidance) = (column(time)?, guidance.map(column).transpose()?);
        let student = self.student;
        let trace = &mut Trace::none();
        let found = student.velocity_with(latents, &time, guidance.as_ref(), captions, trace);
        found.map_err(failed)
    }
}

fn failed(error: Error) -> PipelineError {
    match error {
        Error::Pipeline(error) => error,
        other => PipelineError::folder("the student", other.to_string()),
    }
}

/// What a student draws of the recipe's prompts, always from the same noise.
pub(super) struct Sheet<'a> {
    pub student: &'a Steered,
    pub autoencoder: &'a Autoencoder,
    pub texts: &'a Texts,
    pub recipe: &'a SprintRecipe,
    pub latents: &'a Latents,
    /// What a ControlNet is shown: those of the first pictures.
    pub sketches: Option<&'a Sketches>,
}

impl Sheet<'_> {
    /// Draws and writes it.
    pub fn write(&self, session: &mut Session) -> Result<()> {
        let Self {
            student,
            autoencoder,
            texts,
            recipe,
            latents,
            sketches,
        } = *self;
        let (cells, usual) = latents.usual()?;
        let prompts = recipe
            .sample_prompts
            .iter()
            .enumerate()
            .map(|(index, text)| {
                let (rows, lengths) = texts.encode(&[texts.tokens(text)?])?;
                let shown = sketches
                    .map(|sketches| sketches.latents(&[usual[index % usual.len()]], latents));
                student.encode_caption(&rows, &lengths, shown.transpose()?.as_ref())
            });
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        let count = prompts.len();
        let captioned = Captioned { student, prompts };
        let mut noise = Noise::of_all(recipe.training.seed);
        let start = noise.draw((count, cells.height, cells.width, latents.channels()))?;
        let config = ScmConfig {
            sigma_data: SIGMA_DATA as f32,
        };
        let scm = Scm::new(&config, default_angles(recipe.sample_steps)?);
        let denoiser = Denoiser::new(captioned, count, cells.area(), false, None)?;
        let strength = recipe.guidance * student.transformer.config().guidance_embeds_scale;
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
}
