//! `brisk train`: prepare data, train, plot.

mod checker;
mod class;
mod detector;
mod masks;
mod packages;
mod pictures;
mod plot;
mod preview;
mod recogniser;
mod scenes;
mod tokenizer;
mod video;

use std::path::PathBuf;
use std::sync::Arc;

use brisk::{Control, ResultKind};
use brisk_pipelines::folder::ComponentFolder;
use brisk_store::{ModelFolder, TensorSource, check_output};
use brisk_train::data::emoji::prepare;
use brisk_train::data::pictures::{PictureData, PrepareOptions};
use brisk_train::eval::open_autoencoder;
use brisk_train::optimiser::OptimiserKind;
use brisk_train::recipe::{MAX_STEPS, Recipe, TrainingOptions, built_in_names};
use brisk_train::schedule::Decay;
use brisk_train::{
    ControlNetOptions, FeatureNetwork, LoraOptions, Start, TokenizerFiles, TowerFiles,
    open_codes_start, open_joint_start, recipe_of, train_adapter, train_autoencoder, train_codes,
    train_controlnet, train_image, train_joint, train_text,
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::{models, output, progress, text};
use checker::CheckerArguments;
use class::ClassTrainingArguments;
use detector::DetectorArguments;
use masks::MasksTrainingArguments;
use packages::PackageArguments;
use plot::PlotArguments;
use preview::PreviewArguments;
use recogniser::RecogniserArguments;
use scenes::ScenesArguments;
use tokenizer::TokenizerArguments;
use video::{VideoAutoencoderArguments, VideoTrainingArguments};

/// Prepare data, train models, plot losses
#[derive(Debug, Subcommand)]
#[command(after_help = "From nothing to a model:\n  \
    npm pack @iconify-json/noto emojibase-data     (unpack each into npm/NAME)\n  \
    brisk train prepare-emoji --npm npm -o emoji.safetensors\n  \
    brisk train autoencoder --data emoji.safetensors -o runs/vae\n  \
    brisk train image --data emoji.safetensors --vae runs/vae/vae -o runs/image\n  \
    brisk train plot runs/image/training_log.jsonl -o loss.svg\n  \
    brisk image --model runs/image/model \"red heart\"\n  \
    brisk train text -o runs/text                  (needs no data: it makes its problems)\n  \
    brisk text --model runs/text/model \"Tom has 12 apples. ...\"\n\n\
    A run that was stopped (Ctrl-C, a kill) goes on when the same command is given again.")]
pub enum TrainVerb {
    PrepareEmoji(PrepareArguments),
    Autoencoder(AutoencoderArguments),
    Image(ImageTrainingArguments),
    Class(ClassTrainingArguments),
    Text(TextTrainingArguments),
    PreparePictures(pictures::PreparePicturesArguments),
    PrepareScenes(ScenesArguments),
    Checker(CheckerArguments),
    Tokenizer(TokenizerArguments),
    Preview(PreviewArguments),
    Masks(MasksTrainingArguments),
    Detector(DetectorArguments),
    Recogniser(RecogniserArguments),
    VideoAutoencoder(VideoAutoencoderArguments),
    Video(VideoTrainingArguments),
    Plot(PlotArguments),
}

/// Render emoji with their names into a data set
#[derive(Debug, Args)]
#[command(
    before_help = "The packages (unpacked folders, each with its package.json): @iconify-json/noto (Apache-2.0) and\n\
    emojibase-data (MIT) are needed; @iconify-json/fluent-emoji-flat (MIT) and\n\
    @iconify-json/twemoji (CC-BY-4.0) add drawings."
)]
pub struct PrepareArguments {
    #[command(flatten)]
    packages: PackageArguments,
    /// Side of the pictures in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 128)]
    size: usize,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "emoji.safetensors")]
    output: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Folder of the run; a run that was stopped there goes on
    #[arg(short, long, value_name = "FOLDER")]
    pub(super) output: PathBuf,
    /// Stop after this time; the learning rate follows the clock
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = minutes)]
    minutes: Option<f64>,
    /// Updates in all, in place of the recipe's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS))]
    steps: Option<u64>,
    /// Where to compute gradients: cpu (default), cuda or cuda:N, where brisk was built for it
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "cpu",
        hide_default_value = true
    )]
    device: String,
    /// Updates more for a run that is over, counted from its end, with the schedule anew
    #[arg(long, value_name = "N", conflicts_with_all = ["steps", "minutes"], value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS))]
    prolong: Option<u64>,
    /// Print the report as one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) threads: ThreadArguments,
}

