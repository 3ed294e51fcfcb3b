//! `brisk eval text`: how often a language model is right, and how fast.

use brisk::options::Scope;
use brisk::{Event, Options, ResultKind, TextModel, keys, registry};
use brisk_pipelines::reproduce::Reproduction;
use brisk_train::data::arithmetic::{HELD_OUT_ONE_IN, Split};
use brisk_train::eval::text::{TextEvaluation, TextEvaluationReport, evaluate_text_model};
use clap::Args;
use serde_json::{Value, json};

use super::super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::flags::{Flags, Text};
use crate::{models, output, progress, text};

/// Measure how often a language model solves arithmetic problems, and how fast
#[derive(Debug, Args)]
#[command(
    before_help = "The problems are generated; held out are those that `brisk train text` never draws, told apart\n\
    by their numbers. An answer is right when the number after its last \"Answer:\" is. Tokens count up\n\
    to the first end token; times are those of decoding alone."
)]
pub struct TextEvalArguments {
    /// Folder or hub id (default: the model in the box, in builds that have one)
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Problems to solve
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: usize,
    /// Problems decoded together
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Take problems of the training split
    #[arg(long)]
    training_split: bool,
    /// Measure none, prefix and dual cache with one token a step, threshold (0.9, or --threshold) and
    /// factor 1, at lengths 128 and 256
    #[arg(long, conflicts_with_all = ["cache", "steps", "factor", "factor-strict", "frechet", "gen-length"])]
    table: bool,
    /// Print every problem with the model's answer
    #[arg(long, conflicts_with_all = ["table", "json"])]
    show: bool,
    /// Print one JSON document, with every answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags<Text>,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Lengths of the table.
const LENGTHS: [usize; 2] = [128, 256];
/// Threshold and factor of the paper's parallel rows.
const THRESHOLD: f64 = 0.9;
const FACTOR: f64 = 1.0;

/// Rules of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    OneToken,
    Threshold(f64),
    Factor,
}

impl Rule {
    fn name(self) -> String {
        match self {
            Self::OneToken => "one token".to_owned(),
            Self::Threshold(threshold) => format!("threshold {threshold}"),
            Self::Factor => format!("factor {FACTOR}"),
        }
    }

    /// The options with this rule; one token a step is as many steps as tokens.
    fn apply(self, options: &mut Options, length: usize) -> Result {
        for rule in ["threshold", "steps", "factor", "factor-strict", "frechet"] {
            if let Some(rule) = registry::option(ResultKind::Text, rule) {
                options.remove(rule);
            }
        }
        let (name, value) = match self {
            Self::OneToken => ("steps", length.to_string()),
            Self::Threshold(threshold) => ("threshold", threshold.to_string()),
            Self::Factor => ("factor", FACTOR.to_string()),
        };
        Ok(registry::give(options, ResultKind::Text, name, &value)?)
    }
}

const CACHES: [&str; 3] = ["none", "prefix", "dual"];

/// The reproduction whose paper reports how texts decode, and what it reports of a row: accuracy in %,
/// tokens a second.
fn paper() -> Option<&'static Reproduction> {
    registry::reproductions().find(|paper| !paper.reported.is_empty())
}

fn reported(cache: &str, rule: Rule, length: usize) -> Option<(f64, f64)> {
    let rule = rule.name();
    paper()?
        .reported
        .iter()
        .find(|row| row.cache == cache && row.rule == rule && row.length == length)
        .map(|row| (row.accuracy, row.tokens_per_second))
}

