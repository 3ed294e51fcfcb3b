//! Quantising a Gemma 2 text encoder by AWQ: 4-bit weights, full activations.
//!
//! What an input is divided by goes into whatever makes it: that of queries, keys and values and that
//! of gate and up into the norms before them, that of the attention's output into the values, that of
//! down into up. Nothing is computed at run time that the full model does not compute.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use brisk_models::gemma2::Gemma2Config;
use brisk_quant::awq::{AwqLayers, AwqSettings, column_means, quantise_awq};
use brisk_quant::file::LiteConfig;
use brisk_quant::integer::GROUP;
use brisk_quant::{Calibration, LayerError};
use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};
use serde_json::{Value, json};

use super::{calibration_rows, narrowed, part_report, stored, stored_values, write_part};
use crate::error::{Error, Result};

const QUERY: &str = "self_attn.q_proj";
const KEY: &str = "self_attn.k_proj";
const VALUE: &str = "self_attn.v_proj";
const OUT: &str = "self_attn.o_proj";
const GATE: &str = "mlp.gate_proj";
const UP: &str = "mlp.up_proj";
const DOWN: &str = "mlp.down_proj";
const LAYERS: [&str; 7] = [QUERY, KEY, VALUE, OUT, GATE, UP, DOWN];
const INPUT_NORM: &str = "input_layernorm.weight";
const FEEDFORWARD_NORM: &str = "pre_feedforward_layernorm.weight";

/// How the layers that share an input came out.
#[derive(Debug, Clone, PartialEq)]
pub struct InputReport {
    /// The first of them.
    pub layer: String,
    /// Relative error of all their outputs on the calibration rows.
    pub error: f64,
    /// Exponent of the factors.
    pub alpha: f32,
}

/// How one block came out.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockReport {
    /// Name of the block.
    pub name: String,
    /// Its layers by their inputs.
    pub inputs: Vec<InputReport>,
    /// Whether an earlier run had done it.
    pub resumed: bool,
}

/// A text encoder being quantised.
pub struct TextEncoderJob<'a> {
    /// Its settings.
    pub config: &'a Gemma2Config,
    /// Its plain weights.
    pub source: &'a dyn TensorSource,
    /// What [`Collector::save`](super::Collector::save) wrote.
    pub calibration: &'a SafetensorsFile,
    /// Folder of finished blocks.
    pub work: &'a Path,
    /// How layers are quantised.
    pub settings: AwqSettings,
}

fn prefix(source: &dyn TensorSource, block: usize) -> String {
    let wrapped = source.info("model.embed_tokens.weight").is_some();
    let body = if wrapped { "model." } else { "" };
    format!("{body}layers.{block}")
}

/// Outputs and inputs.
fn size(config: &Gemma2Config, layer: &str) -> (usize, usize) {
    let width = config.hidden_size;
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    match layer {
        QUERY => (queries, width),
        KEY | VALUE => (keys, width),
        OUT => (width, queries),
        DOWN => (width, config.intermediate_size),
        _ => (config.intermediate_size, width),
    }
}

/// Name and width of every layer input that [`TextEncoderJob`] needs rows of.
pub fn text_encoder_inputs(
    config: &Gemma2Config,
    source: &dyn TensorSource,
) -> Vec<(String, usize)> {
    let input = |block: usize, layer: &str| {
        let name = format!("{}.{layer}", prefix(source, block));
        (name, size(config, layer).1)
    };
    (0..config.num_hidden_layers)
        .flat_map(|block| [QUERY, OUT, GATE, DOWN].map(|layer| input(block, layer)))
        .collect()
}

/// One block's full weights.
struct Block {
    weights: BTreeMap<&'static str, Vec<f32>>,
    biases: BTreeMap<&'static str, Vec<f32>>,
    norms: BTreeMap<&'static str, Vec<f32>>,
}

impl Block {
    /// Makes the outputs of a layer smaller by `factors`, one for each row.
    fn divide_outputs(&mut self, layer: &'static str, factors: &[f32]) {
        if let Some(weight) = self.weights.get_mut(layer) {
            let width = weight.len() / factors.len();
            for (row, factor) in weight.chunks_exact_mut(width).zip(factors) {
                row.iter_mut().for_each(|w| *w /= factor);
            }
        }
        if let Some(bias) = self.biases.get_mut(layer) {
            bias.iter_mut().zip(factors).for_each(|(b, s)| *b /= s);
        }
    }

