//! The networks of a run, and the model that it distils.

use std::sync::Arc;

use brisk_models::component::LoadSettings;
use brisk_models::gemma2::Gemma2Config;
use brisk_models::sana::{SanaConfig, SanaTransformer};
use brisk_models::sana_controlnet::{SanaControlNet, SanaControlNetConfig};
use brisk_nn::Weights;
use brisk_pipelines::families::sana::prompt::DEFAULT_INSTRUCTION;
use brisk_pipelines::folder::{ComponentFolder, Opened, Wanted};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};
use brisk_text::Tokenizer;
use candle_core::Var;

use super::SprintRecipe;
use super::steered::Steered;
use super::texts::Texts;
use crate::error::{Error, Result};
use crate::families::image::controlnet::CONTROLNET;
use crate::families::image::{TEXT_ENCODER, TRANSFORMER};
use crate::objectives::LogVariance;
use crate::objectives::ladd::Discriminator;
use crate::session::check_start_but;
use crate::tensors::{self, NamedArray};

/// Of names of the discriminator's parameters.
const DISCRIMINATOR: &str = "discriminator";
/// Of those of the loss's variance.
const VARIANCE: &str = "logvar";
/// What the pipeline of a teacher with a dense time embedding multiplies its times 0..1000 by.
const DENSE: f64 = 1e-3;
/// The file of the text before prompts.
const INSTRUCTION: &str = "complex_human_instruction.txt";

/// A text-to-image model to distil.
pub struct SprintTeacher {
    pub(super) folder: ModelFolder,
    transformer: Opened<SanaConfig>,
    text: Opened<Gemma2Config>,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Stands before prompts.
    pub(super) instruction: String,
}

