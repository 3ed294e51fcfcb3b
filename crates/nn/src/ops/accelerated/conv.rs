//! Convolutions as products.

use brisk_kernels::conv::ConvShape;
use brisk_kernels::depthwise::DepthwiseShape;
use candle_core::{Result, Tensor};

use super::Statement;
use super::kept::kept;
use super::products::{down, sum_down};

/// Places of a map up to which a depthwise convolution is a product of every channel's map with a matrix.
const PLACES: usize = 256;

/// [`crate::ops::conv2d`]: a map, filters, and perhaps a bias.
pub(in crate::ops) struct Conv(pub ConvShape);

/// Every `step`-th of `count` indices of `dim` from `start`.
fn strided(x: &Tensor, dim: usize, start: usize, count: usize, step: usize) -> Result<Tensor> {
    if step == 1 {
        return x.narrow(dim, start, count);
    }
    // The last one may have fewer than `step` − 1 behind it.
    let missing = (start + count * step).saturating_sub(x.dim(dim)?);
    let x = x
        .pad_with_zeros(dim, 0, missing)?
        .narrow(dim, start, count * step)?;
    let mut dims = x.dims().to_vec();
    dims.splice(dim..=dim, [count, step]);
    x.contiguous()?
        .reshape(dims)?
        .narrow(dim + 1, 0, 1)?
        .squeeze(dim + 1)
}

