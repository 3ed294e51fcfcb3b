//! Segment Anything against the goldens of its references, and against itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_models::component::{ComponentWeights, LoadSettings, NamedTensors, Sizes, read_inputs};
use brisk_models::sam::{COMPONENT, MaskDecoder, PointLabel, Points, Prompts, SamConfig};
use brisk_nn::{Storage, Tensor, Trace, Weights, ops};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource, open_weights};
use brisk_testkit::{Golden, assert_close, fixtures_dir, values};

const CASES: [&str; 3] = ["base", "bare", "resized"];
const TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> ModelFolder {
    ModelFolder::Disk(fixtures_dir().join("sam").join(case))
}

fn config(case: &str) -> SamConfig {
    SamConfig::from_json(&folder(case).read("config.json").unwrap(), case).unwrap()
}

/// The inputs of a golden as a file of them.
fn inputs(path: &str) -> Arc<dyn TensorSource> {
    let source = open_weights(&fixtures_dir().join(path)).unwrap();
    let names = source.names().into_iter();
    let map: BTreeMap<String, Slice> = names
        .filter_map(|name| {
            Some((
                name.strip_prefix("inputs.")?.to_owned(),
                Slice::whole(&*name),
            ))
        })
        .collect();
    Arc::new(MappedSource::new(source, map).unwrap())
}

fn run(case: &str, entry: &str, golden: &str, see: &mut dyn FnMut(&str, &Tensor)) -> NamedTensors {
    let folder = folder(case);
    let config = (COMPONENT.open)(&folder.read("config.json").unwrap(), case).unwrap();
    let entry = COMPONENT.entry(entry).unwrap();
    let dimension = |word: &str| config.dimension(word);
    let inputs = read_inputs(&config.inputs(entry), &dimension, &*inputs(golden), golden).unwrap();
    let weights = ComponentWeights::Stored(folder.open_component("", None).unwrap());
    let model = config
        .load(entry, &weights, &LoadSettings::default())
        .unwrap();
    let mut ready = model
        .prepare(&inputs, &Sizes::default())
        .unwrap_or_else(|error| panic!("{error:?}"));
    ready.run(&mut Trace::details(see)).unwrap();
    ready.outputs().unwrap()
}

#[test]
fn the_image_encoder_agrees_layer_by_layer() {
    for (case, golden_of) in [
        ("base", "base"),
        ("bare", "bare"),
        ("resized", "resized"),
        ("authors", "base"),
    ] {
        let path = format!("sam/{golden_of}/golden_image_encoder.safetensors");
        let mut golden = Golden::open(&path);
        let mut compared = 0;
        let mut see = |name: &str, x: &Tensor| {
            if name != "neck" {
                assert!(
                    golden.compare(&format!("blocks.{name}"), x, TOLERANCE),
                    "{name}"
                );
                compared += 1;
            }
        };
        let outputs = run(case, "image_encoder", &path, &mut see);
        let found = outputs.required("image_embeddings").unwrap();
        assert!(golden.compare("outputs.image_embeddings", found, TOLERANCE));
        assert_eq!(golden.names("blocks.").len(), compared, "{case}");
        golden.report();
    }
}

#[test]
fn masks_of_every_kind_of_prompt_agree() {
    let kinds = [
        "point",
        "points",
        "left_out",
        "box",
        "box_and_points",
        "mask",
        "all",
        "nothing",
        "pictures",
    ];
    for (case, golden_of) in [
        ("base", "base"),
        ("bare", "bare"),
        ("resized", "resized"),
        ("authors", "base"),
    ] {
        for kind in kinds {
            let path = format!("sam/{golden_of}/golden_mask_decoder_{kind}.safetensors");
            let mut golden = Golden::open(&path);
            let mut shown = Vec::new();
            let mut see = |name: &str, x: &Tensor| match name {
                "prompts" => shown.push(x.clone()),
                _ => drop(golden.compare(&format!("blocks.{name}"), x, TOLERANCE)),
            };
            let outputs = run(case, "mask_decoder", &path, &mut see);
            if !shown.is_empty() {
                let shown = Tensor::cat(&shown, 0).unwrap();
                assert!(golden.compare("blocks.sparse", &shown, TOLERANCE), "{path}");
            }
            for name in ["low_res_masks", "iou_predictions"] {
                let found = outputs.required(name).unwrap();
                assert!(
                    golden.compare(&format!("outputs.{name}"), found, TOLERANCE),
                    "{path}"
                );
            }
            let (_, compared) = golden.summary();
            let wanted = golden.names("blocks.").len() + 2;
            assert_eq!(compared, wanted, "{path}");
            golden.report();
        }
    }
}

fn decoder(case: &str) -> MaskDecoder {
    let weights = Weights::from_source(folder(case).open_component("", None).unwrap());
    MaskDecoder::load_alone(&config(case), &weights).unwrap()
}

fn many(count: usize) -> Prompts {
    let at = |index: usize| (index * 37 % 80) as f32;
    Prompts {
        points: Some(Points {
            places: (0..count)
                .map(|i| vec![[at(i), at(i + 5)], [at(2 * i), at(3 * i)]])
                .collect(),
            labels: vec![vec![PointLabel::Foreground, PointLabel::Background]; count],
        }),
        ..Prompts::default()
    }
}

