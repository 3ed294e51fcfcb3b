//! Pictures, prompts in their pixels, and masks of everything, against the authors' code.

use brisk_media::mask::Runs;
use brisk_media::{Mask, Picture};
use brisk_models::sam::{SamConfig, plain_names};
use brisk_nn::{Tensor, Weights, ops};
use brisk_pipelines::Result;
use brisk_pipelines::families::sam::{
    Everything, Frame, PicturePrompt, PointMasks, SegmentPoints, Segmenter, crops,
};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, assert_close, fixtures_dir, values};
use serde_json::Value;

fn golden(name: &str) -> Golden {
    Golden::open(&format!("sam/predictor/{name}.safetensors"))
}

fn picture(golden: &Golden) -> Picture {
    let image = golden.get("inputs.image");
    let (_, height, width, _) = image.dims4().unwrap();
    let pixels = image.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    Picture::new(width, height, pixels).unwrap()
}

fn pairs(golden: &Golden, name: &str) -> Vec<[f64; 2]> {
    let values = values(&golden.get(name));
    let pairs = values.chunks_exact(2);
    pairs
        .map(|pair| [f64::from(pair[0]), f64::from(pair[1])])
        .collect()
}

fn segmenter() -> Segmenter {
    let folder = ModelFolder::Disk(fixtures_dir().join("sam/authors"));
    let config = SamConfig::from_json(&folder.read("config.json").unwrap(), "authors").unwrap();
    let source = plain_names(folder.open_component("", None).unwrap()).unwrap();
    Segmenter::load(&config, &Weights::from_source(source)).unwrap()
}

#[test]
fn pictures_and_places_are_framed_as_the_authors_do() {
    for name in ["larger", "smaller"] {
        let mut golden = golden(name);
        let picture = picture(&golden);
        let frame = Frame::new(80, [picture.width, picture.height]);
        let pixels = ops::to_nchw(&frame.pixels(&picture).unwrap()).unwrap();
        assert!(golden.compare("blocks.pixel_values", &pixels, 1e-6));
        for prompt in ["points", "box"] {
            let places = pairs(&golden, &format!("inputs.{prompt}"));
            let found = places.into_iter().flat_map(|place| frame.place(place));
            let wanted = values(&golden.get(&format!("blocks.{prompt}")));
            // The golden's places were rounded to f32 before they are framed here.
            for (found, wanted) in found.zip(wanted) {
                assert!(
                    (found - wanted).abs() < 1e-5,
                    "{name} {prompt}: {found} {wanted}"
                );
            }
        }
    }
}

#[test]
fn masks_in_the_pictures_size_agree() {
    let mut segmenter = segmenter();
    assert!(segmenter.predict(&PicturePrompt::default()).is_err());
    for name in ["larger", "smaller"] {
        let mut golden = golden(name);
        let picture = picture(&golden);
        segmenter.look(&picture).unwrap();
        let labels = values(&golden.get("inputs.labels"));
        let points = pairs(&golden, "inputs.points").into_iter().zip(labels);
        let bounds: Vec<f64> = pairs(&golden, "inputs.box").concat();
        let mut prompt = PicturePrompt {
            points: points.map(|(place, label)| (place, label > 0.5)).collect(),
            bounds: Some(bounds.try_into().unwrap()),
            mask: None,
        };
        let found = segmenter.predict(&prompt).unwrap();
        let size = picture.width * picture.height;
        let logits = |from: &[f32]| {
            let shape = (from.len() / size, picture.height, picture.width);
            Tensor::from_slice(from, shape).unwrap()
        };
        let several: Vec<f32> = (1..4)
            .flat_map(|mask| found.logits(mask).unwrap())
            .collect();
        let several = logits(&several);
        assert!(golden.compare("outputs.logits", &several, 1e-4));
        let qualities = Tensor::from_slice(&found.qualities[1..], 3).unwrap();
        assert!(golden.compare("outputs.ious", &qualities, 1e-4));
        // The first of several masks goes in again.
        let coarse = found.coarse.narrow(1, 1, 1).unwrap().contiguous().unwrap();
        let (_, _, rows, columns) = coarse.dims4().unwrap();
        prompt.mask = Some(coarse.reshape((1, rows, columns, 1)).unwrap());
        let refined = segmenter.predict(&prompt).unwrap();
        assert!(golden.compare(
            "outputs.refined_logits",
            &logits(&refined.logits(0).unwrap()),
            1e-4
        ));
        let quality = Tensor::from_slice(&refined.qualities[..1], 1).unwrap();
        assert_close(name, &quality, &golden.get("outputs.refined_ious"), 1e-4);
    }
}

/// The same discs as in the script that made the goldens.
#[derive(Default)]
struct Discs {
    size: [i64; 2],
}

impl SegmentPoints for Discs {
    fn look(&mut self, picture: &Picture) -> Result<()> {
        self.size = [picture.width as i64, picture.height as i64];
        Ok(())
    }

    fn masks(&mut self, points: &[[f64; 2]]) -> Result<Vec<PointMasks>> {
        let [width, height] = self.size;
        let of = |[px, py]: [i64; 2], m: i64| {
            let radius = 3 + (7 * px + 13 * py + 5 * m) % 23;
            (0..height).flat_map(move |y| {
                (0..width).map(move |x| {
                    let logit = radius * radius - (x - px).pow(2) - (y - py).pow(2);
                    let logit = match m {
                        1 if (x + 2 * y) % 29 == 0 => -40,
                        2 if (x / 4 + y / 4) % 17 == 0 => 40,
                        _ => logit,
                    };
                    logit as f32 / 16.0
                })
            })
        };
        let masks = points.iter().map(|point| {
            let at = point.map(|at| at.floor() as i64);
            PointMasks {
                logits: (0..3).flat_map(|m| of(at, m)).collect(),
                qualities: (0..3)
                    .map(|m| ((3 * at[0] + 11 * at[1] + 17 * m) % 101) as f32 / 100.0)
                    .collect(),
            }
        });
        Ok(masks.collect())
    }
}

