//! Distance of pictures by what a network makes of them (LPIPS, arXiv 1801.03924), which is nearer to what a person sees
//! than that of their pixels.

use std::path::Path;
use std::sync::Arc;

use brisk_nn::ops::{self, Activation, Epilogue};
use brisk_nn::{Conv2d, ConvOptions, D, Result as NnResult, Tensor};
use brisk_store::{SafetensorsFile, TensorSource, fingerprint, open_weights};

use crate::checker::SceneChecker;
use crate::error::Result;
use crate::tensors;

/// Keeps the root of a place without features away from zero.
const EPSILON: f64 = 1e-10;
/// Convolutions of VGG-16 by their numbers in torchvision's `features`, those of a size together; each group's last map
/// is compared.
const VGG16: [&[usize]; 5] = [
    &[0, 2],
    &[5, 7],
    &[10, 12, 14],
    &[17, 19, 21],
    &[24, 26, 28],
];
/// Channels of the groups.
const VGG16_CHANNELS: [usize; 5] = [64, 128, 256, 512, 512];
/// Mean and deviation of the pictures that VGG-16 saw, in −1..1.
const VGG16_MEAN: [f32; 3] = [-0.030, -0.088, -0.188];
const VGG16_DEVIATION: [f32; 3] = [0.458, 0.448, 0.450];

/// A network of which features of pictures are compared, frozen.
pub struct FeatureNetwork {
    network: Network,
    fingerprint: String,
}

enum Network {
    Checker(Box<SceneChecker>),
    Vgg16(Vgg16),
}

impl FeatureNetwork {
    /// The checker of scenes in the box.
    ///
    /// # Errors
    /// As [`SceneChecker::in_the_box`].
    pub fn in_the_box() -> Result<Self> {
        Ok(Self {
            network: Network::Checker(Box::new(SceneChecker::in_the_box()?)),
            fingerprint: SceneChecker::BOX_NAME.to_owned(),
        })
    }

    /// A folder of `brisk train checker`, or a file of torchvision's VGG-16 (`vgg16-397923af.pth`, or safetensors).
    ///
    /// # Errors
    /// Files that are missing, damaged or of another network.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let file = SafetensorsFile::open(&path.join(SceneChecker::WEIGHTS))?;
            return Ok(Self {
                network: Network::Checker(Box::new(SceneChecker::open(path)?)),
                fingerprint: fingerprint(&file)?,
            });
        }
        let source = open_weights(path)?;
        Ok(Self {
            fingerprint: fingerprint(&*source)?,
            network: Network::Vgg16(Vgg16::load(source)?),
        })
    }

    /// What tells its weights from others.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Distance of pictures `[B, H, W, 3]` in −1..1 from others: at every place the squared distance of features of length
    /// one, its mean over places, the sum over maps. Differentiable in the first.
    ///
    /// # Errors
    /// Sides that the network does not halve as often as it must.
    pub(crate) fn distance(&self, pictures: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (found, wanted) = (self.maps(pictures)?, self.maps(targets)?);
        let mut sum = Tensor::new(0f32)?;
        for (found, wanted) in found.iter().zip(&wanted) {
            let difference = (directions(found)? - directions(wanted)?)?;
            let squares = difference.sqr()?.sum_keepdim(D::Minus1)?;
            sum = (sum + squares.mean_all()?)?;
        }
        Ok(sum)
    }

    fn maps(&self, pictures: &Tensor) -> Result<Vec<Tensor>> {
        match &self.network {
            Network::Checker(checker) => Ok(checker.features(pictures)?.to_vec()),
            Network::Vgg16(network) => Ok(network.maps(pictures)?),
        }
    }
}

/// Features `[.., C]` of length one.
fn directions(map: &Tensor) -> NnResult<Tensor> {
    let squares = map.sqr()?.sum_keepdim(D::Minus1)?;
    map.broadcast_div(&squares.affine(1.0, EPSILON)?.sqrt()?)
}

