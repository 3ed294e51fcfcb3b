//! A request checked against a model, with everything decided.

use std::collections::BTreeSet;
use std::sync::Arc;

use brisk_nn::KeyValueType;

use super::codes;
use super::draws::How;
use super::load::Files;
use super::options::{self as own, HART};
use crate::error::{Error, Result};
use crate::only_size::check_only_size;
use crate::options::{Latents, Scope, keys};
use crate::request::{ImageRequest, preview_steps};

/// Places of the last scale that are drawn at once, of several pictures unless one has more.
const PLACES_AT_ONCE: usize = 4096;
/// Keys and values of a picture that are kept as they were computed.
const MOST_F32: u64 = 1 << 30;

/// A request with every decision made.
#[derive(Debug, Clone)]
pub(super) struct HartPlan {
    pub prompts: Vec<String>,
    pub images_per_prompt: usize,
    /// Of each picture.
    pub seeds: Vec<u64>,
    /// Text that is read before every prompt.
    pub system: Option<String>,
    pub guidance: f32,
    /// Of the diffusion head.
    pub steps: usize,
    pub residual: bool,
    pub how: How,
    /// Codes `[scale][picture][place]` of the first scales.
    pub given: Vec<Vec<Vec<u32>>>,
    /// What the diffusion head starts from.
    pub latents: Option<Arc<Latents>>,
    pub kept_as: KeyValueType,
    /// Pictures that are drawn at once.
    pub at_once: usize,
    /// Scales after which a preview is shown, from 1.
    pub preview_steps: BTreeSet<usize>,
}

impl HartPlan {
    /// Pictures in all.
    pub fn images(&self) -> usize {
        self.seeds.len()
    }

    /// The prompt of a picture.
    pub fn prompt_of(&self, picture: usize) -> usize {
        picture / self.images_per_prompt
    }

    /// Whether anything is computed by the transformer: codes of all scales need only be decoded.
    pub fn draws(&self, files: &Files) -> bool {
        self.residual || self.given.len() < files.scales.count()
    }

    /// Rows of a picture: with the text, and without.
    pub fn branches(&self) -> usize {
        if self.guidance == 0.0 { 1 } else { 2 }
    }
}

/// Bytes of the keys and values that are kept of a picture.
pub(super) fn cache_bytes(files: &Files, branches: usize, kind: KeyValueType) -> u64 {
    let config = &files.config;
    let sides = &config.patch_nums[..config.patch_nums.len() - 1];
    let places: usize = sides.iter().skip(1).map(|side| side * side).sum();
    let values = 2 * config.depth as u64 * config.embed_dim as u64;
    branches as u64 * (config.context_token + places) as u64 * values * kind.bytes()
}

/// Checks a request against a model and decides what it leaves open.
pub(super) fn plan(request: &ImageRequest, files: &Files) -> Result<HartPlan> {
    let asked = &request.options;
    HART.check(&files.label, Scope::Request, asked)?;
    request.check()?;
    check_size(request, files)?;
    let images = request.prompts.len() * request.images_per_prompt();
    let greedy = asked.get(&keys::GREEDY).unwrap_or(false);
    let residual = !asked.get(&own::NO_RESIDUAL).unwrap_or(false);
    for (given, other, dead) in [
        (
            greedy,
            keys::GREEDY.name(),
            [keys::TOP_K.definition(), keys::TOP_P.definition()],
        ),
        (
            !residual,
            own::NO_RESIDUAL.name(),
            [keys::STEPS.definition(), keys::LATENTS.definition()],
        ),
    ] {
        if let Some(option) = dead.into_iter().find(|option| given && asked.has(option)) {
            let message = format!("has no effect with `{other}`; leave one of them out");
            return Err(Error::request(option.name, message));
        }
    }
    let steps = asked
        .get(&keys::STEPS)
        .unwrap_or(files.config.num_sampling_steps);
    if steps < 2 {
        let message = format!("is {steps}; the diffusion head takes 2 at least");
        return Err(Error::request(keys::STEPS.name(), message));
    }
    let guidance = asked.get(&keys::GUIDANCE).unwrap_or(files.guidance);
    let given = match asked.get(&keys::CODES) {
        Some(file) => codes::given(
            &file,
            &files.scales,
            files.tokenizer_config.vocab_size,
            images,
            asked.get(&own::FROM_SCALE),
        )?,
        None => Vec::new(),
    };
    let latents = asked.get(&keys::LATENTS);
    if let Some(latents) = &latents {
        let side = files.scales.side();
        latents.check([images, files.tokenizer_config.z_channels, side, side])?;
    }
    let mut plan = HartPlan {
        prompts: request.prompts.clone(),
        images_per_prompt: request.images_per_prompt(),
        seeds: request
            .planned_images()
            .iter()
            .map(|image| image.seed)
            .collect(),
        system: asked
            .get(&own::SYSTEM_PROMPT)
            .or_else(|| files.system.clone())
            .filter(|text| !text.is_empty()),
        guidance,
        steps,
        residual,
        how: How {
            greedy,
            smooth: !greedy && !asked.get(&own::NO_SMOOTH).unwrap_or(false),
            top_k: asked.get(&keys::TOP_K),
            top_p: asked.get(&keys::TOP_P).unwrap_or(1.0),
        },
        given,
        latents,
        kept_as: KeyValueType::F32,
        at_once: (PLACES_AT_ONCE / files.scales.side().pow(2)).max(1),
        preview_steps: preview_steps(asked, files.scales.count())?,
    };
    plan.kept_as = match asked.get(&own::CACHE_TYPE).as_deref() {
        Some("f32") => KeyValueType::F32,
        Some("f16") => KeyValueType::F16,
        _ if cache_bytes(files, plan.branches(), KeyValueType::F32) > MOST_F32 => KeyValueType::F16,
        _ => KeyValueType::F32,
    };
    if plan.draws(files) && files.text.is_none() {
        return Err(Error::request(
            keys::TEXT_ENCODER.name(),
            format!(
                "{} has no text_encoder; give the folder or hub id of the one that the model was trained \
                 with, such as mit-han-lab/Qwen2-VL-1.5B-Instruct",
                files.label
            ),
        ));
    }
    Ok(plan)
}

fn check_size(request: &ImageRequest, files: &Files) -> Result<()> {
    let reason = format!(
        ": `patch_nums` {:?} of {} pixels a place",
        files.scales.sides(),
        files.tokenizer_config.ratio()
    );
    let keys = [&keys::WIDTH, &keys::HEIGHT];
    check_only_size(&request.options, keys, [files.pixels(); 2], &reason)
}