/// Train an autoencoder (DC-AE)
#[derive(Debug, Args)]
#[command(before_help = "A recipe is a JSON file with model, data and training settings.")]
pub struct AutoencoderArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "emoji-autoencoder")]
    recipe: String,
    /// Go on from this autoencoder's weights, of the recipe's shape; of these, train what the recipe's `trained` names
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// Network whose features a recipe with `perceptual_weight` compares: a folder of `brisk train checker`, or a file of
    /// torchvision's VGG-16 (default: the checker in the box)
    #[arg(long, value_name = "NETWORK")]
    features: Option<PathBuf>,
    /// Data set of `brisk train prepare-emoji`, `prepare-pictures` or `prepare-scenes`; several are joined
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
}

/// Train a text-to-image model (SANA, HART, VILA-U) on a trained autoencoder, tokenizer or vision tower
#[derive(Debug, Args)]
#[command(before_help = "A recipe is a JSON file with model, data and training settings.")]
pub struct ImageTrainingArguments {
    /// Recipe: a built-in name or a JSON file (default: emoji-image; with --from, that model's own or one of its shape)
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<String>,
    /// Autoencoder (or tokenizer, or vision tower), or a model that has one; with --from, by default that model's
    #[arg(long, value_name = "MODEL", required_unless_present = "from")]
    vae: Option<String>,
    /// Go on from this model's weights and tokenizer, of the recipe's shape
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// Train a LoRA of this rank (4) for the transformer of --from, and leave the model as it is
    #[arg(long, value_name = "RANK", num_args = 0..=1, default_missing_value = "4", requires = "from", value_parser = clap::value_parser!(u16).range(1..=4096))]
    lora: Option<u16>,
    /// Train a ControlNet of sketches for the transformer of --from, of copies of so many of its blocks (a quarter), and
    /// leave the model as it is
    #[arg(long, value_name = "BLOCKS", num_args = 0..=1, default_missing_value = "0", requires = "from", conflicts_with = "lora", value_parser = clap::value_parser!(u16).range(0..=256))]
    controlnet: Option<u16>,
    /// Variant of the weights of both, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Data set of `brisk train prepare-emoji`, `prepare-pictures` or `prepare-scenes`; several are joined
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
}

/// Train a diffusion language model (LLaDA) on generated arithmetic problems
#[derive(Debug, Args)]
#[command(
    before_help = "A recipe is a JSON file with model and training settings. The problems come from the recipe's\n\
    seed; one in 16, told apart by its numbers, is held out (`brisk eval text`). The folder model/ is\n\
    written at every evaluation, so a run can be tried before it ends."
)]
pub struct TextTrainingArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "arithmetic-text")]
    recipe: String,
    /// Go on from this model's weights, of the recipe's shape and vocabulary
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// Variant of those weights, such as bf16
    #[arg(long, value_name = "NAME", requires = "from")]
    variant: Option<String>,
    #[command(flatten)]
    run: RunArguments,
}

/// The recipe of a text-to-image model where nothing says which.
const IMAGE_RECIPE: &str = "emoji-image";

fn minutes(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let positive = number.filter(|minutes: &f64| minutes.is_finite() && *minutes > 0.0);
    positive.ok_or_else(|| "expected a number of minutes above 0".to_owned())
}

