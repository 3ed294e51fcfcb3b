//! From a request to every decision.

use brisk_nn::two_way;
use serde_json::{Map, Value, json};

use super::files::Files;
use super::model::TOGETHER;
use super::options as own;
use super::{Crop, Everything, crops};
use crate::error::{Error, Result};

use crate::memory;
use crate::options::Options;
use crate::options::mask_keys as shared;
use crate::request::{
    EmbeddingOrigin, MOST_PROMPTS, MaskPrompt, MaskRequest, PictureEmbedding, StageMemory,
};

/// Bytes of logits in the picture's size that exist at once where memory is not short.
const LOGITS: u64 = 1 << 30;
/// Masks of a point.
const MASKS_OF_A_POINT: u64 = 3;

/// Which of a prompt's masks are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The best of several for a point alone, else the single one.
    Auto,
    Single,
    Best,
    All,
}

/// What is looked for.
#[derive(Clone, Debug)]
pub(super) enum Sought {
    Prompts(Which),
    Everything(Everything),
}

/// A request with every decision made.
#[derive(Clone, Debug)]
pub(super) struct SamPlan {
    pub sought: Sought,
    pub threshold: f32,
    pub embedding: Option<PictureEmbedding>,
    pub origin: EmbeddingOrigin,
}

/// The decisions, and the prompts in their order.
pub(super) fn plan(request: &MaskRequest, files: &Files) -> Result<(SamPlan, Vec<MaskPrompt>)> {
    let given = &request.options;
    let threshold = given.get(&shared::MASK_THRESHOLD).unwrap_or(0.0);
    let prompts = prompts(request)?;
    let everything = given.get(&shared::EVERYTHING).unwrap_or(false);
    let sought = match (everything, prompts.is_empty()) {
        (true, true) => Sought::Everything(self::everything(given, threshold, request.size())?),
        (false, false) => Sought::Prompts(which(given)),
        (true, false) => {
            return Err(Error::request(
                "everything",
                "there are points or boxes too; give one of both",
            ));
        }
        (false, true) => {
            return Err(Error::request(
                "point",
                "nothing says what to find: give `point` X,Y, `box` L,T,R,B, `boxes` FILE or `everything`",
            ));
        }
    };
    if everything && given.has(shared::MULTIMASK.definition()) {
        return Err(Error::request(
            "multimask",
            "has no effect with `everything`, which looks at all masks of every point",
        ));
    }
    let origin = EmbeddingOrigin::new(&request.picture, files.fingerprint()?);
    let embedding = match given.get(&shared::EMBEDDING) {
        None => None,
        Some(file) => {
            if let Sought::Everything(Everything {
                crop_n_layers: 1.., ..
            }) = sought
            {
                return Err(Error::request(
                    "embedding",
                    "is of the whole picture, and `crop-n-layers` looks at parts of it; leave out one of both",
                ));
            }
            let config = &files.network.config;
            let channels = config.vision_config.output_channels();
            let shape = [channels, config.grid(), config.grid()];
            let read = PictureEmbedding::read(&file, shape, &origin);
            Some(read.map_err(|error| error.of("embedding"))?)
        }
    };
    let plan = SamPlan {
        sought,
        threshold,
        embedding,
        origin,
    };
    Ok((plan, prompts))
}