fn json(name: &str) -> Value {
    let path = fixtures_dir().join("sam/everything").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect()
}

#[test]
fn everything_is_found_as_the_authors_find_it() {
    let picture = Picture::filled(150, 118, [0; 3]);
    for (name, case) in json("masks.json").as_object().unwrap() {
        let given = &case["settings"];
        let number = |key: &str, usual: f64| {
            given
                .get(key)
                .map_or(usual, |value| value.as_f64().unwrap())
        };
        let count = |key: &str, usual: f64| number(key, usual) as usize;
        let settings = Everything {
            points_per_side: count("points_per_side", 32.0),
            points_per_batch: count("points_per_batch", 64.0),
            pred_iou_thresh: number("pred_iou_thresh", 0.88) as f32,
            stability_score_thresh: number("stability_score_thresh", 0.95) as f32,
            stability_score_offset: number("stability_score_offset", 1.0) as f32,
            mask_threshold: number("mask_threshold", 0.0) as f32,
            box_nms_thresh: number("box_nms_thresh", 0.7) as f32,
            crop_n_layers: count("crop_n_layers", 0.0),
            crop_nms_thresh: number("crop_nms_thresh", 0.7) as f32,
            crop_overlap_ratio: number("crop_overlap_ratio", 512.0 / 1500.0),
            crop_n_points_downscale_factor: count("crop_n_points_downscale_factor", 1.0),
            min_mask_region_area: count("min_mask_region_area", 0.0),
        };
        let found = settings.find(&mut Discs::default(), &picture).unwrap();
        let wanted = case["masks"].as_array().unwrap();
        assert_eq!(found.len(), wanted.len(), "{name}");
        for (found, wanted) in found.iter().zip(wanted) {
            let counts = numbers(&wanted["segmentation"]["counts"]);
            let counts: Vec<usize> = counts.into_iter().map(|count| count as usize).collect();
            assert_eq!(found.runs.counts(), counts, "{name}");
            assert_eq!(found.runs.area() as f64, wanted["area"].as_f64().unwrap());
            let [left, top, right, bottom] = found.bounds.map(|at| at as f64);
            assert_eq!(
                vec![left, top, right - left, bottom - top],
                numbers(&wanted["bbox"])
            );
            assert_eq!(
                found.quality,
                wanted["predicted_iou"].as_f64().unwrap() as f32
            );
            assert_eq!(
                found.stability,
                wanted["stability_score"].as_f64().unwrap() as f32
            );
            let place = numbers(&wanted["point_coords"][0]);
            assert!(
                found
                    .point
                    .iter()
                    .zip(&place)
                    .all(|(a, b)| (a - b).abs() < 1e-9)
            );
            let ([left, top, ..], [width, height]) = (found.crop.bounds, found.crop.size());
            let crop = [left, top, width, height].map(|at| at as f64);
            assert_eq!(crop.to_vec(), numbers(&wanted["crop_box"]));
        }
    }
}

#[test]
fn crops_lie_where_the_authors_put_them() {
    for case in json("crops.json").as_array().unwrap() {
        let size = numbers(&case["size"]);
        let layers = case["layers"].as_u64().unwrap() as usize;
        let found = crops(
            [size[1] as usize, size[0] as usize],
            layers,
            case["overlap"].as_f64().unwrap(),
        );
        let wanted: Vec<Vec<f64>> = case["boxes"]
            .as_array()
            .unwrap()
            .iter()
            .map(numbers)
            .collect();
        assert_eq!(found.len(), wanted.len());
        for (crop, wanted) in found.iter().zip(wanted) {
            let mut numbers = vec![crop.layer as f64];
            numbers.extend(crop.bounds.map(|at| at as f64));
            assert_eq!(numbers, wanted);
        }
    }
}

#[test]
fn small_regions_go_as_with_opencv() {
    let golden = Golden::open("sam/everything/regions.safetensors");
    let masks = golden.get("inputs.masks");
    let of = |x: &Tensor, index: usize| {
        let values = values(&x.narrow(0, index, 1).unwrap());
        Mask::new(50, 40, values.iter().map(|value| *value > 0.0).collect()).unwrap()
    };
    for least in [3, 9, 5000] {
        for index in 0..2 {
            let mask = of(&masks, index);
            let filled = mask.without_holes(least).unwrap_or(mask.clone());
            assert_eq!(
                filled,
                of(&golden.get(&format!("outputs.holes.{least}")), index),
                "{least}"
            );
            let alone = mask.without_islands(least).unwrap_or(mask.clone());
            assert_eq!(
                alone,
                of(&golden.get(&format!("outputs.islands.{least}")), index),
                "{least}"
            );
            assert_eq!(Mask::from(&Runs::from(&mask)), mask);
        }
    }
}

/// The networks in place of discs: what is found fits the picture.
#[test]
fn the_networks_find_masks_of_everything() {
    let picture = picture(&golden("larger"));
    let settings = Everything {
        points_per_side: 3,
        points_per_batch: 4,
        pred_iou_thresh: 0.0,
        stability_score_thresh: 0.0,
        ..Everything::default()
    };
    let found = settings.find(&mut segmenter(), &picture).unwrap();
    assert!(!found.is_empty());
    for one in &found {
        assert_eq!(one.runs.counts().iter().sum::<usize>(), 131 * 97);
    }
}