/// Runs the command.
pub fn run(verb: &TrainVerb) -> Result {
    match verb {
        TrainVerb::PrepareEmoji(arguments) => prepare_emoji(arguments),
        TrainVerb::Autoencoder(arguments) => autoencoder(arguments),
        TrainVerb::Image(arguments) => image(arguments),
        TrainVerb::Class(arguments) => class::run(arguments),
        TrainVerb::Text(arguments) => language(arguments),
        TrainVerb::PreparePictures(arguments) => pictures::run(arguments),
        TrainVerb::PrepareScenes(arguments) => scenes::run(arguments),
        TrainVerb::Checker(arguments) => checker::run(arguments),
        TrainVerb::Tokenizer(arguments) => tokenizer::run(arguments),
        TrainVerb::Preview(arguments) => preview::run(arguments),
        TrainVerb::Masks(arguments) => masks::run(arguments),
        TrainVerb::Detector(arguments) => detector::run(arguments),
        TrainVerb::Recogniser(arguments) => recogniser::run(arguments),
        TrainVerb::VideoAutoencoder(arguments) => video::autoencoder(arguments),
        TrainVerb::Video(arguments) => video::video(arguments),
        TrainVerb::Plot(arguments) => plot::run(arguments),
    }
}

fn prepare_emoji(arguments: &PrepareArguments) -> Result {
    arguments.threads.apply()?;
    output::expect_format("--output", &arguments.output, Format::Safetensors)?;
    output::check_writable(&arguments.output)?;
    let sources = arguments.packages.sources()?;
    let mut options = PrepareOptions::new(&arguments.output);
    options.size = arguments.size;
    let report = prepare(&sources, &options, &progress::control()?)?;
    let sets: Vec<(String, usize)> = report
        .per_set
        .iter()
        .map(|(set, count)| (set.to_string(), *count))
        .collect();
    if arguments.json {
        let sets: serde_json::Map<_, _> = sets
            .into_iter()
            .map(|(set, count)| (set, count.into()))
            .collect();
        return output::print_json(&json!({
            "path": arguments.output.display().to_string(), "pictures": report.pictures,
            "held_out": report.held_out, "duplicates_left_out": report.duplicates, "sets": sets,
        }));
    }
    let sets: Vec<String> = sets
        .iter()
        .map(|(set, count)| format!("{set} {count}"))
        .collect();
    output::print(&format!(
        "{}: {} pictures of {} px ({}), {} of them held out, {} repeated drawings left out",
        arguments.output.display(),
        report.pictures,
        arguments.size,
        sets.join(", "),
        report.held_out,
        report.duplicates
    ))
}

fn autoencoder(arguments: &AutoencoderArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Autoencoder(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "autoencoder")),
    };
    arguments.run.adjust(&mut recipe.training);
    let data = PictureData::open_all(&arguments.data)?;
    let start = arguments.from.as_deref().map(|name| {
        let folder = models::open(Some(name), None)?;
        arguments.run.keeps("vae", &folder)?;
        Ok::<_, Failure>(open_autoencoder(&folder, None)?)
    });
    let start = start.transpose()?;
    let features = match (&arguments.features, recipe.perceptual_weight > 0.0) {
        (Some(path), true) => Some(FeatureNetwork::open(path)?),
        (None, true) => Some(FeatureNetwork::in_the_box()?),
        (None, false) => None,
        (Some(_), false) => {
            return Err(Failure::usage(
                "--features: the recipe's perceptual_weight is 0, so nothing compares features",
            ));
        }
    };
    arguments.run.train("vae", |control| {
        let out = &arguments.run.output;
        let (start, features) = (start.as_ref(), features.as_ref());
        train_autoencoder(&recipe, &data, start, features, out, control)
    })
}

