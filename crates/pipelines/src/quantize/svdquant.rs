//! A component by SVDQuant: 4-bit weights and activations beside a low-rank branch.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use brisk_quant::{
    Awq, Calibration, HalfType, LayerGroup, LowBitLayout, Record, Settings, file, plain_to_file,
    quantize,
};
use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};
use serde_json::Value;

use super::folder::Target;
use super::work::{WorkFolder, rows_of, values};
use super::{Job, LayerReport, PartReport};
use crate::error::{Error, Result};

/// The layers of a layout; each group of them is a part.
pub(super) struct SvdQuantJob<'a> {
    pub groups: Vec<LayerGroup>,
    pub layout: &'a dyn LowBitLayout,
    /// Plain weights.
    pub source: &'a dyn TensorSource,
    /// The component's configuration.
    pub config: Value,
    pub settings: &'a Settings,
    /// Whether the layers that keep full activations get 4-bit weights as well.
    pub weights_alone: bool,
}

/// The layer whose input stands for a group's.
fn first(group: &LayerGroup) -> &str {
    group.layers.first().map_or("", |(name, _)| name)
}

impl Job for SvdQuantJob<'_> {
    fn inputs(&self) -> Vec<(String, usize)> {
        let input = |group: &LayerGroup| (first(group).to_owned(), group.inputs);
        self.groups.iter().map(input).collect()
    }

    fn parts(&self) -> usize {
        self.groups.len()
    }

    fn part(&self, index: usize, work: &WorkFolder, rows: &SafetensorsFile) -> Result<PartReport> {
        let group = &self.groups[index];
        let name = first(group);
        if let Some(report) = work.finished(&group.file, name) {
            return Ok(report);
        }
        let mut weights = Vec::with_capacity(group.layers.len());
        let mut biases = Vec::new();
        for (name, outputs) in &group.layers {
            let weight = format!("{name}.weight");
            weights.push(values(self.source, &weight, outputs * group.inputs)?);
            let bias = format!("{name}.bias");
            if self.source.info(&bias).is_some() {
                biases.extend(values(self.source, &bias, *outputs)?);
            }
        }
        let rows = rows_of(rows, name, group.inputs)?;
        let views: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
        let sizes: Vec<usize> = group.layers.iter().map(|(_, outputs)| *outputs).collect();
        let calibration = Calibration {
            inputs: &rows,
            width: group.inputs,
        };
        let found = quantize(&views, &sizes, calibration, self.settings)
            .map_err(|error| Error::folder(name, error.to_string()))?;
        let record = Record {
            bias: (biases.len() == group.outputs()).then_some(biases),
            ..found.record
        };
        let layer = LayerReport {
            branch: Some((found.exponents.beta, found.iterations)),
            ..LayerReport::new(name, found.error, found.exponents.alpha)
        };
        let report = PartReport {
            name: name.to_owned(),
            layers: vec![layer],
            resumed: false,
        };
        work.keep(&group.file, &group.tensors(&record), &report)?;
        Ok(report)
    }

    fn assemble(&self, work: &WorkFolder, target: &Target) -> Result<()> {
        let parts: Vec<SafetensorsFile> = self
            .groups
            .iter()
            .map(|group| work.part(&group.file))
            .collect::<Result<_>>()?;
        let groups = self.groups.iter().flat_map(|group| &group.layers);
        let quantized: BTreeSet<&str> = groups.map(|(name, _)| name.as_str()).collect();
        let alone = self.layers_alone()?;
        let is_quantized = |layer: &str| quantized.contains(layer) || alone.contains_key(layer);
        let rest = plain_to_file(self.source, self.layout, is_quantized)
            .map_err(|error| Error::folder(self.source.origin(""), error.to_string()))?;
        let mut tensors: Vec<OutTensor> = rest.into_iter().map(narrowed).collect::<Result<_>>()?;
        for (name, layer) in &alone {
            tensors.extend(layer.tensors(name));
        }
        for part in &parts {
            for name in part.names() {
                tensors.extend(OutTensor::stored(part, name)?);
            }
        }
        target.write_config(&self.config)?;
        let metadata = file::metadata(&self.config, self.layout.class(), self.settings.rank);
        Ok(write_safetensors(&target.weights(), &tensors, &metadata)?)
    }
}

impl SvdQuantJob<'_> {
    /// Layers with 4-bit weights alone, under their plain names.
    fn layers_alone(&self) -> Result<BTreeMap<String, Awq>> {
        let mut layers = BTreeMap::new();
        if !self.weights_alone {
            return Ok(layers);
        }
        for name in self.source.names() {
            let Some(layer) = name.strip_suffix(".weight") else {
                continue;
            };
            let Some((_, shape)) = self.source.info(&name) else {
                continue;
            };
            let [outputs, inputs] = shape[..] else {
                continue;
            };
            let fits = outputs.is_multiple_of(4) && inputs.is_multiple_of(64) && inputs > 0;
            if !fits || !self.layout.has_weights_alone(layer) {
                continue;
            }
            let weight = values(self.source, &name, outputs * inputs)?;
            let bias = format!("{layer}.bias");
            let bias = match self.source.info(&bias) {
                Some(_) => Some(values(self.source, &bias, outputs)?),
                None => None,
            };
            let half = self.settings.half;
            layers.insert(
                layer.to_owned(),
                Awq::round(&weight, inputs, bias.as_deref(), half),
            );
        }
        Ok(layers)
    }
}

/// A tensor in 16 bits, where it is wider.
pub(super) fn narrowed(tensor: OutTensor<'_>) -> Result<OutTensor<'_>> {
    if !matches!(tensor.dtype, Dtype::F32 | Dtype::F64) {
        return Ok(tensor);
    }
    let view = brisk_store::TensorView {
        dtype: tensor.dtype,
        shape: tensor.shape,
        data: tensor.data,
    };
    let data = HalfType::Bf16.bytes(&view.to_f32()?);
    Ok(OutTensor {
        name: tensor.name,
        dtype: Dtype::BF16,
        shape: view.shape,
        data: Cow::Owned(data),
    })
}
