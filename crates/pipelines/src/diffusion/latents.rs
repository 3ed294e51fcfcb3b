//! Latents between the order of files and generators, `[B, C, h, w]`, and that of networks,
//! `[B, h, w, C]`.

use brisk_nn::Tensor;

use super::noise::TorchGenerator;
use crate::error::Result;
use crate::options::Latents;

/// Unit noise `[B, h, w, C]`, drawn in the order of `[B, C, h, w]`.
pub fn draw(generator: &mut TorchGenerator, shape: (usize, usize, usize, usize)) -> Result<Tensor> {
    let (batch, height, width, channels) = shape;
    from_planes(
        generator.randn(batch * channels * height * width),
        [batch, channels, height, width],
    )
}

/// Values in the order of `[B, C, h, w]` as a tensor `[B, h, w, C]`.
pub fn from_planes(values: Vec<f32>, shape: [usize; 4]) -> Result<Tensor> {
    let [batch, channels, height, width] = shape;
    Ok(Tensor::from_vec(values, (batch, channels, height, width))?
        .permute((0, 2, 3, 1))?
        .contiguous()?)
}

/// A latent `[B, h, w, C]` as values in the order of `[B, C, h, w]`.
pub fn to_planes(latent: &Tensor) -> Result<Latents> {
    let (batch, height, width, channels) = latent.dims4()?;
    let values = latent
        .permute((0, 3, 1, 2))?
        .contiguous()?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(Latents {
        shape: [batch, channels, height, width],
        values,
    })
}
