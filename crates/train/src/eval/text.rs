//! How often a language model solves arithmetic problems, and how fast.

use std::time::Instant;

use brisk_pipelines::events::{StepClock, Work};
use brisk_pipelines::options::Options;
use brisk_pipelines::{Control, TextModel, TextPrompt, TextRequest};
use serde::Serialize;

use crate::data::arithmetic::{Problem, Split, problem, stated_answer};
use crate::error::{Error, Result};

/// What is to be measured of a language model.
#[derive(Debug, Clone)]
pub struct TextEvaluation {
    /// Seed of the problems.
    pub seed: u64,
    /// Which problems.
    pub split: Split,
    /// Number of problems.
    pub problems: usize,
    /// Problems decoded together.
    pub batch: usize,
    /// How answers are decoded.
    pub options: Options,
}

/// One problem's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Solved {
    /// The question.
    pub question: String,
    /// What the model wrote.
    pub text: String,
    /// The right answer.
    pub answer: u32,
    /// The answer that the model's text states.
    pub stated: Option<u32>,
    /// Tokens up to the first end token.
    pub tokens: usize,
    /// Forward passes.
    pub forwards: usize,
}

/// Result of [`evaluate_text_model`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextEvaluationReport {
    /// Number of problems.
    pub problems: usize,
    /// Share whose stated answer is right.
    pub exact_match: f64,
    /// Tokens before the first end token, of all problems together.
    pub tokens: usize,
    /// Forward passes, of all problems together; one that serves a batch counts for each of it.
    pub forwards: usize,
    /// Seconds of decoding.
    pub seconds: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Tokens a forward pass of one problem.
    pub tokens_per_forward: f64,
    /// Every problem's result.
    pub results: Vec<Solved>,
}

/// Lets the model solve problems; `control` hears how many of them are done.
///
/// # Errors
/// No problems or a batch of none, a request that the model refuses, or a cancellation.
pub fn evaluate_text_model(
    model: &dyn TextModel,
    evaluation: &TextEvaluation,
    control: &Control,
) -> Result<TextEvaluationReport> {
    if evaluation.problems == 0 || evaluation.batch == 0 {
        return Err(Error::Data(format!(
            "{} problems in batches of {}: there is nothing to measure",
            evaluation.problems, evaluation.batch
        )));
    }
    let problems: Vec<Problem> = (0..evaluation.problems as u64)
        .map(|index| problem(evaluation.seed, index, evaluation.split))
        .collect();
    control.stage("solving", Work::Run, problems.len());
    let mut clock = StepClock::new(problems.len());
    // What a model reports of its own run would hide how far this one is.
    let quiet = Control::silent().with_cancel(control.cancel_flag());
    let mut results = Vec::with_capacity(problems.len());
    let mut seconds = 0.0;
    for group in problems.chunks(evaluation.batch) {
        let prompts = group
            .iter()
            .map(|problem| TextPrompt::Question(problem.question.clone()))
            .collect();
        let plan = model.plan(&TextRequest {
            prompts,
            options: evaluation.options.clone(),
        })?;
        let began = Instant::now();
        let found = model.generate(&plan, &quiet)?;
        seconds += began.elapsed().as_secs_f64();
        for (problem, row) in group.iter().zip(found) {
            results.push(Solved {
                question: problem.question.clone(),
                answer: problem.answer,
                stated: stated_answer(&row.text),
                text: row.text,
                tokens: row.answer_tokens,
                forwards: row.forward_passes,
            });
        }
        clock.steps(group.len(), control);
    }
    let count = |of: &dyn Fn(&Solved) -> usize| results.iter().map(of).sum::<usize>();
    let right = count(&|result| usize::from(result.stated == Some(result.answer)));
    let (tokens, forwards) = (count(&|r| r.tokens), count(&|r| r.forwards));
    Ok(TextEvaluationReport {
        problems: results.len(),
        exact_match: right as f64 / results.len() as f64,
        tokens,
        forwards,
        seconds,
        tokens_per_second: tokens as f64 / seconds.max(1e-9),
        tokens_per_forward: tokens as f64 / forwards.max(1) as f64,
        results,
    })
}
