//! Options of Segment Anything beside those that families share.

use crate::options::{Definition, Heading, Honoured, Key, Kind, Range, keys, mask_keys};

const SHARE: Kind = Kind::Number(Range::of(0.0, 1.0));

/// A setting of how everything is found.
const fn of_everything<T>(key: Key<T>) -> Key<T> {
    key.under(Heading::Finding).needs("everything").rare()
}

/// Points along a side of the picture.
pub static POINTS_PER_SIDE: Key<usize> = of_everything(Key::new(
    "points-per-side",
    "N",
    Kind::Whole(1, 1024),
    "points along a side of the grid (default 32)",
));

/// Points whose masks exist at once.
pub static POINTS_PER_BATCH: Key<usize> = of_everything(Key::new(
    "points-per-batch",
    "N",
    Kind::Whole(1, 4096),
    "points whose masks exist at once (default 64, fewer where memory is short)",
));

/// What a mask's expected quality must exceed.
pub static PRED_IOU_THRESH: Key<f32> = of_everything(Key::new(
    "pred-iou-thresh",
    "X",
    SHARE,
    "least quality that the model expects of a mask (default 0.88)",
));

/// How much of a mask must stay when its threshold moves.
pub static STABILITY_SCORE_THRESH: Key<f32> = of_everything(Key::new(
    "stability-score-thresh",
    "X",
    SHARE,
    "share of a mask that stays when its threshold moves (default 0.95)",
));

/// By how much it moves.
pub static STABILITY_SCORE_OFFSET: Key<f32> = of_everything(Key::new(
    "stability-score-offset",
    "X",
    Kind::Number(Range::of(0.0, f64::INFINITY)),
    "by how much the threshold moves up and down (default 1)",
));

/// Overlap from which on the better of two masks stays alone.
pub static BOX_NMS_THRESH: Key<f32> = of_everything(Key::new(
    "box-nms-thresh",
    "X",
    SHARE,
    "overlap of bounds from which on the better of two masks stays alone (default 0.7)",
));

/// Layers of parts in which the picture is looked at again.
pub static CROP_N_LAYERS: Key<usize> = of_everything(Key::new(
    "crop-n-layers",
    "N",
    Kind::Whole(0, 6),
    "look again at parts of the picture: 4, then 16, … (default 0 layers)",
));

/// Overlap from which on the mask of the smaller part stays alone.
pub static CROP_NMS_THRESH: Key<f32> = of_everything(Key::new(
    "crop-nms-thresh",
    "X",
    SHARE,
    "the same between parts (default 0.7)",
));

/// Overlap of parts.
pub static CROP_OVERLAP_RATIO: Key<f64> = of_everything(Key::new(
    "crop-overlap-ratio",
    "X",
    Kind::Number(Range::of(0.0, 0.99)),
    "overlap of parts as a share of the shorter side (default 0.341)",
));

/// By how much points become fewer from layer to layer.
pub static CROP_DOWNSCALE: Key<usize> = of_everything(Key::new(
    "crop-n-points-downscale-factor",
    "N",
    Kind::Whole(1, 1024),
    "how many times fewer points along a side in each further layer (default 1)",
));

/// Smallest holes and separate parts that stay.
pub static MIN_MASK_REGION_AREA: Key<usize> = of_everything(Key::new(
    "min-mask-region-area",
    "PIXELS",
    Kind::Whole(0, 1 << 27),
    "fill smaller holes and drop smaller parts (default 0: none)",
));

const fn honoured(option: &'static Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// What it honours.
pub(in crate::families) const HONOURED: &[Honoured] = &[
    honoured(mask_keys::POINT.definition(), ""),
    honoured(mask_keys::NEGATIVE_POINT.definition(), ""),
    honoured(mask_keys::BOX.definition(), ""),
    honoured(mask_keys::BOXES.definition(), ""),
    honoured(mask_keys::EVERYTHING.definition(), ""),
    honoured(mask_keys::MULTIMASK.definition(), "auto"),
    honoured(mask_keys::MASK_THRESHOLD.definition(), "0"),
    honoured(POINTS_PER_SIDE.definition(), "32"),
    honoured(POINTS_PER_BATCH.definition(), "64"),
    honoured(PRED_IOU_THRESH.definition(), "0.88"),
    honoured(STABILITY_SCORE_THRESH.definition(), "0.95"),
    honoured(STABILITY_SCORE_OFFSET.definition(), "1"),
    honoured(BOX_NMS_THRESH.definition(), "0.7"),
    honoured(CROP_N_LAYERS.definition(), "0"),
    honoured(CROP_NMS_THRESH.definition(), "0.7"),
    honoured(CROP_OVERLAP_RATIO.definition(), "0.341"),
    honoured(CROP_DOWNSCALE.definition(), "1"),
    honoured(MIN_MASK_REGION_AREA.definition(), "0"),
    honoured(mask_keys::EMBEDDING.definition(), ""),
    honoured(keys::VARIANT.definition(), ""),
    honoured(keys::EXACT.definition(), ""),
    honoured(keys::QUANTIZE_TRANSFORMER.definition(), "none"),
];
