//! MobileSAM and EfficientViT-SAM from pictures to masks in the pictures' size, against their authors' predictors.

use brisk_media::Picture;
use brisk_models::sam::{SamConfig, plain_names};
use brisk_nn::{Tensor, Weights, ops};
use brisk_pipelines::families::sam::{Frame, PicturePrompt, PredictedMasks, Segmenter};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, fixtures_dir, values};

const TOLERANCE: f64 = 1e-4;

fn open(case: &str) -> (SamConfig, Segmenter) {
    let folder = ModelFolder::Disk(fixtures_dir().join("sam").join(case));
    let source = folder.open_component("", None).unwrap();
    let config = SamConfig::of_tensors(&*source).unwrap();
    let weights = Weights::from_source(plain_names(source).unwrap());
    let segmenter = Segmenter::load(&config, &weights).unwrap();
    (config, segmenter)
}

fn picture(golden: &Golden) -> Picture {
    let image = golden.get("inputs.image");
    let (_, height, width, _) = image.dims4().unwrap();
    let pixels = image.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    Picture::new(width, height, pixels).unwrap()
}

#[test]
fn pictures_points_boxes_and_masks_agree() {
    for case in ["mobile", "efficientvit_l", "efficientvit_xl"] {
        let (config, mut segmenter) = open(case);
        for name in ["wide", "high"] {
            let mut golden = Golden::open(&format!("sam/encoders/{case}_{name}.safetensors"));
            let picture = picture(&golden);
            let frame = Frame::new(config.encoder_size(), [picture.width, picture.height]);
            let pixels = ops::to_nchw(&frame.pixels(&picture).unwrap()).unwrap();
            assert!(golden.compare("blocks.pixel_values", &pixels, 1e-6));
            let embedding = segmenter.embed(&picture).unwrap();
            let planes = ops::to_nchw(&embedding).unwrap();
            assert!(golden.compare("blocks.image_embeddings", &planes, TOLERANCE));
            segmenter
                .look_at([picture.width, picture.height], &embedding)
                .unwrap();

            let places = values(&golden.get("inputs.points"));
            let labels = values(&golden.get("inputs.labels"));
            let points = places
                .chunks_exact(2)
                .zip(labels)
                .map(|(at, label)| ([f64::from(at[0]), f64::from(at[1])], label > 0.5));
            let points: Vec<_> = points.collect();
            let bounds: Vec<f64> = values(&golden.get("inputs.box"))
                .into_iter()
                .map(f64::from)
                .collect();
            let bounds: Option<[f64; 4]> = Some(bounds.try_into().unwrap());
            let mut both = PicturePrompt {
                points: points.clone(),
                bounds,
                mask: None,
            };
            let point = PicturePrompt {
                points: points[..1].to_vec(),
                ..PicturePrompt::default()
            };
            let boxed = PicturePrompt {
                bounds,
                ..PicturePrompt::default()
            };
            let mut compare = |name: &str, found: &PredictedMasks, from: usize, to: usize| {
                let shape = (to - from, picture.height, picture.width);
                let logits: Vec<f32> = (from..to)
                    .flat_map(|mask| found.logits(mask).unwrap())
                    .collect();
                let logits = Tensor::from_vec(logits, shape).unwrap();
                let qualities = Tensor::from_slice(&found.qualities[from..to], to - from).unwrap();
                let name = format!("outputs.{name}");
                assert!(golden.compare(&format!("{name}logits"), &logits, TOLERANCE));
                assert!(golden.compare(&format!("{name}ious"), &qualities, TOLERANCE));
            };
            compare("point_", &segmenter.predict(&point).unwrap(), 0, 1);
            compare("box_", &segmenter.predict(&boxed).unwrap(), 0, 1);
            let found = segmenter.predict(&both).unwrap();
            compare("", &found, 1, 4);
            // The first of several masks goes in again.
            let coarse = found.coarse.narrow(1, 1, 1).unwrap().contiguous().unwrap();
            let (_, _, rows, columns) = coarse.dims4().unwrap();
            both.mask = Some(coarse.reshape((1, rows, columns, 1)).unwrap());
            compare("refined_", &segmenter.predict(&both).unwrap(), 0, 1);
            golden.report();
        }
    }
}
