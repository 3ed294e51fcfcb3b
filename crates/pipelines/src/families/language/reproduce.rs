//! Fast-dLLM (arXiv 2505.22618): a cache that is off by a little, and several tokens a step.

use std::time::Instant;

use super::options as own;
use crate::error::Result;
use crate::events::Work;
use crate::options::{Options, keys};
use crate::registry;
use crate::reproduce::{Evidence, Laboratory, Measured, Problem, Reported, Reproduction};
use crate::request::{OpenSettings, TextModel, TextPrompt, TextRequest};

/// The claim of the paper.
pub(super) static FAST_DLLM: Reproduction = Reproduction {
    paper: "fast-dllm",
    title: "Fast-dLLM: Training-free Acceleration of Diffusion LLM by Enabling KV Cache and Parallel Decoding",
    arxiv: "2505.22618",
    claim: "block-wise approximate caches and confidence-aware parallel decoding make a diffusion language \
            model several times as fast, with hardly a right answer lost",
    reported: &REPORTED,
    reported_on: "LLaDA-8B-Instruct on GSM8K, 5 examples, one A100; with 8 examples its dual cache and threshold \
                  give 9.4x the tokens/s at 76.9 % after 77.6 %",
    model: "llada-arithmetic",
    beside: None,
    run,
};

/// Held-out problems that are solved.
const PROBLEMS: usize = 32;
/// Tokens of an answer.
const LENGTH: usize = 128;
/// Least gain of speed, and most right answers lost, that count as the paper's effect.
const LEAST_SPEED_UP: f64 = 4.0;
const MOST_LOST: usize = 2;

const fn reported(
    cache: &'static str,
    rule: &'static str,
    accuracy: f64,
    tokens_per_second: f64,
) -> Reported {
    Reported {
        cache,
        rule,
        length: 256,
        accuracy,
        tokens_per_second,
    }
}

static REPORTED: [Reported; 4] = [
    reported("none", "one token", 79.3, 6.7),
    reported("prefix", "one token", 79.5, 21.2),
    reported("none", "threshold 0.9", 79.2, 16.5),
    reported("prefix", "threshold 0.9", 78.5, 54.4),
];

struct Row {
    name: &'static str,
    cache: &'static str,
    threshold: Option<f64>,
    paper: Option<&'static Reported>,
}

static ROWS: [Row; 4] = [
    Row {
        name: "no cache, one token a step",
        cache: "none",
        threshold: None,
        paper: Some(&REPORTED[0]),
    },
    Row {
        name: "prefix cache, one token a step",
        cache: "prefix",
        threshold: None,
        paper: Some(&REPORTED[1]),
    },
    Row {
        name: "no cache, threshold",
        cache: "none",
        threshold: Some(0.9),
        paper: Some(&REPORTED[2]),
    },
    Row {
        name: "dual cache, threshold",
        cache: "dual",
        threshold: Some(0.995),
        paper: None,
    },
];

fn run(laboratory: &Laboratory) -> Result<Evidence> {
    let model = registry::open_text(&laboratory.model, &OpenSettings::default())?;
    let problems = (laboratory.problems)(0, PROBLEMS);
    laboratory.control.stage("solving", Work::Run, ROWS.len());
    let mut rows = Vec::new();
    let mut measured: Vec<(usize, f64)> = Vec::new();
    let mut clock = crate::events::StepClock::new(ROWS.len());
    for row in &ROWS {
        laboratory.control.check()?;
        let (right, speed) = solve(&*model, &problems, row, laboratory)?;
        let first = measured.first().map_or(speed, |(_, speed)| *speed);
        let paper = row.paper.map_or(String::new(), |paper| {
            format!(
                "{:.1} %, {:.1}x",
                paper.accuracy,
                paper.tokens_per_second / REPORTED[0].tokens_per_second
            )
        });
        let accuracy = 100.0 * right as f64 / problems.len() as f64;
        rows.push(Measured::new(
            row.name,
            paper,
            format!(
                "{accuracy:.1} %, {:.1}x ({speed:.0} tokens/s)",
                speed / first
            ),
        ));
        measured.push((right, speed));
        clock.step(laboratory.control);
    }
    let (first, last) = (measured[0], measured[measured.len() - 1]);
    Ok(Evidence {
        setting: format!(
            "{}, {PROBLEMS} held-out arithmetic problems, length {LENGTH}; the paper: LLaDA-8B-Instruct on \
             GSM8K, length 256, one A100",
            model.label()
        ),
        rows,
        effect: format!(
            "dual cache with threshold at least {LEAST_SPEED_UP} times as fast as neither, with at most \
             {MOST_LOST} of {PROBLEMS} right answers lost"
        ),
        appears: last.1 >= LEAST_SPEED_UP * first.1 && last.0 + MOST_LOST >= first.0,
    })
}

/// Right answers, and tokens a second.
fn solve(
    model: &dyn TextModel,
    problems: &[Problem],
    row: &Row,
    laboratory: &Laboratory,
) -> Result<(usize, f64)> {
    let options = Options::new()
        .with(&own::CACHE, row.cache.to_owned())
        .with(&own::GEN_LENGTH, LENGTH)
        .with(&keys::SEED, 0);
    let options = match row.threshold {
        Some(threshold) => options
            .with(&own::THRESHOLD, threshold)
            .with(&own::BLOCK_LENGTH, LENGTH),
        None => options.with(&own::DECODING_STEPS, LENGTH),
    };
    let prompts = problems
        .iter()
        .map(|problem| TextPrompt::Question(problem.question.clone()))
        .collect();
    let plan = model.plan(&TextRequest { prompts, options })?;
    let began = Instant::now();
    let texts = model.generate(&plan, laboratory.control)?;
    let seconds = began.elapsed().as_secs_f64();
    let tokens: usize = texts.iter().map(|text| text.answer_tokens).sum();
    let right = texts
        .iter()
        .zip(problems)
        .filter(|(text, problem)| (problem.right)(&text.text))
        .count();
    Ok((right, tokens as f64 / seconds.max(1e-9)))
}
