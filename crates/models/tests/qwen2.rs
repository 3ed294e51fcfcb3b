//! Qwen2 as a text encoder against transformers' `Qwen2Model`, block by block.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_models::component::{ComponentConfig, ComponentWeights, LoadSettings, NamedTensors};
use brisk_models::language_model::LanguageModelConfig;
use brisk_models::qwen2::{Qwen2Config, Qwen2Encoder};
use brisk_models::registry;
use brisk_nn::{Tensor, Trace, Weights};
use brisk_store::{MappedSource, Slice, TensorSource, open_weights};
use brisk_testkit::{Golden, assert_close, fixtures_dir, values};

const TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> PathBuf {
    fixtures_dir().join("qwen2").join(case)
}

fn config(case: &str) -> Qwen2Config {
    let bytes = std::fs::read(folder(case).join("config.json")).unwrap();
    Qwen2Config::from_json(&bytes, "config.json").unwrap()
}

fn source(case: &str) -> Arc<dyn TensorSource> {
    open_weights(&folder(case).join("model.safetensors")).unwrap()
}

fn load(case: &str) -> Qwen2Encoder {
    let weights = Weights::from_source(source(case));
    Qwen2Encoder::load(&config(case).0, &weights).unwrap()
}

struct Texts {
    ids: Vec<Vec<u32>>,
    masks: Vec<Vec<bool>>,
}

impl Texts {
    fn of(golden: &Golden) -> Self {
        let ids = golden.get("inputs.input_ids");
        let tokens = ids.dim(1).unwrap();
        let ids: Vec<u32> = values(&ids).into_iter().map(|id| id as u32).collect();
        Self {
            ids: ids.chunks(tokens).map(<[u32]>::to_vec).collect(),
            masks: golden.mask("inputs.attention_mask"),
        }
    }

    fn rows(&self) -> Vec<(&[u32], &[bool])> {
        let pairs = self.ids.iter().zip(&self.masks);
        pairs.map(|(ids, mask)| (&ids[..], &mask[..])).collect()
    }
}

#[test]
fn every_block_agrees_and_so_do_rows_of_padding() {
    let mut golden = Golden::open("qwen2/padding/golden.safetensors");
    let model = load("padding");
    let texts = Texts::of(&golden);
    let batch = texts.ids.len();
    let mut compared = 0;
    let see = &mut |name: &str, x: &Tensor| {
        let width = *x.dims().last().unwrap();
        let x = x.reshape((batch, (), width)).unwrap();
        compared += usize::from(golden.compare(&format!("blocks.{name}"), &x, TOLERANCE));
    };
    let state = model
        .encode(&texts.rows(), &mut Trace::details(see))
        .unwrap();
    let state = state.reshape((batch, (), 48)).unwrap();
    assert_eq!(compared, golden.names("blocks.").len());
    assert!(golden.compare("outputs.all_rows", &state, TOLERANCE));
    golden.report();
}

/// What texts share is computed once; what is computed behind it is the same, padding in front included.
#[test]
fn a_beginning_is_kept_for_several_texts() {
    let golden = Golden::open("qwen2/padding/golden.safetensors");
    let model = load("padding");
    let texts = Texts::of(&golden);
    let whole = model.encode(&texts.rows(), &mut Trace::none()).unwrap();
    let whole = whole.reshape((texts.ids.len(), (), 48)).unwrap();
    let mut prefix = model.prefix(&texts.ids[0][..3], 8).unwrap();
    for (row, (ids, seen)) in texts.rows().into_iter().enumerate() {
        let rest = (&ids[3..], &seen[3..]);
        let found = model
            .encode_behind(&mut prefix, rest, &mut Trace::none())
            .unwrap();
        let wanted = whole.narrow(0, row, 1).unwrap().narrow(1, 3, 8).unwrap();
        assert_close("rows", &found, &wanted.squeeze(0).unwrap(), 1e-6);
    }
    let nine = vec![5; 9];
    let long = model.encode_behind(&mut prefix, (&nine, &[true; 9]), &mut Trace::none());
    let error = long.unwrap_err().to_string();
    assert!(
        error.contains("9 tokens") && error.contains("room for 8"),
        "{error}"
    );
}

/// As `brisk probe` runs it: rows of padding are zero, and what sees nothing is no number's fault.
#[test]
fn the_component_gives_the_contracts_outputs() {
    for case in ["padding", "left"] {
        let mut golden = Golden::open(&format!("qwen2/{case}/golden.safetensors"));
        let config = config(case);
        let json = std::fs::read(folder(case).join("config.json")).unwrap();
        let component = registry::of_config(&serde_json::from_slice(&json).unwrap()).unwrap();
        assert_eq!(component.name, "Qwen2 text encoder");
        let entry = component.entry("text_encoder").unwrap();
        let weights = ComponentWeights::Stored(source(case));
        let model = config
            .load(entry, &weights, &LoadSettings::default())
            .unwrap();
        let texts = Texts::of(&golden);
        let shape = [texts.ids.len(), texts.ids[0].len()];
        let mut inputs = NamedTensors::default();
        inputs
            .insert_ids("input_ids", &shape, texts.ids.concat())
            .unwrap();
        let mask = texts.masks.concat().into_iter();
        inputs
            .insert_floats(
                "attention_mask",
                &shape,
                mask.map(|m| f32::from(u8::from(m))).collect(),
            )
            .unwrap();
        let outputs = model.run(&inputs).unwrap();
        let found = outputs.required("last_hidden_state").unwrap();
        assert!(golden.compare("outputs.last_hidden_state", found, TOLERANCE));
        golden.report();
    }
}

/// The language half of Qwen2-VL, as its files name it and with what they hold besides.
#[test]
fn other_names_of_the_body_are_read() {
    let source = source("padding");
    for outer in ["model.", "model.language_model."] {
        let names = source.names().into_iter();
        let mut map: std::collections::BTreeMap<String, Slice> = names
            .map(|name| (format!("{outer}{name}"), Slice::whole(name)))
            .collect();
        map.insert(
            "visual.patch_embed.weight".to_owned(),
            Slice::whole("norm.weight"),
        );
        let mapped = Arc::new(MappedSource::new(source.clone(), map).unwrap());
        Qwen2Encoder::load(&config("padding").0, &Weights::from_source(mapped)).unwrap();
    }
}

#[test]
fn it_is_no_diffusion_model_and_says_what_it_cannot_do() {
    let text = std::fs::read_to_string(folder("padding").join("config.json")).unwrap();
    let error = LanguageModelConfig::from_json(text.as_bytes(), "c").unwrap_err();
    assert!(error.to_string().contains("qwen2"), "{error}");
    assert!(!LanguageModelConfig::MODEL_TYPES.contains(&"qwen2"));
    let axes = text.replace(
        "\"rms_norm_eps\"",
        "\"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [1, 1, 2]}, \"rms_norm_eps\"",
    );
    assert_eq!(
        Qwen2Config::from_json(axes.as_bytes(), "c").unwrap(),
        config("padding")
    );
    for (from, to, words) in [
        ("\"qwen2\"", "\"gemma\"", "`model_type` is \"gemma\""),
        ("\"silu\"", "\"gelu\"", "`hidden_act`"),
        (
            "\"use_sliding_window\": false",
            "\"use_sliding_window\": true",
            "`use_sliding_window`",
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 4",
            "`num_key_value_heads`",
        ),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        let error = Qwen2Config::from_json(changed.as_bytes(), "c").unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
