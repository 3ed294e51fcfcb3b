//! Gemma 2 against transformers' `Gemma2Model`, block by block.

use std::path::PathBuf;

use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_nn::{DType, Tensor, Trace, Weights};
use brisk_testkit::{Golden, assert_close, fixtures_dir};

const TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> PathBuf {
    fixtures_dir().join("gemma2").join(case)
}

fn config(case: &str) -> Gemma2Config {
    let bytes = std::fs::read(folder(case).join("config.json")).unwrap();
    Gemma2Config::from_json(&bytes, "config.json").unwrap()
}

fn load_with(case: &str, file: &str, config: &Gemma2Config) -> Gemma2Model {
    let source = brisk_store::open_weights(&folder(case).join(file)).unwrap();
    Gemma2Model::load(config, &Weights::from_source(source)).unwrap()
}

fn load(case: &str) -> Gemma2Model {
    load_with(case, "model.safetensors", &config(case))
}

fn integers(golden: &Golden, name: &str) -> Tensor {
    golden.get(name).to_dtype(DType::U32).unwrap()
}

/// Zeroes the rows of masked positions, as the goldens do.
fn keep(x: &Tensor, mask: &Tensor) -> Tensor {
    let mask = mask.to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap();
    x.broadcast_mul(&mask).unwrap()
}

fn agrees(case: &str, file: &str) {
    let mut golden = Golden::open(&format!("gemma2/{case}/golden.safetensors"));
    let model = load_with(case, file, &config(case));
    let ids = integers(&golden, "inputs.input_ids");
    let mask = integers(&golden, "inputs.attention_mask");
    let mut compared = Vec::new();
    let last = config(case).num_hidden_layers - 1;
    let check = &mut |name: &str, x: &Tensor| {
        let wanted = match name.strip_prefix("layers.").map(str::parse::<usize>) {
            Some(Ok(index)) if index < last => format!("blocks.hidden_states.{}", index + 1),
            _ if name == "embed_tokens" => "blocks.hidden_states.0".into(),
            _ => format!("blocks.{name}"),
        };
        if golden.compare(&wanted, &keep(x, &mask), TOLERANCE) {
            compared.push(wanted);
        }
    };
    let trace = &mut Trace::parts(check);
    let out = model.forward_traced(&ids, Some(&mask), trace).unwrap();
    compared.sort();
    assert_eq!(compared, golden.names("blocks."), "blocks never compared");
    assert!(golden.compare("outputs.last_hidden_state", &keep(&out, &mask), TOLERANCE));

    let single = golden.get("outputs.unpadded_last_row");
    let rows = ids.dim(0).unwrap();
    let short = ids.narrow(0, rows - 1, 1).unwrap();
    let short = short.narrow(1, 0, single.dim(1).unwrap()).unwrap();
    let out = model.forward(&short, None).unwrap();
    assert!(golden.compare("outputs.unpadded_last_row", &out, TOLERANCE));
    golden.report();
}

#[test]
fn softcap_50_agrees() {
    agrees("softcap50", "model.safetensors");
}

#[test]
fn softcap_2_agrees_from_bf16() {
    agrees("softcap2", "model.safetensors");
}

#[test]
fn sliding_window_agrees() {
    agrees("sliding", "model.safetensors");
}

#[test]
fn one_key_head_agrees_with_and_without_model_prefix() {
    agrees("narrow", "model.safetensors");
    agrees("narrow", "prefixed.safetensors");
}

/// The settings the goldens vary must be visible in the result.
#[test]
fn softcap_window_query_scale_and_rotary_base_matter() {
    type Change = fn(&mut Gemma2Config);
    let changes: [(&str, Change); 4] = [
        ("softcap2", |c| c.attn_logit_softcapping = None),
        ("sliding", |c| c.sliding_window = Some(9)),
        ("narrow", |c| c.query_pre_attn_scalar = 16.0),
        ("softcap50", |c| {
            (c.rope_parameters, c.rope_theta) = (None, 100.0)
        }),
    ];
    for (case, change) in changes {
        let golden = Golden::open(&format!("gemma2/{case}/golden.safetensors"));
        let ids = integers(&golden, "inputs.input_ids");
        let mut changed = config(case);
        change(&mut changed);
        let out = load_with(case, "model.safetensors", &changed)
            .forward(&ids, None)
            .unwrap();
        let wanted = load(case).forward(&ids, None).unwrap();
        let difference = (out - wanted).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() > 1e-3, "{case}");
    }
}

