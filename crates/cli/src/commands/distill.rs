//! `brisk distill`: models of fewer steps.

use std::path::PathBuf;

use brisk_train::data::pictures::PictureData;
use brisk_train::data::scenes::Drawings;
use brisk_train::eval::open_autoencoder;
use brisk_train::recipe::Recipe;
use brisk_train::{SprintControl, SprintTeacher, distill_sprint, distill_video};
use clap::{Args, Subcommand};

use super::train::{RunArguments, wrong_kind};
use crate::failure::Result;
use crate::models;

/// Make a model that needs fewer steps out of one that needs many
#[derive(Debug, Subcommand)]
#[command(
    after_help = "From a text-to-image model to one of one to four steps:\n  \
    brisk train image --recipe scenes-sprint-teacher --from MODEL --data scenes.safetensors -o runs/teacher\n  \
    brisk distill sprint --teacher runs/teacher/model --data scenes.safetensors -o runs/sprint\n  \
    brisk image --model runs/sprint/model --steps 2 \"a red cat\"\n\n\
    From a model of clips to one of four steps without guidance:\n  \
    brisk distill dmd --teacher runs/video/model --npm npm -o runs/dmd\n  \
    brisk video --model runs/dmd/model --image a.png \"a red cat jumps\"\n\n\
    A run that was stopped (Ctrl-C, a kill) goes on when the same command is given again."
)]
pub enum DistillVerb {
    Sprint(SprintArguments),
    Dmd(DmdArguments),
}

/// Distil a SANA model into one of a few steps (SANA-Sprint)
#[derive(Debug, Args)]
#[command(
    before_help = "The student learns to jump to the end of the teacher's path (sCM), and to draw what a discriminator on\n\
    the teacher's features takes for real (LADD). The teacher's times must be 0 to 1, as the recipe\n\
    scenes-sprint-teacher of `brisk train image` makes them. A recipe is a JSON file."
)]
pub struct SprintArguments {
    /// Model to distil: a folder or hub id
    #[arg(long, value_name = "MODEL")]
    teacher: String,
    /// Distil this ControlNet of the teacher, for --student, and leave the models as they are
    #[arg(long, value_name = "FOLDER", requires = "student")]
    controlnet: Option<String>,
    /// What was distilled from the teacher, which the ControlNet is to steer
    #[arg(long, value_name = "MODEL", requires = "controlnet")]
    student: Option<String>,
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "scenes-sprint")]
    recipe: String,
    /// Variant of the teacher's weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Data set of `brisk train prepare-emoji`, `prepare-pictures` or `prepare-scenes`; several are joined
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
}

/// Distil a model of clips into one of a few steps without guidance (DMD2, Magic 1-For-1)
#[derive(Debug, Args)]
#[command(
    before_help = "The student's clips are moved to where the guided teacher finds them likelier than a critic does, which\n\
    is the teacher with low-rank pairs and learns what the student draws. A recipe is a JSON file."
)]
pub struct DmdArguments {
    /// Model to distil: a folder or hub id
    #[arg(long, value_name = "MODEL")]
    teacher: String,
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "motion-dmd")]
    recipe: String,
    /// Variant of the teacher's weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Folder with the npm packages in noto, fluent-emoji-flat and twemoji
    #[arg(long, value_name = "FOLDER")]
    npm: PathBuf,
    #[command(flatten)]
    run: RunArguments,
}

/// Runs the command.
pub fn run(verb: &DistillVerb) -> Result {
    match verb {
        DistillVerb::Sprint(arguments) => sprint(arguments),
        DistillVerb::Dmd(arguments) => dmd(arguments),
    }
}

fn sprint(arguments: &SprintArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Sprint(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "distill sprint")),
    };
    arguments.run.adjust(&mut recipe.training);
    let variant = arguments.variant.as_deref();
    let folder = models::open(Some(&arguments.teacher), variant)?;
    arguments.run.keeps("model", &folder)?;
    let teacher = SprintTeacher::open(&folder, variant)?;
    let vae = open_autoencoder(&folder, variant)?;
    let steering = match (&arguments.controlnet, &arguments.student) {
        (Some(controlnet), Some(student)) => {
            let [controlnet, student] =
                [controlnet, student].map(|name| models::open(Some(name), variant));
            let (controlnet, student) = (controlnet?, student?);
            for input in [&controlnet, &student] {
                arguments.run.keeps("controlnet", input)?;
            }
            Some(SprintControl::open(&controlnet, &student, variant)?)
        }
        _ => None,
    };
    let result = match steering {
        Some(_) => "controlnet",
        None => "model",
    };
    let data = PictureData::open_all(&arguments.data)?;
    arguments.run.train(result, |control| {
        let (steering, out) = (steering.as_ref(), &arguments.run.output);
        distill_sprint(&recipe, &data, &teacher, steering, &vae, out, control)
    })
}

fn dmd(arguments: &DmdArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Dmd(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "distill dmd")),
    };
    arguments.run.adjust(&mut recipe.training);
    let variant = arguments.variant.as_deref();
    let teacher = models::open(Some(&arguments.teacher), variant)?;
    arguments.run.keeps("model", &teacher)?;
    let drawings = Drawings::open(&arguments.npm).map_err(brisk_train::Error::from)?;
    arguments.run.train("model", |control| {
        let out = &arguments.run.output;
        distill_video(&recipe, &drawings, &teacher, variant, out, control)
    })
}