/// Prompts are decoded some at a time; a prompt's masks do not depend on its company.
#[test]
fn prompts_do_not_depend_on_each_other() {
    let golden = Golden::open("sam/base/golden_mask_decoder_point.safetensors");
    let model = decoder("base");
    let embedding = ops::to_nhwc(&golden.get("inputs.image_embeddings")).unwrap();
    let picture = model.prepare(&embedding).unwrap();
    let prompts = many(11);
    let all = model
        .decode(&picture, &prompts, &mut Trace::none())
        .unwrap();
    assert_eq!(all.masks.dims(), [11, 4, 40, 40]);
    for index in [0, 4, 10] {
        let one = prompts.some(index, 1).unwrap();
        let one = model.decode(&picture, &one, &mut Trace::none()).unwrap();
        assert_close(
            "masks",
            &all.masks.narrow(0, index, 1).unwrap(),
            &one.masks,
            1e-5,
        );
        assert_close(
            "qualities",
            &all.qualities.narrow(0, index, 1).unwrap(),
            &one.qualities,
            1e-5,
        );
    }
}

/// Several prompts of few tokens share the picture's cells, unless somebody wants to see each prompt's own.
#[test]
fn prompts_that_share_cells_are_decoded_as_those_that_do_not() {
    let mut config = SamConfig::default();
    config.prompt_encoder_config.image_size = 11 * config.prompt_encoder_config.patch_size;
    let model = MaskDecoder::load_alone(&config, &Weights::random(5, Storage::F32)).unwrap();
    let noise = |at: usize| ((at * 7919 % 9973) as f32 / 9973.0 - 0.5) * 3.0;
    let embedding = (0..121 * 256).map(noise).collect();
    let embedding = Tensor::from_vec(embedding, (1, 11, 11, 256)).unwrap();
    let boxes = |count: usize| {
        let side = |index: usize| (index * 41 % 60) as f32;
        let each = (0..count).map(|i| [side(i), side(i + 3), 70.0 + side(i), 160.0]);
        Some(each.collect())
    };
    let picture = model.prepare(&embedding).unwrap();
    for (boxes, count, points) in [
        (boxes(5), 5, false),
        (boxes(37), 37, true),
        (None, 18, true),
    ] {
        let points = points.then(|| many(count).points).flatten();
        let prompts = Prompts {
            points,
            boxes,
            masks: None,
        };
        let shared = model
            .decode(&picture, &prompts, &mut Trace::none())
            .unwrap();
        let mut layers = 0;
        let mut see = |name: &str, _: &Tensor| layers += usize::from(name == "layers.1.image");
        let plain = model
            .decode(&picture, &prompts, &mut Trace::details(&mut see))
            .unwrap();
        assert_eq!(layers, count.div_ceil(4));
        assert_close("masks", &shared.masks, &plain.masks, 2e-5);
        assert_close("qualities", &shared.qualities, &plain.qualities, 2e-5);
        let mut seen = Vec::new();
        let mut see = |name: &str, _: &Tensor| seen.push(name.to_owned());
        model
            .decode(&picture, &prompts, &mut Trace::parts(&mut see))
            .unwrap();
        assert!(seen.iter().all(|name| !name.contains("image")), "{seen:?}");
        assert_eq!(&seen[seen.len() - 2..], ["tokens", "masks"]);
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (model, config) = (decoder("base"), config("base"));
    let picture = model
        .prepare(&Tensor::zeros((1, 10, 10, 32), brisk_nn::DType::F32).unwrap())
        .unwrap();
    let decode = |prompts: &Prompts| {
        let decoded = model.decode(&picture, prompts, &mut Trace::none());
        decoded
            .map(|decoded| values(&decoded.masks))
            .unwrap_err()
            .to_string()
    };
    let mut uneven = many(2);
    uneven.points.as_mut().unwrap().places[1].pop();
    assert!(decode(&uneven).contains("different numbers of points"));
    let boxes = Some(vec![[0.0; 4]; 3]);
    assert!(decode(&Prompts { boxes, ..many(2) }).contains("3 boxes"));
    let masks = Some(Tensor::zeros((2, 39, 40, 1), brisk_nn::DType::F32).unwrap());
    assert!(decode(&Prompts { masks, ..many(2) }).contains("39x40"));
    let entry = COMPONENT.entry("mask_decoder").unwrap();
    let opened = (COMPONENT.open)(&folder("base").read("config.json").unwrap(), "base").unwrap();
    let dimension = |word: &str| opened.dimension(word);
    let path = "sam/base/golden_mask_decoder_point.safetensors";
    let read = read_inputs(&opened.inputs(entry), &dimension, &*inputs(path), path).unwrap();
    let kept = |names: &[&str]| -> NamedTensors {
        let all = read.iter().filter(|(name, _)| names.contains(name));
        all.map(|(name, tensor)| (name.to_owned(), tensor.clone()))
            .collect()
    };
    let weights = ComponentWeights::Stored(folder("base").open_component("", None).unwrap());
    let model = opened
        .load(entry, &weights, &LoadSettings::default())
        .unwrap();
    let refused = model
        .run(&kept(&["image_embeddings", "point_coords"]))
        .unwrap_err();
    assert!(refused.to_string().contains("go together"), "{refused}");
    let mut several = kept(&["point_coords", "point_labels"]);
    let pictures = Tensor::zeros(
        (2, config.vision_config.output_channels(), 10, 10),
        brisk_nn::DType::F32,
    );
    several.insert("image_embeddings", pictures.unwrap());
    let refused = model.run(&several).unwrap_err().to_string();
    assert!(refused.contains("2 pictures and 3 prompts"), "{refused}");
}

#[test]
fn every_case_is_recognised() {
    for (case, words) in CASES
        .iter()
        .map(|case| (*case, "Segment Anything ViT"))
        .chain([("authors", "authors' names")])
    {
        let source = folder(case).open_component("", None).unwrap();
        let found = (COMPONENT.recognise)(&*source, &BTreeMap::new())
            .unwrap()
            .unwrap();
        assert!(found.name.contains(words), "{}", found.name);
    }
}
