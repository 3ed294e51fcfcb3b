//! Latents between the order of files and generators, `[B, C, h, w]`, and that of networks,
//! `[B, h, w, C]`.

use brisk_nn::Tensor;

use super::noise::TorchGenerator;
use crate::error::Result;
use crate::options::Latents;

/// The noise of a request's pictures.
pub struct Noise {
    /// One for each picture, or one for all.
    generators: Vec<TorchGenerator>,
}

impl Noise {
    /// Each picture draws from its own seed: it is the same whichever others stand beside it.
    pub fn of_each(seeds: &[u64]) -> Self {
        let generators = seeds.iter().map(|seed| TorchGenerator::new(*seed));
        Self {
            generators: generators.collect(),
        }
    }

    /// All pictures are drawn as one tensor from one seed, as with one `torch.Generator`.
    pub fn of_all(seed: u64) -> Self {
        Self::of_each(&[seed])
    }

    /// Unit noise `[B, h, w, C]`, drawn in the order of `[B, C, h, w]`.
    ///
    /// # Errors
    /// Another number of pictures than there are generators for.
    pub fn draw(&mut self, shape: (usize, usize, usize, usize)) -> Result<Tensor> {
        let (batch, height, width, channels) = shape;
        let values = batch * channels * height * width;
        let share = values / self.generators.len().max(1);
        let each = self.generators.iter_mut();
        let drawn: Vec<f32> = each.flat_map(|own| own.randn(share)).collect();
        from_planes(drawn, [batch, channels, height, width])
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn values(noise: &Tensor) -> Vec<f32> {
        noise.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn pictures_with_seeds_of_their_own_are_drawn_alike_alone() {
        let mut both = Noise::of_each(&[7, 8]);
        let mut second = Noise::of_each(&[8]);
        for _ in 0..2 {
            let together = both.draw((2, 3, 3, 2)).unwrap();
            let alone = second.draw((1, 3, 3, 2)).unwrap();
            assert_eq!(values(&together)[18..], values(&alone));
        }
        let all = Noise::of_all(7).draw((2, 3, 3, 2)).unwrap();
        let mut generator = TorchGenerator::new(7);
        let stream = from_planes(generator.randn(36), [2, 2, 3, 3]).unwrap();
        assert_eq!(values(&all), values(&stream));
    }
}