/// With `step` − 1 zeros behind every index of `dim`.
fn spread(x: &Tensor, dim: usize, step: usize) -> Result<Tensor> {
    if step == 1 {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    dims[dim] *= step;
    x.unsqueeze(dim + 1)?
        .pad_with_zeros(dim + 1, 0, step - 1)?
        .reshape(dims)
}

fn padded(x: &Tensor, before: usize, behind: usize) -> Result<Tensor> {
    x.pad_with_zeros(1, before, behind)?
        .pad_with_zeros(2, before, behind)
}

/// `size` places from `start` along both sides.
fn cut(x: &Tensor, start: usize, size: [usize; 2]) -> Result<Tensor> {
    x.narrow(1, start, size[0])?
        .narrow(2, start, size[1])?
        .contiguous()
}

/// A padded map as rows of places: a tap of the kernel is then the same rows, so many further on. What comes of rows
/// whose neighbourhood crosses an edge is left out.
struct Rows {
    /// `[rows, kernel·channels]`: a place and those right of it.
    wide: Tensor,
    /// Rows of a line of the map.
    line: usize,
    /// Rows that have all their taps.
    count: usize,
}

impl Rows {
    /// Of a padded map.
    fn new(x: &Tensor, kernel: usize) -> Result<Self> {
        let (_, _, line, channels) = x.dims4()?;
        Self::of(&x.reshape(((), channels))?, line, kernel)
    }

    fn of(rows: &Tensor, line: usize, kernel: usize) -> Result<Self> {
        let (all, last) = (rows.dim(0)?, kernel - 1);
        let count = all - last * (line + 1);
        let places = (0..kernel).map(|dx| rows.narrow(0, dx, count + last * line));
        let places = places.collect::<Result<Vec<_>>>()?;
        let wide = Tensor::cat(&places, 1)?;
        Ok(Self { wide, line, count })
    }

    /// Those `dy` lines further down.
    fn below(&self, dy: usize) -> Result<Tensor> {
        self.wide.narrow(0, dy * self.line, self.count)
    }

    /// The sum over lines of products with `filters`, `[kernel·channels, outputs]` a line.
    fn convolved(&self, filters: &[Tensor]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (dy, filter) in filters.iter().enumerate() {
            let part = self.below(dy)?.matmul(filter)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        match sum {
            Some(sum) => Ok(sum),
            None => candle_core::bail!("conv2d: a kernel without taps"),
        }
    }
}

impl Conv {
    fn size(&self) -> [usize; 2] {
        [self.0.out_height(), self.0.out_width()]
    }

    /// Sides of the padded map.
    fn sides(&self) -> [usize; 2] {
        [self.0.height, self.0.width].map(|side| side + 2 * self.0.padding)
    }

    /// The neighbourhood of every place of the result, `[places, kernel·kernel·channels]`.
    fn neighbourhoods(&self, x: &Tensor) -> Result<Tensor> {
        let ConvShape { kernel, stride, .. } = self.0;
        let x = padded(x, self.0.padding, self.0.padding)?;
        let [rows, columns] = self.size();
        let mut taps = Vec::with_capacity(kernel * kernel);
        for dy in 0..kernel {
            let lines = strided(&x, 1, dy, rows, stride)?;
            for dx in 0..kernel {
                taps.push(strided(&lines, 2, dx, columns, stride)?.contiguous()?);
            }
        }
        let width = kernel * kernel * self.0.inputs;
        Tensor::cat(&taps, 3)?.reshape((self.0.batch * rows * columns, width))
    }

    /// Rows of the padded map, filters of every line.
    fn rows(&self, x: &Tensor) -> Result<Rows> {
        Rows::new(&padded(x, self.0.padding, self.0.padding)?, self.0.kernel)
    }

    /// The rows of the result among those of the padded map, to the end of the last line.
    fn framed(&self, gradient: &Tensor) -> Result<Tensor> {
        let ([height, width], [rows, columns]) = (self.sides(), self.size());
        gradient
            .pad_with_zeros(2, 0, width - columns)?
            .pad_with_zeros(1, 0, height - rows)?
            .reshape(((), self.0.outputs))
    }

    /// The gradient of the map from that of the result, spread by the stride: a convolution with the filters turned
    /// around.
    fn back(&self, w: &Tensor, framed: &Tensor) -> Result<Tensor> {
        let ConvShape {
            batch,
            height,
            width,
            inputs,
            outputs,
            kernel,
            padding,
            ..
        } = self.0;
        let [high, wide] = self.sides();
        let last = kernel - 1;
        let before = framed.pad_with_zeros(0, last * (wide + 1), 0)?;
        let filters = (0..kernel).rev().map(|dy| {
            // [outputs, kernel, inputs], the last column first.
            let line = w.narrow(1, dy, 1)?.squeeze(1)?;
            let columns = (0..kernel)
                .rev()
                .map(|dx| line.narrow(1, dx, 1)?.squeeze(1));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Tensor::cat(&columns, 0)?.reshape((kernel * outputs, inputs))
        });
        let filters = filters.collect::<Result<Vec<_>>>()?;
        let dx = Rows::of(&before, wide, kernel)?.convolved(&filters)?;
        cut(
            &dx.reshape((batch, high, wide, inputs))?,
            padding,
            [height, width],
        )
    }
}

impl Statement for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let shape = &self.0;
        let (size, [high, wide]) = (self.size(), self.sides());
        let (x, w, outputs) = (&operands[0], &operands[1], shape.outputs);
        let product = match shape.stride {
            1 => {
                let rows = self.rows(x)?;
                let filters = (0..shape.kernel)
                    .map(|dy| w.narrow(1, dy, 1)?.reshape((outputs, ()))?.t())
                    .collect::<Result<Vec<_>>>()?;
                let y = rows.convolved(&filters)?;
                let missing = shape.batch * high * wide - rows.count;
                let y = y.pad_with_zeros(0, 0, missing)?;
                cut(&y.reshape((shape.batch, high, wide, outputs))?, 0, size)?
            }
            _ => self
                .neighbourhoods(x)?
                .matmul(&w.reshape((outputs, ()))?.t()?)?,
        };
        let y = product.reshape(((), outputs))?;
        let y = match operands.get(2) {
            Some(bias) => (&y + down(bias, y.dim(0)?)?)?,
            None => y,
        };
        y.reshape((shape.batch, size[0], size[1], outputs))
    }

    fn backward(
        &self,
        operands: &[Tensor],
        needed: &[bool],
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let shape = &self.0;
        let (x, w) = (&operands[0], &operands[1]);
        let flat = gradient.reshape(((), shape.outputs))?;
        // As many lines and columns as a stride of 1 gives.
        let spread = match shape.stride {
            1 => gradient.clone(),
            stride => {
                let wanted = self.sides().map(|side| side + 1 - shape.kernel);
                let mut y = gradient.clone();
                for (dim, wanted) in [1, 2].into_iter().zip(wanted) {
                    y = spread(&y, dim, stride)?;
                    let have = y.dim(dim)?;
                    y = y
                        .pad_with_zeros(dim, 0, wanted.saturating_sub(have))?
                        .narrow(dim, 0, wanted)?;
                }
                y.contiguous()?
            }
        };
        let near = Conv(ConvShape {
            stride: 1,
            ..*shape
        });
        let framed = near.framed(&spread)?;
        let dx = match needed[0] {
            true => Some(near.back(w, &framed)?),
            false => None,
        };
        let dw = match (needed[1], shape.stride) {
            (false, _) => None,
            (true, 1) => {
                let rows = self.rows(x)?;
                let gradient = framed.narrow(0, 0, rows.count)?;
                let lines = (0..shape.kernel).map(|dy| {
                    gradient.t()?.matmul(&rows.below(dy)?)?.reshape((
                        shape.outputs,
                        1,
                        shape.kernel,
                        shape.inputs,
                    ))
                });
                Some(Tensor::cat(&lines.collect::<Result<Vec<_>>>()?, 1)?)
            }
            (true, _) => Some(
                flat.t()?
                    .matmul(&self.neighbourhoods(x)?)?
                    .reshape(w.shape())?,
            ),
        };
        let mut gradients = vec![dx, dw];
        if operands.len() > 2 {
            gradients.push(match needed[2] {
                true => Some(sum_down(&flat)?),
                false => None,
            });
        }
        Ok(gradients)
    }
}

