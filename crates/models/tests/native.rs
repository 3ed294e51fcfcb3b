//! Files in the authors' layout give the same model as the converted ones.

mod common;

use std::sync::Arc;

use brisk_models::sana::native::{NativeHeads, detect, map};
use brisk_models::sana::{ForwardExtras, SanaConfig, SanaTransformer};
use brisk_nn::Weights;
use brisk_store::{Dtype, MappedSource, MemorySource, Slice, TensorSource};
use brisk_testkit::{Golden, fixtures_dir};
use common::{Inputs, TOLERANCE, run};

const HEADS: NativeHeads = NativeHeads {
    attention: 3,
    cross_attention: 2,
};

fn open(path: &str) -> Arc<dyn TensorSource> {
    brisk_store::open_weights(&fixtures_dir().join("native").join(path)).unwrap()
}

fn published(case: &str) -> SanaConfig {
    let path = fixtures_dir()
        .join("sana_transformer")
        .join(case)
        .join("config.json");
    SanaConfig::from_json(&std::fs::read(path).unwrap(), "config.json").unwrap()
}

fn agrees(case: &str, source: Arc<dyn TensorSource>) {
    let layout = detect(source.as_ref())
        .unwrap()
        .expect("the authors' layout");
    let config = layout.config(Some(HEADS)).unwrap();
    assert_eq!(config, published(case), "{case}: inferred configuration");
    let weights = Weights::from_source(Arc::new(map(source).unwrap()));
    let model = SanaTransformer::load(&config, &weights).unwrap();
    let mut golden = Golden::open(&format!("sana_transformer/{case}/golden.safetensors"));
    let inputs = Inputs::read(&golden);
    let out = run(&model, &inputs, &ForwardExtras::default());
    assert!(golden.compare("outputs.sample", &out, TOLERANCE));
    golden.report();
}

#[test]
fn pth_files_agree() {
    for case in ["t1_base", "t2_qk_norm", "t3_sprint"] {
        agrees(case, open(&format!("{case}/model.pth")));
    }
}

#[test]
fn bf16_pth_agrees() {
    agrees("t1_base", open("t1_base/model_bf16.pth"));
}

#[test]
fn single_file_prefix_is_stripped() {
    let source = open("t3_sprint/model.pth");
    let names = source.names().into_iter();
    let prefixed = names.map(|name| (format!("model.diffusion_model.{name}"), Slice::whole(name)));
    agrees(
        "t3_sprint",
        Arc::new(MappedSource::new(source.clone(), prefixed.collect()).unwrap()),
    );
}

#[test]
fn base_of_a_controlnet_file_is_found() {
    let source = open("controlnet/model.pth");
    let layout = detect(source.as_ref()).unwrap().unwrap();
    assert_eq!((layout.depth, layout.control_blocks), (4, 2));
    assert!(
        map(source)
            .unwrap()
            .names()
            .iter()
            .all(|name| !name.contains("control"))
    );
}

fn without(
    source: &Arc<dyn TensorSource>,
    gone: &str,
    added: Option<&str>,
) -> Arc<dyn TensorSource> {
    let names = source.names().into_iter().filter(|name| name != gone);
    let mut names: std::collections::BTreeMap<_, _> = names
        .map(|name| (name.clone(), Slice::whole(name)))
        .collect();
    if let Some(added) = added {
        names.insert(added.into(), Slice::whole("pos_embed"));
    }
    Arc::new(MappedSource::new(source.clone(), names).unwrap())
}

#[test]
fn incomplete_and_foreign_files_are_errors() {
    let source = open("t1_base/model.pth");
    let cut = without(&source, "final_layer.linear.weight", None);
    let error = detect(cut.as_ref()).unwrap_err().to_string();
    assert!(error.contains("final_layer.linear.weight"), "{error}");

    let cut = without(&source, "blocks.1.attn.qkv.weight", None);
    let config = detect(cut.as_ref())
        .unwrap()
        .unwrap()
        .config(Some(HEADS))
        .unwrap();
    let weights = Weights::from_source(Arc::new(map(cut).unwrap()));
    let error = SanaTransformer::load(&config, &weights)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("transformer_blocks.1.attn1.to_q.weight"),
        "{error}"
    );

    let strange = without(&source, "", Some("blocks.0.attn.strange"));
    let error = map(strange).err().unwrap().to_string();
    assert!(error.contains("blocks.0.attn.strange"), "{error}");

    let data = vec![0; 4];
    let other =
        MemorySource::new(vec![("embed.weight".into(), Dtype::F32, vec![1], data)]).unwrap();
    assert_eq!(detect(&other).unwrap(), None);
    assert!(map(Arc::new(other)).is_err());
}

#[test]
fn head_counts_must_be_known() {
    let layout = detect(open("t1_base/model.pth").as_ref()).unwrap().unwrap();
    let error = layout.config(None).unwrap_err().to_string();
    assert!(error.contains("width 24"), "{error}");
    let wrong = NativeHeads {
        attention: 5,
        cross_attention: 2,
    };
    assert!(layout.config(Some(wrong)).is_err());
    assert!(
        layout
            .config(Some(NativeHeads {
                attention: 0,
                ..HEADS
            }))
            .is_err()
    );
    let mut published = layout;
    (published.width, published.hidden) = (2240, 5600);
    let config = published.config(None).unwrap();
    assert_eq!(
        (config.num_attention_heads, config.num_cross_attention_heads),
        (70, 20)
    );
    assert_eq!(
        (config.attention_head_dim, config.cross_attention_head_dim),
        (32, 112)
    );
    published.sample_size = Some(128);
    assert_eq!(
        published.config(None).unwrap().interpolation_scale,
        Some(2.0)
    );
}
