//! A language model's weights: read or made up, as they are stored or quantized, and a file that keeps
//! quantized ones from one run to the next.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use brisk_models::component::LoadSettings;
use brisk_models::language_model::{LanguageModel, LanguageModelConfig};
use brisk_nn::{Quantization, QuantizedWeights};
use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};

use super::load::LoadOptions;
use crate::error::{Error, Result};
use crate::folder::Opened;
use crate::memory;

/// Version of what [`KEPT`] files hold: the layout of quantized weights.
const VERSION: &str = "1";
/// What such a file is, in its metadata.
const FORMAT: &str = "brisk quantized weights";

/// Keys of the metadata.
const KEPT: [&str; 4] = ["format", "version", "quantization", "weights"];

/// Loads the model as the options say.
pub(super) fn load(
    network: &Opened<LanguageModelConfig>,
    options: &LoadOptions,
) -> Result<LanguageModel> {
    let (config, how) = (&network.config, options.quantization);
    if options.quantized_weights.is_some() && how == Quantization::None {
        return Err(Error::request(
            "quantized-weights",
            "there are none without --quantize 8bit or --quantize 4bit",
        ));
    }
    let settings = LoadSettings {
        location: options.location.clone(),
        ..LoadSettings::default()
    };
    let weights = network.parameters(&settings)?;
    if options.plan_only {
        return Ok(LanguageModel::load(
            config,
            &weights.headers_only().build()?,
        )?);
    }
    check_memory(options, config, network.bytes_per_value())?;
    let (Some(path), Some(source)) = (&options.quantized_weights, network.stored()) else {
        let weights = weights.quantize(how, None).build()?;
        return Ok(LanguageModel::load(config, &weights)?);
    };
    let metadata = metadata(how, &**source)?;
    let there = path
        .try_exists()
        .map_err(|error| unusable(path, &error.to_string()))?;
    if there {
        let kept = Arc::new(QuantizedWeights::from_source(open(path, &metadata)?));
        let weights = weights.quantize(how, Some(kept)).build()?;
        return Ok(LanguageModel::load(config, &weights)?);
    }
    let kept = Arc::new(QuantizedWeights::default());
    let weights = weights.quantize(how, Some(kept.clone())).build()?;
    let model = LanguageModel::load(config, &weights)?;
    write(path, &kept, &metadata)?;
    Ok(model)
}

/// Bytes of the weights as they are kept; the stored ones take `stored` each.
pub(super) fn bytes(config: &LanguageModelConfig, how: Quantization, stored: f64) -> u64 {
    let embedding = config.vocab_size as u64 * config.hidden_size as u64;
    let head = if config.tied { embedding } else { 0 };
    let linear = config.parameters().saturating_sub(embedding) + head;
    memory::quantized_bytes(embedding, linear, stored, how)
}

/// Refuses a model whose weights would not fit, before anything is read.
fn check_memory(options: &LoadOptions, config: &LanguageModelConfig, stored: f64) -> Result<()> {
    let how = options.quantization;
    let needed = bytes(config, how, stored);
    let suggestion = match how {
        Quantization::FourBit => "a smaller model",
        _ => "use --quantize 4bit, or a smaller model",
    };
    let free = match options.location.device() {
        Some(device) => Some(device.memory().0 as u64),
        None => memory::available(),
    };
    memory::check("weights", needed, free, suggestion)
}

/// What tells whether a file belongs to weights and their quantization.
fn metadata(how: Quantization, source: &dyn TensorSource) -> Result<BTreeMap<String, String>> {
    let print = brisk_store::fingerprint(source)?;
    let values = [FORMAT, VERSION, how.name(), &print].map(str::to_owned);
    Ok(KEPT.map(str::to_owned).into_iter().zip(values).collect())
}

fn unusable(path: &Path, problem: &str) -> Error {
    Error::request(
        "quantized-weights",
        format!("{}: {problem}", path.display()),
    )
}

/// A file of an earlier run, if it was made of the same weights in the same way.
fn open(path: &Path, expected: &BTreeMap<String, String>) -> Result<Arc<dyn TensorSource>> {
    let file = SafetensorsFile::open(path)?;
    for key in KEPT {
        let (found, wanted) = (file.metadata().get(key), expected.get(key));
        if found != wanted {
            let nothing = "nothing".to_owned();
            return Err(unusable(
                path,
                &format!(
                    "made for other weights: its {key} is {:?}, expected {:?}; \
                     give another file, or remove this one and it is made anew",
                    found.unwrap_or(&nothing),
                    wanted.unwrap_or(&nothing)
                ),
            ));
        }
    }
    Ok(Arc::new(file))
}

fn write(path: &Path, kept: &QuantizedWeights, metadata: &BTreeMap<String, String>) -> Result<()> {
    kept.with_made(|made| {
        let tensors: Vec<OutTensor> = made
            .iter()
            .map(|(name, bytes)| OutTensor {
                name: (*name).to_owned(),
                dtype: Dtype::U8,
                shape: vec![bytes.len()],
                data: Cow::Borrowed(*bytes),
            })
            .collect();
        Ok(write_safetensors(path, &tensors, metadata)?)
    })
}
