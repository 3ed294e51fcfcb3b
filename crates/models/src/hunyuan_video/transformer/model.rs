//! The network.

use brisk_nn::{Init, Linear, Tensor, Trace, Weights, check_finite, ops};

use super::VideoTransformerConfig;
use super::block::{DoubleBlock, SingleBlock};
use super::embed::{
    PatchEmbedding, SHIFT_SCALE, TimeEmbedding, from_patches, picture_angles, still,
};
use super::modulation::{Modulation, NORM_EPS};
use super::refiner::TokenRefiner;
use crate::{Error, Result};

const STAGE: &str = "transformer";

/// What a clip is made by.
#[derive(Debug, Clone)]
pub struct VideoConditioning {
    /// The valid tokens of the text, those of a picture before them, `[1,T,text_embed_dim]`.
    pub tokens: Tensor,
    /// The text as a whole, `[1,pooled_projection_dim]`.
    pub pooled: Tensor,
    /// Strength of guidance times 1000, exactly where the model embeds it.
    pub guidance: Option<f32>,
}

/// HunyuanVideo's diffusion transformer.
#[derive(Debug)]
pub struct VideoTransformer {
    config: VideoTransformerConfig,
    patches: PatchEmbedding,
    text: TokenRefiner,
    time: TimeEmbedding,
    double: Vec<DoubleBlock>,
    single: Vec<SingleBlock>,
    norm: OutputNorm,
    output: Linear,
}

/// Modulation of the tokens before the output. Of its two vectors diffusers keeps the scale first, the authors the
/// shift.
#[derive(Debug)]
enum OutputNorm {
    ScaleShift(Modulation<2>),
    ShiftScale(Modulation<2>),
}

impl OutputNorm {
    fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        let authors = weights.pp(SHIFT_SCALE);
        Ok(match authors.shape("weight") {
            Some(_) => Self::ShiftScale(Modulation::load_layer(&authors, config.width())?),
            None => Self::ScaleShift(Modulation::load(&weights.pp("norm_out"), config.width())?),
        })
    }

    fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let [shift, scale] = match self {
            Self::ShiftScale(vectors) => vectors.forward(time)?,
            Self::ScaleShift(vectors) => {
                let [scale, shift] = vectors.forward(time)?;
                [shift, scale]
            }
        };
        ops::layer_norm_modulate(x, &shift, &scale, NORM_EPS)
    }
}

impl VideoTransformer {
    /// Loads the model.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of another shape.
    pub fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        config.validate()?;
        let double = weights.pp("transformer_blocks");
        let double =
            (0..config.num_layers).map(|index| DoubleBlock::load(config, &double.pp(index)));
        let single = weights.pp("single_transformer_blocks");
        let single =
            (0..config.num_single_layers).map(|index| SingleBlock::load(config, &single.pp(index)));
        let model = Self {
            config: config.clone(),
            patches: PatchEmbedding::load(config, &weights.pp("x_embedder"))?,
            text: TokenRefiner::load(config, &weights.pp("context_embedder"))?,
            time: TimeEmbedding::load(config, &weights.pp("time_text_embed"))?,
            double: double.collect::<Result<_>>()?,
            single: single.collect::<Result<_>>()?,
            norm: OutputNorm::load(config, weights)?,
            output: Linear::load(
                &weights.pp("proj_out"),
                config.width(),
                config.patch_values(config.out_channels),
                true,
                Init::Zeros,
            )?,
        };
        weights.finish(&[])?;
        Ok(model)
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &VideoTransformerConfig {
        &self.config
    }

    /// The velocity (noise minus clip) of `latent` `[1,F,h,w,in_channels]` at `time` in 0..1000, as
    /// `[1,F,h,w,out_channels]`. `trace` sees `time_text_embed`, `context_embedder`, `x_embedder`,
    /// `transformer_blocks.{i}.text` and `.image`, `single_transformer_blocks.{i}` (of both), `norm_out` and
    /// `proj_out`.
    ///
    /// # Errors
    /// Shapes that do not fit the configuration, a strength of guidance where none is embedded or none where one is,
    /// or a non-finite activation.
    pub fn forward(
        &self,
        latent: &Tensor,
        time: f32,
        by: &VideoConditioning,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let grid = self.patches.grid(latent)?;
        self.check(by)?;
        let frame = grid[1] * grid[2];
        let times = self.time.forward(time, by.guidance, &by.pooled, frame)?;
        trace.see("time_text_embed", &times.all);
        let mut picture = self.patches.forward(latent)?;
        trace.see("x_embedder", &picture);
        let mut text =
            self.text
                .forward(&by.tokens, time, &mut trace.within("context_embedder"))?;
        trace.see("context_embedder", &text);

        let angles = picture_angles(&self.config, grid);
        for (index, block) in self.double.iter().enumerate() {
            let name = format!("transformer_blocks.{index}");
            [picture, text] = block.forward([&picture, &text], &times, &angles)?;
            check_finite(&picture, STAGE, &name)?;
            let inner = &mut trace.within(&name);
            inner.see("text", &text);
            inner.see("image", &picture);
        }
        let (tokens, words) = (picture.dim(1)?, text.dim(1)?);
        let angles = angles.followed_by(&still(&self.config, words))?;
        let mut x = Tensor::cat(&[picture, text], 1)?;
        for (index, block) in self.single.iter().enumerate() {
            let name = format!("single_transformer_blocks.{index}");
            x = block.forward(&x, &times, &angles, &mut trace.within(&name))?;
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }

        let x = x.narrow(1, 0, tokens)?.contiguous()?;
        let x = self.norm.forward(&x, &times.all)?;
        trace.see("norm_out", &x);
        let x = self.output.forward(&x)?;
        check_finite(&x, STAGE, "proj_out")?;
        trace.see("proj_out", &x);
        let config = &self.config;
        let patch = [config.patch_size_t, config.patch_size, config.patch_size];
        from_patches(&x, grid, patch, config.out_channels)
    }

    fn check(&self, by: &VideoConditioning) -> Result<()> {
        let (text, pooled) = (
            self.config.text_embed_dim,
            self.config.pooled_projection_dim,
        );
        let fits = matches!(by.tokens.dims(), &[1, tokens, width] if tokens > 0 && width == text)
            && by.pooled.dims() == [1, pooled];
        match fits {
            true => Ok(()),
            false => Err(Error::Shape(format!(
                "text tokens of shape {:?} and a vector of shape {:?}; expected [1, at least one, {text}] and \
                 [1, {pooled}]",
                by.tokens.dims(),
                by.pooled.dims()
            ))),
        }
    }
}
