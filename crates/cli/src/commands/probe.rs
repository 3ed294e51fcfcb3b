//! `brisk probe`: one component on given tensors.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_models::dcae::{Autoencoder, Halves};
use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::language_model::{LanguageModel, LanguageModelConfig};
use brisk_models::low_bit::weight_only_parameters;
use brisk_models::sana::{self, ForwardExtras, SanaConfig, SanaTransformer};
use brisk_models::sana_controlnet::{ControlStart, SanaControlNet, SanaControlNetConfig};
use brisk_nn::{Activations, Tensor, Weights, ops};
use brisk_store::{ModelFolder, TensorSource};
use clap::{Args, ValueEnum};

use super::ThreadArguments;
use super::compare::models::ActivationBits;
use super::component::{
    Conditioning, Found, TEXT_INPUTS, TRANSFORMER_INPUTS, autoencoder_parts, check_names,
};
use crate::failure::{Failure, Result};
use crate::tensors::{self, Inputs};
use crate::{models, output};

/// Run one component of a model on given tensors
#[derive(Debug, Args)]
#[command(
    before_help = "Names and layouts are those of the reference's forward (NCHW, f32):\n\
    \x20 text_encoder      input_ids, attention_mask -> last_hidden_state\n\
    \x20 transformer       hidden_states, encoder_hidden_states, encoder_attention_mask, timestep,\n\
    \x20                   [guidance], [controlnet_block_samples.I] -> sample\n\
    \x20 controlnet        as transformer, controlnet_cond, [conditioning_scale] -> block_samples.I\n\
    \x20 vae.encode        sample (-1..1) -> latent\n\
    \x20 vae.decode        latent -> sample\n\
    \x20 language_model    input_ids, [attention_mask] -> logits"
)]
pub struct ProbeArguments {
    /// Pipeline's or component's folder, hub id, or sana-emoji
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Which component
    #[arg(long, value_name = "NAME")]
    component: Component,
    /// Tensors to read
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    /// Variant of the weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Convolve tap by tap: slower, closer in the last bits
    #[arg(long)]
    exact: bool,
    /// How inputs of 4-bit layers are rounded: 8 (default), 4, or full
    #[arg(long, value_enum, value_name = "BITS")]
    activations: Option<ActivationBits>,
    #[command(flatten)]
    threads: ThreadArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Component {
    TextEncoder,
    Transformer,
    #[value(name = "controlnet")]
    ControlNet,
    #[value(name = "vae.encode")]
    VaeEncode,
    #[value(name = "vae.decode")]
    VaeDecode,
    LanguageModel,
}

type Outputs = Vec<(String, Tensor)>;

/// Runs the command.
pub fn run(arguments: &ProbeArguments) -> Result {
    arguments.threads.apply()?;
    output::check_writable(&arguments.outputs)?;
    let folder = models::open(Some(&arguments.model), arguments.variant.as_deref())?;
    let inputs = Inputs::open(&arguments.inputs)?;
    let probe = Probe {
        folder,
        inputs,
        variant: arguments.variant.as_deref(),
        exact: arguments.exact,
        activations: arguments.activations,
    };
    let outputs = match arguments.component {
        Component::TextEncoder => probe.text_encoder()?,
        Component::Transformer => probe.transformer()?,
        Component::ControlNet => probe.controlnet()?,
        Component::VaeEncode => probe.vae_encode()?,
        Component::VaeDecode => probe.vae_decode()?,
        Component::LanguageModel => probe.language_model()?,
    };
    tensors::write(&arguments.outputs, &outputs)
}

struct Probe<'a> {
    folder: ModelFolder,
    inputs: Inputs,
    variant: Option<&'a str>,
    exact: bool,
    activations: Option<ActivationBits>,
}

/// A component's `config.json`, its name for messages, and its weights.
struct Files {
    config: Vec<u8>,
    label: String,
    weights: Arc<dyn TensorSource>,
}

