//! Feature maps as tokens, a patch each.

use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{DType, Tensor};
use crate::weights::{Init, Weights};

/// Patches of a map to tokens: a convolution whose kernel and stride are the patch.
#[derive(Clone, Debug)]
pub struct PatchEmbedding {
    weight: Tensor,
    bias: Tensor,
    channels: usize,
    patch: usize,
}

impl PatchEmbedding {
    /// Reads `weight` `[width, channels, patch, patch]` and `bias` `[width]`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(weights: &Weights, channels: usize, patch: usize, width: usize) -> Result<Self> {
        let kernel = [width, channels, patch, patch];
        Ok(Self {
            weight: weights
                .get("weight", &kernel, Init::XavierUniform)?
                .reshape((width, channels * patch * patch))?,
            bias: weights.get("bias", &[width], Init::Zeros)?,
            channels,
            patch,
        })
    }

    /// Rows and columns of the patches of `map` `[B,h,w,C]`.
    ///
    /// # Errors
    /// Another number of channels, an empty map, or sides that are no multiples of the patch.
    pub fn grid(&self, map: &Tensor) -> Result<(usize, usize)> {
        let (batch, height, width, channels) = map.dims4()?;
        let p = self.patch;
        if channels != self.channels
            || batch * height * width == 0
            || !height.is_multiple_of(p)
            || !width.is_multiple_of(p)
        {
            return Err(Error::Shape(format!(
                "latent {:?}: expected [batch, height, width, {}] with height and width \
                 divisible by the patch size {p}",
                map.dims(),
                self.channels
            )));
        }
        Ok((height / p, width / p))
    }

    /// `[B,h,w,C]` to `[B,N,d]` in f32, row by row.
    ///
    /// # Errors
    /// As [`Self::grid`].
    pub fn forward(&self, map: &Tensor) -> Result<Tensor> {
        let (rows, columns) = self.grid(map)?;
        let (batch, p, inputs) = (map.dim(0)?, self.patch, self.weight.dim(1)?);
        let patches = if p == 1 {
            map.contiguous()?
        } else {
            map.reshape(vec![batch, rows, p, columns, p, self.channels])?
                .permute(vec![0, 1, 3, 5, 2, 4])?
                .contiguous()?
        };
        let patches = patches.reshape((batch, rows * columns, inputs))?;
        let x = ops::linear(&patches, &self.weight, Some(&self.bias))?;
        // What blocks add to stays f32, wherever it lies.
        x.to_dtype(DType::F32)
    }
}

/// Tokens `[B, rows·columns, patch²·C]`, whose values stand row, column, channel, to a map
/// `[B, patch·rows, patch·columns, C]`.
///
/// # Errors
/// Another number of tokens or values.
pub fn from_patches(
    tokens: &Tensor,
    (rows, columns): (usize, usize),
    patch: usize,
) -> Result<Tensor> {
    let (batch, count, values) = tokens.dims3()?;
    let area = patch * patch;
    if count != rows * columns || area == 0 || !values.is_multiple_of(area) {
        return Err(Error::Shape(format!(
            "tokens {:?}: expected {rows}x{columns} of them with a multiple of {area} values each",
            tokens.dims()
        )));
    }
    let channels = values / area;
    if patch == 1 {
        return tokens.reshape((batch, rows, columns, channels));
    }
    tokens
        .reshape(vec![batch, rows, columns, patch, patch, channels])?
        .permute(vec![0, 1, 3, 2, 4, 5])?
        .contiguous()?
        .reshape((batch, rows * patch, columns * patch, channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a 2x3 grid of patches of side 2 with two channels.
    #[test]
    fn patches_go_back_to_their_places() {
        let values: Vec<f32> = (0..48).map(|value| value as f32).collect();
        let tokens = Tensor::from_vec(values, (1, 6, 8)).unwrap();
        let map = from_patches(&tokens, (2, 3), 2).unwrap();
        assert_eq!(map.dims(), [1, 4, 6, 2]);
        let rows = map.squeeze(0).unwrap().to_vec3::<f32>().unwrap();
        // Token 4 is row 1, column 1; its third place is the lower left one.
        assert_eq!(rows[3][2], [36.0, 37.0]);
        assert_eq!(rows[0][1], [2.0, 3.0]);
        let refused = from_patches(&tokens, (2, 2), 2).unwrap_err().to_string();
        assert!(refused.contains("2x2"), "{refused}");
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        let weights = crate::weights::WeightsBuilder::random(0, crate::weights::Storage::F32)
            .build()
            .unwrap();
        let embedding = PatchEmbedding::load(&weights, 3, 2, 5).unwrap();
        let map = |shape: [usize; 4]| Tensor::zeros(shape.to_vec(), DType::F32).unwrap();
        assert_eq!(
            embedding.forward(&map([2, 4, 6, 3])).unwrap().dims(),
            [2, 6, 5]
        );
        for shape in [[2, 4, 5, 3], [2, 4, 6, 4], [2, 0, 6, 3]] {
            assert!(embedding.forward(&map(shape)).is_err(), "{shape:?}");
        }
    }
}
