//! A component by AWQ: 4-bit weights, full activations.
//!
//! What an input is divided by goes into whatever makes it: that of queries, keys and values and that
//! of gate and up into the norms before them, that of the attention's output into the values, that of
//! down into up. Nothing is computed at run time that the full model does not compute.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use brisk_quant::awq::{AwqSettings, column_means, quantize_awq};
use brisk_quant::groups::{AwqGroup, Maker};
use brisk_quant::integer::GROUP;
use brisk_quant::lite::LiteConfig;
use brisk_quant::{AwqLayers, Calibration};
use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};
use serde_json::Value;

use super::folder::Target;
use super::svdquant::narrowed;
use super::work::{WorkFolder, rows_of, values};
use super::{Job, LayerReport, PartReport};
use crate::error::{Error, Result};

/// The layers of a layout; each block of them is a part.
pub(super) struct AwqJob<'a> {
    /// Its folder.
    pub component: &'static str,
    pub blocks: Vec<Vec<AwqGroup>>,
    /// Plain weights.
    pub source: &'a dyn TensorSource,
    /// The component's configuration.
    pub config: Value,
    pub settings: AwqSettings,
}

/// The layer whose input stands for a group's.
fn first(group: &AwqGroup) -> &str {
    group.layers.first().map_or("", |(name, _)| name)
}

/// What the layers of a block are called by: everything before what their names differ in.
fn block_name(groups: &[AwqGroup]) -> &str {
    let mut names = groups.iter().flat_map(|group| &group.layers);
    let Some((name, _)) = names.next() else {
        return "";
    };
    let shared = names.fold(name.as_str(), |shared, (name, _)| {
        let same = shared.bytes().zip(name.bytes()).take_while(|(a, b)| a == b);
        &shared[..same.count()]
    });
    shared.rsplit_once('.').map_or(shared, |(block, _)| block)
}

/// One block's full weights, by name: matrices, biases, norms.
struct Block(BTreeMap<String, Vec<f32>>);

impl Block {
    fn read(source: &dyn TensorSource, groups: &[AwqGroup]) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for group in groups {
            let inputs = group.inputs;
            for (layer, outputs) in &group.layers {
                let name = format!("{layer}.weight");
                if !outputs.is_multiple_of(4) || !inputs.is_multiple_of(GROUP) {
                    return Err(Error::folder(
                        source.origin(&name),
                        format!(
                            "{name} is {outputs}x{inputs} (outputs x inputs); only multiples of 4x{GROUP} \
                             can be kept in 4 bits"
                        ),
                    ));
                }
                let weight = values(source, &name, outputs * inputs)?;
                tensors.insert(name, weight);
                let name = format!("{layer}.bias");
                if source.info(&name).is_some() {
                    let bias = values(source, &name, *outputs)?;
                    tensors.insert(name, bias);
                }
            }
            if let Maker::Norm(name) = &group.maker {
                let norm = values(source, name, inputs)?;
                tensors.insert(name.clone(), norm);
            }
        }
        Ok(Self(tensors))
    }

    /// Makes what a group's input is made by smaller by the factors that it would have to divide by.
    fn divide(&mut self, maker: &Maker, factors: &[f32]) {
        match maker {
            Maker::Norm(name) => {
                let norm = self.0.get_mut(name).into_iter().flatten().zip(factors);
                norm.for_each(|(w, s)| *w = (1.0 + *w) / s - 1.0);
            }
            Maker::Layer {
                name,
                width,
                repeats,
            } => {
                let heads = factors.chunks_exact(width * repeats);
                let shared: Vec<f32> = heads.flat_map(|heads| &heads[..*width]).copied().collect();
                if let Some(weight) = self.0.get_mut(&format!("{name}.weight")) {
                    let inputs = weight.len() / shared.len();
                    for (row, factor) in weight.chunks_exact_mut(inputs).zip(&shared) {
                        row.iter_mut().for_each(|w| *w /= factor);
                    }
                }
                if let Some(bias) = self.0.get_mut(&format!("{name}.bias")) {
                    bias.iter_mut().zip(&shared).for_each(|(b, s)| *b /= s);
                }
            }
        }
    }
}

