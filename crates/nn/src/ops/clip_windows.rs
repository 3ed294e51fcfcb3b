//! What a convolution over clips sees, gathered for one over pictures: both directions in one pass.

use super::linear::shape_error;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use candle_core::{
    CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// The frames that each step of a causal kernel sees, side by side: `[batch, frames, height, width, channels]` to
/// `[batch·frames', height + 2·border, width + 2·border, taps·channels]`.
///
/// Result `t` has the frames `stride·t - (taps - 1)` to `stride·t`, the first one for those before the clip; around a
/// frame its outermost values go on.
///
/// # Errors
/// A tensor of another rank or of no values, no taps or a stride of 0.
pub fn causal_windows(x: &Tensor, taps: usize, stride: usize, border: usize) -> Result<Tensor> {
    if x.rank() != 5 || x.elem_count() == 0 || taps == 0 || stride == 0 {
        let expected = "[batch, frames, height, width, channels], a tap and a stride";
        return Err(shape_error("causal_windows", x.dims(), expected));
    }
    x.contiguous()?.apply_op1(CausalWindows {
        taps,
        stride,
        border,
    })
}

/// A map without its outermost rows and columns: `[batch, height, width, channels]` to
/// `[batch, height - 2·border, width - 2·border, channels]`.
///
/// # Errors
/// A tensor of another rank, or a map that is nothing but border.
pub fn without_border(x: &Tensor, border: usize) -> Result<Tensor> {
    match x.dims4() {
        Ok((_, height, width, _)) if height.min(width) > 2 * border => {
            x.contiguous()?.apply_op1(WithoutBorder(border))
        }
        _ => Err(shape_error(
            "without_border",
            x.dims(),
            &format!(
                "[batch, height, width, channels] with more than {border} rows and columns on every side"
            ),
        )),
    }
}

struct CausalWindows {
    taps: usize,
    stride: usize,
    border: usize,
}

/// Sizes of a clip.
struct Clip {
    batch: usize,
    frames: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Clip {
    fn of(dims: &[usize]) -> CandleResult<Self> {
        let &[batch, frames, height, width, channels] = dims else {
            candle_core::bail!("expected [batch, frames, height, width, channels], found {dims:?}")
        };
        Ok(Self {
            batch,
            frames,
            height,
            width,
            channels,
        })
    }
}

impl CausalWindows {
    fn shape(&self, clip: &Clip) -> [usize; 4] {
        [
            clip.batch * self.results(clip),
            clip.height + 2 * self.border,
            clip.width + 2 * self.border,
            self.taps * clip.channels,
        ]
    }

    fn results(&self, clip: &Clip) -> usize {
        (clip.frames - 1) / self.stride + 1
    }

    /// Calls `each` with the first values of a row of the clip, of a row of the result, and the tap.
    fn rows(&self, clip: &Clip, mut each: impl FnMut(usize, usize, usize)) {
        let [_, tall, wide, deep] = self.shape(clip);
        let results = self.results(clip);
        for place in 0..clip.batch * results * tall {
            let (frame, row) = (place / tall, place % tall);
            let (clip_index, result) = (frame / results, frame % results);
            let row = row.saturating_sub(self.border).min(clip.height - 1);
            for tap in 0..self.taps {
                let seen = (result * self.stride + tap).saturating_sub(self.taps - 1);
                let from = (clip_index * clip.frames + seen) * clip.height + row;
                each(from * clip.width * clip.channels, place * wide * deep, tap);
            }
        }
    }

    /// Where in a row of the clip each place of a row of the result begins.
    fn columns(&self, clip: &Clip) -> Vec<usize> {
        let places = 0..clip.width + 2 * self.border;
        let column = |place: usize| place.saturating_sub(self.border).min(clip.width - 1);
        places.map(|place| column(place) * clip.channels).collect()
    }
}

impl CustomOp1 for CausalWindows {
    fn name(&self) -> &'static str {
        "causal_windows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let clip = Clip::of(layout.dims())?;
        let shape = self.shape(&clip);
        let (channels, deep) = (clip.channels, shape[3]);
        let columns = self.columns(&clip);
        let mut y = unfilled(shape.iter().product());
        self.rows(&clip, |from, to, tap| {
            let (x, y) = (&x[from..], &mut y[to + tap * channels..]);
            for (place, column) in columns.iter().enumerate() {
                y[place * deep..][..channels].copy_from_slice(&x[*column..][..channels]);
            }
        });
        Ok((CpuStorage::F32(y), Shape::from(shape.to_vec())))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let clip = Clip::of(x.dims())?;
        let (channels, deep) = (clip.channels, self.shape(&clip)[3]);
        let columns = self.columns(&clip);
        Ok(Some(with_slices!([grad], {
            let mut dx = vec![0f32; x.elem_count()];
            self.rows(&clip, |from, to, tap| {
                let (dx, grad) = (&mut dx[from..], &grad[to + tap * channels..]);
                for (place, column) in columns.iter().enumerate() {
                    let grad = &grad[place * deep..][..channels];
                    for (sum, value) in dx[*column..][..channels].iter_mut().zip(grad) {
                        *sum += value;
                    }
                }
            });
            tensor(dx, x.dims())?
        })))
    }
}

struct WithoutBorder(usize);

impl WithoutBorder {
    /// Calls `each` with the first values of a row inside, there and in the whole map, and the row's length.
    fn rows(&self, dims: (usize, usize, usize, usize), mut each: impl FnMut(usize, usize, usize)) {
        let (batch, height, width, channels) = dims;
        let (rows, length) = (height - 2 * self.0, (width - 2 * self.0) * channels);
        for place in 0..batch * rows {
            let row = (place / rows) * height + place % rows + self.0;
            each(place * length, (row * width + self.0) * channels, length);
        }
    }
}

impl CustomOp1 for WithoutBorder {
    fn name(&self) -> &'static str {
        "without_border"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let dims = layout.shape().dims4()?;
        let (batch, height, width, channels) = dims;
        let shape = [batch, height - 2 * self.0, width - 2 * self.0, channels];
        let mut y = unfilled(shape.iter().product());
        self.rows(dims, |inside, whole, length| {
            y[inside..inside + length].copy_from_slice(&x[whole..whole + length]);
        });
        Ok((CpuStorage::F32(y), Shape::from(shape.to_vec())))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let dims = x.dims4()?;
        Ok(Some(with_slices!([grad], {
            let mut dx = vec![0f32; x.elem_count()];
            self.rows(dims, |inside, whole, length| {
                dx[whole..whole + length].copy_from_slice(&grad[inside..inside + length]);
            });
            tensor(dx, x.dims())?
        })))
    }
}
