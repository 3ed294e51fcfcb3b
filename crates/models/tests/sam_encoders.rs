//! MobileSAM and EfficientViT-SAM, loaded from files as their authors publish them, against the goldens of the authors'
//! classes.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_models::component::{
    ComponentConfig, ComponentWeights, LoadSettings, NamedTensors, Sizes,
};
use brisk_models::sam::{COMPONENT, SamConfig};
use brisk_nn::{Tensor, Trace, ops};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};
use brisk_testkit::{Golden, fixtures_dir, pattern};

const CASES: [(&str, &str); 3] = [
    ("mobile", "TinyViT"),
    ("efficientvit_l", "EfficientViT"),
    ("efficientvit_xl", "EfficientViT"),
];
const TOLERANCE: f64 = 1e-4;

fn source(case: &str) -> Arc<dyn TensorSource> {
    let folder = ModelFolder::Disk(fixtures_dir().join("sam").join(case));
    folder.open_component("", None).unwrap()
}

/// The image encoder's embedding of the pattern.
fn encode(
    config: &SamConfig,
    source: Arc<dyn TensorSource>,
    trace: &mut Trace,
) -> brisk_models::Result<Tensor> {
    let entry = COMPONENT.entry("image_encoder").unwrap();
    let weights = ComponentWeights::Stored(source);
    let model = config.load(entry, &weights, &LoadSettings::default())?;
    let side = config.encoder_size();
    let mut inputs = NamedTensors::default();
    inputs.insert("pixel_values", ops::to_nchw(&pattern(1, side, side))?);
    let mut ready = model
        .prepare(&inputs, &Sizes::default())
        .unwrap_or_else(|error| panic!("{error:?}"));
    ready.run(trace)?;
    Ok(ready.outputs()?.required("image_embeddings")?.clone())
}

#[test]
fn encoders_agree_block_by_block() {
    for (case, _) in CASES {
        let source = source(case);
        let config = SamConfig::of_tensors(&*source).unwrap();
        let mut golden = Golden::open(&format!("sam/encoders/{case}_image_encoder.safetensors"));
        let mut compared = 0;
        let mut see = |name: &str, x: &Tensor| {
            if name != "neck" {
                let name = format!("blocks.{name}");
                assert!(golden.compare(&name, x, TOLERANCE), "{case}: {name}");
                compared += 1;
            }
        };
        let found = encode(&config, source, &mut Trace::parts(&mut see)).unwrap();
        assert!(golden.compare("outputs.image_embeddings", &found, TOLERANCE));
        assert_eq!(golden.names("blocks.").len(), compared, "{case}");
        golden.report();
    }
}

/// Sizes of files are found by their tensors, and what is counted is what is loaded.
#[test]
fn files_are_recognised() {
    for (case, kind) in CASES {
        let source = source(case);
        let (found, recognised) = brisk_models::registry::recognise(&*source, &BTreeMap::new())
            .unwrap()
            .unwrap();
        assert_eq!(found.name, COMPONENT.name);
        assert!(recognised.name.contains(kind), "{}", recognised.name);
        let config = SamConfig::of_tensors(&*source).unwrap();
        assert!(config.description().contains(kind));
        // Statistics of batch norms are stored beside the parameters, and so is a classifier.
        let counted = |name: &String| {
            let beside = ["running_mean", "running_var", "num_batches_tracked"];
            !beside.iter().any(|part| name.ends_with(part)) && !name.contains("head.")
                || name.contains("iou_prediction_head.")
        };
        let size = |name: String| {
            let (_, shape) = source.info(&name).unwrap();
            shape.iter().product::<usize>() as u64
        };
        let stored: u64 = source.names().into_iter().filter(counted).map(size).sum();
        assert_eq!(config.parameters(), stored, "{case}");
    }
}

/// The file without one tensor.
fn without(source: Arc<dyn TensorSource>, name: &str) -> Arc<dyn TensorSource> {
    let names = source.names().into_iter().filter(|own| own != name);
    let map = names.map(|name| (name.clone(), Slice::whole(name)));
    let map: BTreeMap<String, Slice> = map.collect();
    Arc::new(MappedSource::new(source, map).unwrap())
}

#[test]
fn files_that_do_not_fit_are_refused_by_tensor() {
    for (case, name, own) in [
        (
            "mobile",
            "image_encoder.layers.2.blocks.1.attn.attention_biases",
            "vision_encoder.layers.2.blocks.1.attn.attention_biases",
        ),
        (
            "efficientvit_l",
            "image_encoder.backbone.stages.3.op_list.1.main.depth_conv.conv.bias",
            "vision_encoder.backbone.stages.3.op_list.1.main.depth_conv.conv.bias",
        ),
    ] {
        let whole = source(case);
        let config = SamConfig::of_tensors(&*whole).unwrap();
        let cut = without(whole.clone(), name);
        let refused = encode(&config, cut, &mut Trace::none()).unwrap_err();
        assert!(refused.to_string().contains(own), "{refused}");
        // The file of another model.
        let other = source(if case == "mobile" {
            "efficientvit_l"
        } else {
            "mobile"
        });
        assert!(encode(&config, other, &mut Trace::none()).is_err());
    }
    let entry = COMPONENT.entry("image_encoder").unwrap();
    let config = SamConfig::of_tensors(&*source("efficientvit_l")).unwrap();
    let weights = ComponentWeights::Stored(source("efficientvit_l"));
    let model = config
        .load(entry, &weights, &LoadSettings::default())
        .unwrap();
    let mut inputs = NamedTensors::default();
    let small = ops::to_nchw(&pattern(1, 64, 64)).unwrap();
    inputs.insert("pixel_values", small);
    let refused = model.run(&inputs).unwrap_err().to_string();
    assert!(refused.contains("expected 512x512"), "{refused}");
}