impl Job for AwqJob<'_> {
    fn inputs(&self) -> Vec<(String, usize)> {
        let input = |group: &AwqGroup| (first(group).to_owned(), group.inputs);
        self.blocks.iter().flatten().map(input).collect()
    }

    fn parts(&self) -> usize {
        self.blocks.len()
    }

    fn part(&self, index: usize, work: &WorkFolder, rows: &SafetensorsFile) -> Result<PartReport> {
        let groups = &self.blocks[index];
        let (part, name) = (self.part_name(index), block_name(groups));
        if let Some(report) = work.finished(&part, name) {
            return Ok(report);
        }
        let mut block = Block::read(self.source, groups)?;
        let mut report = PartReport {
            name: name.to_owned(),
            layers: Vec::new(),
            resumed: false,
        };
        let mut tensors = Vec::new();
        for group in groups {
            let found = self.quantize(&block, group, rows)?;
            block.divide(&group.maker, &found.factors);
            let layer = LayerReport::new(first(group), found.error, found.alpha);
            report.layers.push(layer);
            for ((layer, _), mut packed) in group.layers.iter().zip(found.layers) {
                let half = packed.half;
                let bias = block.0.get(&format!("{layer}.bias"));
                packed.bias = bias.map(|b| b.iter().map(|v| half.round(*v)).collect());
                tensors.extend(packed.tensors(layer));
            }
        }
        for group in groups {
            if let Maker::Norm(name) = &group.maker
                && let Some(values) = block.0.get(name)
            {
                tensors.push(OutTensor {
                    name: name.clone(),
                    dtype: Dtype::F32,
                    shape: vec![values.len()],
                    data: Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
                });
            }
        }
        work.keep(&part, &tensors, &report)?;
        Ok(report)
    }

    fn assemble(&self, work: &WorkFolder, target: &Target) -> Result<()> {
        let parts: Vec<SafetensorsFile> = (0..self.parts())
            .map(|index| work.part(&self.part_name(index)))
            .collect::<Result<_>>()?;
        let groups = self.blocks.iter().flatten();
        let layers = groups.flat_map(|group| &group.layers);
        let layers: Vec<String> = layers.map(|(name, _)| name.clone()).collect();
        let mut replaced: BTreeSet<String> = layers
            .iter()
            .flat_map(|layer| [format!("{layer}.weight"), format!("{layer}.bias")])
            .collect();
        let mut tensors = Vec::new();
        for file in &parts {
            for name in file.names() {
                replaced.insert(name.clone());
                tensors.extend(OutTensor::stored(file, name)?);
            }
        }
        for name in self.source.names() {
            if replaced.contains(&name) || name == "lm_head.weight" {
                continue;
            }
            if let Some(tensor) = OutTensor::stored(self.source, name)? {
                tensors.push(narrowed(tensor)?);
            }
        }
        write_safetensors(&target.weights(), &tensors, &BTreeMap::new())?;
        let lite = LiteConfig {
            w4a16: layers,
            ..LiteConfig::default()
        };
        let mut config = self.config.clone();
        config["quantization_config"] = lite.to_json();
        target.write_config(&config)
    }
}

impl AwqJob<'_> {
    fn part_name(&self, index: usize) -> String {
        format!("{}{index}", self.component)
    }

    /// Layers that share their input.
    fn quantize(
        &self,
        block: &Block,
        group: &AwqGroup,
        rows: &SafetensorsFile,
    ) -> Result<AwqLayers> {
        let (name, width) = (first(group), group.inputs);
        let rows = rows_of(rows, name, width)?;
        let mut means = column_means(&rows, width);
        if let Maker::Layer { width, repeats, .. } = group.maker {
            share_between_heads(&mut means, width, repeats);
        }
        let weights = group.layers.iter().filter_map(|(layer, _)| {
            let weight = block.0.get(&format!("{layer}.weight"))?;
            Some(weight.as_slice())
        });
        let weights: Vec<&[f32]> = weights.collect();
        let calibration = Calibration {
            inputs: &rows,
            width,
        };
        quantize_awq(&weights, &means, calibration, &self.settings)
            .map_err(|error| Error::folder(name, error.to_string()))
    }
}

/// Heads that are made by one get equal means: they divide the same values.
fn share_between_heads(means: &mut [f32], width: usize, repeats: usize) {
    for group in means.chunks_exact_mut(repeats * width) {
        for channel in 0..width {
            let of_head = |head: usize| group[head * width + channel];
            let mean = (0..repeats).map(of_head).sum::<f32>() / repeats as f32;
            (0..repeats).for_each(|head| group[head * width + channel] = mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_called_by_what_its_layers_share() {
        let group = |names: &[&str]| AwqGroup {
            layers: names.iter().map(|name| ((*name).to_owned(), 4)).collect(),
            inputs: 64,
            maker: Maker::Norm(String::new()),
        };
        let groups = [
            group(&[
                "model.layers.1.self_attn.q_proj",
                "model.layers.1.self_attn.k_proj",
            ]),
            group(&["model.layers.1.mlp.up_proj"]),
        ];
        assert_eq!(block_name(&groups), "model.layers.1");
        assert_eq!(block_name(&groups[1..]), "model.layers.1.mlp");
        assert_eq!(block_name(&[]), "");
    }

    #[test]
    fn heads_of_one_value_head_share_factors() {
        let mut means = [1.0, 2.0, 3.0, 6.0, 5.0, 5.0, 7.0, 7.0];
        share_between_heads(&mut means, 2, 2);
        assert_eq!(means, [2.0, 4.0, 2.0, 4.0, 6.0, 6.0, 6.0, 6.0]);
        let mut block = Block(BTreeMap::from([
            ("v.weight".to_owned(), vec![2.0, 4.0, 8.0, 8.0]),
            ("v.bias".to_owned(), vec![2.0, 4.0]),
            ("norm".to_owned(), vec![1.0, 3.0]),
        ]));
        let maker = Maker::Layer {
            name: "v".to_owned(),
            width: 2,
            repeats: 2,
        };
        block.divide(&maker, &[2.0, 4.0, 2.0, 4.0]);
        assert_eq!(block.0["v.weight"], [1.0, 2.0, 2.0, 2.0]);
        assert_eq!(block.0["v.bias"], [1.0, 1.0]);
        block.divide(&Maker::Norm("norm".to_owned()), &[2.0, 4.0]);
        assert_eq!(block.0["norm"], [0.0, 0.0]);
    }
}
