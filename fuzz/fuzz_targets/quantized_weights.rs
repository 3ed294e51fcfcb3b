//! Any bytes as a file of `--quantized-weights`: a layer that runs or an error, never a panic.
//! Run: `cargo +nightly fuzz run quantized_weights fuzz/corpus/quantized_weights fuzz/seeds/quantized_weights`
#![no_main]

use std::sync::Arc;

use brisk_nn::{Init, Linear, Quantization, QuantizedWeights, Tensor, WeightsBuilder};
use brisk_store::{Dtype, MemorySource, SafetensorsFile};

const OUTPUTS: usize = 3;
const INPUTS: usize = 40;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = SafetensorsFile::from_bytes(bytes.to_vec(), "fuzz") else {
        return;
    };
    let kept = Arc::new(QuantizedWeights::from_source(Arc::new(file)));
    for how in [Quantization::FourBit, Quantization::EightBit] {
        let ones = 1f32.to_le_bytes().repeat(OUTPUTS * INPUTS);
        let weight = ("a.weight".to_owned(), Dtype::F32, vec![OUTPUTS, INPUTS], ones);
        let source = Arc::new(MemorySource::new(vec![weight]).expect("its size fits"));
        let weights = WeightsBuilder::from_source(source).quantize(how, Some(kept.clone()));
        let weights = weights.build().expect("nothing contradicts");
        let Ok(layer) = Linear::load(&weights.pp("a"), INPUTS, OUTPUTS, false, Init::Zeros) else {
            continue;
        };
        let input = Tensor::full(0.5f32, (2, INPUTS)).expect("a constant");
        drop(layer.forward(&input));
    }
});
