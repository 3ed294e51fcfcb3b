//! What the verbs share that run one component on tensors: finding it, and reading its inputs.

use std::sync::Arc;

use brisk_models::dcae::{self, AutoencoderConfig};
use brisk_models::sana::compact_text;
use brisk_nn::{Tensor, ops};
use brisk_store::{ModelFolder, TensorSource};

use crate::failure::{Failure, Result};
use crate::tensors::Inputs;

/// Inputs of a text encoder.
pub const TEXT_INPUTS: [&str; 2] = ["input_ids", "attention_mask"];
/// Inputs of SANA's transformer, ControlNet residuals left out.
pub const TRANSFORMER_INPUTS: [&str; 5] = [
    "hidden_states",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "timestep",
    "guidance",
];

/// Where a component lies and what its `config.json` says.
pub struct Found {
    /// Folder below the model's; empty for the model's own.
    pub folder: String,
    /// Bytes of the `config.json`.
    pub config: Vec<u8>,
    /// Its name, for messages.
    pub label: String,
}

impl Found {
    /// The component below a pipeline's folder, or the folder itself.
    pub fn find(model: &ModelFolder, component: &str) -> Result<Self> {
        let inside = format!("{component}/config.json");
        let (folder, config) = if model.exists(&inside) {
            (component, inside)
        } else if model.exists("config.json") {
            ("", "config.json".to_owned())
        } else {
            return Err(Failure::failed(format!(
                "{}: there is no {component}: expected {inside} (a pipeline's folder) or config.json (the component's own)",
                model.label()
            )));
        };
        Ok(Self {
            folder: folder.to_owned(),
            config: model.read(&config)?.into_owned(),
            label: format!("{}/{config}", model.label()),
        })
    }
}

/// Refuses inputs that the component does not take. Names that end in `.` stand for a series.
pub fn check_names(inputs: &Inputs, known: &[&str]) -> Result {
    let unknown: Vec<String> = inputs
        .names()
        .into_iter()
        .filter(|name| {
            !known
                .iter()
                .any(|k| name == k || (k.ends_with('.') && name.starts_with(k)))
        })
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let known: Vec<String> = known
        .iter()
        .map(|name| {
            if name.ends_with('.') {
                format!("{name}I")
            } else {
                (*name).to_owned()
            }
        })
        .collect();
    Err(Failure::failed(format!(
        "--inputs has tensors that this component does not take: {} (it takes {})",
        unknown.join(", "),
        known.join(", ")
    )))
}

/// The tensors that transformer and ControlNet share.
pub struct Conditioning {
    /// `[B,h,w,C]`
    pub hidden: Tensor,
    /// `[B]`
    pub timestep: Tensor,
    /// `[B]`, where the model takes it.
    pub guidance: Option<Tensor>,
    /// `[B,L,D]`, without rows that the mask hides.
    pub text: Tensor,
    /// Valid rows of each caption.
    pub lengths: Vec<usize>,
}

impl Conditioning {
    /// Reads the tensors under the reference's names.
    pub fn read(inputs: &Inputs) -> Result<Self> {
        let hidden = ops::to_nhwc(&inputs.tensor("hidden_states", 4)?)?;
        let text = inputs.tensor("encoder_hidden_states", 3)?;
        let (batch, rows, _) = text.dims3()?;
        let mask = inputs.mask("encoder_attention_mask", (batch, rows))?;
        let (text, lengths) = compact_text(&text, &mask)?;
        Ok(Self {
            hidden,
            timestep: inputs.tensor("timestep", 1)?,
            guidance: inputs.optional("guidance", 1)?,
            text,
            lengths,
        })
    }
}

/// Configuration of an autoencoder, written out or by a published name.
pub fn autoencoder_config(config: &[u8], label: &str) -> Result<AutoencoderConfig> {
    let named = serde_json::from_slice::<serde_json::Value>(config)
        .ok()
        .and_then(|value| Some(value.get("model_name")?.as_str()?.to_owned()));
    Ok(match named {
        Some(name) => dcae::native::named_config(&name, None)?,
        None => AutoencoderConfig::from_json(config, label)?,
    })
}

/// Configuration and weights of an autoencoder in either naming.
pub fn autoencoder_parts(
    config: &[u8],
    label: &str,
    weights: Arc<dyn TensorSource>,
) -> Result<(AutoencoderConfig, Arc<dyn TensorSource>)> {
    let config = autoencoder_config(config, label)?;
    let weights: Arc<dyn TensorSource> = if dcae::native::is_native(&*weights) {
        Arc::new(dcae::native::map(weights)?)
    } else {
        weights
    };
    Ok((config, weights))
}
