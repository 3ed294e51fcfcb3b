//! Models with weights of 4 and 8 bits on an emulated card against the processor's.

mod common;

use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::sana::{ForwardExtras, SanaTransformer, with_random_low_bit};
use brisk_nn::{
    Activations, DType, Location, Precision, Quantization, Storage, Tensor, WeightsBuilder,
};
use brisk_testkit::{Golden, fixtures_dir, relative_l2, values};

/// What rounding inputs another way, and bf16 between layers, may change.
const TOLERANCE: f64 = 2e-2;

fn card(precision: Precision) -> Location {
    let device = brisk_cuda_emulated::device(precision, 3);
    device.expect("the emulator").into()
}

#[test]
fn transformers_of_4_bits_agree_with_the_processor() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for (case, activations) in [
        ("t1_base", Activations::Eight),
        ("t2_qk_norm", Activations::Eight),
        ("t3_sprint", Activations::Full),
    ] {
        let config = common::config(case);
        let inputs = common::Inputs::read(&common::golden(case));
        let run = |location: &Location, activations: Activations| -> Vec<f32> {
            let weights = WeightsBuilder::random(5, Storage::F32).at(location);
            let weights = with_random_low_bit(&config, weights, activations);
            let model = SanaTransformer::load(&config, &weights.build().unwrap()).unwrap();
            values(&common::run(&model, &inputs, &ForwardExtras::default()))
        };
        let wanted = run(&Location::HOST, activations);
        let distance = relative_l2(&run(&card(Precision::Half), activations), &wanted);
        assert!(distance < TOLERANCE, "{case}: {distance:.2e}");
        // In f32 nothing is rounded on the card, whatever is asked for.
        let full = run(&Location::HOST, Activations::Full);
        let distance = relative_l2(&run(&card(Precision::Single), activations), &full);
        assert!(distance < 2e-3, "{case} in f32: {distance:.2e}");
    }
    let weights = WeightsBuilder::random(5, Storage::F32).at(&card(Precision::Half));
    let weights = with_random_low_bit(&common::config("t1_base"), weights, Activations::Four);
    let Err(refused) = weights.build() else {
        panic!("activations of 4 bits");
    };
    assert!(refused.to_string().contains("--device cpu"), "{refused}");
}

#[test]
fn text_encoders_of_few_bits_agree_with_the_processor() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for (case, how) in [
        ("sliding", Quantization::FourBit),
        ("narrow", Quantization::EightBit),
    ] {
        let folder = fixtures_dir().join("gemma2").join(case);
        let golden = Golden::open(&format!("gemma2/{case}/golden.safetensors"));
        let config = std::fs::read(folder.join("config.json")).unwrap();
        let config = Gemma2Config::from_json(&config, "config.json").unwrap();
        let integers = |name: &str| golden.get(name).to_dtype(DType::U32).unwrap();
        let (ids, mask) = (
            integers("inputs.input_ids"),
            integers("inputs.attention_mask"),
        );
        let seen = mask.to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap();
        let run = |location: &Location| -> Vec<f32> {
            let source = brisk_store::open_weights(&folder.join("model.safetensors")).unwrap();
            let weights = WeightsBuilder::from_source(source).at(location);
            let weights = weights.quantize(how, None).build().unwrap();
            let model = Gemma2Model::load(&config, &weights).unwrap();
            let out: Tensor = model.forward(&ids, Some(&mask)).unwrap();
            let out = out.to(&Location::HOST).unwrap();
            values(&out.broadcast_mul(&seen).unwrap())
        };
        let wanted = run(&Location::HOST);
        for precision in [Precision::Half, Precision::Single] {
            let distance = relative_l2(&run(&card(precision)), &wanted);
            assert!(
                distance < TOLERANCE,
                "{case}, {precision:?}: {distance:.2e}"
            );
        }
    }
}
