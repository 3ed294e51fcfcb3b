//! `brisk image --best-of`: many pictures, a judge, and those that stay.

use std::path::{Path, PathBuf};
use std::time::Instant;

use brisk::judging::{Judge, Rule};
use brisk::{Best, BestOf, ImageModel, ImageRequest, Options, best_of, registry};
use brisk_media::{contact_sheet, encode_png};
use brisk_store::{Limit, ModelFolder, read_text, write_atomic};
use brisk_train::checker::{SceneChecker, SceneJudge};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::{ImageArguments, is_stdout};
use crate::failure::{Failure, Result};
use crate::{models, output, progress, text};

/// Pictures in a row of a sheet.
const COLUMNS: usize = 8;

/// Drawing many and keeping the best.
#[derive(Debug, Args)]
#[command(next_help_heading = "Picture")]
pub struct BestOfArguments {
    /// Draw so many of each prompt and keep the best, by a judge
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) best_of: Option<u32>,
    /// Who judges: scene-checker (default), CLIP, or a model that answers questions about pictures
    #[arg(long, value_name = "MODEL", requires = "best_of", hide = true)]
    judge: Option<String>,
    /// Question to the judge, with {prompt} in it
    #[arg(long, value_name = "FILE", requires = "judge", hide = true)]
    judge_template: Option<PathBuf>,
    /// Pictures of each prompt that stay
    #[arg(long, value_name = "K", default_value_t = 1, requires = "best_of", hide = true, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// topk (the best of all), or bracket (by pairs, as the paper)
    #[arg(long, value_name = "HOW", default_value = "topk", requires = "best_of", hide = true, value_parser = rules())]
    select: String,
    /// Pictures drawn together
    #[arg(long, value_name = "N", default_value_t = 4, requires = "best_of", hide = true, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,
    /// Folder for all of them, from which a stopped run goes on
    #[arg(long, value_name = "FOLDER", requires = "best_of", hide = true)]
    candidates: Option<PathBuf>,
}

fn rules() -> PossibleValuesParser {
    PossibleValuesParser::new(Rule::ALL.map(Rule::name))
}

impl BestOfArguments {
    /// What belongs to `--best-of`, for the end of the help.
    pub(super) const MORE: &str = "--judge MODEL, --judge-template FILE, --keep K, --select topk|bracket, --at-once N, \
         --candidates FOLDER";

    fn rule(&self) -> Rule {
        let mut rules = Rule::ALL.into_iter();
        rules
            .find(|rule| rule.name() == self.select)
            .unwrap_or(Rule::TopK)
    }

    /// Pictures of each prompt that will be there.
    pub(super) fn kept(&self, candidates: u32) -> usize {
        self.rule().numbers(candidates as usize, self.keep.into()).1
    }

    fn judge(&self) -> Result<Box<dyn Judge>> {
        let wrong = |error: brisk_train::Error| Failure::from(error);
        let checker = |checker: SceneChecker, label: &str| -> Result<Box<dyn Judge>> {
            if self.judge_template.is_some() {
                return Err(Failure::usage(
                    "--judge-template: a checker of scenes is asked no question; leave it out",
                ));
            }
            Ok(Box::new(SceneJudge::new(checker, label)))
        };
        let name = self.judge.as_deref().unwrap_or(SceneChecker::BOX_NAME);
        if name == SceneChecker::BOX_NAME && !Path::new(name).exists() {
            return checker(SceneChecker::in_the_box().map_err(wrong)?, name);
        }
        if SceneChecker::is_in(Path::new(name)) {
            return checker(SceneChecker::open(Path::new(name)).map_err(wrong)?, name);
        }
        let template = self.judge_template.as_ref();
        let template = template
            .map(|path| read_text(path, Limit::TEXT))
            .transpose()?;
        let folder = models::open(Some(name), None).map_err(|error| error.at("--judge"))?;
        let judge = registry::open_judge(&folder, &models::settings(Options::new()), template);
        judge.map_err(|error| Failure::from(error).at("--judge"))
    }

    /// What is read besides the model.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.judge_template.iter()
    }

    fn options(&self, candidates: u32) -> BestOf<'_> {
        BestOf {
            candidates: candidates as usize,
            batch: self.at_once.into(),
            keep: self.keep.into(),
            rule: self.rule(),
            folder: self.candidates.as_deref(),
        }
    }
}

