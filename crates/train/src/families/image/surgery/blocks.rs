//! The blocks of a grown transformer, one after the other, as the strategies of SANA-1.5's authors make them.

use std::borrow::Cow;
use std::collections::HashMap;

use brisk_models::sana::{SanaConfig, SanaTransformer};
use brisk_nn::Weights;
use brisk_store::{Dtype, OutTensor};
use half::{bf16, f16};

use super::grow::{GrowOptions, Strategy};
use super::source::{BlockParameter, DepthSource, block_tensor};
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::tensors;

/// Deviation of what [`Strategy::Progressive`] adds from block to block.
const PROGRESSIVE_NOISE: f32 = 0.01;
/// Deviation of new depth-wise convolutions with [`Strategy::Constant`].
const DEPTH_WISE: f32 = 0.2;

/// What a parameter of a block does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Ends one of the block's three branches.
    Projection,
    /// Its bias.
    ProjectionBias,
    /// Any other bias of the cross attention.
    CrossBias,
    /// Scales of a norm.
    NormWeight,
    NormBias,
    DepthWise,
    /// The modulation by time.
    Table,
    Other,
}

impl Role {
    fn of(name: &str) -> Self {
        match name {
            "attn1.to_out.0.weight" | "attn2.to_out.0.weight" | "ff.conv_point.weight" => {
                Self::Projection
            }
            "attn1.to_out.0.bias" | "attn2.to_out.0.bias" | "ff.conv_point.bias" => {
                Self::ProjectionBias
            }
            "attn2.to_q.bias" | "attn2.to_k.bias" | "attn2.to_v.bias" => Self::CrossBias,
            "norm2.bias" => Self::NormBias,
            "scale_shift_table" => Self::Table,
            name if name.starts_with("ff.conv_depth.") => Self::DepthWise,
            name if name.contains("norm") => Self::NormWeight,
            _ => Self::Other,
        }
    }

    /// Whether a block is the identity once these are zero: it adds nothing then.
    fn is_gated(self) -> bool {
        matches!(self, Self::Projection | Self::ProjectionBias | Self::Table)
    }
}

/// Makes the blocks of a result in their order.
pub(super) struct Blocks<'a> {
    source: &'a DepthSource,
    options: &'a GrowOptions,
    /// Blocks of the source that are used.
    kept: usize,
    /// Norms of queries and keys that the source lacks.
    added: Vec<BlockParameter>,
    /// The block before, where the next one is made of it.
    before: HashMap<String, Vec<f32>>,
}

impl<'a> Blocks<'a> {
    pub fn new(source: &'a DepthSource, options: &'a GrowOptions, kept: usize) -> Self {
        let added = match options.qk_norm && source.model.qk_norm.is_none() {
            true => missing_norms(source),
            false => Vec::new(),
        };
        Self {
            source,
            options,
            kept,
            added,
            before: HashMap::new(),
        }
    }