/// [`crate::ops::depthwise_conv2d`]: a map, filters, and perhaps a bias.
pub(in crate::ops) struct Depthwise(pub DepthwiseShape);

impl Depthwise {
    fn places(&self) -> usize {
        self.0.height * self.0.width
    }

    /// Which place of the map every tap takes to which place of the result, `[taps, places (map)·places (result)]`.
    fn reach(&self, like: &Tensor) -> Result<Tensor> {
        let DepthwiseShape {
            height,
            width,
            kernel,
            ..
        } = self.0;
        kept("reach", [height, width, kernel], like.device(), || {
            let (places, half) = (self.places(), kernel / 2);
            let mut reach = vec![0.0f32; kernel * kernel * places * places];
            for tap in 0..kernel * kernel {
                let (dy, dx) = (tap / kernel, tap % kernel);
                for to in 0..places {
                    // Within 0..height and 0..width once the padding is taken off.
                    let (y, x) = (to / width + dy, to % width + dx);
                    if (half..height + half).contains(&y) && (half..width + half).contains(&x) {
                        let from = (y - half) * width + x - half;
                        reach[(tap * places + from) * places + to] = 1.0;
                    }
                }
            }
            Tensor::from_vec(reach, (kernel * kernel, places * places), like.device())
        })
    }

