//! Small pictures of what a sampler works on, at the cost of one convolution.
//!
//! A latent cell and its neighbours tell a patch of pixels well enough to see what becomes of a picture:
//! a 3×3 convolution to `3·patch²` channels, rearranged to `patch` × `patch` pixels a cell, fitted by
//! least squares to pictures that the model's decoder made.

use std::borrow::Cow;
use std::path::Path;

use brisk_media::{Filter, Picture, resize_pil, signed_to_byte};
use brisk_models::Cost;
use brisk_nn::{Conv2d, ConvOptions, Tensor};
use brisk_store::{Dtype, OutTensor, TensorSource, write_safetensors};
use half::f16;
use rayon::prelude::*;

use super::latents::from_planes;
use crate::error::{Error, Result};
use crate::events::{Control, StepClock, Work};
use crate::options::{Latents, keys};
use crate::request::{ImageModel, ImageRequest, PREVIEWS};

/// The file beside a model's folders.
pub const FILE: &str = "preview_decoder.safetensors";

/// Pixels of a cell's side that files may give.
const PATCHES: std::ops::RangeInclusive<usize> = 1..=32;
/// Most latent channels of a file.
const MOST_CHANNELS: usize = 4096;
/// What is added to the diagonal of the equations, as a share of its mean: pictures that are alike leave
/// directions that nothing tells of.
const RIDGE: f64 = 1e-5;

/// Pictures that [`PreviewDecoder::of_model`] asks for at once.
const AT_ONCE: usize = 8;

/// From a latent to a small picture.
#[derive(Debug, Clone)]
pub struct PreviewDecoder {
    /// `[3·patch², channels, 3, 3]`, output channel `c·patch² + y·patch + x`.
    weight: Vec<f32>,
    /// `[3·patch²]`
    bias: Vec<f32>,
    channels: usize,
    patch: usize,
    layer: Conv2d,
}

impl PreviewDecoder {
    fn new(weight: Vec<f32>, bias: Vec<f32>, channels: usize, patch: usize) -> Result<Self> {
        let outputs = bias.len();
        let kernel = Tensor::from_slice(&weight, (outputs, channels, 3, 3))?;
        let shift = Tensor::from_slice(&bias, outputs)?;
        let layer = Conv2d::new(kernel, Some(shift), ConvOptions::SAME_3X3)?;
        Ok(Self {
            weight,
            bias,
            channels,
            patch,
            layer,
        })
    }

    /// Reads `weight` `[3·patch², channels, 3, 3]` and `bias` `[3·patch²]`; `label` names the file.
    ///
    /// # Errors
    /// Tensors that are missing, of other shapes, or not finite.
    pub fn read(source: &dyn TensorSource, label: &str) -> Result<Self> {
        let wrong = |message: String| Error::folder(label, message);
        let read = |name: &str| -> Result<(Vec<usize>, Vec<f32>)> {
            let Some(view) = source.view(name)? else {
                return Err(wrong(format!(
                    "has no tensor {name}; a preview decoder has weight and bias"
                )));
            };
            let values = view.to_f32()?;
            if values.iter().any(|value| !value.is_finite()) {
                return Err(wrong(format!("{name} holds a value that is not finite")));
            }
            Ok((view.shape.clone(), values))
        };
        let shape = source.info("weight").map(|(_, shape)| shape);
        let sides = match shape.as_deref() {
            Some(&[outputs, channels, 3, 3]) if (1..=MOST_CHANNELS).contains(&channels) => PATCHES
                .into_iter()
                .find(|patch| 3 * patch * patch == outputs)
                .map(|patch| (channels, patch)),
            _ => None,
        };
        let Some((channels, patch)) = sides else {
            return Err(wrong(format!(
                "weight has shape {:?}; expected [3·n², channels, 3, 3] for n × n pixels a cell",
                shape.unwrap_or_default()
            )));
        };
        let (_, weight) = read("weight")?;
        let (shape, bias) = read("bias")?;
        if shape != [3 * patch * patch] {
            return Err(wrong(format!(
                "bias has shape {shape:?}; expected [{}]",
                3 * patch * patch
            )));
        }
        Self::new(weight, bias, channels, patch)
    }

