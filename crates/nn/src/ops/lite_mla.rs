//! Multi-scale linear attention over frozen weights.

use super::glu_mb_conv::DepthwiseWeight;
use super::linear::shape_error;
use super::storage::{Reach, slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::{OnDevice, Tensor};
use brisk_kernels::buffer::unfilled;
use brisk_kernels::depthwise::{self, DepthwiseShape};
use brisk_kernels::grouped;
use brisk_kernels::linear_attention::{self, InterleavedStates, LinearAttentionShape};
use std::ops::Range;

/// One extra scale: a neighbourhood and a small matrix for each query, key and value of a head.
#[derive(Clone, Copy, Debug)]
pub struct GatheredScale<'a> {
    /// Over all `heads·3·dim` channels.
    pub gather: DepthwiseWeight<'a>,
    /// Side of its kernel.
    pub kernel: usize,
    /// `[3·heads, dim (in), dim (out)]`
    pub mix: &'a Tensor,
}

/// The layer over one map, or over a strip of its rows.
struct Scales<'a> {
    name: &'static str,
    dims: [usize; 3],
    heads: usize,
    dim: usize,
    scales: &'a [GatheredScale<'a>],
    eps: f64,
}

impl<'a> Scales<'a> {
    fn new(
        name: &'static str,
        projected: &Tensor,
        heads: usize,
        scales: &'a [GatheredScale<'a>],
        eps: f64,
    ) -> Result<Self> {
        let (batch, height, width, wide) = projected.dims4()?;
        let dim = wide / (3 * heads).max(1);
        let fits = dim > 0
            && wide == 3 * heads * dim
            && scales.iter().all(|scale| {
                scale.gather.bias.is_none()
                    && scale.kernel % 2 == 1
                    && scale.gather.weight.elem_count() == scale.kernel * scale.kernel * wide
                    && scale.mix.dims() == [3 * heads, dim, dim]
            });
        if !fits {
            let expected = format!("channels of {heads} heads' queries, keys and values");
            return Err(shape_error(name, projected.dims(), &expected));
        }
        Ok(Self {
            name,
            dims: [batch, height, width],
            heads,
            dim,
            scales,
            eps,
        })
    }

    fn shape(&self, rows: usize) -> LinearAttentionShape {
        LinearAttentionShape {
            batch: self.dims[0],
            tokens: rows * self.dims[2],
            heads: self.heads,
            dim: self.dim,
            eps: self.eps as f32,
        }
    }

    /// What the extra scales make of the projection.
    fn mixed(&self, projected: &[f32]) -> Result<Vec<Vec<f32>>> {
        let [batch, height, width] = self.dims;
        let mut gathered = unfilled(if self.scales.is_empty() {
            0
        } else {
            projected.len()
        });
        let mut mixed = Vec::with_capacity(self.scales.len());
        for scale in self.scales {
            let map = DepthwiseShape {
                batch,
                height,
                width,
                channels: 3 * self.heads * self.dim,
                kernel: scale.kernel,
            };
            let (weight, mix) = (scale.gather.weight.contiguous()?, scale.mix.contiguous()?);
            let (weight, mix) = (weight.reach()?, mix.reach()?);
            let (weight, mix) = (slice(&weight.0, weight.1)?, slice(&mix.0, mix.1)?);
            depthwise::forward(&map, projected, weight, None, &mut gathered);
            let mut values = unfilled(projected.len());
            grouped::forward(&gathered, mix, self.dim, 3 * self.heads, &mut values);
            mixed.push(values);
        }
        Ok(mixed)
    }

    /// Calls `work` with every scale's queries, keys and values and room for the result.
    fn attend(
        &self,
        projected: &Tensor,
        work: impl FnOnce(&LinearAttentionShape, &[&[f32]], &mut [f32]),
    ) -> Result<Tensor> {
        let [batch, height, width] = self.dims;
        let channels = (1 + self.scales.len()) * self.heads * self.dim;
        let dims = [batch, height, width, channels];
        with_slices!([projected], {
            let mixed = self.mixed(projected)?;
            let mut o = unfilled(dims.iter().product());
            work(&self.shape(height), &sources(projected, &mixed), &mut o);
            Ok(tensor(o, &dims)?)
        })
    }
}