/// Draws, judges and writes.
pub(super) fn run(
    arguments: &ImageArguments,
    candidates: u32,
    model: &mut dyn ImageModel,
    request: &ImageRequest,
    (name, folder): (&str, &ModelFolder),
) -> Result {
    let given = [
        ("--save-latents", arguments.save_latents.is_some()),
        ("--save-codes", arguments.save_codes.is_some()),
        ("--preview", arguments.preview.is_some()),
    ];
    if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
        return Err(Failure::usage(format!(
            "{flag}: has no effect with --best-of; draw the best again by its seed (--from FILE.png)"
        )));
    }
    let own = &arguments.best;
    if own.candidates.is_some() && request.prompts.len() > 1 {
        return Err(Failure::usage(
            "--candidates: one folder holds the pictures of one prompt; give one prompt",
        ));
    }
    let kept = own.kept(candidates);
    let mut unused = None; // kept from other runs until the pictures are written
    let outputs = arguments.outputs(kept * request.prompts.len(), &mut unused)?;
    arguments.check_files(&outputs, folder, &[&request.options])?;
    let mut judge = own.judge()?;
    for prompt in &request.prompts {
        judge.check(prompt)?;
    }
    let started = Instant::now();
    let control = progress::control()?;
    let mut all: Vec<(String, Best)> = Vec::new();
    for prompt in &request.prompts {
        let one = ImageRequest {
            prompts: vec![prompt.clone()],
            options: request.options.clone(),
        };
        let options = own.options(candidates);
        let best = best_of(model, &mut *judge, &one, name, &options, &control);
        match best {
            Err(brisk::Error::Cancelled) => {
                return Err(Failure::stopped(match &own.candidates {
                    Some(folder) => format!(
                        "stopped; the same command goes on with what is in {}",
                        folder.display()
                    ),
                    None => "cancelled; nothing was written".to_owned(),
                }));
            }
            other => all.push((prompt.clone(), other?)),
        }
    }
    drop(control);
    write(arguments, &all, &outputs, judge.decides())?;
    report(arguments, &*judge, &all, &outputs, started)
}

/// The pictures that stay, and their sheet.
fn write(
    arguments: &ImageArguments,
    all: &[(String, Best)],
    outputs: &[PathBuf],
    decides: bool,
) -> Result {
    let winners = all.iter().flat_map(|(_, best)| &best.winners);
    for (winner, path) in winners.zip(outputs) {
        match is_stdout(path) {
            true => output::print_bytes(&winner.png)?,
            false => write_atomic(path, &winner.png)?,
        }
    }
    if let Some(path) = &arguments.sheet {
        let winners = all.iter().flat_map(|(prompt, best)| {
            let cells = best.winners.iter();
            cells.map(move |winner| {
                let answer = match (decides, winner.judgement.yes) {
                    (false, _) => "",
                    (true, true) => "yes ",
                    (true, false) => "no ",
                };
                let label = format!("{prompt} ({answer}{:.2})", winner.judgement.score);
                (winner.picture.clone(), label)
            })
        });
        let cells: Vec<_> = winners.collect();
        let sheet = contact_sheet(&cells, COLUMNS.min(cells.len()))?;
        write_atomic(path, &encode_png(&sheet, &[])?)?;
    }
    Ok(())
}

fn report(
    arguments: &ImageArguments,
    judge: &dyn Judge,
    all: &[(String, Best)],
    outputs: &[PathBuf],
    started: Instant,
) -> Result {
    let seconds = started.elapsed().as_secs_f64();
    if arguments.json {
        let mut paths = outputs.iter();
        let prompts: Vec<Value> = all
            .iter()
            .map(|(prompt, best)| {
                let kept: Vec<Value> = best
                    .winners
                    .iter()
                    .zip(&mut paths)
                    .map(|(winner, path)| {
                        json!({
                            "path": path.display().to_string(), "seed": winner.seed, "yes": winner.judgement.yes,
                            "score": winner.judgement.score, "said": winner.judgement.said,
                        })
                    })
                    .collect();
                json!({
                    "prompt": prompt, "kept": kept, "candidates": best.candidates,
                    "found_in_folder": best.found,
                })
            })
            .collect();
        return output::print_json(&json!({
            "judge": judge.name(), "select": arguments.best.rule().name(), "prompts": prompts, "seconds": seconds,
        }));
    }
    for (prompt, best) in all {
        let yes = best
            .candidates
            .iter()
            .filter(|one| one.judgement.yes)
            .count();
        let count = best.candidates.len();
        output::note(&match judge.decides() {
            true => format!(
                "{prompt:?}: {yes} of {count} pictures pass {}",
                judge.name()
            ),
            false => format!("{prompt:?}: {count} pictures compared by {}", judge.name()),
        });
    }
    output::note(&format!("done in {}", text::seconds(seconds)));
    if outputs.iter().any(|path| is_stdout(path)) {
        return Ok(());
    }
    output::print(
        &outputs
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect::<String>(),
    )
}