fn image(arguments: &ImageTrainingArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let variant = arguments.variant.as_deref();
    let open = |name: &str| models::open(Some(name), variant);
    let start = arguments.from.as_deref().map(open).transpose()?;
    let named = arguments.recipe.as_deref();
    let of_start = match (&start, named) {
        (Some(start), None) => recipe_of(start)?,
        _ => None,
    };
    let name = named.unwrap_or(IMAGE_RECIPE);
    let mut recipe = match of_start {
        Some(recipe) => Recipe::Image(recipe),
        None => Recipe::open(name)?,
    };
    if recipe.kind() != "image" {
        return Err(wrong_kind(name, &recipe, "image"));
    }
    if let Some(rank) = arguments.lora {
        recipe = with_lora(recipe, rank, named.is_none())?;
    }
    if let Some(blocks) = arguments.controlnet {
        recipe = with_controlnet(recipe, blocks.into())?;
    }
    arguments.run.adjust(recipe.training_mut());
    let data = PictureData::open_all(&arguments.data)?;
    let vae = match (&arguments.vae, &start) {
        (Some(name), _) => open(name)?,
        (None, Some(start)) => start.clone(),
        (None, None) => return Err(Failure::usage("--vae: is needed where there is no --from")),
    };
    for input in start.iter().chain([&vae]) {
        arguments.run.keeps("model", input)?;
    }
    let out = &arguments.run.output;
    match &recipe {
        Recipe::Image(recipe) => {
            let vae = open_autoencoder(&vae, variant)?;
            let start = start.map(|folder| Start::open(&folder, variant));
            let start = start.transpose()?;
            if let (Some(_), Some(start)) = (&recipe.lora, &start) {
                return arguments.run.train("lora", |control| {
                    train_adapter(recipe, &data, &vae, start, out, control)
                });
            }
            if let (Some(_), Some(start)) = (&recipe.control, &start) {
                return arguments.run.train("controlnet", |control| {
                    train_controlnet(recipe, &data, &vae, start, out, control)
                });
            }
            arguments.run.train("model", |control| {
                train_image(recipe, &data, &vae, start.as_ref(), out, control)
            })
        }
        Recipe::Codes(recipe) => {
            let tokenizer = TokenizerFiles::open(&vae, variant)?;
            let start = start.map(|folder| open_codes_start(&folder, variant));
            let start = start.transpose()?;
            arguments.run.train("model", |control| {
                train_codes(recipe, &data, &tokenizer, start.as_ref(), out, control)
            })
        }
        Recipe::Joint(recipe) => {
            let tower = TowerFiles::open(&vae, variant)?;
            let start = start.map(|folder| open_joint_start(&folder, variant));
            let start = start.transpose()?;
            arguments.run.train("model", |control| {
                train_joint(recipe, &data, &tower, start.as_ref(), out, control)
            })
        }
        other => Err(wrong_kind(name, other, "image")),
    }
}

/// A recipe that trains a LoRA; by the numbers of diffusers' script where it is nobody's own.
fn with_lora(recipe: Recipe, rank: u16, usual: bool) -> Result<Recipe> {
    let Recipe::Image(mut recipe) = recipe else {
        return Err(Failure::usage(
            "--lora: is for transformers that denoise latents; the recipe trains one of codes",
        ));
    };
    recipe.lora = Some(LoraOptions::new(rank.into()));
    if usual {
        recipe.training = TrainingOptions {
            batch: 4,
            steps: 500,
            max_minutes: None,
            optimiser: OptimiserKind::Adamw,
            eight_bit: None,
            learning_rate: 1e-4,
            warm_up_steps: 0,
            decay: Decay::Constant,
            clip: Some(1.0),
            ..recipe.training
        };
    }
    Ok(Recipe::Image(recipe))
}

