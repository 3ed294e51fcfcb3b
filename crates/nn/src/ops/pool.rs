//! Pooling of maps.

use super::linear::shape_error;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::conv::pool::{self as kernel, PoolShape};
use candle_core::{
    CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// Maxima of neighbourhoods of `kernel` rows and columns, `stride` apart, of a map
/// `[batch, height, width, channels]`; `padding` rows and columns around it never are the largest.
///
/// # Errors
/// A map smaller than the kernel, a stride of 0, or padding of half the kernel or more.
pub fn max_pool2d(
    x: &Tensor,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Result<Tensor> {
    let expected = format!(
        "[batch, height, width, channels] for a kernel of {kernel:?}, stride {stride:?} and at most half \
         the kernel of padding, not {padding:?}"
    );
    let refuse = || shape_error("max_pool2d", x.dims(), &expected);
    let (batch, height, width, channels) = x.dims4().map_err(|_| refuse())?;
    let fits = (0..2).all(|axis| {
        let size = [height, width][axis];
        stride[axis] > 0
            && 2 * padding[axis] <= kernel[axis]
            && kernel[axis] > 0
            && size > 0
            && size + 2 * padding[axis] >= kernel[axis]
    });
    if !fits || channels == 0 || batch == 0 {
        return Err(refuse());
    }
    x.contiguous()?.apply_op1(MaxPool(PoolShape {
        batch,
        height,
        width,
        channels,
        kernel,
        stride,
        padding,
    }))
}

struct MaxPool(PoolShape);

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let shape = &self.0;
        let [rows, columns] = shape.out();
        let dims = (shape.batch, rows, columns, shape.channels);
        let mut y = unfilled(dims.0 * dims.1 * dims.2 * dims.3);
        kernel::max_forward(shape, cpu_slice(x, layout)?, &mut y);
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let dims = x.dims().to_vec();
        with_slices!([x, grad], {
            let mut dx = unfilled(x.len());
            kernel::max_backward(&self.0, x, grad, &mut dx);
            Ok(Some(tensor(dx, &dims)?))
        })
    }
}