/// The request's prompts, then those of options: points with at most one box show one thing, several boxes as many
/// things.
fn prompts(request: &MaskRequest) -> Result<Vec<MaskPrompt>> {
    let given = &request.options;
    let mut prompts = request.prompts.clone();
    let groups = |key, length| -> Result<Vec<Vec<f64>>> {
        let values: Vec<f64> = given.get(key).unwrap_or_default();
        if !values.len().is_multiple_of(length) {
            let message = format!("{} numbers; expected {length} for each", values.len());
            return Err(Error::request(key.name(), message));
        }
        Ok(values.chunks_exact(length).map(<[f64]>::to_vec).collect())
    };
    let boxes = groups(&shared::BOX, 4)?;
    let mut points = Vec::new();
    for (key, inside) in [(&shared::POINT, true), (&shared::NEGATIVE_POINT, false)] {
        points.extend(
            groups(key, 2)?
                .into_iter()
                .map(|at| ([at[0], at[1]], inside)),
        );
    }
    if boxes.len() > 1 && !points.is_empty() {
        return Err(Error::request(
            "point",
            format!(
                "{} boxes are given, and a point would belong to one of them; `boxes` FILE says to which",
                boxes.len()
            ),
        ));
    }
    let bounds = |values: &Vec<f64>| [values[0], values[1], values[2], values[3]];
    match (&boxes[..], points.is_empty()) {
        ([], true) => {}
        (_, false) => prompts.push(MaskPrompt {
            name: None,
            points,
            bounds: boxes.first().map(bounds),
        }),
        (boxes, true) => prompts.extend(boxes.iter().map(|values| MaskPrompt {
            bounds: Some(bounds(values)),
            ..MaskPrompt::default()
        })),
    }
    let own = prompts.len();
    let check = |prompts: &[MaskPrompt], option: &'static str| {
        for (index, prompt) in prompts.iter().enumerate() {
            let place = if prompts.len() > 1 {
                format!("{index}: ")
            } else {
                String::new()
            };
            prompt
                .check(request.size())
                .map_err(|problem| Error::request(option, format!("{place}{problem}")))?;
        }
        Ok::<(), Error>(())
    };
    check(&prompts, if boxes.is_empty() { "point" } else { "box" })?;
    if let Some(text) = given.get(&shared::BOXES) {
        let definition = shared::BOXES.definition();
        let label = given.source(definition).unwrap_or("boxes");
        let read = MaskPrompt::read_all(&text, label);
        prompts.extend(read.map_err(|error| error.of("boxes"))?);
        check(&prompts[own..], "boxes")?;
    }
    if prompts.len() > MOST_PROMPTS {
        let message = format!(
            "{} prompts; at most {MOST_PROMPTS} are accepted",
            prompts.len()
        );
        return Err(Error::request("boxes", message));
    }
    Ok(prompts)
}

fn which(given: &Options) -> Which {
    match given.get(&shared::MULTIMASK).as_deref() {
        Some("single") => Which::Single,
        Some("best") => Which::Best,
        Some("all") => Which::All,
        _ => Which::Auto,
    }
}

fn everything(given: &Options, threshold: f32, [width, height]: [usize; 2]) -> Result<Everything> {
    let usual = Everything::default();
    let mut settings = Everything {
        points_per_side: given
            .get(&own::POINTS_PER_SIDE)
            .unwrap_or(usual.points_per_side),
        points_per_batch: given
            .get(&own::POINTS_PER_BATCH)
            .unwrap_or(usual.points_per_batch),
        pred_iou_thresh: given
            .get(&own::PRED_IOU_THRESH)
            .unwrap_or(usual.pred_iou_thresh),
        stability_score_thresh: given
            .get(&own::STABILITY_SCORE_THRESH)
            .unwrap_or(usual.stability_score_thresh),
        stability_score_offset: given
            .get(&own::STABILITY_SCORE_OFFSET)
            .unwrap_or(usual.stability_score_offset),
        mask_threshold: threshold,
        box_nms_thresh: given
            .get(&own::BOX_NMS_THRESH)
            .unwrap_or(usual.box_nms_thresh),
        crop_n_layers: given
            .get(&own::CROP_N_LAYERS)
            .unwrap_or(usual.crop_n_layers),
        crop_nms_thresh: given
            .get(&own::CROP_NMS_THRESH)
            .unwrap_or(usual.crop_nms_thresh),
        crop_overlap_ratio: given
            .get(&own::CROP_OVERLAP_RATIO)
            .unwrap_or(usual.crop_overlap_ratio),
        crop_n_points_downscale_factor: given
            .get(&own::CROP_DOWNSCALE)
            .unwrap_or(usual.crop_n_points_downscale_factor),
        min_mask_region_area: given
            .get(&own::MIN_MASK_REGION_AREA)
            .unwrap_or(usual.min_mask_region_area),
    };
    settings.check()?;
    // What is found does not depend on how many points go together.
    let each = 4 * MASKS_OF_A_POINT * (width as u64) * (height as u64);
    let most = (LOGITS / each.max(1)).max(1) as usize;
    settings.points_per_batch = settings.points_per_batch.min(most);
    Ok(settings)
}