    /// Block `index` of the result; they are asked for from the first to the last.
    pub fn block(&mut self, index: usize) -> Result<Vec<OutTensor<'a>>> {
        let mut tensors = match self.copied(index) {
            Some((block, zero_gate)) => self.copy(block, index, zero_gate)?,
            None => self.made(index)?,
        };
        for parameter in &self.added {
            let ones = vec![1.0; parameter.shape.iter().product()];
            tensors.push(encoded(parameter, index, &ones)?);
        }
        Ok(tensors)
    }

    /// Which block of the source is taken as it is, and whether it is to add nothing.
    fn copied(&self, index: usize) -> Option<(usize, bool)> {
        let (kept, layers) = (self.kept, self.options.layers);
        let gate = self.options.zero_gate;
        match self.options.strategy {
            Strategy::Cyclic => Some((index % kept, gate && index >= kept)),
            Strategy::BlockExpand => {
                let copies = layers / kept;
                Some((index / copies, gate && !index.is_multiple_of(copies)))
            }
            Strategy::Interpolation => {
                let exact = (index * kept).is_multiple_of(layers);
                let last = index * kept / layers + 1 >= kept;
                (exact || last).then_some((index * kept / layers, false))
            }
            Strategy::Constant | Strategy::Random | Strategy::Progressive => {
                (index < kept).then_some((index, false))
            }
        }
    }

    fn copy(&self, block: usize, index: usize, zero_gate: bool) -> Result<Vec<OutTensor<'a>>> {
        let mut tensors = self.source.stored(block, index)?;
        if zero_gate {
            for (tensor, parameter) in tensors.iter_mut().zip(&self.source.parameters) {
                if Role::of(&parameter.name).is_gated() {
                    // Zero has zero bits in every type of number.
                    tensor.data = Cow::Owned(vec![0; tensor.data.len()]);
                }
            }
        }
        Ok(tensors)
    }

    /// A block that the source does not have.
    fn made(&mut self, index: usize) -> Result<Vec<OutTensor<'a>>> {
        let own = match self.options.strategy {
            Strategy::Random => self.initial(index)?,
            _ => HashMap::new(),
        };
        let source = self.source;
        let mut tensors = Vec::with_capacity(source.parameters.len());
        for (place, parameter) in source.parameters.iter().enumerate() {
            let values = match self.options.strategy {
                Strategy::Random => own.get(&parameter.name).cloned().ok_or_else(|| {
                    Error::Data(format!("parameter {} is not the model's", parameter.name))
                })?,
                Strategy::Progressive => self.next(index, place, parameter)?,
                Strategy::Interpolation => self.between(index, parameter)?,
                _ => self.constant(index, place, parameter),
            };
            tensors.push(encoded(parameter, index, &values)?);
        }
        Ok(tensors)
    }

    /// Normal numbers, other ones for each parameter of each block.
    fn normals(&self, index: usize, place: usize, count: usize) -> Vec<f32> {
        let stream = ((index as u64) << 32) | place as u64;
        Rng::stream(self.options.seed, stream).normals(count)
    }

    /// Small random weights behind which projections let nothing through.
    fn constant(&self, index: usize, place: usize, parameter: &BlockParameter) -> Vec<f32> {
        let count = parameter.shape.iter().product();
        let scale = match Role::of(&parameter.name) {
            Role::NormWeight => return vec![1.0; count],
            Role::ProjectionBias | Role::CrossBias | Role::NormBias => 0.0,
            Role::Projection => self.options.projection_scale,
            Role::DepthWise => DEPTH_WISE,
            Role::Table | Role::Other => self.options.other_scale,
        };
        if scale == 0.0 {
            return vec![0.0; count];
        }
        let mut values = self.normals(index, place, count);
        values.iter_mut().for_each(|value| *value *= scale);
        values
    }

    /// The block before with a little noise.
    fn next(&mut self, index: usize, place: usize, parameter: &BlockParameter) -> Result<Vec<f32>> {
        let mut values = match self.before.remove(&parameter.name) {
            Some(values) => values,
            None => self.source.values(self.kept - 1, &parameter.name)?,
        };
        let noise = self.normals(index, place, values.len());
        for (value, noise) in values.iter_mut().zip(noise) {
            *value += PROGRESSIVE_NOISE * noise;
        }
        self.before.insert(parameter.name.clone(), values.clone());
        Ok(values)
    }

    /// Between the two blocks of the source around its place.
    fn between(&self, index: usize, parameter: &BlockParameter) -> Result<Vec<f32>> {
        let layers = self.options.layers;
        let low = index * self.kept / layers;
        let share = (index * self.kept) as f64 / layers as f64 - low as f64;
        let share = share as f32;
        let mut values = self.source.values(low, &parameter.name)?;
        let above = self
            .source
            .values((low + 1).min(self.kept - 1), &parameter.name)?;
        for (value, above) in values.iter_mut().zip(above) {
            *value = (1.0 - share) * *value + share * above;
        }
        Ok(values)
    }

    /// A block as one of a model that is trained from nothing.
    fn initial(&self, index: usize) -> Result<HashMap<String, Vec<f32>>> {
        let config = SanaConfig {
            num_layers: 1,
            ..self.source.model.clone()
        };
        let seed = Rng::stream(self.options.seed, index as u64).next_u64();
        let weights = Weights::trainable(None, seed);
        SanaTransformer::load(&config, &weights)?;
        let prefix = block_tensor(0, "");
        let mut values = HashMap::new();
        for (name, variable) in weights.variables() {
            if let Some(name) = name.strip_prefix(&prefix) {
                let tensor = variable.as_tensor().into();
                values.insert(name.to_owned(), tensors::values(&tensor)?);
            }
        }
        Ok(values)
    }
}

/// The norms of queries and keys, in the type of the weights before them.
fn missing_norms(source: &DepthSource) -> Vec<BlockParameter> {
    let widths = [
        ("attn1", source.model.width()),
        ("attn2", source.model.cross_width()),
    ];
    let dtype = |attention: &str| {
        let beside = format!("{attention}.to_q.weight");
        let found = source.parameters.iter().find(|known| known.name == beside);
        found.map_or(Dtype::F32, |known| known.dtype)
    };
    let norms = widths.into_iter().flat_map(|(attention, width)| {
        ["norm_q", "norm_k"].map(|norm| BlockParameter {
            name: format!("{attention}.{norm}.weight"),
            dtype: dtype(attention),
            shape: vec![width],
        })
    });
    norms.collect()
}

/// Values as a parameter of a block, in the parameter's own type.
fn encoded(parameter: &BlockParameter, index: usize, values: &[f32]) -> Result<OutTensor<'static>> {
    let data = match parameter.dtype {
        Dtype::F32 => bytemuck::cast_slice(values).to_vec(),
        Dtype::BF16 => values
            .iter()
            .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
            .collect(),
        Dtype::F16 => values
            .iter()
            .flat_map(|value| f16::from_f32(*value).to_le_bytes())
            .collect(),
        other => {
            return Err(Error::Data(format!(
                "{} is stored as {other}; expected F32, F16 or BF16",
                block_tensor(0, &parameter.name)
            )));
        }
    };
    Ok(OutTensor {
        name: block_tensor(index, &parameter.name),
        dtype: parameter.dtype,
        shape: parameter.shape.clone(),
        data: Cow::Owned(data),
    })
}