impl Probe<'_> {
    fn open(&self, component: &str) -> Result<Files> {
        let found = Found::find(&self.folder, component)?;
        Ok(Files {
            weights: self.folder.open_component(&found.folder, self.variant)?,
            config: found.config,
            label: found.label,
        })
    }

    fn check_names(&self, known: &[&str]) -> Result {
        check_names(&self.inputs, known)
    }

    fn text_encoder(&self) -> Result<Outputs> {
        self.check_names(&TEXT_INPUTS)?;
        let files = self.open("text_encoder")?;
        let config = Gemma2Config::from_json(&files.config, &files.label)?;
        let (shape, ids) = self.inputs.ids("input_ids", config.vocab_size)?;
        let size = (shape[0], shape[1]);
        let mask: Vec<u32> = self
            .inputs
            .mask("attention_mask", size)?
            .into_iter()
            .flatten()
            .map(u32::from)
            .collect();
        let model = Gemma2Model::load(&config, &weight_only_parameters(files.weights)?)?;
        let ids = Tensor::from_vec(ids, size)?;
        let mask = Tensor::from_vec(mask, size)?;
        let hidden = model.forward(&ids, Some(&mask))?;
        let keep = mask.to_dtype(hidden.dtype())?.unsqueeze(2)?;
        Ok(vec![(
            "last_hidden_state".to_owned(),
            hidden.broadcast_mul(&keep)?,
        )])
    }

    fn transformer(&self) -> Result<Outputs> {
        const RESIDUALS: &str = "controlnet_block_samples.";
        self.check_names(&[&TRANSFORMER_INPUTS[..], &[RESIDUALS]].concat())?;
        let files = self.open("transformer")?;
        let config = SanaConfig::from_json(&files.config, &files.label)?;
        let given = Conditioning::read(&self.inputs)?;
        let count = self
            .inputs
            .names()
            .iter()
            .filter(|name| name.starts_with(RESIDUALS))
            .count();
        let residuals = (0..count)
            .map(|index| self.inputs.tensor(&format!("{RESIDUALS}{index}"), 3))
            .collect::<Result<Vec<_>>>()?;
        let quantised = brisk_quant::file::is_quantised(&*files.weights);
        if self.activations.is_some() && !quantised {
            return Err(Failure::usage(
                "--activations: has no effect on a transformer without 4-bit layers",
            ));
        }
        let activations = self
            .activations
            .map_or_else(Activations::default, Into::into);
        let weights = sana::parameters(&config, files.weights, activations)?;
        let model = SanaTransformer::load(&config, &weights)?;
        let caption = model.encode_caption(&given.text, &given.lengths)?;
        let extras = ForwardExtras {
            residuals: &residuals,
            ..ForwardExtras::default()
        };
        let sample = model.forward(
            &given.hidden,
            &given.timestep,
            given.guidance.as_ref(),
            &caption,
            &extras,
        )?;
        Ok(vec![("sample".to_owned(), ops::to_nchw(&sample)?)])
    }

    fn controlnet(&self) -> Result<Outputs> {
        let own = ["controlnet_cond", "conditioning_scale"];
        self.check_names(&[&TRANSFORMER_INPUTS[..], &own].concat())?;
        let files = self.open("controlnet")?;
        let config = SanaControlNetConfig::from_json(&files.config, &files.label)?;
        let given = Conditioning::read(&self.inputs)?;
        let control = ops::to_nhwc(&self.inputs.tensor("controlnet_cond", 4)?)?;
        let scale = self.inputs.scalar("conditioning_scale")?.unwrap_or(1.0);
        let model = SanaControlNet::load(&config, &Weights::from_source(files.weights))?;
        let caption = model.encode_caption(&given.text, &given.lengths)?;
        let start = ControlStart::Latent(&given.hidden);
        let samples = model.forward(
            start,
            &control,
            &given.timestep,
            given.guidance.as_ref(),
            &caption,
            f64::from(scale),
        )?;
        Ok(samples
            .into_iter()
            .enumerate()
            .map(|(index, sample)| (format!("block_samples.{index}"), sample))
            .collect())
    }

    fn autoencoder(&self, halves: Halves) -> Result<Autoencoder> {
        let files = self.open("vae")?;
        let (config, weights) = autoencoder_parts(&files.config, &files.label, files.weights)?;
        Ok(Autoencoder::load(
            &config,
            &Weights::from_source(weights).exact(self.exact),
            halves,
        )?)
    }

    /// Tokens that the mask hides are left out, and their logits are zero.
    fn language_model(&self) -> Result<Outputs> {
        self.check_names(&["input_ids", "attention_mask"])?;
        let files = self.open("language_model")?;
        let config = LanguageModelConfig::from_json(&files.config, &files.label)?;
        let (shape, ids) = self.inputs.ids("input_ids", config.vocab_size)?;
        let (batch, tokens) = (shape[0], shape[1]);
        let masked = self.inputs.names().contains(&"attention_mask".to_owned());
        let mask = if masked {
            self.inputs.mask("attention_mask", (batch, tokens))?
        } else {
            vec![vec![true; tokens]; batch]
        };
        let kept: Vec<Vec<u32>> = ids
            .chunks(tokens)
            .zip(&mask)
            .map(|(row, mask)| {
                let pairs = row.iter().zip(mask).filter(|(_, keep)| **keep);
                pairs.map(|(id, _)| *id).collect()
            })
            .collect();
        if let Some(row) = kept.iter().position(Vec::is_empty) {
            return Err(Failure::failed(format!(
                "attention_mask hides every token of row {row}; expected at least one to keep"
            )));
        }
        let model = LanguageModel::load(&config, &Weights::from_source(files.weights))?;
        let rows: Vec<&[u32]> = kept.iter().map(Vec::as_slice).collect();
        let mut found = model.forward(&rows)?.to_vec2::<f32>()?.into_iter();
        let width = config.vocab_size;
        let mut logits = Vec::with_capacity(batch * tokens * width);
        for keep in mask.iter().flatten() {
            let row = if *keep { found.next() } else { None };
            logits.extend(row.unwrap_or_else(|| vec![0.0; width]));
        }
        let logits = Tensor::from_vec(logits, (batch, tokens, width))?;
        Ok(vec![("logits".to_owned(), logits)])
    }

    fn vae_encode(&self) -> Result<Outputs> {
        self.check_names(&["sample"])?;
        let sample = ops::to_nhwc(&self.inputs.tensor("sample", 4)?)?;
        let latent = self.autoencoder(Halves::EncoderOnly)?.encode(&sample)?;
        Ok(vec![("latent".to_owned(), ops::to_nchw(&latent)?)])
    }

    fn vae_decode(&self) -> Result<Outputs> {
        self.check_names(&["latent"])?;
        let latent = ops::to_nhwc(&self.inputs.tensor("latent", 4)?)?;
        let sample = self.autoencoder(Halves::DecoderOnly)?.decode(&latent)?;
        Ok(vec![("sample".to_owned(), ops::to_nchw(&sample)?)])
    }
}
