//! `brisk eval text`: how often a language model is right, and how fast.

use brisk_pipelines::Control;
use brisk_pipelines::language::{CacheMode, LoadOptions, Selection, TextPipeline, TextRequest};
use brisk_train::data::arithmetic::{HELD_OUT_ONE_IN, Split};
use brisk_train::eval::text::{TextEvaluation, TextEvaluationReport, evaluate_text_model};
use clap::Args;
use serde_json::{Value, json};

use super::super::decoding::DecodingArguments;
use super::super::{ThreadArguments, stop_on_interrupt};
use crate::failure::{Failure, Result};
use crate::progress::Stages;
use crate::{models, output, text};

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
    #[arg(long, conflicts_with_all = ["cache", "steps", "factor", "factor_strict", "frechet", "gen_length"])]
    table: bool,
    /// Print every problem with the model's answer
    #[arg(long, conflicts_with_all = ["table", "json"])]
    show: bool,
    /// Print one JSON document, with every answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    decoding: DecodingArguments,
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

    /// The request with this rule; one token a step is as many steps as tokens.
    fn apply(self, request: &mut TextRequest) {
        match self {
            Self::OneToken => {
                request.steps = Some(request.gen_length);
                request.selection = None;
            }
            Self::Threshold(threshold) => {
                request.selection = Some(Selection::Threshold(threshold));
            }
            Self::Factor => request.selection = Some(Selection::Factor(FACTOR)),
        }
    }
}

const CACHES: [(CacheMode, &str); 3] = [
    (CacheMode::None, "none"),
    (CacheMode::Prefix, "prefix"),
    (CacheMode::Dual, "dual"),
];

/// What Fast-dLLM's paper reports for LLaDA-8B-Instruct on GSM8K at length 256 with 5 examples in the
/// prompt: accuracy in %, tokens a second on one A100. It has the dual cache with 8 examples: accuracy
/// 76.9 % after 77.6 %, 9.4 times the tokens a second.
fn paper(cache: CacheMode, rule: Rule, length: usize) -> Option<(f64, f64)> {
    match (cache, rule, length) {
        (CacheMode::None, Rule::OneToken, 256) => Some((79.3, 6.7)),
        (CacheMode::Prefix, Rule::OneToken, 256) => Some((79.5, 21.2)),
        (CacheMode::None, Rule::Threshold(THRESHOLD), 256) => Some((79.2, 16.5)),
        (CacheMode::Prefix, Rule::Threshold(THRESHOLD), 256) => Some((78.5, 54.4)),
        _ => None,
    }
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
    let request = arguments.decoding.request(false)?;
    let folder = models::open_text(arguments.model.as_deref(), None)?;
    let options = LoadOptions {
        block_causal: arguments.decoding.block_causal,
        ..LoadOptions::default()
    };
    let pipeline = TextPipeline::load(&folder, &options)?;
    let stop = stop_on_interrupt()?;
    let control = Control::silent().with_cancel(stop);
    let mut stages = Stages::new();
    let mut measure = |name: &str, request: &TextRequest| -> Result<TextEvaluationReport> {
        let evaluation = TextEvaluation {
            seed: arguments.decoding.seed,
            split: if arguments.training_split {
                Split::Training
            } else {
                Split::HeldOut
            },
            problems: arguments.count,
            batch: arguments.batch,
            request: request.clone(),
        };
        stages.stage(name, arguments.count as u64);
        let report = evaluate_text_model(&pipeline, &evaluation, &control, &mut |done, total| {
            stages.step(done as u64, total as u64);
        });
        stages.finish();
        Ok(report?)
    };
    if arguments.table {
        return table(arguments, &pipeline, &request, &mut measure);
    }
    // What the model cannot do is said before the work begins.
    request.plan(pipeline.model().config())?;
    let report = measure("solving", &request)?;
    if arguments.json {
        let mut document = serde_json::to_value(&report)?;
        document["model"] = pipeline.label().into();
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
        row("model", pipeline.label().to_owned()),
        row(
            "problems",
            format!("{} {}", report.problems, split_name(arguments)),
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

fn split_name(arguments: &TextEvalArguments) -> String {
    let seed = arguments.decoding.seed;
    if arguments.training_split {
        format!("of the training split (seed {seed})")
    } else {
        format!("held out by their numbers, one in {HELD_OUT_ONE_IN} (seed {seed})")
    }
}

fn table(
    arguments: &TextEvalArguments,
    pipeline: &TextPipeline,
    request: &TextRequest,
    measure: &mut dyn FnMut(&str, &TextRequest) -> Result<TextEvaluationReport>,
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
    let threshold = match request.selection {
        Some(Selection::Threshold(threshold)) => threshold,
        _ => THRESHOLD,
    };
    let rules = [Rule::OneToken, Rule::Threshold(threshold), Rule::Factor];
    for length in LENGTHS {
        let mut slowest = None;
        for (cache, cache_name) in CACHES {
            for rule in rules {
                let mut request = TextRequest {
                    cache,
                    gen_length: length,
                    ..request.clone()
                };
                rule.apply(&mut request);
                let name = format!("{length} {cache_name}, {}", rule.name());
                let report = measure(&name, &request)?;
                let first = *slowest.get_or_insert(report.tokens_per_second);
                let speed_up = report.tokens_per_second / first;
                let published = paper(cache, rule, length);
                let published_speed_up = published
                    .zip(paper(CacheMode::None, Rule::OneToken, length))
                    .map(|((_, speed), (_, first))| speed / first);
                let or_blank = |value: Option<String>| value.unwrap_or_default();
                rows.push(vec![
                    length.to_string(),
                    cache_name.to_owned(),
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
                    "length": length, "cache": cache_name, "rule": rule.name(),
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
            "model": pipeline.label(), "problems": arguments.count, "batch": arguments.batch,
            "seed": arguments.decoding.seed, "split": split_name(arguments),
            "threads": rayon::current_num_threads(), "rows": documents,
        }));
    }
    output::print(&format!(
        "{}, {} problems {}, batch {}, {} threads\n\n{}\nPaper: LLaDA-8B-Instruct on GSM8K, 5 examples, one A100 \
         (arXiv 2505.22618); with 8 examples its dual cache\nand threshold give 9.4x the tokens/s at 76.9 % after 77.6 %.",
        pipeline.label(),
        arguments.count,
        split_name(arguments),
        arguments.batch,
        rayon::current_num_threads(),
        text::table(&rows),
    ))
}
