//! The network that finds objects.

use std::path::Path;
use std::sync::Arc;

use brisk_media::{Filter, Picture, resize_pil};
use brisk_nn::ops::{self, Activation, Epilogue};
use brisk_nn::{Conv2d, ConvOptions, Result as NnResult, RmsNorm, RmsNormKind, Tensor, Weights};
use brisk_store::{Limit, SafetensorsFile, read_text};
use serde::{Deserialize, Serialize};

use super::verdict::Sighting;
use crate::data::scenes::{Colour, OBJECTS};
use crate::error::{Error, JsonContext, Result};
use crate::pictures::signed;
use crate::tensors;

/// Side of the pictures it looks at.
pub(super) const SIZE: usize = 128;
/// Cells along each side of the picture.
pub(super) const CELLS: usize = 16;
/// Outputs of a cell: whether a centre is in it, which object, which colour.
pub(super) const OUTPUTS: usize = 1 + OBJECTS.len() + Colour::ALL.len();
/// Likelihood from which a cell shows an object.
const SEEN: f32 = 0.5;
const EPSILON: f64 = 1e-5;
const CONFIG: &str = "config.json";
/// The checker in the box.
const BOX_CONFIG: &str = include_str!("../../../../assets/scene-checker/config.json");
const BOX_WEIGHTS: &[u8] = include_bytes!("../../../../assets/scene-checker/model.safetensors");

/// Widths of the network, and the words that its outputs mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckerConfig {
    /// Channels at 64, 32 and 16 positions a side.
    pub channels: [usize; 3],
    /// Residual blocks at 16 positions a side.
    pub blocks: usize,
    /// The objects, in the order of the outputs.
    pub objects: Vec<String>,
    /// The colours, in the order of the outputs.
    pub colours: Vec<String>,
}

impl CheckerConfig {
    /// For the objects and colours of scenes.
    pub fn new(channels: [usize; 3], blocks: usize) -> Self {
        Self {
            channels,
            blocks,
            objects: OBJECTS
                .iter()
                .map(|object| object.word.to_owned())
                .collect(),
            colours: Colour::ALL.iter().map(|c| c.word().to_owned()).collect(),
        }
    }
}

struct Block {
    norm: RmsNorm,
    first: Conv2d,
    second: Conv2d,
}

/// The network; pictures `[B, 128, 128, 3]` in −1..1 to `[B, 16, 16, OUTPUTS]`.
pub struct SceneChecker {
    stem: [Conv2d; 3],
    norms: [RmsNorm; 3],
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Conv2d,
}

fn halving() -> ConvOptions {
    ConvOptions {
        stride: 2,
        ..ConvOptions::SAME_3X3
    }
}

fn norm(weights: &Weights, channels: usize) -> NnResult<RmsNorm> {
    RmsNorm::load(weights, channels, EPSILON, RmsNormKind::WeightBias)
}

impl SceneChecker {
    /// From named weights.
    ///
    /// # Errors
    /// Weights that do not fit the configuration.
    pub fn load(config: &CheckerConfig, weights: &Weights) -> Result<Self> {
        let [first, second, width] = config.channels;
        let stem = |index: usize, from: usize, to: usize| {
            Conv2d::load(&weights.pp("stem").pp(index), from, to, halving())
        };
        let stem_norm =
            |index: usize, channels: usize| norm(&weights.pp("norms").pp(index), channels);
        let blocks = (0..config.blocks)
            .map(|index| {
                let weights = weights.pp("blocks").pp(index);
                let conv = |name: &str| {
                    Conv2d::load(&weights.pp(name), width, width, ConvOptions::SAME_3X3)
                };
                Ok(Block {
                    norm: norm(&weights.pp("norm"), width)?,
                    first: conv("first")?,
                    second: conv("second")?,
                })
            })
            .collect::<NnResult<_>>()?;
        let options = ConvOptions {
            kernel: 1,
            padding: 0,
            ..ConvOptions::SAME_3X3
        };
        Ok(Self {
            stem: [
                stem(0, 3, first)?,
                stem(1, first, second)?,
                stem(2, second, width)?,
            ],
            norms: [
                stem_norm(0, first)?,
                stem_norm(1, second)?,
                stem_norm(2, width)?,
            ],
            blocks,
            norm: norm(&weights.pp("norm_out"), width)?,
            head: Conv2d::load(&weights.pp("head"), width, OUTPUTS, options)?,
        })
    }

