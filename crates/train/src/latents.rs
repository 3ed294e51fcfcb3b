//! Latents of the pictures that a model is trained on: encoded once, kept in the run's folder.

use std::path::Path;

use brisk_nn::Tensor;
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;

use crate::data::pictures::{PictureData, PictureShape};
use crate::error::{Error, JsonContext, Result};
use crate::eval;
use crate::families::autoencoder::Autoencoder;
use crate::inputs::Inputs;
use crate::kept::Kept;
use crate::pictures::Order;

/// The file in a run's folder.
const FILE: &str = "latents.safetensors";
/// Its tensors' name, before the shape of the pictures where there are several: `[pictures, height, width, channels]`.
const TENSOR: &str = "latents";

/// The latents of some pictures by their places among those, scaled as the network sees them, channels last.
pub(crate) struct Latents {
    rows: Vec<Vec<f32>>,
    /// Cells of each.
    shapes: Vec<PictureShape>,
    channels: usize,
}

impl Latents {
    /// Those of the pictures at `training`: what the run's folder holds of the same pictures by the same autoencoder, else
    /// they are encoded, and kept there.
    ///
    /// # Errors
    /// Pictures whose sides are no multiples of the autoencoder's ratio, or a file that cannot be written.
    pub fn of(
        data: &PictureData,
        training: &[usize],
        autoencoder: &Autoencoder,
        inputs: &Inputs,
        out: &Path,
        control: &Control,
    ) -> Result<Self> {
        let ratio = autoencoder.ratio();
        let channels = autoencoder.config().latent_channels;
        let mut shapes = Vec::with_capacity(training.len());
        for index in training {
            let shape = data
                .shape(*index)
                .ok_or_else(|| Error::Data(format!("there is no picture {index}")))?;
            if !shape.height.is_multiple_of(ratio) || !shape.width.is_multiple_of(ratio) {
                return Err(Error::Data(format!(
                    "pictures of {shape} px; the autoencoder takes multiples of {ratio}"
                )));
            }
            shapes.push(PictureShape {
                height: shape.height / ratio,
                width: shape.width / ratio,
            });
        }
        let text = |value: serde_json::Result<String>| value.in_document(FILE);
        let made_of = [
            ("inputs", text(serde_json::to_string(inputs))?),
            ("pictures", text(serde_json::to_string(training))?),
        ];
        let mut latents = Self {
            rows: Vec::new(),
            shapes,
            channels,
        };
        let kept = Kept::new(out, FILE, &made_of);
        let tensors = latents.tensors();
        let values = match kept.read(&tensors) {
            Some(values) => values,
            None => {
                control.stage("encoding the pictures", Work::Run, 0);
                let encoded = latents.buckets().into_iter().map(|(_, slots)| {
                    let indices: Vec<usize> = slots.iter().map(|slot| training[*slot]).collect();
                    let rows = eval::scaled_latents(autoencoder, data, &indices, control)?;
                    Ok(rows.concat())
                });
                let values = encoded.collect::<Result<Vec<_>>>()?;
                kept.write(&tensors, &values)?;
                values
            }
        };
        latents.fill(values);
        Ok(latents)
    }

    /// The places of the pictures of each shape, the smallest shape first.
    pub fn buckets(&self) -> Vec<(PictureShape, Vec<usize>)> {
        let mut slots: Vec<usize> = (0..self.shapes.len()).collect();
        slots.sort_by_key(|slot| self.shapes[*slot]);
        let alike = slots.chunk_by(|a, b| self.shapes[*a] == self.shapes[*b]);
        alike
            .map(|slots| (self.shapes[slots[0]], slots.to_vec()))
            .collect()
    }

    /// The order in which their places are taken, a batch of one shape at a time.
    ///
    /// # Errors
    /// There is no picture.
    pub fn order(&self, seed: u64) -> Result<Order> {
        let buckets = self.buckets().into_iter();
        Order::in_buckets(buckets.map(|(_, slots)| slots).collect(), seed)
    }

    /// The shape that most pictures have, with their places.
    ///
    /// # Errors
    /// There is no picture.
    pub fn usual(&self) -> Result<(PictureShape, Vec<usize>)> {
        let buckets = self.buckets().into_iter();
        buckets
            .max_by_key(|(_, slots)| slots.len())
            .ok_or_else(|| Error::Data("there is no picture to train on".to_owned()))
    }

    /// Rows, columns and channels of a latent of that shape.
    ///
    /// # Errors
    /// There is no picture.
    pub fn usual_shape(&self) -> Result<(usize, usize, usize)> {
        let (cells, _) = self.usual()?;
        Ok((cells.height, cells.width, self.channels))
    }

    /// The latent of the picture at `slot`.
    pub fn row(&self, slot: usize) -> &[f32] {
        &self.rows[slot]
    }

    /// Its cells.
    pub fn shape(&self, slot: usize) -> PictureShape {
        self.shapes[slot]
    }

    /// Values of a cell.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Latents of pictures of one shape: `[B,height,width,channels]`.
    pub fn batch(&self, slots: impl ExactSizeIterator<Item = usize> + Clone) -> Result<Tensor> {
        let count = slots.len();
        let shape = slots.clone().next().map(|slot| self.shapes[slot]);
        let shape = shape.ok_or_else(|| Error::Data("a batch of no pictures".to_owned()))?;
        let values: Vec<f32> = slots
            .flat_map(|slot| self.rows[slot].iter().copied())
            .collect();
        let shape = (count, shape.height, shape.width, self.channels);
        Ok(Tensor::from_vec(values, shape)?)
    }

    /// Names and shapes of the tensors that hold the latents of each shape.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let buckets = self.buckets();
        let several = buckets.len() > 1;
        let tensors = buckets.iter().map(|(shape, slots)| {
            let dims = vec![slots.len(), shape.height, shape.width, self.channels];
            (shape.tensor(TENSOR, several), dims)
        });
        tensors.collect()
    }

    /// Takes the values of such tensors.
    fn fill(&mut self, values: Vec<Vec<f32>>) {
        self.rows = vec![Vec::new(); self.shapes.len()];
        for ((shape, slots), values) in self.buckets().iter().zip(values) {
            let each = values.chunks_exact(shape.area() * self.channels);
            for (slot, row) in slots.iter().zip(each) {
                self.rows[*slot] = row.to_vec();
            }
        }
    }
}