    /// Makes the outputs of a norm, which multiplies by 1 + weight, smaller by `factors`.
    fn divide_norm(&mut self, norm: &'static str, factors: &[f32]) {
        if let Some(weight) = self.norms.get_mut(norm) {
            let each = weight.iter_mut().zip(factors);
            each.for_each(|(w, s)| *w = (1.0 + *w) / s - 1.0);
        }
    }
}

impl TextEncoderJob<'_> {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.config.num_hidden_layers
    }

    fn path(&self, block: usize) -> PathBuf {
        self.work.join(format!("text_encoder{block}.safetensors"))
    }

    /// Quantises one block, or reads what an earlier run made of it.
    ///
    /// # Errors
    /// Weights that are missing, of another shape or of sizes that cannot be packed, or a file that
    /// cannot be written.
    pub fn block(&self, index: usize) -> Result<BlockReport> {
        let (path, name) = (self.path(index), prefix(self.source, index));
        if let Some(report) = finished(&path, &name) {
            return Ok(report);
        }
        let mut block = self.read(&name)?;
        let mut report = BlockReport {
            name: name.clone(),
            inputs: Vec::new(),
            resumed: false,
        };
        let mut tensors = Vec::new();
        let mut keep = |block: &Block, layers: &[&'static str], found: AwqLayers| {
            let error: LayerError = found.error;
            report.inputs.push(InputReport {
                layer: layers[0].to_owned(),
                error: error.relative(),
                alpha: found.alpha,
            });
            for (layer, mut packed) in layers.iter().zip(found.layers) {
                let half = packed.half;
                let bias = block.biases.get(layer);
                packed.bias = bias.map(|b| b.iter().map(|v| half.round(*v)).collect());
                tensors.extend(packed.tensors(&format!("{name}.{layer}")));
            }
        };
        // What stands behind a layer first: its factors change that layer's rows.
        let out = self.quantise(&block, &name, &[OUT])?;
        let heads = self.config.num_attention_heads / self.config.num_key_value_heads;
        let shared: Vec<f32> = out
            .factors
            .chunks_exact(heads * self.config.head_dim)
            .flat_map(|group| &group[..self.config.head_dim])
            .copied()
            .collect();
        block.divide_outputs(VALUE, &shared);
        keep(&block, &[OUT], out);
        let down = self.quantise(&block, &name, &[DOWN])?;
        block.divide_outputs(UP, &down.factors);
        keep(&block, &[DOWN], down);
        for (layers, norm) in [
            (&[QUERY, KEY, VALUE][..], INPUT_NORM),
            (&[GATE, UP], FEEDFORWARD_NORM),
        ] {
            let found = self.quantise(&block, &name, layers)?;
            block.divide_norm(norm, &found.factors);
            keep(&block, layers, found);
        }
        for (norm, values) in &block.norms {
            tensors.push(OutTensor {
                name: format!("{name}.{norm}"),
                dtype: Dtype::F32,
                shape: vec![values.len()],
                data: Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            });
        }
        write_part(&path, &tensors, &report.json())?;
        Ok(report)
    }

    fn read(&self, name: &str) -> Result<Block> {
        let mut block = Block {
            weights: BTreeMap::new(),
            biases: BTreeMap::new(),
            norms: BTreeMap::new(),
        };
        for layer in LAYERS {
            let (outputs, inputs) = size(self.config, layer);
            let weight = format!("{name}.{layer}.weight");
            if !outputs.is_multiple_of(4) || !inputs.is_multiple_of(GROUP) {
                return Err(Error::folder(
                    self.source.origin(&weight),
                    format!(
                        "{weight} is {outputs}x{inputs} (outputs x inputs); only multiples of 4x{GROUP} can \
                         be kept in 4 bits"
                    ),
                ));
            }
            let values = stored_values(self.source, &weight, outputs * inputs)?;
            self.source.forget(&weight);
            block.weights.insert(layer, values);
            let bias = format!("{name}.{layer}.bias");
            if self.source.info(&bias).is_some() {
                let values = stored_values(self.source, &bias, outputs)?;
                block.biases.insert(layer, values);
            }
        }
        for norm in [INPUT_NORM, FEEDFORWARD_NORM] {
            let name = format!("{name}.{norm}");
            let values = stored_values(self.source, &name, self.config.hidden_size)?;
            block.norms.insert(norm, values);
        }
        Ok(block)
    }

    /// Layers that share their input.
    fn quantise(&self, block: &Block, name: &str, layers: &[&'static str]) -> Result<AwqLayers> {
        let (_, width) = size(self.config, layers[0]);
        let input = format!("{name}.{}", layers[0]);
        let rows = calibration_rows(self.calibration, &input, width)?;
        let mut means = column_means(&rows, width);
        if layers[0] == OUT {
            self.share_between_heads(&mut means);
        }
        let weights: Vec<&[f32]> = layers
            .iter()
            .filter_map(|layer| block.weights.get(layer).map(Vec::as_slice))
            .collect();
        let calibration = Calibration {
            inputs: &rows,
            width,
        };
        quantise_awq(&weights, &means, calibration, &self.settings)
            .map_err(|error| Error::folder(input, error.to_string()))
    }

    /// Query heads of one value head get equal means: they divide the same values.
    fn share_between_heads(&self, means: &mut [f32]) {
        let dim = self.config.head_dim;
        let heads = self.config.num_attention_heads / self.config.num_key_value_heads;
        for group in means.chunks_exact_mut(heads * dim) {
            for channel in 0..dim {
                let of_head = |head: usize| group[head * dim + channel];
                let mean = (0..heads).map(of_head).sum::<f32>() / heads as f32;
                (0..heads).for_each(|head| group[head * dim + channel] = mean);
            }
        }
    }

    /// The layers that are quantised, by name.
    pub fn layers(&self) -> Vec<String> {
        (0..self.blocks())
            .flat_map(|block| {
                let name = prefix(self.source, block);
                LAYERS.map(|layer| format!("{name}.{layer}"))
            })
            .collect()
    }

    /// Puts all finished blocks and the rest into one file, `config.json` beside it.
    ///
    /// # Errors
    /// A block that is not finished, or a file that cannot be written.
    pub fn assemble(&self, mut config: Value, folder: &Path) -> Result<()> {
        let blocks: Vec<SafetensorsFile> = (0..self.blocks())
            .map(|block| SafetensorsFile::open(&self.path(block)))
            .collect::<Result<_, _>>()?;
        let layers = self.layers();
        let mut replaced: BTreeSet<String> = layers
            .iter()
            .flat_map(|layer| [format!("{layer}.weight"), format!("{layer}.bias")])
            .collect();
        let mut tensors = Vec::new();
        for file in &blocks {
            for name in file.names() {
                replaced.insert(name.clone());
                tensors.extend(stored(file, name)?);
            }
        }
        for name in self.source.names() {
            if replaced.contains(&name) || name == "lm_head.weight" {
                continue;
            }
            if let Some(tensor) = stored(self.source, name)? {
                tensors.push(narrowed(tensor)?);
            }
        }
        let file = folder.join("model.safetensors");
        write_safetensors(&file, &tensors, &BTreeMap::new())?;
        let lite = LiteConfig {
            w4a16: layers,
            ..LiteConfig::default()
        };
        config["quantization_config"] = lite.to_json();
        let text = format!("{config:#}\n");
        Ok(brisk_store::write_atomic(
            &folder.join("config.json"),
            text.as_bytes(),
        )?)
    }
}

impl BlockReport {
    fn json(&self) -> Value {
        let inputs: Vec<Value> = self
            .inputs
            .iter()
            .map(|input| json!({"layer": input.layer, "error": input.error, "alpha": input.alpha}))
            .collect();
        json!(inputs)
    }
}

/// The report of a block that an earlier run finished; a damaged file counts as none.
fn finished(path: &Path, name: &str) -> Option<BlockReport> {
    let report = part_report(path)?;
    let inputs = report.as_array()?.iter().map(|input| {
        Some(InputReport {
            layer: input["layer"].as_str()?.to_owned(),
            error: input["error"].as_f64()?,
            alpha: input["alpha"].as_f64()? as f32,
        })
    });
    Some(BlockReport {
        name: name.to_owned(),
        inputs: inputs.collect::<Option<_>>()?,
        resumed: true,
    })
}