    /// Reads `config.json` and `model.safetensors` of a folder. Gradients pass through the network to pictures.
    ///
    /// # Errors
    /// Files that are missing or damaged, and words that are not those of this version's scenes.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let text = read_text(&path, Limit::TEXT)?;
        let file = SafetensorsFile::open(&folder.join(Self::WEIGHTS))?;
        Self::read(
            &text,
            &path.display().to_string(),
            tensors::frozen(Arc::new(file)),
        )
    }

    /// The one in the box, which `brisk train checker` made.
    ///
    /// # Errors
    /// Words of another version's scenes.
    pub fn in_the_box() -> Result<Self> {
        let file = SafetensorsFile::from_static(BOX_WEIGHTS, Self::BOX_NAME)?;
        Self::read(BOX_CONFIG, Self::BOX_NAME, tensors::frozen(Arc::new(file)))
    }

    /// File of the weights in a folder.
    pub(crate) const WEIGHTS: &'static str = "model.safetensors";

    /// Name of the one in the box.
    pub const BOX_NAME: &'static str = "scene-checker";

    /// Whether a folder's configuration is a checker's: it has the words that its outputs mean.
    pub fn is_in(folder: &Path) -> bool {
        let text = read_text(&folder.join(CONFIG), Limit::TEXT);
        let config = text
            .ok()
            .map(|text| serde_json::from_str::<serde_json::Value>(&text));
        matches!(config, Some(Ok(config)) if config.get("objects").is_some() && config.get("colours").is_some())
    }

    fn read(config: &str, label: &str, weights: Weights) -> Result<Self> {
        let config: CheckerConfig = serde_json::from_str(config).in_document(label)?;
        let known = CheckerConfig::new(config.channels, config.blocks);
        if config != known {
            return Err(Error::Data(format!(
                "{label}: its objects and colours are not those of this version's scenes; train it again"
            )));
        }
        let checker = Self::load(&config, &weights)?;
        weights.finish(&[])?;
        Ok(checker)
    }

    /// Maps of features at a half, a quarter and an eighth of the sides of pictures `[B, H, W, 3]` in −1..1, sides in
    /// eights. Differentiable.
    ///
    /// # Errors
    /// Other sides.
    pub(crate) fn features(&self, pictures: &Tensor) -> Result<[Tensor; 3]> {
        let (_, height, width, _) = pictures.dims4()?;
        if !height.is_multiple_of(8) || !width.is_multiple_of(8) {
            return Err(Error::Data(format!(
                "pictures of {height}x{width}, expected sides in eights"
            )));
        }
        let halved = |at: usize, x: &Tensor| -> Result<Tensor> {
            let x = self.norms[at].forward(&self.stem[at].forward(x)?)?;
            Ok(ops::silu(&x)?)
        };
        let half = halved(0, pictures)?;
        let quarter = halved(1, &half)?;
        let eighth = halved(2, &quarter)?;
        Ok([half, quarter, eighth])
    }

    /// What each cell shows, before it is made likelihoods. Differentiable.
    ///
    /// # Errors
    /// Pictures of another size.
    pub fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        if !matches!(*pictures.dims(), [_, SIZE, SIZE, 3]) {
            return Err(Error::Data(format!(
                "pictures {:?}, expected [batch, {SIZE}, {SIZE}, 3]",
                pictures.dims()
            )));
        }
        let silu = Epilogue::activation(Activation::Silu);
        let [_, _, mut x] = self.features(pictures)?;
        for block in &self.blocks {
            let branch = block.first.forward_with(&block.norm.forward(&x)?, &silu)?;
            x = (block.second.forward(&branch)? + &x)?;
        }
        let x = ops::silu(&self.norm.forward(&x)?)?;
        Ok(self.head.forward(&x)?)
    }

    /// What is seen in pictures of any size.
    ///
    /// # Errors
    /// Pictures that cannot be resized.
    pub fn look(&self, pictures: &[Picture]) -> Result<Vec<Vec<Sighting>>> {
        let mut values = Vec::with_capacity(pictures.len() * SIZE * SIZE * 3);
        for picture in pictures {
            let resized;
            let picture = match (picture.width, picture.height) {
                (SIZE, SIZE) => picture,
                _ => {
                    resized = resize_pil(picture, SIZE, SIZE, Filter::Lanczos)?;
                    &resized
                }
            };
            values.extend(signed(picture));
        }
        let pictures = Tensor::from_vec(values, (pictures.len(), SIZE, SIZE, 3))?;
        let cells = tensors::values(&self.forward(&pictures)?)?;
        Ok(cells
            .chunks_exact(CELLS * CELLS * OUTPUTS)
            .map(sightings)
            .collect())
    }
}

/// The objects of one picture's cells: where a centre is likelier than in all neighbours.
fn sightings(cells: &[f32]) -> Vec<Sighting> {
    let likelihood = |x: usize, y: usize| {
        let logit = cells[(y * CELLS + x) * OUTPUTS];
        1.0 / (1.0 + (-logit).exp())
    };
    let mut found = Vec::new();
    for y in 0..CELLS {
        for x in 0..CELLS {
            let here = likelihood(x, y);
            let around = |at: usize| at.saturating_sub(1)..(at + 2).min(CELLS);
            // Of equal neighbours the first counts.
            let beaten = around(y).any(|row| {
                around(x).any(|column| {
                    let other = likelihood(column, row);
                    let earlier = (row, column) < (y, x);
                    (row, column) != (y, x) && (other > here || (other == here && earlier))
                })
            });
            if here < SEEN || beaten {
                continue;
            }
            let (mut weight, mut column_sum, mut row_sum) = (0.0, 0.0, 0.0);
            for row in around(y) {
                for column in around(x) {
                    let likely = likelihood(column, row);
                    weight += likely;
                    column_sum += likely * (column as f32 + 0.5);
                    row_sum += likely * (row as f32 + 0.5);
                }
            }
            let logits = &cells[(y * CELLS + x) * OUTPUTS + 1..(y * CELLS + x + 1) * OUTPUTS];
            let (objects, colours) = logits.split_at(OBJECTS.len());
            found.push(Sighting {
                object: largest(objects),
                colour: Colour::ALL[largest(colours)],
                centre: (
                    f64::from(column_sum / weight) / CELLS as f64,
                    f64::from(row_sum / weight) / CELLS as f64,
                ),
                likelihood: here,
            });
        }
    }
    found
}

fn largest(values: &[f32]) -> usize {
    let pairs = values.iter().enumerate();
    pairs
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_in_the_box_opens_and_sees_nothing_on_white() {
        let checker = SceneChecker::in_the_box().unwrap();
        let seen = checker.look(&[Picture::filled(96, 96, [255; 3])]).unwrap();
        assert_eq!(seen, [vec![]]);
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
        assert!(SceneChecker::is_in(&assets.join("scene-checker")));
        assert!(!SceneChecker::is_in(&assets.join("sana-emoji/transformer")));
    }
}
