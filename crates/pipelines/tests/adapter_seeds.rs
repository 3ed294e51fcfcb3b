//! The fuzzer's adapters, scheduler configurations and quantized weights: the good ones work, every other one is
//! refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Init, Linear, Lora, Quantization, QuantizedWeights, Tensor, WeightsBuilder};
use brisk_pipelines::diffusion::schedulers::{SchedulerConfig, scm};
use brisk_store::{Dtype, MemorySource, SafetensorsFile, TensorSource};
use brisk_testkit::check_seeds;

/// Tensors of ones.
fn ones(tensors: &[(&str, &[usize])]) -> Arc<dyn TensorSource> {
    let tensors = tensors.iter().map(|(name, shape)| {
        let bytes = 1f32.to_le_bytes().repeat(shape.iter().product());
        ((*name).to_owned(), Dtype::F32, shape.to_vec(), bytes)
    });
    Arc::new(MemorySource::new(tensors.collect()).unwrap())
}

fn adapter(name: &str, bytes: &[u8]) -> brisk_nn::Result<()> {
    let lora = if bytes.first() == Some(&b'{') {
        let pair = ones(&[
            ("x.0.lora_A.weight", &[1, 3]),
            ("x.0.lora_B.weight", &[2, 1]),
        ]);
        Lora::new(pair, &BTreeMap::new(), Some((bytes, name)))?
    } else {
        let file = SafetensorsFile::from_bytes(bytes.to_vec(), name)?;
        let metadata = file.metadata().clone();
        Lora::new(Arc::new(file), &metadata, None)?
    };
    let model = ones(&[("x.0.weight", &[2, 3]), ("x.0.bias", &[2])]);
    let weights = WeightsBuilder::from_source(model)
        .lora(Arc::new(lora), 0.5)
        .build()?;
    let layer = weights.pp("x").pp(0);
    let before = ones(&[("w", &[2, 3])]).view("w")?.unwrap().to_f32()?;
    let adapted = layer.get("weight", &[2, 3], Init::Zeros)?;
    layer.get("bias", &[2], Init::Zeros)?;
    weights.finish(&[])?;
    assert_ne!(adapted.flatten_all()?.to_vec1::<f32>()?, before, "{name}");
    Ok(())
}

#[test]
fn adapters() {
    check_seeds("lora", false, adapter);
}

fn scheduler(name: &str, bytes: &[u8]) -> brisk_pipelines::Result<()> {
    let config = SchedulerConfig::from_bytes(bytes, name)?;
    if let SchedulerConfig::Scm(config) = &config {
        assert_eq!(scm::Scm::new(config, scm::default_angles(2)?).steps(), 2);
        return Ok(());
    }
    let mut sampler = config.flow_sampler(None, None, 2)?;
    let noise = Tensor::new(&[0.5f32, -1.0])?;
    let moved = sampler.step(0, &noise, &noise)?;
    let moved = sampler.step(1, &noise, &moved)?.to_vec1::<f32>()?;
    assert!(moved.iter().all(|value| value.is_finite()), "{name}");
    Ok(())
}

#[test]
fn schedulers() {
    check_seeds("scheduler", true, scheduler);
}

fn quantized(name: &str, bytes: &[u8]) -> brisk_nn::Result<()> {
    let kept = SafetensorsFile::from_bytes(bytes.to_vec(), name)?;
    let kept = Arc::new(QuantizedWeights::from_source(Arc::new(kept)));
    let how = match name.contains("4bit") {
        true => Quantization::FourBit,
        false => Quantization::EightBit,
    };
    let weights = WeightsBuilder::from_source(ones(&[("a.weight", &[3, 40])]));
    let weights = weights.quantize(how, Some(kept)).build()?;
    let layer = Linear::load(&weights.pp("a"), 40, 3, false, Init::Zeros)?;
    layer.forward(&Tensor::full(0.5f32, (2, 40))?)?;
    Ok(())
}

#[test]
fn quantized_weights() {
    check_seeds("quantized_weights", true, quantized);
}
