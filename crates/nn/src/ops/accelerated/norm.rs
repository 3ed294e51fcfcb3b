//! Norms, modulation and gated residuals.

use brisk_kernels::pointwise::group_norm::GroupNormShape;
use candle_core::{Result, Tensor};

use super::Statement;
use super::attention::same_head;
use super::products::{across, down, down_each, sum_across, sum_down, sum_down_each};

fn flat(x: &Tensor) -> Result<Tensor> {
    let columns = x.dims().last().copied().unwrap_or(1);
    x.reshape(((), columns))
}

/// Rows over their root mean square, and one over that root, repeated.
fn scaled(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let columns = x.dim(1)?;
    let mean = (sum_across(&x.sqr()?)? / columns as f64)?;
    let factor = across(&(mean + eps)?.sqrt()?.recip()?, columns)?;
    Ok(((x * &factor)?, factor))
}

/// Rows about their mean.
fn centred(x: &Tensor) -> Result<Tensor> {
    let columns = x.dim(1)?;
    x - across(&(sum_across(x)? / columns as f64)?, columns)?
}

/// The gradient of what was [`scaled`], from that of the result.
fn through_scale(y: &Tensor, factor: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let columns = y.dim(1)?;
    let along = (sum_across(&(gradient * y)?)? / columns as f64)?;
    (gradient - (y * across(&along, columns)?)?)? * factor
}

/// [`crate::ops::rms_norm`]: the values, factors, and perhaps addends.
pub(in crate::ops) struct RmsNorm(pub f64);

impl Statement for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let x = flat(&operands[0])?;
        let rows = x.dim(0)?;
        let y = (scaled(&x, self.0)?.0 * down(&operands[1], rows)?)?;
        let y = match operands.get(2) {
            Some(bias) => (y + down(bias, rows)?)?,
            None => y,
        };
        y.reshape(operands[0].shape())
    }

    fn backward(
        &self,
        operands: &[Tensor],
        _: &[bool],
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, gradient) = (flat(&operands[0])?, flat(gradient)?);
        let (y, factor) = scaled(&x, self.0)?;
        let weighted = (&gradient * down(&operands[1], x.dim(0)?)?)?;
        let dx = through_scale(&y, &factor, &weighted)?.reshape(operands[0].shape())?;
        let mut gradients = vec![Some(dx), Some(sum_down(&(&gradient * &y)?)?)];
        if operands.len() > 2 {
            gradients.push(Some(sum_down(&gradient)?));
        }
        Ok(gradients)
    }
}

/// [`crate::ops::layer_norm_modulate`]: the values, shift and scale.
pub(in crate::ops) struct LayerNormModulate(pub f64);

impl Statement for LayerNormModulate {
    fn name(&self) -> &'static str {
        "layer_norm_modulate"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let (x, shift, scale) = (&operands[0], &operands[1], &operands[2]);
        let tokens = x.dim(1)?;
        let (y, _) = scaled(&centred(&flat(x)?)?, self.0)?;
        let y = (y * down_each(&(scale + 1.0)?, tokens)?)?;
        (y + down_each(shift, tokens)?)?.reshape(x.shape())
    }

    fn backward(
        &self,
        operands: &[Tensor],
        _: &[bool],
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, scale) = (&operands[0], &operands[2]);
        let (tokens, gradient) = (x.dim(1)?, flat(gradient)?);
        let (y, factor) = scaled(&centred(&flat(x)?)?, self.0)?;
        let weighted = (&gradient * down_each(&(scale + 1.0)?, tokens)?)?;
        let dx = centred(&through_scale(&y, &factor, &weighted)?)?;
        Ok(vec![
            Some(dx.reshape(x.shape())?),
            Some(sum_down_each(&gradient, tokens)?),
            Some(sum_down_each(&(gradient * y)?, tokens)?),
        ])
    }
}

/// [`crate::ops::gate_residual`]: the stream, the gate and the branch.
pub(in crate::ops) struct GateResidual;

impl Statement for GateResidual {
    fn name(&self) -> &'static str {
        "gate_residual"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let (x, gate, branch) = (&operands[0], &operands[1], &operands[2]);
        let gates = down_each(gate, x.dim(1)?)?.reshape(x.shape())?;
        x + (branch * gates)?
    }

    fn backward(
        &self,
        operands: &[Tensor],
        _: &[bool],
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let (gate, branch) = (&operands[1], &operands[2]);
        let tokens = branch.dim(1)?;
        let gates = down_each(gate, tokens)?.reshape(branch.shape())?;
        Ok(vec![
            Some(gradient.clone()),
            Some(sum_down_each(&flat(&(gradient * branch)?)?, tokens)?),
            Some((gradient * gates)?),
        ])
    }
}

/// [`crate::ops::group_norm`]: the map, factors and addends.
pub(in crate::ops) struct GroupNorm(pub GroupNormShape);

impl GroupNorm {
    /// Sums over a picture's places and a group's channels, on every channel: `[batch, channels]`.
    fn sums(&self, x: &Tensor) -> Result<Tensor> {
        let GroupNormShape {
            pixels,
            channels,
            groups,
            ..
        } = self.0;
        let each = channels / groups;
        let same = same_head(groups, each, each, x.device())?;
        sum_down_each(x, pixels)?.matmul(&same)
    }

    /// The mean of those, repeated for every place.
    fn means(&self, x: &Tensor) -> Result<Tensor> {
        let count = self.0.pixels * (self.0.channels / self.0.groups);
        down_each(&(self.sums(x)? / count as f64)?, self.0.pixels)
    }

    /// The normalised map, and the factor that made it so.
    fn normalised(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let centred = (x - self.means(x)?)?;
        let factor = (self.means(&centred.sqr()?)? + self.0.eps)?
            .sqrt()?
            .recip()?;
        Ok(((centred * &factor)?, factor))
    }
}

impl Statement for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let (y, _) = self.normalised(&flat(&operands[0])?)?;
        let rows = y.dim(0)?;
        let y = (y * down(&operands[1], rows)?)?;
        (y + down(&operands[2], rows)?)?.reshape(operands[0].shape())
    }

    fn backward(
        &self,
        operands: &[Tensor],
        _: &[bool],
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let gradient = flat(gradient)?;
        let (y, factor) = self.normalised(&flat(&operands[0])?)?;
        let weighted = (&gradient * down(&operands[1], y.dim(0)?)?)?;
        let along = (&y * self.means(&(&weighted * &y)?)?)?;
        let dx = (((&weighted - self.means(&weighted)?)? - along)? * factor)?;
        Ok(vec![
            Some(dx.reshape(operands[0].shape())?),
            Some(sum_down(&(&gradient * y)?)?),
            Some(sum_down(&gradient)?),
        ])
    }
}