impl SprintTeacher {
    /// Opens a model's folder, its weights of this variant where there is one.
    ///
    /// # Errors
    /// Parts that are missing or damaged, or a model that cannot be distilled: its time embedding must be dense, which
    /// `brisk train image --recipe scenes-sprint-teacher --from` makes it.
    pub fn open(folder: &ModelFolder, variant: Option<&str>) -> Result<Self> {
        let wanted = Wanted {
            variant: variant.map(str::to_owned),
            ..Wanted::default()
        };
        let place = |part| ComponentFolder::new(folder, part);
        let transformer = place(TRANSFORMER).open(
            |bytes, label| SanaConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let label = place(TRANSFORMER).config_label();
        let config = &*transformer.config;
        if config.guidance_embeds {
            return Err(Error::Data(format!(
                "{label}: guidance_embeds is true; this model is distilled already, expected its teacher"
            )));
        }
        if (config.timestep_scale - DENSE).abs() > 1e-9 {
            return Err(Error::Data(format!(
                "{label}: timestep_scale is {}, expected {DENSE}: with times of 0 to 1000 the student's rate of change \
                 is too large to learn from. First train this model on with times of 0 to 1: `brisk train image --from \
                 MODEL` and a recipe whose transformer has timestep_scale {DENSE}, as scenes-sprint-teacher has",
                config.timestep_scale
            )));
        }
        if config.output_channels() != config.in_channels {
            return Err(Error::Data(format!(
                "{label}: out_channels is {}, expected the {} of in_channels: a model that learned its variance cannot \
                 be distilled",
                config.output_channels(),
                config.in_channels
            )));
        }
        let text = place(TEXT_ENCODER).open(
            |bytes, label| Gemma2Config::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let tokens = place("tokenizer");
        let (file, label) = (
            tokens.read("tokenizer.json")?,
            tokens.label("tokenizer.json"),
        );
        let tokenizer = Arc::new(Tokenizer::from_bytes(&file, &label)?);
        let instruction = match folder.exists(INSTRUCTION) {
            true => folder.read_text(INSTRUCTION)?,
            false => DEFAULT_INSTRUCTION.to_owned(),
        };
        Ok(Self {
            folder: folder.clone(),
            transformer,
            text,
            tokenizer,
            instruction,
        })
    }

    /// The teacher's transformer.
    pub(super) fn config(&self) -> &SanaConfig {
        &self.transformer.config
    }

    /// The student's: the same with an embedding of the guidance strength.
    pub(super) fn student_config(&self) -> SanaConfig {
        SanaConfig {
            guidance_embeds: true,
            timestep_scale: 1.0,
            ..self.config().clone()
        }
    }

    /// Parameters that are trained or held.
    pub(super) fn parameters(&self) -> u64 {
        self.student_config().parameters() + self.text.count()
    }

    /// The weights of transformer and text encoder.
    pub(super) fn sources(&self) -> Vec<Arc<dyn TensorSource>> {
        let stored = [self.transformer.stored(), self.text.stored()];
        stored.into_iter().flatten().cloned().collect()
    }

    pub(super) fn texts(&self, max_tokens: usize) -> Result<Texts> {
        let weights = self.text.parameters(&LoadSettings::default())?.build()?;
        Texts::load(&self.text.config, &weights, self, max_tokens)
    }

    fn frozen(&self) -> Result<SanaTransformer> {
        frozen(&self.transformer)
    }

    /// The teacher's parameters under the names that a student has them by.
    fn start(&self) -> Result<Arc<dyn TensorSource>> {
        renamed(TRANSFORMER, self.transformer.stored())
    }
}

/// A transformer that stays as it is.
fn frozen(transformer: &Opened<SanaConfig>) -> Result<SanaTransformer> {
    let weights = transformer.parameters(&LoadSettings::default())?.build()?;
    Ok(SanaTransformer::load(&transformer.config, &weights)?)
}

/// A network's parameters under the names that they have in a student's training: behind `part`, and with the time's
/// embedding where a student has it.
fn renamed(part: &str, source: Option<&Arc<dyn TensorSource>>) -> Result<Arc<dyn TensorSource>> {
    let Some(source) = source else {
        return Err(Error::Data(format!("the teacher's {part} has no weights")));
    };
    let names = source.names().into_iter();
    let map = names.map(|name| {
        let own = match name.strip_prefix("time_embed.emb.") {
            Some(rest) => format!("time_embed.{rest}"),
            None => name.clone(),
        };
        (format!("{part}.{own}"), Slice::whole(name))
    });
    Ok(Arc::new(MappedSource::new(source.clone(), map.collect())?))
}

/// A ControlNet to distil: of the teacher, for the student that was distilled from it, which stays as it is.
pub struct SprintControl {
    controlnet: Opened<SanaControlNetConfig>,
    student: Opened<SanaConfig>,
}

impl SprintControl {
    /// Opens the ControlNet's folder and the student's, weights of this variant where there is one.
    ///
    /// # Errors
    /// Parts that are missing or damaged, or a student without an embedding of guidance.
    pub fn open(
        controlnet: &ModelFolder,
        student: &ModelFolder,
        variant: Option<&str>,
    ) -> Result<Self> {
        let wanted = Wanted {
            variant: variant.map(str::to_owned),
            ..Wanted::default()
        };
        let inner = match controlnet.exists("config.json") {
            true => "",
            false => CONTROLNET,
        };
        let controlnet = ComponentFolder::new(controlnet, inner).open(
            |bytes, label| SanaControlNetConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let place = ComponentFolder::new(student, TRANSFORMER);
        let student = place.open(
            |bytes, label| SanaConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        match student.config.guidance_embeds {
            true => Ok(Self {
                controlnet,
                student,
            }),
            false => Err(Error::Data(format!(
                "{}: guidance_embeds is false; expected a model that was distilled, as `brisk distill sprint` makes it",
                place.config_label()
            ))),
        }
    }

    /// The weights of ControlNet and student.
    pub(super) fn sources(&self) -> Vec<Arc<dyn TensorSource>> {
        let stored = [self.controlnet.stored(), self.student.stored()];
        stored.into_iter().flatten().cloned().collect()
    }

    /// Parameters that are trained or held.
    pub(super) fn parameters(&self) -> u64 {
        self.controlnet.count() + self.student.count()
    }

    /// The distilled ControlNet's configuration.
    pub(super) fn config(&self) -> SanaControlNetConfig {
        SanaControlNetConfig {
            transformer: SanaConfig {
                num_layers: self.controlnet.config.transformer.num_layers,
                ..(*self.student.config).clone()
            },
        }
    }

    /// Refuses parts of different shapes.
    fn check(&self, teacher: &SprintTeacher) -> Result<()> {
        let wanted = teacher.student_config();
        if *self.student.config != wanted {
            return Err(Error::Data(
                "the student's transformer is of another shape than one that is distilled from this teacher".to_owned(),
            ));
        }
        let own = &self.controlnet.config.transformer;
        let of_teacher = SanaConfig {
            num_layers: own.num_layers,
            ..teacher.config().clone()
        };
        match *own == of_teacher {
            true => Ok(()),
            false => Err(Error::Data(
                "the ControlNet is of another shape than the teacher's transformer".to_owned(),
            )),
        }
    }
}

/// Everything that a loss is computed with.
pub(super) struct Networks<M> {
    pub student: M,
    pub variance: LogVariance,
    pub teacher: M,
    pub discriminator: Option<Discriminator>,
    pub head_blocks: Vec<usize>,
}

impl Networks<Steered> {
    /// Student, variance and discriminator as variables, which start at the teacher's values where it has them. Where a
    /// ControlNet is distilled, it is all that learns of the student.
    pub fn new(
        teacher: &SprintTeacher,
        control: Option<&SprintControl>,
        recipe: &SprintRecipe,
    ) -> Result<(Self, Vec<(String, Var)>)> {
        let config = teacher.config();
        if let Some(block) = recipe
            .head_blocks
            .iter()
            .find(|block| **block >= config.num_layers)
        {
            return Err(Error::Recipe(format!(
                "head_blocks has {block}, but the teacher has blocks 0 to {}",
                config.num_layers - 1
            )));
        }
        let seed = recipe.training.seed;
        let part = match control {
            Some(_) => CONTROLNET,
            None => TRANSFORMER,
        };
        let start = match control {
            Some(control) => {
                control.check(teacher)?;
                renamed(CONTROLNET, control.controlnet.stored())?
            }
            None => teacher.start()?,
        };
        let of_student = Weights::trainable(Some(Arc::clone(&start)), seed);
        let learns = of_student.pp(part);
        let student = match control {
            Some(control) => Steered {
                transformer: frozen(&control.student)?,
                controlnet: Some(SanaControlNet::load(&control.config(), &learns)?),
            },
            None => Steered {
                transformer: SanaTransformer::load(&teacher.student_config(), &learns)?,
                controlnet: None,
            },
        };
        let guidance = format!("{part}.time_embed.guidance_embedder.");
        check_start_but(&of_student, &*start, |name| name.starts_with(&guidance))?;
        let others = Weights::trainable(None, seed);
        let variance = LogVariance::load(&others.pp(VARIANCE), config.width())?;
        let discriminator = (recipe.adversarial_weight > 0.0).then(|| {
            let (weights, heads) = (others.pp(DISCRIMINATOR), recipe.head_blocks.len());
            Discriminator::load(&weights, heads, config.width())
        });
        let of_teacher = match control {
            Some(control) => {
                let weights = control.controlnet.parameters(&LoadSettings::default())?;
                Some(SanaControlNet::load(
                    &control.controlnet.config,
                    &weights.build()?,
                )?)
            }
            None => None,
        };
        let networks = Self {
            student,
            variance,
            teacher: Steered {
                transformer: teacher.frozen()?,
                controlnet: of_teacher,
            },
            discriminator: discriminator.transpose()?,
            head_blocks: recipe.head_blocks.clone(),
        };
        let mut variables = of_student.variables();
        variables.extend(others.variables());
        variables.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok((networks, variables))
    }
}

/// The student from the moving average, as it will be written when `rounded`.
pub(super) fn frozen_student(
    teacher: &SprintTeacher,
    control: Option<&SprintControl>,
    arrays: &[NamedArray],
    rounded: bool,
) -> Result<Steered> {
    let weights = |part: &str| -> Result<Weights> {
        let source = tensors::memory_source(arrays, &format!("{part}."), rounded)?;
        Ok(Weights::from_source(source))
    };
    Ok(match control {
        Some(control) => Steered {
            transformer: frozen(&control.student)?,
            controlnet: Some(SanaControlNet::load(
                &control.config(),
                &weights(CONTROLNET)?,
            )?),
        },
        None => Steered {
            transformer: SanaTransformer::load(&teacher.student_config(), &weights(TRANSFORMER)?)?,
            controlnet: None,
        },
    })
}
