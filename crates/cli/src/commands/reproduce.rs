//! `brisk reproduce`: a paper's claim beside the effect that is measured here.

use brisk::{BoxModel, Picture, ResultKind, registry};
use brisk_pipelines::judging::Judge;
use brisk_pipelines::reproduce::{Evidence, Laboratory, Problem, Reproduction};
use brisk_train::FeatureNetwork;
use brisk_train::checker::{SceneChecker, SceneJudge};
use brisk_train::data::arithmetic::{Split, problem, stated_answer};
use brisk_train::eval::{held_out_prompts, pair_distances, picture_distance};
use clap::Args;
use serde_json::json;

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::progress::{self, Download};
use crate::{models, output, text};

/// The judge's name in messages.
const CHECKER: &str = "the checker of scenes";

/// Measure a paper's claim on a model in the box; without a name, list the papers
#[derive(Debug, Args)]
#[command(
    before_help = "Prints the claim, what the paper reports, what is measured here, and the effect that must appear.\n\
    Exit code 1: it does not appear."
)]
pub struct ReproduceArguments {
    /// Which paper; see the list
    #[arg(value_name = "PAPER")]
    paper: Option<String>,
    /// Another model of the same kind
    #[arg(short, long, value_name = "MODEL", requires = "paper")]
    model: Option<String>,
    /// Another model in place of the one that it is compared with, where there is one
    #[arg(long, value_name = "MODEL", requires = "paper")]
    beside: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Runs the command.
pub fn run(arguments: &ReproduceArguments) -> Result {
    arguments.threads.apply()?;
    let Some(paper) = &arguments.paper else {
        return list(arguments.json);
    };
    let found = registry::reproductions().find(|one| one.paper == *paper);
    let Some(reproduction) = found else {
        let known: Vec<&str> = registry::reproductions().map(|one| one.paper).collect();
        return Err(Failure::usage(format!(
            "there is no reproduction of {paper:?}; there are {}",
            known.join(", ")
        )));
    };
    let evidence = measure(reproduction, arguments)?;
    let mut command = format!("brisk reproduce {paper}");
    for (flag, given) in [("model", &arguments.model), ("beside", &arguments.beside)] {
        if let Some(model) = given {
            command.push_str(&format!(" --{flag} {model}"));
        }
    }
    if arguments.json {
        let rows: Vec<_> = evidence
            .rows
            .iter()
            .map(|row| json!({"what": row.what, "paper": row.paper, "here": row.here}))
            .collect();
        output::print_json(&json!({
            "paper": reproduction.paper, "title": reproduction.title, "arxiv": reproduction.arxiv,
            "claim": reproduction.claim, "setting": evidence.setting, "rows": rows,
            "effect": evidence.effect, "appears": evidence.appears, "command": command,
        }))?;
    } else {
        output::print(&page(reproduction, &evidence, &command))?;
    }
    if evidence.appears {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the effect does not appear: {}",
        evidence.effect
    )))
}

fn list(as_json: bool) -> Result {
    if as_json {
        let listed: Vec<_> = registry::reproductions()
            .map(|one| json!({"paper": one.paper, "title": one.title, "arxiv": one.arxiv, "claim": one.claim}))
            .collect();
        return output::print_json(&json!(listed));
    }
    let rows: Vec<Vec<String>> = registry::reproductions()
        .map(|one| {
            vec![
                one.paper.to_owned(),
                format!("arXiv {}", one.arxiv),
                one.claim.to_owned(),
            ]
        })
        .collect();
    output::print(&text::table(&rows))
}

fn measure(reproduction: &Reproduction, arguments: &ReproduceArguments) -> Result<Evidence> {
    if arguments.model.is_none() && BoxModel::named(reproduction.model).is_none() {
        return Err(Failure::failed(format!(
            "{} is measured on {}, which is not in the box yet; train a model of its kind (docs/training.md) and give its \
             folder with --model",
            reproduction.paper, reproduction.model
        )));
    }
    if arguments.beside.is_some() && reproduction.beside.is_none() {
        return Err(Failure::usage(format!(
            "--beside: {} is measured on one model alone; leave it out",
            reproduction.paper
        )));
    }
    let name = arguments.model.as_deref().unwrap_or(reproduction.model);
    let found = models::find(Some(name), None, ResultKind::Pictures)?;
    let scratch = tempfile::Builder::new()
        .prefix("brisk-reproduce-")
        .tempdir()
        .map_err(|error| Failure::failed(format!("no folder for files on the way: {error}")))?;
    let control = progress::control()?;
    let laboratory = Laboratory {
        model: found.folder,
        find: &|name| {
            let name = arguments.beside.as_deref().unwrap_or(name);
            let found = brisk::find(Some(name), None, ResultKind::Pictures, &Download::default())?;
            Ok(found.folder)
        },
        problems: &problems,
        judge_masks: &super::eval::masks::judge,
        judge_clips: &super::eval::video::judge,
        scene_prompts: &held_out_prompts,
        shows: &shows,
        distance: &distance,
        pair_distance: &pair_distance,
        scratch: scratch.path().to_owned(),
        control: &control,
    };
    Ok((reproduction.run)(&laboratory)?)
}

fn problems(seed: u64, count: usize) -> Vec<Problem> {
    (0..count as u64)
        .map(|index| {
            let problem = problem(seed, index, Split::HeldOut);
            let answer = problem.answer;
            Problem {
                question: problem.question,
                right: Box::new(move |text| stated_answer(text) == Some(answer)),
            }
        })
        .collect()
}

/// What went wrong with the checker.
fn failed(error: brisk_train::Error) -> brisk::Error {
    brisk::Error::folder(CHECKER, error.to_string())
}

fn distance(first: &[Picture], second: &[Picture]) -> brisk::Result<f64> {
    let checker = SceneChecker::in_the_box().map_err(failed)?;
    picture_distance(&checker, first, second).map_err(failed)
}

fn pair_distance(first: &[Picture], second: &[Picture]) -> brisk::Result<Vec<f64>> {
    let network = FeatureNetwork::in_the_box().map_err(failed)?;
    pair_distances(&network, first, second).map_err(failed)
}

/// What the checker in the box says of pictures of scenes.
fn shows(prompts: &[String], pictures: &[Picture]) -> brisk::Result<Vec<bool>> {
    let checker = SceneChecker::in_the_box().map_err(failed)?;
    let mut judge = SceneJudge::new(checker, CHECKER);
    let silent = brisk::Control::silent();
    let pairs = prompts.iter().zip(pictures);
    pairs
        .map(|(prompt, picture)| {
            let verdicts = judge.judge(prompt, std::slice::from_ref(picture), &silent)?;
            Ok(verdicts.iter().all(|verdict| verdict.yes))
        })
        .collect()
}

fn page(reproduction: &Reproduction, evidence: &Evidence, command: &str) -> String {
    let mut rows = vec![vec![String::new(), "paper".to_owned(), "here".to_owned()]];
    for row in &evidence.rows {
        rows.push(vec![row.what.clone(), row.paper.clone(), row.here.clone()]);
    }
    let verdict = if evidence.appears {
        "appears"
    } else {
        "does not appear"
    };
    format!(
        "{} (arXiv {})\nClaim:    {}\nMeasured: {}\n\n{}\nEffect:   {}: {verdict}\nCommand:  {command}\n",
        reproduction.title,
        reproduction.arxiv,
        reproduction.claim,
        evidence.setting,
        text::table(&rows),
        evidence.effect,
    )
}