/// Runs the command.
pub fn run(arguments: &TextEvalArguments) -> Result {
    arguments.threads.apply()?;
    if arguments.count == 0 {
        return Err(Failure::usage("--count: 0 problems measure nothing"));
    }
    if arguments.batch == 0 {
        return Err(Failure::usage(
            "--batch: 0 problems together; expected at least 1",
        ));
    }
    let given = arguments.flags.read()?;
    let request = given.of_scope(Scope::Request);
    let seed = request.get(&keys::SEED).unwrap_or(0);
    let found = models::find(arguments.model.as_deref(), None, ResultKind::Text)?;
    let settings = models::settings(given.of_scope(Scope::Open));
    let model = registry::open_text(&found.folder, &settings)?;
    let control = progress::control()?;
    let measure = |options: &Options| -> Result<TextEvaluationReport> {
        let evaluation = TextEvaluation {
            seed,
            split: if arguments.training_split {
                Split::Training
            } else {
                Split::HeldOut
            },
            problems: arguments.count,
            batch: arguments.batch,
            options: options.clone(),
        };
        let report = evaluate_text_model(&*model, &evaluation, &control)?;
        control.send(Event::Done {
            results: report.problems,
            seconds: report.seconds,
        });
        Ok(report)
    };
    if arguments.table {
        let named = |name: &str, options: &Options| {
            control.send(Event::Log(name.to_owned()));
            measure(options)
        };
        return table(arguments, &*model, &request, seed, &named);
    }
    let report = measure(&request)?;
    if arguments.json {
        let mut document = serde_json::to_value(&report)?;
        document["model"] = model.label().into();
        document["batch"] = arguments.batch.into();
        document["threads"] = rayon::current_num_threads().into();
        return output::print_json(&document);
    }
    let mut out = String::new();
    if arguments.show {
        for result in &report.results {
            let verdict = if result.stated == Some(result.answer) {
                "right"
            } else {
                "wrong"
            };
            out.push_str(&format!(
                "{}\n{}\n({verdict}, the answer is {})\n\n",
                result.question, result.text, result.answer
            ));
        }
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    out.push_str(&text::table(&[
        row("model", model.label().to_owned()),
        row(
            "problems",
            format!("{} {}", report.problems, split_name(arguments, seed)),
        ),
        row("exact match", percent(report.exact_match)),
        row(
            "tokens a second",
            format!("{:.1}", report.tokens_per_second),
        ),
        row(
            "tokens a forward pass",
            format!("{:.2}", report.tokens_per_forward),
        ),
        row(
            "tokens an answer",
            format!("{:.1}", report.tokens as f64 / report.problems as f64),
        ),
        row("seconds of decoding", format!("{:.1}", report.seconds)),
    ]));
    output::print(&out)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn split_name(arguments: &TextEvalArguments, seed: u64) -> String {
    if arguments.training_split {
        format!("of the training split (seed {seed})")
    } else {
        format!("held out by their numbers, one in {HELD_OUT_ONE_IN} (seed {seed})")
    }
}

fn table(
    arguments: &TextEvalArguments,
    model: &dyn TextModel,
    given: &Options,
    seed: u64,
    measure: &dyn Fn(&str, &Options) -> Result<TextEvaluationReport>,
) -> Result {
    let mut rows: Vec<Vec<String>> = vec![
        [
            "length",
            "cache",
            "rule",
            "exact match",
            "tokens/s",
            "speed-up",
            "tokens/forward",
            "paper: accuracy",
            "tokens/s",
            "speed-up",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut documents: Vec<Value> = Vec::new();
    let threshold = registry::option(ResultKind::Text, "threshold")
        .and_then(|option| given.source(option)?.parse().ok())
        .unwrap_or(THRESHOLD);
    let rules = [Rule::OneToken, Rule::Threshold(threshold), Rule::Factor];
    for length in LENGTHS {
        let mut slowest = None;
        for cache in CACHES {
            for rule in rules {
                let mut options = given.clone();
                let kind = ResultKind::Text;
                registry::give(&mut options, kind, "cache", cache)?;
                registry::give(&mut options, kind, "gen-length", &length.to_string())?;
                rule.apply(&mut options, length)?;
                let name = format!("{length} {cache}, {}", rule.name());
                let report = measure(&name, &options)?;
                let first = *slowest.get_or_insert(report.tokens_per_second);
                let speed_up = report.tokens_per_second / first;
                let published = reported(cache, rule, length);
                let published_speed_up = published
                    .zip(reported("none", Rule::OneToken, length))
                    .map(|((_, speed), (_, first))| speed / first);
                let or_blank = |value: Option<String>| value.unwrap_or_default();
                rows.push(vec![
                    length.to_string(),
                    cache.to_owned(),
                    rule.name().to_owned(),
                    percent(report.exact_match),
                    format!("{:.1}", report.tokens_per_second),
                    format!("{speed_up:.1}x"),
                    format!("{:.2}", report.tokens_per_forward),
                    or_blank(published.map(|(accuracy, _)| format!("{accuracy:.1} %"))),
                    or_blank(published.map(|(_, speed)| format!("{speed:.1}"))),
                    or_blank(published_speed_up.map(|ratio| format!("{ratio:.1}x"))),
                ]);
                documents.push(json!({
                    "length": length, "cache": cache, "rule": rule.name(),
                    "exact_match": report.exact_match, "tokens": report.tokens,
                    "forwards": report.forwards, "seconds": report.seconds,
                    "tokens_per_second": report.tokens_per_second, "speed_up": speed_up,
                    "tokens_per_forward": report.tokens_per_forward,
                    "paper": published.map(|(accuracy, speed)| json!({
                        "accuracy_percent": accuracy, "tokens_per_second": speed, "speed_up": published_speed_up,
                    })),
                }));
            }
        }
    }
    if arguments.json {
        return output::print_json(&json!({
            "model": model.label(), "problems": arguments.count, "batch": arguments.batch,
            "seed": seed, "split": split_name(arguments, seed),
            "threads": rayon::current_num_threads(), "rows": documents,
        }));
    }
    let note = paper().map_or(String::new(), |paper| {
        format!("\nPaper (arXiv {}): {}.", paper.arxiv, paper.reported_on)
    });
    output::print(&format!(
        "{}, {} problems {}, batch {}, {} threads\n\n{}{note}",
        model.label(),
        arguments.count,
        split_name(arguments, seed),
        arguments.batch,
        rayon::current_num_threads(),
        text::table(&rows),
    ))
}