/// A recipe that trains a ControlNet; of 0 blocks: a quarter of the transformer's, one at least.
fn with_controlnet(recipe: Recipe, blocks: usize) -> Result<Recipe> {
    let Recipe::Image(mut recipe) = recipe else {
        return Err(Failure::usage(
            "--controlnet: is for transformers that denoise latents; the recipe trains one of codes",
        ));
    };
    let all = recipe.transformer["num_layers"].as_u64().unwrap_or(0) as usize;
    let blocks = match blocks {
        0 => (all / 4).max(1),
        blocks => blocks,
    };
    recipe.control = Some(ControlNetOptions::new(blocks));
    Ok(Recipe::Image(recipe))
}

fn language(arguments: &TextTrainingArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Text(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "text")),
    };
    arguments.run.adjust(&mut recipe.training);
    let variant = arguments.variant.as_deref();
    let weights = |name: &String| -> Result<_> {
        let folder = models::find(Some(name), variant, ResultKind::Text)?.folder;
        arguments.run.keeps("model", &folder)?;
        Ok(ComponentFolder::new(&folder, "").weights(variant)?)
    };
    let start = arguments.from.as_ref().map(weights).transpose()?;
    arguments.run.train("model", |control| {
        train_text(&recipe, start.as_ref(), &arguments.run.output, control)
    })
}

/// For a recipe of another verb than `wanted`, which is a kind of training or `distill` and a kind.
pub(super) fn wrong_kind(name: &str, recipe: &Recipe, wanted: &str) -> Failure {
    let verb = |kind: &str| match kind {
        "sprint" | "dmd" => format!("distill {kind}"),
        _ if kind.starts_with("distill ") => kind.to_owned(),
        _ => format!("train {kind}"),
    };
    Failure::usage(format!(
        "--recipe: {name} is for `brisk {}`, not `brisk {}`; built in: {}",
        verb(recipe.kind()),
        verb(wanted),
        built_in_names().join(", ")
    ))
}

impl RunArguments {
    pub(super) fn adjust(&self, training: &mut TrainingOptions) {
        if let Some(minutes) = self.minutes {
            training.max_minutes = Some(minutes);
        }
        if let Some(steps) = self.steps {
            training.steps = steps;
        }
        training.prolong = self.prolong.or(training.prolong);
    }

    /// Refuses to write the folder `model` over an input.
    pub(super) fn keeps(&self, model: &str, input: &ModelFolder) -> Result {
        let ModelFolder::Disk(input) = input else {
            return Ok(());
        };
        Ok(check_output(&self.output.join(model), &[input])?)
    }

    /// The weights of a network to go on from: those of one of the subfolders `names`, or of the folder itself.
    pub(super) fn start(
        &self,
        from: Option<&str>,
        names: &[&str],
    ) -> Result<Option<Arc<dyn TensorSource>>> {
        let Some(name) = from else { return Ok(None) };
        let folder = models::open(Some(name), None)?;
        self.keeps("model", &folder)?;
        Ok(Some(ComponentFolder::find(&folder, names)?.weights(None)?))
    }

    /// Runs the training and reports what came of it, with the folder `model` that it wrote.
    pub(super) fn train<T: Serialize>(
        &self,
        model: &str,
        training: impl FnOnce(&Control) -> brisk_train::Result<T>,
    ) -> Result {
        brisk_pipelines::device::train_on(&self.device)?;
        let control = progress::control()?;
        let outcome = training(&control);
        drop(control);
        let report = match outcome {
            Err(error) if error.is_cancelled() => {
                return Err(Failure::stopped(format!(
                    "stopped; the same command goes on with what is in {}",
                    self.output.display()
                )));
            }
            other => serde_json::to_value(other?)?,
        };
        let written = self.output.join(model);
        if self.json {
            return output::print_json(
                &json!({"model": written.display().to_string(), "report": report}),
            );
        }
        output::note("finished");
        let mut rows = vec![vec!["model".to_owned(), written.display().to_string()]];
        for (key, value) in report.as_object().into_iter().flatten() {
            rows.push(vec![key.replace('_', " "), value.to_string()]);
        }
        output::print(&text::table(&rows))
    }
}
