//! Char-SAM (arXiv 2412.19917): the ablation over what shows Segment Anything the text.

use crate::error::Result;
use crate::options::{Options, word_keys as keys};
use crate::registry;
use crate::reproduce::{Evidence, Laboratory, MaskFigures, Measured, Reproduction};
use crate::request::OpenSettings;

/// The claim of the paper.
pub(super) static CHAR_SAM: Reproduction = Reproduction {
    paper: "char-sam",
    title: "Char-SAM: Turning Segment Anything Model into Scene Text Segmentation Annotator with Character-level Visual \
            Prompts",
    arxiv: "2412.19917",
    claim: "boxes of characters and points by the shapes of letters make Segment Anything a segmenter of text, without \
            training",
    reported: &[],
    reported_on: "",
    model: "sam-text",
    beside: None,
    run,
};

/// Least gain of points over true boxes of characters alone, in fgIoU and in hole recall.
const LEAST_GAIN: f64 = 0.05;
const LEAST_HOLES: f64 = 0.20;

/// What is varied: the name, the prompt, and which points.
static ROWS: [(&str, &str, &str); 6] = [
    ("word box", "word", "both"),
    ("true character box", "char-gt", "both"),
    ("found character box (CBR)", "cbr", "both"),
    ("CBR, points on strokes", "cbr+cgr", "pos"),
    ("CBR, points in holes", "cbr+cgr", "neg"),
    ("CBR, both points (CGR)", "cbr+cgr", "both"),
];

fn run(laboratory: &Laboratory<'_>) -> Result<Evidence> {
    let mut model = registry::open_masks(&laboratory.model, &OpenSettings::default())?;
    let settings: Vec<Options> = ROWS
        .iter()
        .map(|(_, prompt, points)| {
            let options = Options::new().with(&keys::PROMPT, (*prompt).to_owned());
            match *prompt {
                "cbr+cgr" => options.with(&keys::POINTS, (*points).to_owned()),
                _ => options,
            }
        })
        .collect();
    let found = (laboratory.judge_masks)(&mut *model, &settings, laboratory.control)?;
    let rows = ROWS
        .iter()
        .zip(&found)
        .map(|((name, ..), figures)| Measured::new(*name, "", shown(figures)));
    let [word, given, boxes, .., both] = found[..] else {
        let message = "the judge gave fewer figures than there are settings";
        return Err(crate::Error::request("paper", message));
    };
    let appears = word.fg_iou < given.fg_iou
        && both.fg_iou > boxes.fg_iou
        && both.fg_iou >= given.fg_iou + LEAST_GAIN
        && both.hole_recall >= boxes.hole_recall + LEAST_HOLES;
    Ok(Evidence {
        setting: "scenes of words that are composed with every pixel known and that nothing was trained on; the paper's \
                  own figures (TextSeg, with SAM of Meta) could not be read"
            .to_owned(),
        rows: rows.collect(),
        effect: format!(
            "fgIoU rises from word boxes over boxes of characters to points, which give {} points or more over true \
             boxes alone, and leave {} points more of the holes open",
            100.0 * LEAST_GAIN,
            100.0 * LEAST_HOLES
        ),
        appears,
    })
}

fn shown(figures: &MaskFigures) -> String {
    format!(
        "fgIoU {:.1}, F {:.1}, holes open {:.1}, borders {:.1}",
        100.0 * figures.fg_iou,
        100.0 * figures.f_score,
        100.0 * figures.hole_recall,
        100.0 * figures.boundary_f
    )
}