    /// Writes the file that [`Self::read`] reads, in f16.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let tensor = |name: &str, shape: Vec<usize>, values: &[f32]| OutTensor {
            name: name.to_owned(),
            dtype: Dtype::F16,
            shape,
            data: Cow::Owned(halves(values)),
        };
        let outputs = self.bias.len();
        let tensors = [
            tensor("bias", vec![outputs], &self.bias),
            tensor("weight", vec![outputs, self.channels, 3, 3], &self.weight),
        ];
        Ok(write_safetensors(path, &tensors, &Default::default())?)
    }

    /// What a picture of so many latent cells costs.
    pub fn cost(&self, cells: usize) -> Cost {
        let (cells, outputs) = (cells as u64, self.bias.len() as u64);
        let parameters = self.weight.len() as u64;
        Cost {
            name: PREVIEWS.to_owned(),
            flops: 2 * cells * parameters,
            parameters,
            activations: cells * (self.channels as u64 + outputs),
        }
    }

    /// Latent channels that it takes.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Pixels of a cell's side.
    pub fn patch(&self) -> usize {
        self.patch
    }

    /// A latent `[1, h, w, C]`, scaled as the network that made it sees it, as a picture of `patch`·w by
    /// `patch`·h pixels.
    ///
    /// # Errors
    /// A latent of other channels.
    pub fn picture(&self, latent: &Tensor) -> Result<Picture> {
        let (_, height, width, _) = latent.dims4()?;
        let patch = self.patch;
        let values = self
            .layer
            .forward(latent)?
            .reshape((height, width, 3, patch, patch))?
            .permute((0, 3, 1, 4, 2))?
            .contiguous()?
            .flatten_all()?
            .to_vec1::<f32>()?;
        Ok(Picture {
            width: width * patch,
            height: height * patch,
            pixels: values.into_iter().map(signed_to_byte).collect(),
        })
    }

    /// Fits a decoder of `patch` pixels a cell to `pictures` that `model` draws, of the prompts in turn, each
    /// from a seed of its own.
    ///
    /// # Errors
    /// As [`Self::fit`]; no prompts, a model that draws without latents, or whatever drawing returns.
    pub fn of_model(
        model: &mut dyn ImageModel,
        prompts: &[String],
        pictures: usize,
        patch: usize,
        control: &Control,
    ) -> Result<Self> {
        if prompts.is_empty() {
            return Err(Error::request("prompts", "there are none to draw"));
        }
        let quiet = Control::silent().with_cancel(control.cancel_flag());
        control.stage("drawing", Work::Run, pictures);
        let mut clock = StepClock::new(pictures);
        let mut examples = Vec::with_capacity(pictures);
        while examples.len() < pictures {
            let first = examples.len();
            let next = first..(first + AT_ONCE).min(pictures);
            let count = next.len();
            let prompts = next.map(|index| prompts[index % prompts.len()].clone());
            let request = ImageRequest {
                prompts: prompts.collect(),
                ..ImageRequest::default()
            };
            let request = request.with(&keys::SEED, first as u64);
            for image in model.draw(&request, &quiet)? {
                let Some(latents) = image.latents else {
                    let message = format!("{} draws without latents", model.label());
                    return Err(Error::request("model", message));
                };
                examples.push((latents, image.picture));
            }
            clock.steps(count, control);
        }
        Self::fit(&examples, patch)
    }

    /// Fits a decoder of `patch` pixels a cell to pictures of a model with the latents that they were
    /// decoded from.
    ///
    /// # Errors
    /// Too few pictures for the unknowns, or ones whose latents differ in channels.
    pub fn fit(examples: &[(Latents, Picture)], patch: usize) -> Result<Self> {
        if !PATCHES.contains(&patch) {
            let message = format!("{patch} pixels a cell is outside {PATCHES:?}");
            return Err(Error::request("patch", message));
        }
        let channels = examples.first().map_or(0, |(latents, _)| latents.shape[1]);
        let mut equations = Equations::new(9 * channels + 1, 3 * patch * patch);
        for (latents, picture) in examples {
            if latents.shape[1] != channels {
                let found = latents.shape[1];
                let message = format!("{found} latent channels beside ones of {channels}");
                return Err(Error::request("examples", message));
            }
            let [_, _, height, width] = latents.shape;
            let small = resize_pil(picture, width * patch, height * patch, Filter::Lanczos)?;
            equations.add(&cells(latents)?, &patches(&small, patch));
        }
        let solved = equations.solve()?;
        let outputs = 3 * patch * patch;
        // Rows of the solution are (tap, channel), of a convolution's weight (channel, tap).
        let weight = (0..outputs).flat_map(|output| {
            let solved = &solved;
            (0..channels).flat_map(move |channel| {
                (0..9).map(move |tap| solved[(tap * channels + channel) * outputs + output] as f32)
            })
        });
        let bias = &solved[9 * channels * outputs..];
        let bias = bias.iter().map(|value| *value as f32).collect();
        Self::new(weight.collect(), bias, channels, patch)
    }
}