fn sources<'a>(projected: &'a [f32], mixed: &'a [Vec<f32>]) -> Vec<&'a [f32]> {
    std::iter::once(projected)
        .chain(mixed.iter().map(Vec::as_slice))
        .collect()
}

/// Attends at every scale: `projected` `[batch, height, width, heads·3·dim]`, a head's query, key and
/// value side by side, to `[batch, height, width, (1 + scales)·heads·dim]`. Not differentiable.
///
/// # Errors
/// Sizes that do not fit.
pub fn multi_scale_linear_attention(
    projected: &Tensor,
    heads: usize,
    scales: &[GatheredScale],
    eps: f64,
) -> Result<Tensor> {
    let name = "multi_scale_linear_attention";
    if let Some(projected) = projected.device() {
        return on_device(name, projected, heads, scales, eps);
    }
    let scales = Scales::new(name, projected, heads, scales, eps)?;
    scales.attend(projected, linear_attention::forward_interleaved)
}

/// The same on a card, whose operations check the sizes.
fn on_device(
    name: &str,
    projected: &OnDevice,
    heads: usize,
    scales: &[GatheredScale],
    eps: f64,
) -> Result<Tensor> {
    use brisk_cuda::ops::{HeadLayout, depthwise, grouped, linear_attention};
    let projected = projected.tensor();
    let mut mixed = Vec::with_capacity(scales.len());
    for scale in scales {
        let weight = scale.gather.weight.on_device(name)?.tensor();
        let gathered = depthwise(projected, weight, None, scale.kernel)?;
        mixed.push(grouped(&gathered, scale.mix.on_device(name)?.tensor())?);
    }
    let layouts = std::iter::once(projected).chain(&mixed);
    let layouts: Vec<_> = layouts.map(HeadLayout::Interleaved).collect();
    let attended = linear_attention(&layouts, heads, eps as f32)?;
    let mut dims = projected.dims().to_vec();
    dims.pop();
    dims.push(attended.width());
    Ok(attended.reshape(&dims)?.into())
}

/// [`multi_scale_linear_attention`] of a map that comes in strips of rows: first every strip is added,
/// then every strip is attended. Gives the values of the whole map.
#[derive(Debug, Default)]
pub struct MultiScaleStates {
    states: Option<InterleavedStates>,
}

impl MultiScaleStates {
    /// Adds the rows `rows` of a strip `projected`, whose other rows are neighbours that the extra
    /// scales see; strips come from top to bottom.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn add(
        &mut self,
        projected: &Tensor,
        rows: Range<usize>,
        heads: usize,
        scales: &[GatheredScale],
    ) -> Result<()> {
        let scales = Scales::new("multi_scale_states", projected, heads, scales, 0.0)?;
        let [batch, height, width] = scales.dims;
        if rows.start > rows.end || rows.end > height {
            let expected = format!("a strip that has rows {rows:?}");
            return Err(shape_error(scales.name, projected.dims(), &expected));
        }
        let shape = scales.shape(rows.len());
        with_slices!([projected], {
            let mixed = scales.mixed(projected)?;
            let sources = sources(projected, &mixed);
            let states = self
                .states
                .get_or_insert_with(|| InterleavedStates::new(sources.len(), &shape));
            let line = width * 3 * heads * scales.dim;
            for picture in 0..batch {
                let first = picture * height;
                let at = (first + rows.start) * line..(first + rows.end) * line;
                let strip: Vec<&[f32]> = sources.iter().map(|s| &s[at.clone()]).collect();
                states.add(&shape, picture, &strip);
            }
            Ok(())
        })
    }

    /// Attends the rows of a strip, its neighbours included.
    ///
    /// # Errors
    /// Sizes that do not fit, or nothing was added.
    pub fn attend(
        &self,
        projected: &Tensor,
        heads: usize,
        scales: &[GatheredScale],
        eps: f64,
    ) -> Result<Tensor> {
        let scales = Scales::new("multi_scale_states", projected, heads, scales, eps)?;
        let states = self.states.as_ref().ok_or_else(|| {
            shape_error(
                scales.name,
                projected.dims(),
                "strips that were added before",
            )
        })?;
        scales.attend(projected, |shape, sources, o| {
            linear_attention::attend_interleaved(shape, sources, states, o);
        })
    }
}
