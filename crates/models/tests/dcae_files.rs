//! The autoencoder's configurations and files: what they say, in either naming.

#[path = "common/autoencoder.rs"]
mod autoencoder;

use std::collections::BTreeMap;
use std::sync::Arc;

use autoencoder::{CASES, config, diffusers, source};
use brisk_models::dcae::{Autoencoder, AutoencoderConfig, Halves, native};
use brisk_nn::Weights;
use brisk_store::Dtype;

#[test]
fn detection_without_a_name() {
    let families = CASES.map(|case| native::detect(&*source(case, "original.safetensors")));
    assert_eq!(
        families,
        [
            Some(native::Family::Sana),
            Some(native::Family::Paper { stages: 6 }),
            Some(native::Family::Lite),
            Some(native::Family::V15 { stages: 7 }),
        ]
    );
    assert_eq!(native::detect(&*diffusers("a")), None);
    let factor = |case| {
        let source = source(case, "original.safetensors");
        native::detect_config(&*source, None).map(|config| config.scaling_factor)
    };
    assert_eq!(factor("a").unwrap(), 0.41407);
    assert_eq!(factor("d").unwrap(), 0.5935);
    let ambiguous = factor("b").unwrap_err().to_string();
    assert!(
        ambiguous.contains("dc-ae-f32c32-in-1.0") && ambiguous.contains("dc-ae-f32c32-mix-1.0"),
        "{ambiguous}"
    );
    let given = native::detect_config(&*source("b", "original.safetensors"), Some(0.3189)).unwrap();
    assert_eq!(
        given,
        native::named_config("dc-ae-f32c32-in-1.0", None).unwrap()
    );
}

#[test]
fn configs_survive_a_round_trip() {
    for case in CASES {
        let config = config(case);
        let json = serde_json::to_vec(&config).unwrap();
        assert_eq!(
            AutoencoderConfig::from_json(&json, "again").unwrap(),
            config,
            "{case}"
        );
        assert_eq!(
            serde_json::from_slice::<AutoencoderConfig>(&json).unwrap(),
            config,
            "{case}"
        );
    }
    // The published file of SANA leaves out what the class has defaults for.
    let sana = br#"{"_class_name": "AutoencoderDC", "_diffusers_version": "0.32.0",
        "downsample_block_type": "Conv", "upsample_block_type": "interpolate",
        "encoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock",
                                "EfficientViTBlock", "EfficientViTBlock"],
        "decoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock",
                                "EfficientViTBlock", "EfficientViTBlock"],
        "scaling_factor": 0.41407}"#;
    let sana = AutoencoderConfig::from_json(sana, "vae/config.json").unwrap();
    assert_eq!(
        sana,
        native::named_config("dc-ae-f32c32-sana-1.0", None).unwrap()
    );
}

#[test]
fn bad_configs_are_refused_by_key() {
    let ev = r#""encoder_block_types": "EfficientViTBlock", "encoder_qkv_multiscales": "#;
    for (json, expected) in [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        (r#"{"_class_name": "DCAE"}"#, "pre-release"),
        (r#"{"encoder_width_list": [1]}"#, "pre-release"),
        (r#"{"_class_name": "AutoencoderKL"}"#, "AutoencoderKL"),
        (
            r#"{"encoder_norm_types": "rms_norm"}"#,
            "encoder_norm_types",
        ),
        (r#"{"latent_channels": "8"}"#, "latent_channels"),
        (r#"{"latent_channels": 0}"#, "latent_channels"),
        (r#"{"latent_channels": 48}"#, "encoder_out_shortcut"),
        (r#"{"attention_head_dim": 99999999999}"#, "99999999999"),
        (
            r#"{"encoder_layers_per_block": [1, 1]}"#,
            "encoder_layers_per_block",
        ),
        (
            r#"{"encoder_layers_per_block": [1, 0, 1, 1, 1, 1]}"#,
            "encoder_layers_per_block[1]",
        ),
        (
            r#"{"encoder_layers_per_block": [1, 9999999, 1, 1, 1, 1]}"#,
            "encoder_layers_per_block[1]",
        ),
        (
            r#"{"decoder_block_types": ["ResBlock"]}"#,
            "decoder_block_types",
        ),
        (r#"{"decoder_block_types": "Transformer"}"#, "Transformer"),
        (
            r#"{"encoder_block_types": ["ResBlock", 5]}"#,
            "encoder_block_types[1]: invalid type: integer `5`, expected a string",
        ),
        (
            r#"{"decoder_act_fns": 5}"#,
            "decoder_act_fns: invalid type: integer `5`, expected a string or a list of strings",
        ),
        (r#"{"decoder_norm_types": "layer_norm"}"#, "layer_norm"),
        (r#"{"decoder_act_fns": "gelu"}"#, "gelu"),
        (r#"{"decoder_conv_act_fn": "gelu"}"#, "decoder_conv_act_fn"),
        (r#"{"scaling_factor": 0}"#, "scaling_factor"),
        (
            r#"{"encoder_block_out_channels": [8, 8, 8, 8, 8, 9]}"#,
            "encoder_block_out_channels",
        ),
        (
            r#"{"decoder_block_out_channels": [32, 32, 32, 32, 32, 48]}"#,
            "decoder_block_out_channels",
        ),
        (
            r#"{"decoder_block_out_channels": [32], "decoder_layers_per_block": [1]}"#,
            "stages",
        ),
        (
            &format!("{{{ev}[[],[],[],[4],[5],[5]]}}"),
            "encoder_qkv_multiscales[3]",
        ),
        (&format!("{{{ev}[[5]]}}"), "encoder_qkv_multiscales"),
        (
            r#"{"encoder_block_types": "EfficientViTBlock", "attention_head_dim": 24}"#,
            "attention_head_dim",
        ),
    ] {
        let error = AutoencoderConfig::from_json(json.as_bytes(), "vae/config.json");
        let error = error.expect_err(json).to_string();
        assert!(error.contains(expected), "{json}: {error}");
        assert!(error.starts_with("vae/config.json: "), "{json}: {error}");
    }
}

#[test]
fn class_conditional_files_hold_an_autoencoder() {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let original = source("b", "original.safetensors");
    for name in original.names() {
        let view = original.view(&name).unwrap().unwrap();
        let data = view.data.into_owned();
        tensors.push((format!("autoencoder.{name}"), view.dtype, view.shape, data));
    }
    tensors.push((
        "diffusion_model.pos_embed".into(),
        Dtype::F32,
        vec![1],
        vec![0; 4],
    ));
    let both = brisk_store::MemorySource::new(tensors).unwrap();
    let mapped = native::map(Arc::new(both)).unwrap();
    assert_eq!(mapped.unmapped(), ["diffusion_model.pos_embed"]);
    let weights = Weights::from_source(Arc::new(mapped));
    Autoencoder::load(&config("b"), &weights, Halves::Both).unwrap();
}

#[test]
fn parameters_are_those_of_the_file() {
    for case in CASES {
        let mut counted = BTreeMap::from([("encoder", 0), ("decoder", 0)]);
        let source = diffusers(case);
        for name in source.names() {
            if name.contains("running_") || name.contains("num_batches") {
                continue;
            }
            let (_, shape) = source.info(&name).unwrap();
            let half = name.split('.').next().unwrap();
            *counted.get_mut(half).unwrap() += shape.iter().product::<usize>() as u64;
        }
        let found = config(case).parameters();
        assert_eq!(
            (found.encoder, found.decoder),
            (counted["encoder"], counted["decoder"]),
            "{case}"
        );
    }
}