fn halves(values: &[f32]) -> Vec<u8> {
    let halves = values.iter().map(|value| f16::from_f32(*value));
    halves.flat_map(f16::to_le_bytes).collect()
}

/// Every cell of a latent with its eight neighbours, tap by tap, and a one.
fn cells(latents: &Latents) -> Result<Vec<Vec<f64>>> {
    let latent = from_planes(latents.values.clone(), latents.shape)?;
    let (_, height, width, channels) = latent.dims4()?;
    let values = latent.flatten_all()?.to_vec1::<f32>()?;
    let near = |at: usize, step: usize, end: usize| (at + step).checked_sub(1).filter(|i| *i < end);
    let cell = |y: usize, x: usize| {
        let mut row = Vec::with_capacity(9 * channels + 1);
        for (dy, dx) in (0..9).map(|tap| (tap / 3, tap % 3)) {
            match near(y, dy, height).zip(near(x, dx, width)) {
                Some((y, x)) => {
                    let own = &values[(y * width + x) * channels..][..channels];
                    row.extend(own.iter().map(|value| f64::from(*value)));
                }
                None => row.resize(row.len() + channels, 0.0),
            }
        }
        row.push(1.0);
        row
    };
    let places = (0..height * width).map(|at| cell(at / width, at % width));
    Ok(places.collect())
}

/// The pixels of every cell, −1..1, colour by colour.
fn patches(picture: &Picture, patch: usize) -> Vec<Vec<f64>> {
    let (rows, columns) = (picture.height / patch, picture.width / patch);
    let cell = |at: usize| {
        let (top, left) = (at / columns * patch, at % columns * patch);
        let place = |colour: usize, y: usize, x: usize| {
            let pixel = (top + y) * picture.width + left + x;
            f64::from(picture.pixels[3 * pixel + colour]) / 127.5 - 1.0
        };
        (0..3 * patch * patch)
            .map(|i| place(i / (patch * patch), i / patch % patch, i % patch))
            .collect()
    };
    (0..rows * columns).map(cell).collect()
}

/// Normal equations of a least-squares problem with several right-hand sides.
struct Equations {
    unknowns: usize,
    sides: usize,
    rows: usize,
    /// `[unknowns, unknowns + sides]`
    sums: Vec<f64>,
}

impl Equations {
    fn new(unknowns: usize, sides: usize) -> Self {
        Self {
            unknowns,
            sides,
            rows: 0,
            sums: vec![0.0; unknowns * (unknowns + sides)],
        }
    }

    fn add(&mut self, inputs: &[Vec<f64>], outputs: &[Vec<f64>]) {
        self.rows += inputs.len();
        let width = self.unknowns + self.sides;
        let sums = self.sums.par_chunks_exact_mut(width).enumerate();
        sums.for_each(|(unknown, sums)| {
            for (input, output) in inputs.iter().zip(outputs) {
                let factor = input[unknown];
                let both = input.iter().chain(output);
                for (sum, value) in sums.iter_mut().zip(both) {
                    *sum += factor * value;
                }
            }
        });
    }

