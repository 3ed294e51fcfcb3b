//! Diffusion language models against their authors' classes, block by block, and the identities
//! that the decoders rely on.

use std::path::PathBuf;

use brisk_models::language_model::{Attention, LanguageModel, LanguageModelConfig, Rows, Span};
use brisk_nn::{DType, Tensor, Trace, Weights};
use brisk_testkit::{Golden, assert_close, fixtures_dir};

const TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> PathBuf {
    fixtures_dir().join("language_models").join(case)
}

fn config(case: &str) -> LanguageModelConfig {
    let bytes = std::fs::read(folder(case).join("config.json")).unwrap();
    LanguageModelConfig::from_json(&bytes, "config.json").unwrap()
}

fn load(case: &str) -> LanguageModel {
    let source = brisk_store::open_weights(&folder(case).join("model.safetensors")).unwrap();
    LanguageModel::load(&config(case), &Weights::from_source(source)).unwrap()
}

fn cases() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(fixtures_dir().join("language_models"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn ids(golden: &Golden, name: &str) -> Vec<u32> {
    let ids = golden.get(name).to_dtype(DType::U32).unwrap();
    ids.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_architecture_agrees_with_its_reference() {
    let cases = cases();
    for family in [
        "llada_0",
        "illada_0",
        "llada_norm_0",
        "llada_groups_0",
        "dream_0",
        "a2d_qwen2_0",
        "a2d_qwen3_0",
        "a2d_llama_0",
        "fast_dllm_v2_0",
        "sdar_0",
        "llada_moe_0",
        "llada2_0",
    ] {
        assert!(cases.contains(&family.to_owned()), "no golden of {family}");
    }
    for case in cases {
        let mut golden = Golden::open(&format!("language_models/{case}/golden.safetensors"));
        let model = load(&case);
        let ids = ids(&golden, "inputs.input_ids");
        let mut compared = Vec::new();
        let mut check = |name: &str, x: &Tensor| {
            let wanted = format!("blocks.{name}");
            if golden.compare(&wanted, x, TOLERANCE) {
                compared.push(wanted);
            }
        };
        let spans = [Span::whole(&ids)];
        let hidden = model
            .hidden_traced(
                &spans,
                &mut [None],
                Rows::All,
                &mut Trace::parts(&mut check),
            )
            .unwrap();
        compared.sort();
        assert_eq!(
            compared,
            golden.names("blocks."),
            "{case}: blocks never compared"
        );
        let logits = model.logits(&hidden).unwrap().unsqueeze(0).unwrap();
        assert!(
            golden.compare("outputs.logits", &logits, TOLERANCE),
            "{case}"
        );
        golden.report();
    }
}

/// Right after a refresh, writing the same tokens again gives the rows of the whole run: to the
/// last bit, since the same keys are seen.
#[test]
fn caches_reproduce_the_whole_run() {
    for case in ["llada_0", "illada_0", "dream_0"] {
        let model = load(case);
        let golden = Golden::open(&format!("language_models/{case}/golden.safetensors"));
        let ids = ids(&golden, "inputs.input_ids");
        let mut cache = model.cache(ids.len()).unwrap();
        let whole = model
            .hidden(&[Span::whole(&ids)], &mut [Some(&mut cache)], Rows::All)
            .unwrap();
        for (start, end) in [(9, ids.len()), (9, 15), (20, 21)] {
            let span = Span::from(&ids[start..end], start);
            let part = model
                .hidden(&[span], &mut [Some(&mut cache)], Rows::All)
                .unwrap();
            let wanted = whole.narrow(0, start, end - start).unwrap();
            assert_close(&format!("{case} {start}..{end}"), &part, &wanted, 1e-6);
        }
    }
}

#[test]
fn wanted_rows_and_packed_sequences_change_no_number() {
    for case in ["llada_1", "dream_1"] {
        let model = load(case);
        let golden = Golden::open(&format!("language_models/{case}/golden.safetensors"));
        let ids = ids(&golden, "inputs.input_ids");
        let sequences = [&ids[..21], &ids[3..8], &ids[5..18]];
        let alone: Vec<Tensor> = sequences
            .iter()
            .map(|ids| model.forward(&[ids]).unwrap())
            .collect();
        let packed = model.forward(&sequences).unwrap();
        let wanted = Tensor::cat(&alone, 0).unwrap();
        assert_close("packed", &packed, &wanted, 1e-5);

        let spans: Vec<Span> = sequences.iter().map(|ids| Span::whole(ids)).collect();
        let rows = [(0, 2), (0, 20), (2, 0)];
        let some = model
            .hidden(&spans, &mut [None, None, None], Rows::Some(&rows))
            .unwrap();
        let some = model.logits(&some).unwrap();
        for (index, (span, row)) in rows.into_iter().enumerate() {
            let one = some.narrow(0, index, 1).unwrap();
            let wanted = alone[span].narrow(0, row, 1).unwrap();
            assert_close("one row", &one, &wanted, 1e-5);
        }
    }
}

/// Blocks fed one after another through a cache are the whole block-causal run.
#[test]
fn block_causal_caches_are_exact() {
    let case = "dream_2";
    let source = brisk_store::open_weights(&folder(case).join("model.safetensors")).unwrap();
    let config = LanguageModelConfig {
        attention: Attention::BlockCausal(4),
        ..config(case)
    };
    let model = LanguageModel::load(&config, &Weights::from_source(source)).unwrap();
    let golden = Golden::open(&format!("language_models/{case}/golden.safetensors"));
    let ids = ids(&golden, "inputs.input_ids");
    for pad in [0, 3] {
        let whole_span = Span {
            pad,
            ..Span::whole(&ids)
        };
        let whole = model.hidden(&[whole_span], &mut [None], Rows::All).unwrap();
        let mut cache = model.cache(ids.len()).unwrap();
        let mut start = 0;
        while start < ids.len() {
            let end = ((start + pad) / 4 * 4 + 4 - pad).min(ids.len());
            let span = Span {
                pad,
                ..Span::from(&ids[start..end], start)
            };
            let part = model
                .hidden(&[span], &mut [Some(&mut cache)], Rows::All)
                .unwrap();
            let wanted = whole.narrow(0, start, end - start).unwrap();
            assert_close(&format!("block at {start}"), &part, &wanted, 1e-5);
            start = end;
        }
    }
}

#[test]
fn bad_input_is_an_error() {
    let model = load("llada_0");
    let message = |result: brisk_nn::Result<Tensor>| result.unwrap_err().to_string();
    assert!(message(model.forward(&[&[1, 64]])).contains("token id 64"));
    assert!(message(model.forward(&[&[]])).contains("without tokens"));
    let long = vec![1; 129];
    assert!(message(model.forward(&[&long])).contains("128 positions"));
    assert!(
        model
            .cache(129)
            .unwrap_err()
            .to_string()
            .contains("128 positions")
    );
    let span = [Span::from(&[1, 2], 3)];
    assert!(message(model.hidden(&span, &mut [None], Rows::All)).contains("starts at 0"));
    let mut cache = model.cache(4).unwrap();
    assert!(message(model.hidden(&span, &mut [Some(&mut cache)], Rows::All)).contains("cache 4"));
}

#[test]
fn configuration_errors_name_the_key() {
    let file = std::fs::read(folder("llada_0").join("config.json")).unwrap();
    let changed = |key: &str, value: serde_json::Value| {
        let mut file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        file[key] = value;
        LanguageModelConfig::from_json(file.to_string().as_bytes(), "c.json")
            .unwrap_err()
            .to_string()
    };
    assert!(changed("alibi", true.into()).contains("`alibi` true"));
    assert!(changed("n_kv_heads", 3.into()).contains("`n_kv_heads` 3"));
    assert!(changed("d_model", "wide".into()).contains("`d_model`"));
    assert!(changed("activation_type", "gelu".into()).contains("`activation_type`"));
    assert!(changed("mask_token_id", 64.into()).contains("`mask_token_id` 64"));
    // As the file spells them.
    for (key, value) in [
        ("n_layers", 1u64 << 63),
        ("n_heads", 0),
        ("d_model", 1 << 40),
        ("mlp_hidden_size", 0),
        ("max_sequence_length", 0),
        ("embedding_size", 0),
    ] {
        let message = changed(key, value.into());
        assert!(message.contains(&format!("`{key}` ")), "{key}: {message}");
    }
    assert!(changed("eos_token_id", "end".into()).contains("a token id or a list of them"));
    assert!(changed("multi_query_attention", true.into()).contains("`n_kv_heads` 4"));
    let unknown = LanguageModelConfig::from_json(br#"{"model_type": "gpt2"}"#, "c.json");
    let unknown = unknown.unwrap_err().to_string();
    assert!(
        unknown.contains("gpt2") && unknown.contains("llada2_moe"),
        "{unknown}"
    );
}

/// The reference's class has GPT-2's defaults: what a LLaDA file leaves out is what those say.
#[test]
fn absent_keys_are_the_defaults_of_the_class() {
    let file = std::fs::read(folder("llada_0").join("config.json")).unwrap();
    let without = |key: &str| {
        let mut file: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&file).unwrap();
        file.remove(key).unwrap();
        let file = serde_json::Value::Object(file).to_string();
        LanguageModelConfig::from_json(file.as_bytes(), "c.json")
    };
    for (key, default) in [
        ("activation_type", "\"swiglu\""),
        ("block_type", "\"sequential\""),
        ("layer_norm_type", "\"default\""),
        ("rope", "false"),
    ] {
        let message = without(key).unwrap_err().to_string();
        assert!(
            message.contains(&format!("`{key}` {default}")),
            "{key}: {message}"
        );
    }
    assert_eq!(without("rope_theta").unwrap().rope_theta, 10_000.0);
    assert_eq!(without("embedding_size").unwrap().vocab_size, 50_304);
    assert_eq!(without("max_sequence_length").unwrap().context, 1024);
    assert!(without("weight_tying").unwrap().tied);
}

#[test]
fn published_sizes() {
    let llada = r#"{"model_type": "llada", "architectures": ["LLaDAModelLM"], "d_model": 4096,
        "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288,
        "vocab_size": 126464, "embedding_size": 126464, "weight_tying": false, "include_bias": false,
        "activation_type": "silu", "block_type": "llama", "layer_norm_type": "rms", "rope": true}"#;
    let dream = r#"{"model_type": "Dream", "hidden_size": 3584, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
        "vocab_size": 152064, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "max_position_embeddings": 131072}"#;
    let illada = r#"{"model_type": "llada", "d_model": 4096, "n_layers": 32, "n_heads": 32,
        "n_kv_heads": 8, "mlp_hidden_size": 14336, "vocab_size": 155136, "embedding_size": null,
        "weight_tying": true, "include_bias": false, "activation_type": "silu",
        "block_type": "llama", "layer_norm_type": "rms", "rope": true}"#;
    for (file, parameters) in [
        (llada, 8_015_581_184),
        (dream, 7_615_616_512),
        (illada, 7_615_025_152),
    ] {
        let config = LanguageModelConfig::from_json(file.as_bytes(), "config.json").unwrap();
        assert_eq!(config.parameters(), parameters);
    }
}
