//! `brisk eval masks`: how well the characters of words are found.

use std::path::PathBuf;

use brisk::options::{Options, word_keys};
use brisk::{Control, MaskModel, ResultKind, registry};
use brisk_pipelines::reproduce::MaskFigures;
use brisk_train::data::scene_text::{Fonts, SceneTextOptions};
use brisk_train::eval::words::{Setting, WordScenes, WordScores, evaluate_words};
use clap::Args;
use serde_json::json;

use crate::commands::ThreadArguments;
use crate::failure::Result;
use crate::{models, output, progress, text};

/// Measure masks of words' characters on scenes whose every pixel is known
#[derive(Debug, Args)]
#[command(
    before_help = "The scenes are composed as those of `brisk train masks`, from other numbers. Measured are the intersection\n\
    over union and F-score of all text pixels, the share of letters' holes left open, how much of the\n\
    borders agrees within 2 pixels, in how many words the detector counts the characters right, and seconds a\n\
    picture."
)]
pub struct MasksEvalArguments {
    /// Folder, hub id, weights file, or the name of one in the box
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Weights that find characters, as of brisk masks
    #[arg(long, value_name = "FILE")]
    detector: Option<PathBuf>,
    /// Weights that read words
    #[arg(long, value_name = "FILE")]
    recogniser: Option<PathBuf>,
    /// What shows a character, one or several
    #[arg(
        long,
        value_name = "WHAT",
        value_delimiter = ',',
        default_value = "word,char-gt,cbr,cbr+cgr"
    )]
    prompt: Vec<String>,
    /// Points by letters: none, pos, neg or both
    #[arg(long, value_name = "WHICH")]
    points: Option<String>,
    /// Also show the first mask with the points: on or off
    #[arg(long, value_name = "ON")]
    mask_input: Option<String>,
    /// Look at words one by one: auto, always or never
    #[arg(long, value_name = "WHEN")]
    crop_words: Option<String>,
    /// More fonts whose letters are compared
    #[arg(long, value_name = "FOLDER")]
    fonts: Option<PathBuf>,
    /// Also measure without being told where the words are and what they say
    #[arg(long)]
    auto: bool,
    /// Scenes
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Number of the first scene: published figures are of those from 0 on, tune on others
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    first: u32,
    /// Fonts of the scenes' words (default: seven faces of Roboto and Caladea, which nothing was trained on)
    #[arg(long, value_name = "FOLDER")]
    scene_fonts: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &MasksEvalArguments) -> Result {
    arguments.threads.apply()?;
    let found = models::find(arguments.model.as_deref(), None, ResultKind::Masks)?;
    let opened = Options::new()
        .with_some(&word_keys::DETECTOR, arguments.detector.clone())
        .with_some(&word_keys::RECOGNISER, arguments.recogniser.clone());
    let mut model = registry::open_masks(&found.folder, &models::settings(opened))?;
    let mut settings = Vec::new();
    for prompt in &arguments.prompt {
        let mut options = Options::new();
        options.read(word_keys::PROMPT.definition(), prompt)?;
        for (definition, value) in [
            (word_keys::POINTS.definition(), &arguments.points),
            (word_keys::MASK_INPUT.definition(), &arguments.mask_input),
            (word_keys::CROP_WORDS.definition(), &arguments.crop_words),
        ] {
            if let Some(value) = value {
                options.read(definition, value)?;
            }
        }
        let options = options.with_some(&word_keys::FONTS, arguments.fonts.clone());
        settings.push(Setting {
            name: prompt.clone(),
            options,
            given: true,
        });
    }
    if arguments.auto {
        let options = Options::new()
            .with(&word_keys::WORDS, "auto".into())
            .with_some(&word_keys::FONTS, arguments.fonts.clone());
        settings.push(Setting {
            name: "auto".to_owned(),
            options,
            given: false,
        });
    }
    let fonts = match &arguments.scene_fonts {
        None => Fonts::held_out(),
        Some(folder) => Fonts::read(folder)?,
    };
    let scenes = WordScenes {
        first: arguments.first.into(),
        count: arguments.count.into(),
        options: SceneTextOptions::default(),
        fonts: &fonts,
    };
    let control = progress::control()?;
    let scores = evaluate_words(&mut *model, &settings, &scenes, &control);
    drop(control);
    let scores = scores?;
    if arguments.json {
        return output::print_json(
            &json!({"model": found.name, "scenes": arguments.count, "settings": scores}),
        );
    }
    output::print(&page(&scores))
}

fn page(scores: &[WordScores]) -> String {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let perhaps = |share: Option<f64>| share.map_or("-".to_owned(), percent);
    let head = [
        "",
        "fgIoU",
        "F",
        "F a picture",
        "holes open",
        "borders",
        "IoU a mask",
        "counted",
        "worse",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in scores {
        rows.push(vec![
            one.name.clone(),
            percent(one.fg_iou),
            percent(one.f_score),
            percent(one.mean_f_score),
            percent(one.hole_recall),
            percent(one.boundary_f),
            perhaps(one.mean_iou),
            perhaps(one.counted_words),
            perhaps(one.worse_than_before),
        ]);
    }
    let mut page = text::table(&rows);
    for one in scores {
        let stages: Vec<String> = one
            .seconds
            .iter()
            .map(|(name, seconds)| format!("{name} {seconds:.2}"))
            .collect();
        page += &format!("{}: seconds a picture: {}\n", one.name, stages.join(", "));
    }
    let [pictures, words, characters] = scores.first().map_or([0; 3], |one| one.counted);
    page + &format!("{pictures} scenes, {words} words, {characters} characters in the first row\n")
}

/// Figures of the reproductions' settings.
pub fn judge(
    model: &mut dyn MaskModel,
    settings: &[Options],
    control: &Control,
) -> brisk_pipelines::Result<Vec<MaskFigures>> {
    let fonts = Fonts::held_out();
    let scenes = WordScenes {
        first: 0,
        count: SCENES,
        options: SceneTextOptions::default(),
        fonts: &fonts,
    };
    let settings: Vec<Setting> = settings
        .iter()
        .map(|options| Setting {
            name: String::new(),
            options: options.clone(),
            given: true,
        })
        .collect();
    let scores =
        evaluate_words(model, &settings, &scenes, control).map_err(|error| match error {
            brisk_train::Error::Pipeline(error) => error,
            other => brisk_pipelines::Error::request("model", other.to_string()),
        })?;
    Ok(scores.iter().map(MaskFigures::from).collect())
}

/// Scenes of a reproduction.
const SCENES: usize = 200;