    /// `[unknowns, sides]`, by elimination: the matrix is symmetric and, with the ridge, positive.
    fn solve(mut self) -> Result<Vec<f64>> {
        let (unknowns, width) = (self.unknowns, self.unknowns + self.sides);
        if self.rows < unknowns {
            return Err(Error::request(
                "examples",
                format!(
                    "{} cells of pictures for {unknowns} unknowns; give more pictures",
                    self.rows
                ),
            ));
        }
        let trace: f64 = (0..unknowns).map(|i| self.sums[i * width + i]).sum();
        let ridge = RIDGE * trace / unknowns as f64;
        (0..unknowns).for_each(|i| self.sums[i * width + i] += ridge);
        for pivot in 0..unknowns {
            let (above, below) = self.sums.split_at_mut((pivot + 1) * width);
            let own = &above[pivot * width..];
            below.par_chunks_exact_mut(width).for_each(|row| {
                let factor = row[pivot] / own[pivot];
                for (value, own) in row[pivot..].iter_mut().zip(&own[pivot..]) {
                    *value -= factor * own;
                }
            });
        }
        for pivot in (0..unknowns).rev() {
            let (above, below) = self.sums.split_at_mut(pivot * width);
            let own = &mut below[..width];
            let diagonal = own[pivot];
            own[unknowns..]
                .iter_mut()
                .for_each(|side| *side /= diagonal);
            let own = &below[..width];
            above.par_chunks_exact_mut(width).for_each(|row| {
                let factor = row[pivot];
                for (side, own) in row[unknowns..].iter_mut().zip(&own[unknowns..]) {
                    *side -= factor * own;
                }
            });
        }
        let solved: Vec<f64> = self
            .sums
            .chunks_exact(width)
            .flat_map(|row| row[unknowns..].iter().copied())
            .collect();
        if solved.iter().all(|value| value.is_finite()) {
            return Ok(solved);
        }
        Err(Error::request("examples", "the pictures are all alike"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures whose pixels follow from a cell and its right neighbour.
    fn examples(count: usize) -> Vec<(Latents, Picture)> {
        let (channels, side, patch) = (2, 4, 2);
        let example = |seed: usize| {
            let values: Vec<f32> = (0..channels * side * side)
                .map(|at| ((at * 31 + seed * 97) as f32).sin() * 0.3)
                .collect();
            let at = |channel: usize, y: usize, x: usize| match x < side {
                true => values[(channel * side + y) * side + x],
                false => 0.0,
            };
            let mut pixels = Vec::new();
            for (row, column) in
                (0..side * patch).flat_map(|y| (0..side * patch).map(move |x| (y, x)))
            {
                let (y, x) = (row / patch, column / patch);
                let inner = (row % patch) as f32 - (column % patch) as f32;
                for colour in 0..3 {
                    let value = at(0, y, x) * (1.0 + inner) + at(1, y, x + 1) * colour as f32 * 0.5;
                    pixels.push(signed_to_byte(value + 0.1));
                }
            }
            let latents = Latents {
                shape: [1, channels, side, side],
                values,
            };
            let size = side * patch;
            (latents, Picture::new(size, size, pixels).unwrap())
        };
        (0..count).map(example).collect()
    }

    #[test]
    fn what_is_linear_is_found_and_kept() {
        let examples = examples(40);
        let decoder = PreviewDecoder::fit(&examples[..36], 2).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        decoder.write(&path).unwrap();
        let file = brisk_store::SafetensorsFile::open(&path).unwrap();
        let kept = PreviewDecoder::read(&file, "x").unwrap();
        for (latents, picture) in &examples[36..] {
            let latent = from_planes(latents.values.clone(), latents.shape).unwrap();
            for decoder in [&decoder, &kept] {
                let found = decoder.picture(&latent).unwrap();
                assert_eq!((found.width, found.height), (8, 8));
                let pairs = found.pixels.iter().zip(&picture.pixels);
                let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(worst <= 2, "{worst}");
            }
        }
        let other = Tensor::zeros((1, 4, 4, 3), brisk_nn::DType::F32).unwrap();
        assert!(decoder.picture(&other).is_err());
    }

    #[test]
    fn too_few_pictures_and_other_files_are_refused() {
        let few = PreviewDecoder::fit(&examples(1), 2).unwrap_err();
        assert!(few.to_string().contains("19 unknowns"), "{few}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensor = OutTensor {
            name: "weight".to_owned(),
            dtype: Dtype::F32,
            shape: vec![5, 1, 3, 3],
            data: vec![0; 180].into(),
        };
        write_safetensors(&path, &[tensor], &Default::default()).unwrap();
        let file = brisk_store::SafetensorsFile::open(&path).unwrap();
        let error = PreviewDecoder::read(&file, "x").unwrap_err().to_string();
        assert!(error.contains("[5, 1, 3, 3]"), "{error}");
    }
}