impl SamPlan {
    /// Effective values, for descriptions.
    pub fn settings(&self) -> Map<String, Value> {
        let mut document = json!({"mask_threshold": self.threshold});
        match &self.sought {
            Sought::Prompts(which) => {
                document["multimask"] = json!(match which {
                    Which::Auto => "auto",
                    Which::Single => "single",
                    Which::Best => "best",
                    Which::All => "all",
                });
            }
            Sought::Everything(found) => {
                document["everything"] = json!(true);
                document["points_per_side"] = json!(found.points_per_side);
                document["points_per_batch"] = json!(found.points_per_batch);
                document["pred_iou_thresh"] = json!(found.pred_iou_thresh);
                document["stability_score_thresh"] = json!(found.stability_score_thresh);
                document["crop_n_layers"] = json!(found.crop_n_layers);
                document["crop_overlap_ratio"] = json!(found.crop_overlap_ratio);
                document["crop_n_points_downscale_factor"] =
                    json!(found.crop_n_points_downscale_factor);
            }
        }
        match document {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// Estimates every stage's need and refuses what cannot fit; what is loaded already needs nothing.
    ///
    /// # Errors
    /// The stage that needs too much.
    pub fn memory(
        &self,
        files: &Files,
        size: [usize; 2],
        loaded: bool,
    ) -> Result<Vec<StageMemory>> {
        let config = &files.network.config;
        let available = memory::available();
        let weights = if loaded {
            0
        } else {
            (files.network.count() as f64 * files.bytes_per_weight()) as u64
        };
        let cells = (config.grid() as u64).pow(2);
        let encoder = files.encoder_bytes();
        let frame = (config.image_size() as u64).pow(2);
        let pixels = (size[0] as u64) * (size[1] as u64);
        let masks = config.mask_decoder_config.masks() as u64;
        let (together, prompts) = match &self.sought {
            // Of a prompt, one mask after another: whether a pixel is inside, and its byte in a file.
            Sought::Prompts(_) => (2, TOGETHER),
            Sought::Everything(found) => {
                let points = found.points_per_batch;
                (4 * masks * points as u64, points)
            }
        };
        // The picture as every layer sees it, and what makes those of prompts of it.
        let copies = 24 + two_way::together() as u64;
        let decoder = together * pixels
            + 4 * masks * frame
            + 4 * masks * 16 * cells * prompts as u64
            + copies * cells * 4 * config.mask_decoder_config.hidden_size as u64;
        let mut stages = Vec::new();
        for (stage, needed, suggestion) in [
            (
                "encode",
                weights.saturating_add(encoder),
                "use a smaller model, `quantize-transformer` 8bit, or free memory",
            ),
            (
                "decode",
                weights.saturating_add(decoder),
                "use a smaller picture, `points-per-batch` 1, or free memory",
            ),
        ] {
            memory::check(stage, needed, available, suggestion)?;
            stages.push(StageMemory { stage, needed });
        }
        Ok(stages)
    }
}

impl Everything {
    /// Batches of points that a picture of this size takes.
    pub(super) fn batches(&self, size: [usize; 2]) -> usize {
        let parts = crops(size, self.crop_n_layers, self.crop_overlap_ratio);
        let of = |part: &Crop| {
            self.points_of(part.layer)
                .pow(2)
                .div_ceil(self.points_per_batch.max(1))
        };
        parts.iter().map(of).sum()
    }
}