#[test]
fn prefix_cache_equals_the_whole_run() {
    for case in ["softcap2", "sliding"] {
        let golden = Golden::open(&format!("gemma2/{case}/golden.safetensors"));
        let model = load(case);
        let ids = integers(&golden, "inputs.input_ids")
            .narrow(0, 0, 1)
            .unwrap();
        let whole = model.forward(&ids, None).unwrap();
        let listed = ids.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        for cut in [1, 4, listed.len() - 1] {
            let prefix = model.prefix(&listed[..cut]).unwrap();
            assert_eq!(prefix.len(), cut);
            let rest = ids.narrow(1, cut, listed.len() - cut).unwrap();
            let out = model.forward_with_prefix(&prefix, &rest).unwrap();
            let wanted = whole.narrow(1, cut, listed.len() - cut).unwrap();
            assert_close(&format!("{case}, prefix of {cut}"), &out, &wanted, 1e-5);
            let twice = Tensor::cat(&[&rest, &rest], 0).unwrap();
            let out = model.forward_with_prefix(&prefix, &twice).unwrap();
            assert_close("second row", &out.narrow(0, 1, 1).unwrap(), &wanted, 1e-5);
        }
    }
}

/// Rotary attention depends on distances only, so padding on the left changes nothing either.
#[test]
fn left_padding_is_hidden() {
    let golden = Golden::open("gemma2/softcap2/golden.safetensors");
    let model = load("softcap2");
    let ids = integers(&golden, "inputs.input_ids")
        .narrow(0, 0, 1)
        .unwrap();
    let wanted = model.forward(&ids, None).unwrap();
    let padding = Tensor::zeros((1, 3), DType::U32).unwrap();
    let padded = Tensor::cat(&[&padding, &ids], 1).unwrap();
    let mask = Tensor::cat(
        &[&padding, &Tensor::ones(ids.dims(), ids.dtype()).unwrap()],
        1,
    )
    .unwrap();
    let out = model.forward(&padded, Some(&mask)).unwrap();
    let out = out.narrow(1, 3, ids.dim(1).unwrap()).unwrap();
    assert_close("left padding", &out, &wanted, 1e-5);
}

#[test]
fn bad_input_is_an_error() {
    let model = load("narrow");
    let message = |ids: &[u32], mask: Option<&[u32]>| {
        let ids = Tensor::from_slice(ids, (1, ids.len())).unwrap();
        let mask = mask.map(|m| Tensor::from_slice(m, (1, m.len())).unwrap());
        model.forward(&ids, mask.as_ref()).unwrap_err().to_string()
    };
    assert!(message(&[2, 64], None).contains("token id 64"));
    assert!(message(&[2, 3], Some(&[1])).contains("does not match"));
    assert!(
        model
            .prefix(&[])
            .unwrap_err()
            .to_string()
            .contains("no tokens")
    );
}

#[test]
fn configuration_errors_name_the_key() {
    let error = |json: &str| {
        Gemma2Config::from_json(json.as_bytes(), "c.json")
            .unwrap_err()
            .to_string()
    };
    assert!(error(r#"{"head_dim": "wide"}"#).contains("`head_dim`"));
    assert!(error(r#"{"num_key_value_heads": 3}"#).contains("`num_key_value_heads`"));
    assert!(error(r#"{"hidden_activation": "relu"}"#).contains("`hidden_activation`"));
    assert!(error(r#"{"layer_types": ["full_attention"]}"#).contains("`layer_types`"));
    assert!(
        error(r#"{"use_bidirectional_attention": true}"#).contains("`use_bidirectional_attention`")
    );
    assert!(error("{").contains("c.json"));
}

#[test]
fn published_size() {
    let config = Gemma2Config::from_json(br#"{"hidden_act": "x"}"#, "config.json").unwrap();
    assert_eq!(config.parameters(), 2_614_341_888);
}

#[test]
fn embedding_is_trainable() {
    let config = Gemma2Config {
        num_hidden_layers: 1,
        vocab_size: 8,
        hidden_size: 8,
        ..config("narrow")
    };
    let weights = Weights::trainable(None, 1);
    let model = Gemma2Model::load(&config, &weights).unwrap();
    let ids = Tensor::new(&[[2u32, 3, 5]]).unwrap();
    let loss = model
        .forward(&ids, None)
        .unwrap()
        .sqr()
        .unwrap()
        .sum_all()
        .unwrap();
    let gradients = loss.host().unwrap().backward().unwrap();
    for (name, variable) in weights.variables() {
        let gradient = gradients.get(variable.as_tensor());
        assert!(gradient.is_some(), "{name} has no gradient");
    }
}
