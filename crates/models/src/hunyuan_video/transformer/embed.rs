//! Patches, vectors and times on their way in.

use brisk_nn::ops::RotaryAngles;
use brisk_nn::{Init, Linear, Tensor, TimestepEmbedding, Weights, ops};

use super::VideoTransformerConfig;
use super::modulation::Times;
use crate::{Error, Result};

/// Where files of the authors keep the output's modulation, shift first.
pub(super) const SHIFT_SCALE: &str = "norm_out.shift_scale";

/// Channels of the sinusoid of a time.
const WAVES: usize = 256;

/// Two linear layers with SiLU between, on a vector.
#[derive(Debug)]
pub(super) struct VectorEmbedding {
    first: Linear,
    second: Linear,
}

impl VectorEmbedding {
    /// Reads `linear_1` and `linear_2`: `inputs` to `width` to `width`.
    pub fn load(weights: &Weights, inputs: usize, width: usize) -> Result<Self> {
        let linear = |name: &str, inputs: usize| {
            Linear::load(&weights.pp(name), inputs, width, true, Init::Normal(0.02))
        };
        Ok(Self {
            first: linear("linear_1", inputs)?,
            second: linear("linear_2", width)?,
        })
    }

    /// `[1,inputs]` to `[1,width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.second.forward(&ops::silu(&self.first.forward(x)?)?)
    }
}

/// Time, strength of guidance and the text as a whole, in one vector.
#[derive(Debug)]
pub(super) struct TimeEmbedding {
    time: TimestepEmbedding,
    text: VectorEmbedding,
    guidance: Option<TimestepEmbedding>,
    replaces: bool,
}

impl TimeEmbedding {
    /// Reads `timestep_embedder`, `text_embedder` and, where the model has one, `guidance_embedder`.
    pub fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        let width = config.width();
        let time = |name: &str| TimestepEmbedding::load(&weights.pp(name), WAVES, width);
        Ok(Self {
            time: time("timestep_embedder")?,
            text: VectorEmbedding::load(
                &weights.pp("text_embedder"),
                config.pooled_projection_dim,
                width,
            )?,
            guidance: match config.guidance_embeds {
                true => Some(time("guidance_embedder")?),
                false => None,
            },
            replaces: config.image_condition_type == Some(super::ImageCondition::TokenReplace),
        })
    }

    /// Of `pooled` `[1,P]` at `time`; the first `frame` tokens are given where the model replaces them.
    pub fn forward(
        &self,
        time: f32,
        guidance: Option<f32>,
        pooled: &Tensor,
        frame: usize,
    ) -> Result<Times> {
        let at = |embedding: &TimestepEmbedding, value: f32| {
            embedding.forward(&Tensor::from_vec(vec![value], 1)?)
        };
        let text = self.text.forward(pooled)?;
        let mut all = (at(&self.time, time)? + &text)?;
        match (&self.guidance, guidance) {
            (Some(embedding), Some(strength)) => all = (all + at(embedding, strength)?)?,
            (None, None) => {}
            (Some(_), None) => {
                return Err(Error::Shape(
                    "the transformer embeds the strength of guidance, and none was given".into(),
                ));
            }
            (None, Some(_)) => {
                return Err(Error::Shape(
                    "the transformer embeds no strength of guidance, and one was given".into(),
                ));
            }
        }
        let given = match self.replaces {
            true => Some(((at(&self.time, 0.0)? + text)?, frame)),
            false => None,
        };
        Ok(Times { all, given })
    }
}

/// Time and the mean of a text's tokens, for the token refiner.
#[derive(Debug)]
pub(super) struct TextTime {
    time: TimestepEmbedding,
    text: VectorEmbedding,
}

impl TextTime {
    /// Reads `timestep_embedder` and `text_embedder`.
    pub fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        let width = config.width();
        let text = weights.pp("text_embedder");
        Ok(Self {
            time: TimestepEmbedding::load(&weights.pp("timestep_embedder"), WAVES, width)?,
            text: VectorEmbedding::load(&text, config.text_embed_dim, width)?,
        })
    }

    /// Of a text `[1,T,D]` at `time`, `[1,width]`.
    pub fn forward(&self, time: f32, text: &Tensor) -> Result<Tensor> {
        let time = self.time.forward(&Tensor::from_vec(vec![time], 1)?)?;
        self.text.forward(&text.mean_keepdim(1)?.squeeze(1)?)? + time
    }
}

