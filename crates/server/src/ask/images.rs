//! Requests for pictures.

use std::sync::Arc;

use brisk::options::{Key, Options, Value as OptionValue};
use brisk::{ImageModel, ImagePlan, ImageRequest, PREVIEWS, ResultKind, StageCost, keys};
use serde_json::{Map, Value};

use super::{Context, Pictures, seed, seeds};
use crate::error::{ApiError, Result};
use crate::fields::{Endpoint, Given, PictureFile, from_data_url};
use crate::served::Served;
use crate::settings::MAX_REQUEST_PIXELS;

/// Share of a picture's time that its previews may take.
const PREVIEW_SHARE: f64 = 0.1;

/// The form of a picture's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG, with or without the text that says how it was made.
    Png {
        /// With it.
        described: bool,
    },
    /// JPEG of a quality.
    Jpeg(u8),
    /// WebP without loss.
    WebP,
}

impl Format {
    /// As fields name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png { .. } => "png",
            Self::Jpeg(_) => "jpeg",
            Self::WebP => "webp",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png { .. } => "image/png",
            Self::Jpeg(_) => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub struct ImageAsk {
    /// Where.
    pub endpoint: Endpoint,
    /// Of which model.
    pub model: Arc<Served>,
    /// One for each picture, which differ in their seed alone, without the pictures that they start from.
    requests: Vec<ImageRequest>,
    /// The pictures that they start from.
    pictures: Pictures,
    /// Seed of the first picture.
    pub seed: u64,
    /// Width and height of the pictures.
    pub size: (usize, usize),
    /// Steps of each.
    pub steps: usize,
    /// Form of the files.
    pub format: Format,
    /// Whether the reply has links instead of pictures.
    pub links: bool,
    /// Whether the reply is a stream.
    pub stream: bool,
    /// Previews of each picture that are to come.
    pub partial_images: usize,
    /// What all of it computes, stage by stage.
    pub costs: Vec<StageCost>,
    /// Bytes of the stage that needs most, the model's own among them.
    pub memory: u64,
    /// Tokens of the prompt, for each picture.
    pub prompt_tokens: usize,
}

impl ImageAsk {
    pub(super) fn read(
        context: Context<'_>,
        endpoint: Endpoint,
        body: Map<String, Value>,
        files: Vec<Vec<u8>>,
    ) -> Result<Self> {
        let mut given = endpoint.table().read(body)?;
        let model = context
            .models
            .wanted(given.text("model"), ResultKind::Pictures)?;
        let prompt = given.text("prompt").unwrap_or_default().to_owned();
        if prompt.is_empty() {
            return Err(ApiError::invalid("prompt", "is empty; say what to draw"));
        }
        let count = given.whole("n").unwrap_or(1);
        let most = context.settings.max_results;
        if count > most {
            return Err(ApiError::invalid(
                "n",
                format!("{count} is more than {most}"),
            ));
        }
        let mut options = std::mem::take(&mut given.options);
        size(&given, &mut options, [&keys::WIDTH, &keys::HEIGHT])?;
        let mut pictures = Pictures::of(std::mem::take(&mut given.pictures));
        if endpoint == Endpoint::Edits {
            let file = the_picture(&mut given, files)?;
            pictures.add(keys::INIT_IMAGE.definition(), vec![file]);
        }
        let decoded = pictures.decode(context.release_memory)?;
        options.complete(&decoded.options);
        let first = seed(options.get(&keys::SEED));
        let seeds = seeds(first, count)?;
        let mut requests: Vec<ImageRequest> = seeds
            .into_iter()
            .map(|seed| ImageRequest {
                prompts: vec![prompt.clone()],
                options: options.clone().with(&keys::SEED, seed),
            })
            .collect();
        if let Some(steps) = options.get(&keys::STEPS) {
            check_steps(context, steps)?;
        }
        check_size(context, &options, count)?;
        let asked = given.whole("partial_images").unwrap_or(0);
        let partial_images = previews(context, &model, &requests[0], asked)?;
        if partial_images > 0 {
            for request in &mut requests {
                request.options.set(&keys::PREVIEWS, partial_images);
            }
        }
        let planned = model.plan_images(&requests[0]);
        let planned = planned.map_err(|error| refusal(context, &error))?;
        let plan = planned.plan;
        check_steps(context, plan.steps)?;
        check_pixels(context, plan.width, plan.height, count)?;
        let memory = context.room_for(&plan.memory)?;
        for request in &mut requests {
            pictures.put_away(&mut request.options);
        }
        Ok(Self {
            endpoint,
            model,
            pictures,
            seed: first,
            size: (plan.width, plan.height),
            steps: plan.steps,
            format: format(&given),
            links: given.text("response_format") == Some("url"),
            stream: given.flag("stream").unwrap_or(false),
            partial_images,
            costs: planned
                .costs
                .into_iter()
                .map(|stage| StageCost {
                    cost: stage.cost.repeated(requests.len() as u64),
                    ..stage
                })
                .collect(),
            memory,
            prompt_tokens: planned.prompt_tokens,
            requests,
        })
    }