    /// `[batch, height, width, channels]` as `[channels, batch, places]`.
    fn by_channel(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels) = (self.0.batch, self.0.channels);
        x.reshape(((), channels))?
            .t()?
            .contiguous()?
            .reshape((channels, batch, self.places()))
    }

    /// Back again.
    fn by_place(&self, x: &Tensor) -> Result<Tensor> {
        let DepthwiseShape {
            batch,
            height,
            width,
            channels,
            ..
        } = self.0;
        x.reshape((channels, ()))?
            .t()?
            .contiguous()?
            .reshape((batch, height, width, channels))
    }

    /// The matrix of every channel, `[channels, places (map), places (result)]`.
    fn matrices(&self, w: &Tensor, reach: &Tensor) -> Result<Tensor> {
        let (places, channels) = (self.places(), self.0.channels);
        w.reshape(((), channels))?
            .t()?
            .matmul(reach)?
            .reshape((channels, places, places))
    }

    /// The rows that a tap sees, of a padded map's.
    fn tap(&self, rows: &Tensor, tap: usize) -> Result<Tensor> {
        let kernel = self.0.kernel;
        let line = self.0.width + kernel - 1;
        let count = rows.dim(0)? - (kernel - 1) * (line + 1);
        rows.narrow(0, (tap / kernel) * line + tap % kernel, count)
    }

    /// The padded map's rows.
    fn rows(&self, x: &Tensor) -> Result<Tensor> {
        let half = self.0.kernel / 2;
        padded(x, half, half)?.reshape(((), self.0.channels))
    }

    /// The sum over taps, with the filters `[taps, channels]` turned around or not.
    fn summed(&self, x: &Tensor, w: &Tensor, turned: bool) -> Result<Tensor> {
        let DepthwiseShape {
            batch,
            height,
            width,
            channels,
            kernel,
        } = self.0;
        let (rows, taps) = (self.rows(x)?, kernel * kernel);
        let w = w.reshape((taps, channels))?;
        let mut sum: Option<Tensor> = None;
        for tap in 0..taps {
            let seen = self.tap(&rows, tap)?;
            let weight = w.narrow(0, if turned { taps - 1 - tap } else { tap }, 1)?;
            let part = (&seen * down(&weight, seen.dim(0)?)?)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        let Some(sum) = sum else {
            candle_core::bail!("depthwise_conv2d: a kernel without taps");
        };
        let missing = rows.dim(0)? - sum.dim(0)?;
        let sides = [height, width].map(|side| side + kernel - 1);
        let sum = sum.pad_with_zeros(0, 0, missing)?;
        cut(
            &sum.reshape((batch, sides[0], sides[1], channels))?,
            0,
            [height, width],
        )
    }
}

impl Statement for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise_conv2d"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let (x, w) = (&operands[0], &operands[1]);
        let y = if self.places() <= PLACES {
            let matrices = self.matrices(w, &self.reach(x)?)?;
            self.by_place(&self.by_channel(x)?.matmul(&matrices)?)?
        } else {
            self.summed(x, w, false)?
        };
        match operands.get(2) {
            Some(bias) => {
                let rows = self.0.batch * self.places();
                y + down(bias, rows)?.reshape(x.shape())?
            }
            None => Ok(y),
        }
    }

    fn backward(
        &self,
        operands: &[Tensor],
        needed: &[bool],
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (&operands[0], &operands[1]);
        let (channels, kernel) = (self.0.channels, self.0.kernel);
        let (dx, dw) = if self.places() <= PLACES {
            let reach = self.reach(x)?;
            let gradient = self.by_channel(gradient)?;
            let dx = self
                .matrices(w, &reach)?
                .transpose(1, 2)
                .and_then(|turned| gradient.matmul(&turned))?;
            let moved = self.by_channel(x)?.transpose(1, 2)?.matmul(&gradient)?;
            let dw = moved.reshape((channels, ()))?.matmul(&reach.t()?)?;
            (self.by_place(&dx)?, dw.t()?.contiguous()?)
        } else {
            let rows = self.rows(x)?;
            let [height, width] = [self.0.height, self.0.width];
            let framed = gradient
                .pad_with_zeros(2, 0, kernel - 1)?
                .pad_with_zeros(1, 0, kernel - 1)?
                .reshape(((), channels))?;
            debug_assert_eq!(
                rows.dim(0)?,
                self.0.batch * (height + kernel - 1) * (width + kernel - 1)
            );
            let sums = (0..kernel * kernel).map(|tap| {
                let seen = self.tap(&rows, tap)?;
                sum_down(&(&seen * framed.narrow(0, 0, seen.dim(0)?)?)?)
            });
            let dw = Tensor::stack(&sums.collect::<Result<Vec<_>>>()?, 0)?;
            (self.summed(gradient, w, true)?, dw)
        };
        let mut gradients = vec![
            needed[0].then_some(dx),
            match needed[1] {
                true => Some(dw.reshape(w.shape())?),
                false => None,
            },
        ];
        if operands.len() > 2 {
            gradients.push(match needed[2] {
                true => Some(sum_down(&gradient.reshape(((), channels))?)?),
                false => None,
            });
        }
        Ok(gradients)
    }
}