/// Cuts a latent into patches, one token each.
#[derive(Debug)]
pub(super) struct PatchEmbedding {
    linear: Linear,
    patch: [usize; 3],
    channels: usize,
}

impl PatchEmbedding {
    /// Reads `proj`, a convolution whose kernel is a patch.
    pub fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        let (width, channels) = (config.width(), config.in_channels);
        let patch = [config.patch_size_t, config.patch_size, config.patch_size];
        let [frames, rows, columns] = patch;
        let weights = weights.pp("proj");
        let shape = [width, channels, frames, rows, columns];
        let weight = weights.get("weight", &shape, Init::XavierUniform)?;
        let bias = weights.get("bias", &[width], Init::Zeros)?;
        let weight = weight.reshape((width, channels * frames * rows * columns))?;
        Ok(Self {
            linear: Linear::new(weight, Some(bias))?,
            patch,
            channels,
        })
    }

    /// Patches along frames, rows and columns of a latent `[1,F,h,w,C]`.
    pub fn grid(&self, latent: &Tensor) -> Result<[usize; 3]> {
        let [pt, p, _] = self.patch;
        match latent.dims() {
            &[1, frames, height, width, channels]
                if channels == self.channels
                    && frames > 0
                    && height > 0
                    && width > 0
                    && frames.is_multiple_of(pt)
                    && height.is_multiple_of(p)
                    && width.is_multiple_of(p) =>
            {
                Ok([frames / pt, height / p, width / p])
            }
            dims => Err(Error::Shape(format!(
                "a latent of shape {dims:?}; expected [1, frames, height, width, {}] in multiples of {:?}",
                self.channels, self.patch
            ))),
        }
    }

    /// `[1,F,h,w,C]` to `[1,tokens,width]`, frame by frame and row by row.
    pub fn forward(&self, latent: &Tensor) -> Result<Tensor> {
        let [frames, rows, columns] = self.grid(latent)?;
        let ([pt, p, q], channels) = (self.patch, self.channels);
        let patches = latent
            .reshape(vec![frames, pt, rows, p, columns, q, channels])?
            .permute(vec![0, 2, 4, 6, 1, 3, 5])?
            .contiguous()?
            .reshape((1, frames * rows * columns, channels * pt * p * q))?;
        self.linear.forward(&patches)
    }
}

/// Tokens `[1,tokens,C·patch]` back to `[1,F,h,w,C]`.
pub(super) fn from_patches(
    tokens: &Tensor,
    [frames, rows, columns]: [usize; 3],
    [pt, p, q]: [usize; 3],
    channels: usize,
) -> Result<Tensor> {
    tokens
        .reshape(vec![frames, rows, columns, channels, pt, p, q])?
        .permute(vec![0, 4, 1, 5, 2, 6, 3])?
        .contiguous()?
        .reshape(vec![1, frames * pt, rows * p, columns * q, channels])
}

/// Angles of the tokens of a grid.
pub(super) fn picture_angles(
    config: &VideoTransformerConfig,
    [frames, rows, columns]: [usize; 3],
) -> RotaryAngles {
    let mut places = Vec::with_capacity(frames * rows * columns);
    for frame in 0..frames {
        for row in 0..rows {
            places.extend((0..columns).map(|column| [frame, row, column].map(|at| at as f32)));
        }
    }
    RotaryAngles::by_axes(config.rope_axes_dim, config.rope_theta as f32, &places)
}

/// Angles of tokens that have no place: they stay as they are.
pub(super) fn still(config: &VideoTransformerConfig, tokens: usize) -> RotaryAngles {
    let places = vec![[0.0; 3]; tokens];
    RotaryAngles::by_axes(config.rope_axes_dim, config.rope_theta as f32, &places)
}