    /// Number of pictures that are asked for.
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// The prompt.
    pub fn prompt(&self) -> String {
        let first = self.requests.first();
        first.map_or_else(String::new, |request| request.prompts.join("\n"))
    }

    /// Plans picture number `index` by the model that draws it, with what it starts from; the pictures themselves are
    /// in what the plan decided, as far as they are seen. `release_memory` hands freed memory back to the system.
    ///
    /// # Errors
    /// A picture that cannot be decoded, or what the plan says.
    pub fn planned(
        &self,
        index: usize,
        model: &dyn ImageModel,
        release_memory: fn(),
    ) -> Result<ImagePlan> {
        let decoded = self.pictures.decode(release_memory)?;
        let mut request = self.requests[index].clone();
        request.options.complete(&decoded.options);
        let plan = model.plan(&request);
        let mut plan = plan.map_err(|error| ApiError::of_library(&error))?;
        self.pictures.put_away(&mut plan.request.options);
        Ok(plan)
    }

    #[cfg(test)]
    pub(super) fn blank(model: Arc<Served>) -> Self {
        Self {
            endpoint: Endpoint::Generations,
            model,
            requests: vec![ImageRequest::new("x")],
            pictures: Pictures::default(),
            seed: 0,
            size: (8, 8),
            steps: 1,
            format: Format::WebP,
            links: false,
            stream: false,
            partial_images: 0,
            costs: Vec::new(),
            memory: 0,
            prompt_tokens: 0,
        }
    }
}

/// What the plan of a request says, where it fails. Memory that other models take now is made free when the
/// job's turn comes, so only what the whole budget could not hold is refused.
pub(super) fn refusal(context: Context<'_>, error: &brisk::Error) -> ApiError {
    match error {
        brisk::Error::Memory { needed_mib, .. } if needed_mib << 20 <= context.memory => {
            ApiError::too_many(
                "queue_full",
                "other jobs take the memory that this one needs; ask again in a while",
                30.0,
            )
        }
        error => ApiError::of_library(error),
    }
}

/// Previews that a request gets: those that it asks for, as long as they take little of its time.
fn previews(
    context: Context<'_>,
    model: &Served,
    request: &ImageRequest,
    asked: usize,
) -> Result<usize> {
    let support = model.support(ResultKind::Pictures);
    let option = keys::PREVIEWS.definition();
    if asked == 0 || !support.is_some_and(|support| support.honours(option)) {
        return Ok(0);
    }
    let shown = request.clone().with(&keys::PREVIEWS, asked);
    let planned = match model.plan_images(&shown) {
        Ok(planned) => planned,
        // They need memory that is not there.
        Err(brisk::Error::Memory { .. }) => return Ok(0),
        Err(error) => return Err(refusal(context, &error)),
    };
    let (previews, stages): (Vec<_>, Vec<_>) = planned
        .costs
        .into_iter()
        .partition(|stage| stage.cost.name == PREVIEWS);
    let seconds = |stages: &[StageCost]| context.speeds.seconds(&model.id, stages);
    Ok(affordable(
        asked,
        previews_share(&previews, &stages, seconds),
    ))
}

/// How many of `asked` previews, which take a share of the picture's time together, are not too many.
fn affordable(asked: usize, share: f64) -> usize {
    match share > PREVIEW_SHARE {
        true => (PREVIEW_SHARE / share * asked as f64) as usize,
        false => asked,
    }
}

/// What previews take, in shares of the picture's time.
fn previews_share(
    previews: &[StageCost],
    stages: &[StageCost],
    seconds: impl Fn(&[StageCost]) -> f64,
) -> f64 {
    let flops =
        |costs: &[StageCost]| -> f64 { costs.iter().map(|stage| stage.cost.flops as f64).sum() };
    // A preview is decoded, so it is as fast as decoding is.
    let decode: Vec<StageCost> = stages
        .iter()
        .filter(|stage| stage.cost.name == "decode")
        .cloned()
        .collect();
    let (work, whole) = (flops(&decode), seconds(stages));
    if work <= 0.0 || whole <= 0.0 {
        return 0.0;
    }
    flops(previews) / work * seconds(&decode) / whole
}

fn format(given: &Given) -> Format {
    match given.text("output_format") {
        Some("jpeg") => {
            Format::Jpeg(given.whole("output_compression").unwrap_or(90).min(100) as u8)
        }
        Some("webp") => Format::WebP,
        _ => Format::Png {
            described: given.flag("file_metadata").unwrap_or(true),
        },
    }
}

/// Reads `size` into the options of width and height.
pub(super) fn size(
    given: &Given,
    options: &mut Options,
    [of_width, of_height]: [&'static Key<usize>; 2],
) -> Result<()> {
    let Some(text) = given.text("size").filter(|size| *size != "auto") else {
        return Ok(());
    };
    let sides = text
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let Some((width, height)) = sides else {
        let shown = brisk_store::shown_within(text, 32);
        let problem = format!("{shown:?} is not WIDTHxHEIGHT in pixels, or auto");
        return Err(ApiError::invalid("size", problem));
    };
    for (key, side) in [(of_width, width), (of_height, height)] {
        if options.has(key.definition()) {
            let problem = format!("cannot be combined with `{}`", key.name());
            return Err(ApiError::invalid("size", problem));
        }
        options
            .give(key.definition(), OptionValue::Whole(side))
            .map_err(|error| ApiError {
                param: Some("size".to_owned()),
                ..ApiError::of_library(&error)
            })?;
    }
    Ok(())
}

/// Refuses sizes before a model plans them.
fn check_size(context: Context<'_>, options: &Options, count: usize) -> Result<()> {
    let side = |key: &'static Key<usize>| options.get(key).unwrap_or(1);
    check_pixels(context, side(&keys::WIDTH), side(&keys::HEIGHT), count)
}

/// Refuses more steps than the server takes.
pub(super) fn check_steps(context: Context<'_>, steps: usize) -> Result<()> {
    let most = context.settings.max_steps;
    match steps > most {
        true => Err(ApiError::invalid(
            "steps",
            format!("{steps} steps are more than {most}"),
        )),
        false => Ok(()),
    }
}

/// Refuses a picture, or a frame, of more pixels than the server draws; gives how many it has.
pub(super) fn check_picture(context: Context<'_>, width: usize, height: usize) -> Result<usize> {
    let (pixels, most) = (width.saturating_mul(height), context.settings.max_pixels);
    if pixels > most {
        let problem = format!("{width}x{height} are {pixels} pixels; at most {most} are drawn");
        return Err(ApiError::invalid("size", problem));
    }
    Ok(pixels)
}

fn check_pixels(context: Context<'_>, width: usize, height: usize, count: usize) -> Result<()> {
    let pixels = check_picture(context, width, height)?;
    let most = context.settings.max_pixels;
    if pixels.saturating_mul(count) > MAX_REQUEST_PIXELS.max(most) {
        let problem = format!(
            "{count} pictures of {width}x{height} are more than {MAX_REQUEST_PIXELS} pixels in all"
        );
        return Err(ApiError::invalid("n", problem));
    }
    Ok(())
}

/// The one picture that a request is about.
pub(super) fn the_picture(given: &mut Given, mut files: Vec<Vec<u8>>) -> Result<PictureFile> {
    let one = |count: usize| {
        ApiError::invalid(
            "image",
            format!("{count} pictures were given; expected one"),
        )
    };
    // Nobody needs the text of it any more.
    let listed = given.own.shift_remove("images");
    let urls: Vec<&str> = match &listed {
        None => Vec::new(),
        Some(Value::String(url)) => vec![url],
        Some(Value::Array(list)) => list
            .iter()
            .map(|entry| entry.get("image_url").unwrap_or(entry).as_str())
            .collect::<Option<_>>()
            .ok_or_else(|| {
                ApiError::invalid(
                    "images",
                    "expected [{\"image_url\": \"data:image/png;base64,…\"}]",
                )
            })?,
        Some(_) => {
            let problem = "expected [{\"image_url\": \"data:image/png;base64,…\"}]";
            return Err(ApiError::invalid("images", problem));
        }
    };
    let bytes = match (urls.as_slice(), files.pop(), files.len()) {
        ([url], None, _) => from_data_url("image", url)?,
        ([], Some(file), 0) => file,
        (urls, last, others) => {
            return Err(one(urls.len() + usize::from(last.is_some()) + others));
        }
    };
    PictureFile::new("image", bytes)
}

#[cfg(test)]
mod tests {
    use brisk::Cost;

    use super::*;

    fn stage(name: &str, flops: u64) -> StageCost {
        let mut cost = Cost::new(name);
        cost.flops = flops;
        StageCost {
            cost,
            weight_bytes: 4.0,
        }
    }

    #[test]
    fn previews_that_take_long_are_fewer() {
        let stages = [stage("denoise", 600), stage("decode", 300)];
        // Decoding is three times as slow as the rest.
        let seconds = |stages: &[StageCost]| -> f64 {
            let of = |stage: &StageCost| match stage.cost.name.as_str() {
                "decode" => 3.0 * stage.cost.flops as f64,
                _ => stage.cost.flops as f64,
            };
            stages.iter().map(of).sum()
        };
        let share = |flops| previews_share(&[stage(PREVIEWS, flops)], &stages, seconds);
        assert_eq!(share(300), 0.6);
        assert_eq!(previews_share(&[], &stages, seconds), 0.0);
        // Three whole decodings are too many, and so is one; three small maps are nothing.
        assert_eq!(affordable(3, share(900)), 0);
        assert_eq!(affordable(3, share(100)), 1);
        assert_eq!(affordable(3, share(3)), 3);
    }
}
