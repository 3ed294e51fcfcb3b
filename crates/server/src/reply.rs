//! Replies of `/v1` from the outcome of a job.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::app::App;
use crate::ask::{Ask, ImageAsk, TextAsk};
use crate::error::{ApiError, Result};
use crate::fields::Endpoint;
use crate::job::Job;
use crate::outcome::{File, Images, Outcome, Written};
use crate::videos;

/// The whole reply of a job that ended; `base` is the address for links.
///
/// # Errors
/// Why there is none.
pub fn of(app: &App, job: &Arc<Job>, base: &str) -> Result<Value> {
    let outcome = outcome(job)?;
    Ok(match (&job.ask, &*outcome) {
        (Ask::Images(ask), Outcome::Images(images)) => pictures(app, job, ask, images, base),
        (Ask::Texts(ask), Outcome::Texts(texts)) => self::texts(job, ask, texts),
        (Ask::Clips(ask), Outcome::Clip(_)) => videos::told(job, ask),
        (Ask::Masks(_), Outcome::Masks(masks)) => {
            let mut reply = masks.reply.clone();
            reply["created"] = job.created_at.into();
            reply
        }
        _ => return Err(ApiError::internal("the result is of another kind")),
    })
}

/// What came of a job.
///
/// # Errors
/// Why nothing did.
pub fn outcome(job: &Job) -> Result<Arc<Outcome>> {
    let state = job.state();
    match (&state.outcome, &state.error) {
        (Some(outcome), _) => Ok(Arc::clone(outcome)),
        (None, Some(error)) => Err(error.clone()),
        (None, None) => Err(ApiError::new(
            axum::http::StatusCode::BAD_REQUEST,
            "cancelled",
            "the job was cancelled",
        )),
    }
}

fn pictures(app: &App, job: &Arc<Job>, ask: &ImageAsk, images: &Images, base: &str) -> Value {
    let data: Vec<Value> = images
        .files
        .iter()
        .enumerate()
        .map(|(index, file)| picture(app, job, ask, file, index, base))
        .collect();
    let mut reply = of_pictures(ask, images);
    reply["created"] = job.created_at.into();
    reply["data"] = data.into();
    reply
}

/// What replies and streams tell of pictures.
pub fn of_pictures(ask: &ImageAsk, images: &Images) -> Value {
    json!({
        "output_format": ask.format.name(), "size": format!("{}x{}", ask.size.0, ask.size.1),
        "quality": "auto", "background": "opaque", "brisk": images.told,
        "usage": {
            "input_tokens": images.prompt_tokens, "output_tokens": images.cells,
            "total_tokens": images.prompt_tokens + images.cells,
            "input_tokens_details": {"text_tokens": images.prompt_tokens, "image_tokens": 0},
        },
    })
}

/// One picture: itself or a link, and its seed.
pub fn picture(
    app: &App,
    job: &Arc<Job>,
    ask: &ImageAsk,
    file: &File,
    index: usize,
    base: &str,
) -> Value {
    let mut data = match ask.links {
        true => {
            let token = app.kept.link(job, index);
            json!({"url": format!("{base}/brisk/v1/results/{token}")})
        }
        false => json!({"b64_json": STANDARD.encode(&file.bytes)}),
    };
    data["seed"] = file.seed.into();
    if let Some(saved) = file.saved {
        data["saved"] = saved.into();
    }
    data
}

fn texts(job: &Job, ask: &TextAsk, texts: &[Written]) -> Value {
    let mut choices: Vec<(usize, Value)> = texts
        .iter()
        .enumerate()
        .map(|(made, text)| (ask.place(made), choice(ask, ask.place(made), text)))
        .collect();
    choices.sort_by_key(|(place, _)| *place);
    let choices: Vec<Value> = choices.into_iter().map(|(_, choice)| choice).collect();
    let object = match ask.endpoint {
        Endpoint::Chat => "chat.completion",
        _ => "text_completion",
    };
    json!({
        "id": id(job), "object": object, "created": job.created_at, "model": ask.model.id,
        "choices": choices, "usage": usage(ask, texts),
        "system_fingerprint": fingerprint(ask), "service_tier": "default",
        "brisk": of_texts(job, ask, texts),
    })
}

fn choice(ask: &TextAsk, place: usize, text: &Written) -> Value {
    let reason = finish_reason(text.ended);
    match ask.endpoint {
        Endpoint::Chat => json!({
            "index": place, "finish_reason": reason, "logprobs": null,
            "message": {"role": "assistant", "content": text.text, "refusal": null},
        }),
        _ => json!({"index": place, "finish_reason": reason, "logprobs": null, "text": text.text}),
    }
}

/// OpenAI's word for why a text ended.
pub fn finish_reason(ended: bool) -> &'static str {
    if ended { "stop" } else { "length" }
}

/// The id of a text's reply.
pub fn id(job: &Job) -> String {
    match job.ask.endpoint() {
        Endpoint::Chat => format!("chatcmpl-{}", job.id),
        _ => format!("cmpl-{}", job.id),
    }
}

/// Tokens that were read and written. A prompt counts once, however many texts it has.
pub fn usage(ask: &TextAsk, texts: &[Written]) -> Value {
    let prompt: usize = ask.answers.iter().map(|answer| answer.prompt_tokens).sum();
    let written: usize = texts.iter().map(|text| text.tokens).sum();
    json!({
        "prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
    })
}

/// What else is told of texts.
pub fn of_texts(job: &Job, ask: &TextAsk, texts: &[Written]) -> Value {
    let passes: usize = texts.iter().map(|text| text.passes).sum();
    let tokens: usize = texts.iter().map(|text| text.tokens).sum();
    json!({
        "seed": ask.seed, "forward_passes": passes,
        "tokens_per_pass": tokens as f64 / passes.max(1) as f64,
        "seconds": job.seconds(), "warnings": job.state().warnings,
    })
}

/// With the same fingerprint, seed and request the text is the same: version, weights, instruction set, threads.
pub fn fingerprint(ask: &TextAsk) -> String {
    format!(
        "brisk-{}-{}-{}-{}",
        env!("CARGO_PKG_VERSION"),
        ask.model.fingerprint(),
        brisk_pipelines::machine::kernels(),
        brisk_pipelines::machine::threads(),
    )
}