/// The convolutions of VGG-16 (arXiv 1409.1556) under torchvision's names.
struct Vgg16 {
    groups: Vec<Vec<Conv2d>>,
    mean: Tensor,
    deviation: Tensor,
}

impl Vgg16 {
    fn load(source: Arc<dyn TensorSource>) -> Result<Self> {
        let weights = tensors::frozen(source);
        let mut groups = Vec::with_capacity(VGG16.len());
        let mut from = 3;
        for (numbers, channels) in VGG16.iter().zip(VGG16_CHANNELS) {
            let mut group = Vec::with_capacity(numbers.len());
            for number in *numbers {
                let weights = weights.pp("features").pp(number);
                group.push(Conv2d::load(
                    &weights,
                    from,
                    channels,
                    ConvOptions::SAME_3X3,
                )?);
                from = channels;
            }
            groups.push(group);
        }
        weights.finish(&["classifier."])?;
        Ok(Self {
            groups,
            mean: Tensor::from_slice(&VGG16_MEAN, (1, 1, 1, 3))?,
            deviation: Tensor::from_slice(&VGG16_DEVIATION, (1, 1, 1, 3))?,
        })
    }

    fn maps(&self, pictures: &Tensor) -> NnResult<Vec<Tensor>> {
        let mut x = pictures
            .broadcast_sub(&self.mean)?
            .broadcast_div(&self.deviation)?;
        let relu = Epilogue::activation(Activation::Relu);
        let mut maps = Vec::with_capacity(self.groups.len());
        for (index, group) in self.groups.iter().enumerate() {
            if index > 0 {
                x = ops::max_pool2d(&x, [2, 2], [2, 2], [0, 0])?;
            }
            for conv in group {
                x = conv.forward_with(&x, &relu)?;
            }
            maps.push(x.clone());
        }
        Ok(maps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn pictures(seed: f32) -> Vec<f32> {
        (0..2 * 16 * 24 * 3)
            .map(|i| (i as f32 * 0.37 + seed).sin() * 0.8)
            .collect()
    }

    fn of(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (2, 16, 24, 3)).unwrap()
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let network = FeatureNetwork::in_the_box().unwrap();
        let (a, b) = (pictures(0.0), pictures(1.0));
        let distance = |a: &[f32]| {
            let distance = network.distance(&of(a), &of(&b)).unwrap();
            f64::from(distance.to_scalar::<f32>().unwrap())
        };
        assert!(distance(&b).abs() < 1e-9 && distance(&a) > 1e-3);
        let variable = Var::from_tensor(&of(&a).host().unwrap()).unwrap();
        let loss = network.distance(&variable.as_tensor().into(), &of(&b));
        let gradients = loss.unwrap().host().unwrap().backward().unwrap();
        let gradient = gradients.get(&variable).unwrap().flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f32>().unwrap();
        // Along the gradient, where rounding is least.
        let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let step = 0.02 / length;
        let moved = |sign: f32| -> Vec<f32> {
            let moved = a.iter().zip(&gradient);
            moved.map(|(a, g)| a + sign * step * g).collect()
        };
        let slope = (distance(&moved(1.0)) - distance(&moved(-1.0))) / f64::from(2.0 * step);
        let wanted = f64::from(length * length);
        assert!((slope - wanted).abs() < 0.02 * wanted, "{slope} {wanted}");
    }

    #[test]
    fn other_networks_are_refused() {
        let folder = std::env::temp_dir().join("brisk-no-network");
        assert!(FeatureNetwork::open(&folder).is_err());
        let network = FeatureNetwork::in_the_box().unwrap();
        let odd = Tensor::zeros((1, 12, 16, 3), brisk_nn::DType::F32).unwrap();
        let error = network.distance(&odd, &odd).unwrap_err().to_string();
        assert!(error.contains("12x16"), "{error}");
    }
}
